"""What the figures of a run say, by rules that stand on the page: a verdict, and what a reviewer should look at.

A rule compares an interval with zero or a figure with a threshold below. Nothing here is fitted to a run, and nothing
is left to taste: two runs with the same figures get the same words.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Literal, NamedTuple

from qlib_ext.checks import counted
from qlib_ext.files import load_yaml
from qlib_ext.market.store import synthetic_note
from qlib_ext.report import html
from qlib_ext.report.headline import Estimate, between, excesses
from qlib_ext.tracking.artifacts import RunArtifacts

COMBINATORIAL = "combinatorial"  # tag of scores that know the future
FEW_DAYS = 250  # about a trading year
HIGH_IC = 0.15  # daily mean; good signals of daily bars lie between 0.02 and 0.08
HIGH_ICIR = 1.5  # daily, not annualised
LOW_COVERAGE = 0.9  # of the universe's members of a day that have a score, mean over the test days
HISTORY = "changes-with-history"  # an alarm of the look-ahead audit that is of the past, and no leak
MOST_LEAKS = 3  # of the look-ahead audit are told
LOW_DAY = 0.5  # the same on the worst day

OPTIONAL = (
    "data/summary.json",
    "data/coverage.parquet",
    "data/quality.json",
    "lookahead/audit.json",
    "config.yaml",
    "backtest/setup.json",
    "benchmarks/setup.json",
    "ledger/summary.json",
    "splits/runs.json",
)

RULES = (
    "How this is judged: a claim stands where the 95% interval of its figure lies on one side of zero, and is unclear where "
    "it includes zero. Intervals are from the stationary bootstrap: 2,000 series of the same length, drawn from the run's "
    "days in blocks of random length (mean: the cube root of the number of days), so that what happens on one day and on "
    f"neighbouring days stays together. Warned of are: fewer than {FEW_DAYS} days, a mean daily IC beyond {HIGH_IC} or an "
    f"ICIR beyond {HIGH_ICIR}, scores for less than {LOW_COVERAGE:.0%} of the universe (or {LOW_DAY:.0%} on a day), errors "
    "and warnings of the data audit, alarms of the look-ahead audit, labels that reach into the next segment or that nobody "
    "could have traded. Intervals say how far chance on these days could carry the figures; they know nothing of how many "
    "models were tried before."
)

REFERENCE = re.compile(r"Ref\(\s*\$\w+\s*,\s*(-?\d+)\s*\)|\$\w+")


class Claim(NamedTuple):
    """One answer of the verdict.

    Attributes
    ----------
    answer
        `yes`, `no` or `unclear`.
    said
        The answer as a sentence.
    because
        The figures that it rests on.
    """

    answer: Literal["yes", "no", "unclear"]
    said: str
    because: str


@dataclasses.dataclass(frozen=True)
class Remark:
    """Something that a reader should know before believing the figures; a `warning` may change what they mean."""

    kind: Literal["warning", "note"]
    text: str


def claims(run: RunArtifacts, known: Mapping[str, Estimate]) -> list[Claim]:
    """Does the score rank, does the portfolio beat the hardest of its benchmarks after cost, is momentum forecast better than by habit.

    Parameters
    ----------
    run
        With the artifacts of the ranking; what else it has decides which questions are answered.
    known
        From `qlib_ext.report.headline.estimates`.
    """
    found = [_ranks(run, known["RankIC"])]
    if excesses(known):
        found.append(_earns(run, known))
    elif "backtest/annualised_return" in known:
        found.append(_gains(known))
    if "momentum/over_persistence" in known:
        found.append(_forecasts(run, known))
    return found


def synthetic(run: RunArtifacts) -> str:
    """What comes before all else where the market is synthetic; empty where it is not known to be."""
    summary = run.json("data/summary.json") if run.has("data/summary.json") else {}
    return synthetic_note(summary.get("synthetic_seed")) if summary.get("synthetic") else ""


def remarks(run: RunArtifacts, known: Mapping[str, Estimate]) -> list[Remark]:
    """What a reviewer should look at, warnings first."""
    found = [
        *_look_ahead(run),
        *_cross_validated(run),
        *_days(run),
        *_suspicious(known),
        *_coverage(run),
        *_audit(run),
        *_labels(run),
        *_trading(run),
        *_trials(run),
    ]
    return sorted(found, key=lambda remark: remark.kind != "warning")


# -- the verdict ---------------------------------------------------------------------------------------------------


def _ranks(run: RunArtifacts, rank_ic: Estimate) -> Claim:
    label = run.table("ranking/summary.csv").index[0]
    ends = between(html.number(rank_ic.low), html.number(rank_ic.high))
    because = f"Mean daily RankIC against {label}: {html.number(rank_ic.value)}"
    because += f", 95% interval {ends}." if ends else "; too few days for an interval."
    if rank_ic.sign > 0:
        return Claim("yes", "The score ranks the stocks.", because)
    if rank_ic.sign < 0:
        return Claim("no", "The score ranks the stocks the wrong way round.", because)
    return Claim("unclear", "Whether the score ranks the stocks is not clear.", because)


def _earns(run: RunArtifacts, known: Mapping[str, Estimate]) -> Claim:
    """Whether the portfolio beat the hardest of what it is held against."""
    over, before_cost = excesses(known), excesses(known, "annualised_excess_return_without_cost")
    # What the interval says comes first: a larger excess may be the less sure one.
    hardest, *others = sorted(over, key=lambda called: (over[called].sign, over[called].value))
    after, before = over[hardest], before_cost[hardest]
    ends = _ends(after)
    because = (
        f"Over {hardest}{', the hardest to beat,' if others else ''} {html.percent(after.value, 1, signed=True)} a year after "
        "cost"
        + (f", 95% interval {ends}" if ends else ", too few days for an interval")
        + f"; before cost {html.percent(before.value, 1, signed=True)}, with a turnover of "
        f"{html.percent(known['backtest/turnover'].value, 1)} a day that costs "
        f"{html.percent(known['backtest/annual_cost'].value, 1)} a year."
        + "".join(f" Over {called} {_a_year(over[called])}." for called in others)
        + _by_chance(run)
    )
    if after.sign > 0:
        return Claim("yes", f"The portfolio beat {' and '.join([hardest, *others])} after cost.", because)
    if after.sign < 0:
        return Claim("no", f"The portfolio fell short of {hardest} after cost.", because)
    if before.sign > 0:
        return Claim(
            "unclear", f"The portfolio beat {hardest} before cost; after cost it is not clear.", because
        )
    return Claim("unclear", f"Whether the portfolio beats {hardest} after cost is not clear.", because)


def _a_year(excess: Estimate) -> str:
    ends = _ends(excess)
    return html.percent(excess.value, 1, signed=True) + (f" ({ends})" if ends else "")


def _ends(excess: Estimate) -> str:
    return between(html.percent(excess.low, 1, signed=True), html.percent(excess.high, 1, signed=True))


def _by_chance(run: RunArtifacts) -> str:
    """How the portfolio stands among lists drawn by chance."""
    if not run.has("benchmarks/setup.json"):
        return ""
    setup = run.json("benchmarks/setup.json")
    return (
        f" Of {setup['draws']} lists drawn by chance, with the same turnover and cost, "
        f"{html.percent(setup['random_below'], 0)} ended below it."
    )


def _gains(known: Mapping[str, Estimate]) -> Claim:
    """Of a backtest without an index: whether it earned anything, which a rising market alone may do."""
    after = known["backtest/annualised_return"]
    ends = between(html.percent(after.low, 1, signed=True), html.percent(after.high, 1, signed=True))
    because = (
        f"{html.percent(after.value, 1, signed=True)} a year after cost"
        + (f", 95% interval {ends}" if ends else ", too few days for an interval")
        + ". No index was named, so this does not tell skill from a rising market."
    )
    said = {1: "The portfolio gained after cost.", -1: "The portfolio lost after cost."}
    return Claim(
        "unclear" if after.sign >= 0 else "no",
        said.get(after.sign, "Whether the portfolio gains after cost is not clear."),
        because,
    )


def _forecasts(run: RunArtifacts, known: Mapping[str, Estimate]) -> Claim:
    over = known["momentum/over_persistence"]
    rules = run.table("momentum/summary.csv")["accuracy"]
    ends = between(html.points(over.low), html.points(over.high))
    because = (
        f"Accuracy {html.percent(rules['model'], 1)} beside {html.percent(rules['persistence'], 1)} of the rule that the "
        f"last known sign stays; on a mean day the lead is {html.points(over.value)}"
        + (f", 95% interval {ends}." if ends else ".")
    )
    if over.sign > 0:
        return Claim("yes", "The momentum classes are forecast better than by persistence.", because)
    if over.sign < 0:
        return Claim("no", "The momentum classes are forecast worse than by persistence.", because)
    return Claim(
        "unclear",
        "Whether the momentum classes are forecast better than by persistence is not clear.",
        because,
    )


# -- what to look at -----------------------------------------------------------------------------------------------


def _look_ahead(run: RunArtifacts) -> list[Remark]:
    """Whether the run was seen to know the future."""
    if not run.has("lookahead/audit.json"):
        said = (
            "Whether anything follows from later days was not looked at: the run has no lookahead/audit.json."
        )
        return [Remark("note", said)]
    found = run.json("lookahead/audit.json")
    findings, dates = found["findings"], counted(int(found["dates"]), "date")
    if "given" in found:
        return [
            *_given(findings),
            *(
                Remark("warning" if k == 0 else "note", _sentence(note))
                for k, note in enumerate(found["notes"])
            ),
        ]
    remembers = [finding for finding in findings if finding["kind"] == HISTORY]
    leaks = [finding for finding in findings if finding["kind"] != HISTORY]
    remarks = []
    if leaks:
        told = "; ".join(f"{finding['kind']}: {finding['message']}" for finding in leaks[:MOST_LEAKS])
        more = f"; and {len(leaks) - MOST_LEAKS} more" if len(leaks) > MOST_LEAKS else ""
        remarks.append(
            Remark(
                "warning",
                f"The look-ahead audit raises {counted(len(leaks), 'alarm')} on {dates}, and figures of a run that knows "
                f"the future mean nothing: {told}{more}.",
            )
        )
    else:
        same = any(check["name"] == "history" for check in found.get("checks", ())) and not remembers
        shorter = " With a shorter history they are the same too, to rounding." if same else ""
        remarks.append(
            Remark(
                "note",
                f"The look-ahead audit changed everything after {dates} ({found['first']} to {found['last']}): features, "
                f"side data, labels and scores up to there stayed equal bit for bit.{shorter} `qlib-ext lookahead` looks at more.",
            )
        )
    if remembers:
        told = "; ".join(finding["message"] for finding in remembers[:MOST_LEAKS])
        remarks.append(
            Remark("warning", f"What is known of a day changes with how much history is loaded: {told}.")
        )
    return remarks


def _given(findings: list[dict[str, str]]) -> list[Remark]:
    """What is suspicious of scores that were given, which the audit cannot look into."""
    told = "; ".join(finding["message"] for finding in findings[:MOST_LEAKS])
    return [Remark("warning", f"The scores are too good to be forecasts: {told}.")] if findings else []


def _days(run: RunArtifacts) -> list[Remark]:
    days = int(run.table("ranking/summary.csv")["days"].iloc[0])
    if days >= FEW_DAYS:
        return []
    said = f"Only {days} days have a score and a return: fewer than {FEW_DAYS}, about a year, show little of what can happen."
    return [Remark("warning", said)]


def _suspicious(known: Mapping[str, Estimate]) -> list[Remark]:
    found = []
    for name, limit in (("IC", HIGH_IC), ("RankIC", HIGH_IC), ("ICIR", HIGH_ICIR), ("RankICIR", HIGH_ICIR)):
        if abs(known[name].value) > limit:
            found.append(f"{name} {html.number(known[name].value)} (beyond {limit:g})")
    if not found:
        return []
    return [
        Remark(
            "warning",
            f"Suspiciously high: {', '.join(found)}. Daily bars rarely hold so much; look for a feature or a universe that "
            "knows the future before believing it.",
        )
    ]


def _coverage(run: RunArtifacts) -> list[Remark]:
    if not run.has("data/coverage.parquet"):
        return []
    table = run.table("data/coverage.parquet")
    table = table[(table["segment"] == "test") & (table["members"] > 0)]
    if table.empty:
        return []
    share = table["scored"] / table["members"]
    mean, low, worst = share.mean(), share.min(), share.idxmin()
    if mean >= LOW_COVERAGE and low >= LOW_DAY:
        return []
    return [
        Remark(
            "warning",
            f"Scores cover {html.percent(mean, 1)} of the universe's members on a mean test day and {html.percent(low, 1)} on "
            f"the worst ({worst:%Y-%m-%d}): the figures are of those stocks alone.",
        )
    ]


def _audit(run: RunArtifacts) -> list[Remark]:
    if not run.has("data/quality.json"):
        return [Remark("note", "The data were not audited: the run has no data/quality.json.")]
    counts = run.json("data/quality.json")["counts"]
    errors, warnings = int(counts.get("error", 0)), int(counts.get("warning", 0))
    if errors:
        return [
            Remark(
                "warning",
                f"The data audit found {counted(errors, 'error')} and {counted(warnings, 'warning')}: figures that rest on "
                "what an error names are wrong.",
            )
        ]
    if warnings:
        return [Remark("warning", f"The data audit found {counted(warnings, 'warning')}, and no error.")]
    return []


def _labels(run: RunArtifacts) -> list[Remark]:
    """Which returns the score was trained on and is held against, and whether they could have been known or earned."""
    if not run.has("data/summary.json"):
        return []
    summary = run.json("data/summary.json")
    formulas: Mapping[str, str] = summary.get("labels", {})
    found = []
    against = str(run.table("ranking/summary.csv").index[0])
    days = offsets(formulas.get(against, ""))
    if days and min(days) <= 0:
        found.append(
            Remark(
                "warning",
                f"IC and precision are against {against}, which begins at the close of the day of the score: the score needs "
                "that close, so nobody could have earned this return.",
            )
        )
    trained = _configured(run, "model", "kwargs", "tasks", "score", "label")
    if trained is not None and trained in formulas:
        known = summary.get("label_days", {}).get(trained, {})
        reach = int(known.get("reach", max(offsets(formulas[trained]) or [0])))
        said = f"The score is trained on {trained}, {formulas[trained]}, which is known {counted(reach, 'day')} after the score"
        other = "" if trained == against else f"; IC and precision are against {against}"
        found.append(Remark("note", f"{said}{other}."))
    horizon = int(summary.get("label_horizon_days") or 0)
    if horizon and _configured(run, "dataset", "kwargs", "purge") is False:
        found.append(
            Remark(
                "warning",
                f"`purge` is off: labels look {counted(horizon, 'day')} ahead, so those of a segment's last days reach into "
                "the next segment, and training saw returns of validation, validation those of the test.",
            )
        )
    return found


def _trading(run: RunArtifacts) -> list[Remark]:
    if not run.has("backtest/setup.json"):
        return []
    setup = run.json("backtest/setup.json")
    found = [Remark("note", _sentence(note)) for note in setup.get("notes", []) if note]
    if setup["benchmark"] is not None and not setup.get("benchmark_total_return", False):
        found.append(
            Remark(
                "note",
                f"The index {setup['benchmark']} is taken as the store has it. If that is an index of prices alone, as the "
                "usual series are, its dividends are missing while the portfolio's adjusted prices contain theirs, and the "
                "excess return is too high by as much.",
            )
        )
    return found


def _cross_validated(run: RunArtifacts) -> list[Remark]:
    """That most models of a combinatorial cross-validation know what came after the days that they score.

    Its splits, and the runs that use their scores again, have the tag alone.
    """
    if not run.has("splits/runs.json"):
        if COMBINATORIAL not in run.tags:
            return []
        return [
            Remark(
                "warning",
                f"The scores are of a combinatorial cross-validation ({run.tags[COMBINATORIAL]}): models learned of days after "
                "those that they score. That judges a method; nobody could have traded so.",
            )
        ]
    splits = run.json("splits/runs.json")
    later = sum(not split["in_order"] for split in splits)
    return [
        Remark(
            "warning",
            f"This is a combinatorial cross-validation: {later} of its {len(splits)} models learned of days after those that they "
            "score, purged of labels that reach across. It judges a method over several histories of the same days; nobody "
            "could have traded so. The figures of this page are those of the first path, named before anything was seen; what "
            "the others make of them stands under Paths.",
        )
    ]


def _trials(run: RunArtifacts) -> list[Remark]:
    """What the trials before this one do to its figures."""
    if not run.has("ledger/summary.json"):
        return []
    found = run.json("ledger/summary.json")
    if "problem" in found:
        said = f"How many trials saw these test days is not known, since the ledger could not be used: {found['problem']}."
        return [Remark("warning", said)]
    said = f"Line {found['entry']} of the ledger of trials {found['file']}, of {counted(found['trials'], 'look')} at these test days"
    if "luck" not in found:
        return [Remark("note", f"{said}.")]
    return [
        Remark(
            "note",
            f"{said}: the best of {counted(found['traded'], 'backtest')} without any skill is expected to have a ratio of "
            f"{html.number(found['luck'], 2)} a year; this one has {html.number(found['ratio'], 2)}, and a deflated Sharpe "
            f"ratio of {html.number(found['deflated'], 3)}, the probability that its true ratio is positive.",
        )
    ]


def offsets(formula: str) -> list[int]:
    """Days after the score at which a label of Qlib's expressions reads the market: `Ref($close, -2)` is 2."""
    return [-int(match.group(1) or 0) for match in REFERENCE.finditer(formula)]


def _configured(run: RunArtifacts, *keys: str) -> Any:
    """What the configuration says under these keys; None where it says nothing, or there is none."""
    if not run.has("config.yaml"):
        return None
    try:
        found = load_yaml(run.text("config.yaml"))
    except ValueError:  # a file of the user's own
        return None
    for key in keys:
        found = found.get(key) if isinstance(found, Mapping) else None
    return found


def _sentence(note: str) -> str:
    return f"{note[0].upper()}{note[1:]}."
