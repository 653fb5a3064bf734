"""What a comparison says in words and in cells, the same on the page and in the terminal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Literal

import pandas as pd

from qlib_ext.checks import counted
from qlib_ext.metrics.overfitting import Overfitting
from qlib_ext.report import html
from qlib_ext.report.comparison.compared import FEW_TRAININGS, LEVEL, SET_LEVEL, TESTED, Comparison, Trials
from qlib_ext.report.comparison.runs import RETURN
from qlib_ext.report.verdict import Claim

FEWEST_CHOICES = 5  # runs, from which on a low probability says something: of fewer it is often low by chance
TOSS = 0.4  # probability of backtest overfitting from which on a choice is as good as none

PLUS_MINUS = "\N{PLUS-MINUS SIGN}"

# Metric -> its name, and how it is written: digits of a number, or of a percentage.
Written = tuple[str, Literal["number", "percent"], int]
SIGNAL: dict[str, Written] = {
    "IC": ("IC", "number", 4),
    "ICIR": ("ICIR", "number", 2),
    "RankIC": ("RankIC", "number", 4),
    "RankICIR": ("RankICIR", "number", 2),
    "precision/10": ("Precision@10", "percent", 2),
    "precision/50": ("Precision@50", "percent", 2),
    "momentum/accuracy": ("Momentum accuracy", "percent", 2),
}
PORTFOLIO: dict[str, Written] = {
    "backtest/annualised_excess_return": ("Excess return a year", "percent", 2),
    "benchmarks/equal_weight/annualised_excess_return": ("Over equal weight a year", "percent", 2),
    "backtest/information_ratio": ("Information ratio", "number", 2),
    "backtest/annualised_return": ("Return a year", "percent", 2),
    "backtest/sharpe_ratio": ("Sharpe ratio", "number", 2),
    "backtest/max_drawdown": ("Max drawdown", "percent", 2),
    "backtest/turnover": ("Turnover a day", "percent", 1),
    "deflated Sharpe ratio": ("Deflated Sharpe ratio", "number", 3),
}
ATTRIBUTION: dict[str, Written] = {
    f"attribution/equal_weight/{part}": (name, "percent", 2)
    for part, name in {
        "allocation": "Allocation",
        "selection": "Selection in industries",
        "interaction": "Interaction",
        "market": "Market",
        "styles": "Styles",
        "industries": "Industries",
        "specific": "Selection left over",
        "trading": "Trading",
        "cost": "Cost",
    }.items()
}
BY_FACTOR = tuple(ATTRIBUTION)[3:]
CONSTRUCTION: dict[str, Written] = {
    "construction/rebalancings": ("Rebalancings", "number", 0),
    "construction/forecast_volatility": ("Volatility, forecast", "percent", 1),
    "construction/realised_volatility": ("Volatility, realised", "percent", 1),
    "construction/forecast_tracking_error": ("Tracking error, forecast", "percent", 1),
    "construction/realised_tracking_error": ("Tracking error, realised", "percent", 1),
    "construction/tracking_error_bias": ("Its bias", "number", 2),
    "construction/relaxed_share": ("Limits gave way", "percent", 1),
    "construction/kept_share": ("Kept as it was", "percent", 1),
}
TURNOVER: dict[str, Written] = {
    "construction/turnover": ("A rebalancing", "percent", 1),
    "construction/turnover_left": ("Left the universe", "percent", 1),
    "construction/turnover_new": ("New", "percent", 1),
    "construction/turnover_out": ("Sold out", "percent", 1),
    "construction/turnover_changed": ("Weight changed", "percent", 1),
    "construction/drift": ("Beside it: drift", "percent", 1),
}
SHOWN = SIGNAL | PORTFOLIO | ATTRIBUTION | CONSTRUCTION | TURNOVER
SHORT = (
    "IC",
    "RankIC",
    "backtest/annualised_excess_return",
    "backtest/information_ratio",
    "backtest/max_drawdown",
)


def value(metric: str, mean: float, deviation: float = math.nan) -> str:
    """A metric, with its deviation over seeds where there is one: `0.0412 ± 0.0031`."""
    _, kind, digits = SHOWN[metric]
    if kind == "number":
        said, spread = html.number(mean, digits), html.number(deviation, digits)
    else:
        said, spread = html.percent(mean, digits), html.number(100 * deviation, digits)
    return said if math.isnan(deviation) else f"{said} {PLUS_MINUS} {spread}"


def metrics(comparison: Comparison, wanted: Iterable[str] = SHOWN) -> list[str]:
    """Those of the metrics that at least one group has."""
    summary = comparison.summary
    return [metric for metric in wanted if metric in summary and summary[metric].notna().any()]


def group_rows(comparison: Comparison, wanted: Sequence[str]) -> list[list[str]]:
    """A row a group: its name, its runs and the metrics."""
    rows = []
    for name, row in comparison.summary.iterrows():
        mark = " (baseline)" if name == comparison.baseline.name and len(comparison.groups) > 1 else ""
        cells = [value(metric, float(row[metric]), float(row[f"{metric}, sd"])) for metric in wanted]
        rows.append([f"{name}{mark}", str(row["runs"]), *cells])
    return rows


def difference(measure: str, amount: float, *, unit: bool = True) -> str:
    """A difference of daily means: of a correlation as it is, of a return in basis points."""
    if measure == RETURN:
        said = html.number(1e4 * amount, 2, signed=True)
        return f"{said} bps" if unit and said != html.NONE else said
    return html.number(amount, 4, signed=True)


def p_value(p: float) -> str:
    """A p-value with three decimals, or that it is below one thousandth."""
    if not math.isnan(p) and p < 0.001:
        return "< 0.001"
    return html.number(p, 3)


def rows_of_tests(comparison: Comparison, measure: str) -> list[list[str]]:
    """A row a group: difference to the baseline, interval, p, Holm's p, days, and whether it is in the set."""
    rows = []
    for _, row in comparison.tests[comparison.tests["measure"] == measure].iterrows():
        is_baseline = row["group"] == comparison.baseline.name
        kept = row["p, confidence set"]
        inside = html.NONE if math.isnan(kept) else "yes" if kept > SET_LEVEL else "no"
        rows.append(
            [
                f"{row['group']} (baseline)" if is_baseline else str(row["group"]),
                difference(measure, row["difference"]),
                _interval(measure, row["low"], row["high"]),
                _interval(measure, row["low, seeds"], row["high, seeds"])
                if row["trainings"] > 1
                else html.NONE,
                p_value(row["p"]),
                p_value(row["p, Holm"]),
                html.count(row["days"]),
                f"{inside} ({p_value(kept)})" if inside != html.NONE else inside,
            ]
        )
    return rows


def _interval(measure: str, low: float, high: float) -> str:
    if math.isnan(low):
        return html.NONE
    return f"{difference(measure, low, unit=False)} to {difference(measure, high, unit=False)}"


def _of_other_seeds(found: pd.DataFrame) -> tuple[bool, str]:
    """Whether what differs on these days would with other seeds too, and what is said where that is not known."""
    fewest = int(found["trainings"].min())
    if fewest < FEW_TRAININGS:
        count = "one training" if fewest == 1 else f"{fewest} trainings"
        return False, f" This is of {count} of a method, and says nothing of other seeds"
    if ((found["low, seeds"] <= 0) & (found["high, seeds"] >= 0)).any():
        return False, " Other seeds may turn it: with trainings drawn too, an interval includes zero"
    return True, ""


def _of_trials(trials: Trials) -> str:
    if trials.others:
        return (
            f"Trials are the {trials.count - trials.others} runs compared and {trials.others} more that the ledger of trials "
            "has of these test days."
        )
    return (
        "Trials are the runs compared, and no others are in the ledger of trials, as far as these runs know it; what was tried "
        "elsewhere does not count here, and should."
    )


def _of_choosing(found: Overfitting, trials: Trials | None) -> Claim:
    """Whether the best of the runs compared would be the best on other days."""
    probability = html.percent(found.probability, 0)
    because = (
        f"Of {found.configurations} runs the one with the highest ratio of daily excess returns on half of {found.blocks} blocks of days "
        f"lies below the median on the other half with a probability of {probability} (probability of backtest overfitting; "
        f"50% without any skill on average, and no test), and loses there with {html.percent(found.loss, 0)}."
    )
    if trials is not None and trials.others:
        because += (
            f" {counted(trials.others, 'trial')} of the ledger that are not compared here do not count, since of them the ledger "
            "keeps no days: a choice that had them to choose from was overfitted more."
        )
    if found.probability < LEVEL and found.configurations < FEWEST_CHOICES:
        return Claim(
            "unclear",
            f"{counted(found.configurations, 'run')} are too few to say whether the best would be so on other days.",
            because,
        )
    if found.probability < LEVEL:
        return Claim(
            "yes", "The best of these runs would be among the better ones on other days too.", because
        )
    if found.probability < TOSS:
        said = "The best of these runs may not be among the better ones on other days."
        return Claim("unclear", said, because)
    return Claim(
        "no", "To choose the best of these runs by their backtests says nothing of other days.", because
    )


def claims(comparison: Comparison) -> list[Claim]:
    """What the tests say, in sentences."""
    made: list[Claim] = []
    base = comparison.baseline.name
    for measure, name in TESTED.items():
        tests = comparison.tests[comparison.tests["measure"] == measure].dropna(subset=["p, Holm"])
        if tests.empty:
            continue
        sure = tests[tests["p, Holm"] < LEVEL]
        better, worse = sure[sure["difference"] > 0], sure[sure["difference"] < 0]
        said = []
        for found, word in ((better, "higher"), (worse, "lower")):
            if len(found):
                listed = "; ".join(
                    f"{row['group']} ({difference(measure, row['difference'])})"
                    for _, row in found.iterrows()
                )
                said.append(f"{word} than that of {base}: {listed}")
        spa = comparison.spa.get(measure, math.nan)
        because = (
            f"Of {len(tests)} comparisons, p below {LEVEL:g} after Holm's correction; SPA p that no group is better "
            f"than {base}: {p_value(spa)}."
        )
        title = name[0].upper() + name[1:]
        if said:
            holds, but = _of_other_seeds(sure)
            answer: Literal["yes", "no", "unclear"] = "unclear"
            if holds:
                answer = "yes" if len(better) else "no"
            made.append(
                Claim(answer, f"{title} is {'. It is '.join(said)}.{but}{'.' if but else ''}", because)
            )
        else:
            smallest = p_value(float(tests["p, Holm"].min()))
            made.append(
                Claim(
                    "unclear",
                    f"{title}: no group differs from {base} by more than chance may bring.",
                    f"Smallest p after Holm's correction of {len(tests)} comparisons: {smallest}; SPA p that no group is "
                    f"better than {base}: {p_value(spa)}.",
                )
            )
    if comparison.overfitting is not None:
        made.append(_of_choosing(comparison.overfitting, comparison.trials))
    trials = comparison.trials
    if trials is not None:
        answer = "yes" if trials.probability > 1 - LEVEL else "unclear" if trials.ratio > 0 else "no"
        word = "is more than the luck of" if answer == "yes" else "may be the luck of"
        count = f"{trials.count} {'trial' if trials.count == 1 else 'trials'}"
        sentence = f"The best excess return over the index {word} {count}."
        if answer == "no":
            sentence = f"None of {count} earned more than the index, after cost."
        made.append(
            Claim(
                answer,
                sentence,
                f"{trials.best.name or trials.best.run_id[:8]} has an information ratio of {html.number(trials.ratio, 2)} a "
                f"year, after cost; the best of {trials.count} without any skill is expected to have "
                f"{html.number(trials.luck, 2)}; deflated Sharpe ratio {html.number(trials.probability, 3)}, which is the "
                f"probability that the true ratio is positive. {_of_trials(trials)}",
            )
        )
    return made
