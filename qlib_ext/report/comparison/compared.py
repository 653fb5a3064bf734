"""The figures of a comparison: groups, means over seeds, tests against a baseline."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, nearest
from qlib_ext.metrics.bootstrap import overlapping_block
from qlib_ext.metrics.moments import moments
from qlib_ext.metrics.overfitting import BLOCK_DAYS, Overfitting, backtest_overfitting
from qlib_ext.metrics.significance import (
    bootstrap_difference,
    bootstrap_trainings,
    deflated_sharpe_ratio,
    expected_maximum_sharpe,
    holm,
    model_confidence_set,
    superior_predictive_ability,
)
from qlib_ext.report.comparison import groups as grouping
from qlib_ext.report.comparison.runs import EXCESS, IC, RANK_IC, RETURN, ComparedRun, LeftOut
from qlib_ext.report.comparison.settings import ABSENT, canonical, find_key, path, shown
from qlib_ext.report.verdict import COMBINATORIAL

LEVEL = 0.05  # of the tests, after Holm's correction
FEW_TRAININGS = 3  # with fewer of either method nothing is said of other seeds
SET_LEVEL = 0.10  # of the model confidence set
FEWEST_BLOCKS = 8  # of days, to say what choosing the best is worth
DAYS_PER_YEAR = 243  # where a run does not say it

# Metrics of single epochs and of the machine, which are no result.
_ON_THE_WAY = ("train/", "valid/", "gradient/", "balance/", "seconds/", "quality/", "system/")
TESTED = {RANK_IC: "RankIC", IC: "IC", RETURN: "return a day, after cost"}


@dataclass(frozen=True)
class Group:
    """Runs that differ by their seed only, or by what was not asked to be told apart."""

    name: str
    runs: Sequence[ComparedRun]

    def mean(self, column: str) -> pd.Series:
        """A daily series, the mean over the runs, on the days that all of them have."""
        return self.table(column).mean(axis=1)

    def table(self, column: str) -> pd.DataFrame:
        """A daily series of each run that has it, on the days that all of these have; empty without any."""
        have = [run.daily[column].rename(run.run_id) for run in self.runs if column in run.daily]
        return pd.concat(have, axis=1).dropna() if have else pd.DataFrame()


@dataclass(frozen=True)
class Trials:
    """What the number of runs does to the best of them.

    Attributes
    ----------
    count
        Runs with a backtest, and what else the ledger has of their test days; each is one trial.
    others
        How many of them are not among the runs compared.
    best
        The run with the highest information ratio.
    ratio
        Its information ratio a year.
    luck
        The ratio a year that the best of as many runs would be expected to have if none had any skill.
    probability
        That its true ratio is positive, given that it is the best of so many: its deflated Sharpe ratio.
    """

    count: int
    others: int
    best: ComparedRun
    ratio: float
    luck: float
    probability: float


@dataclass(frozen=True)
class Comparison:
    """Everything that a page, a terminal and files say.

    Attributes
    ----------
    groups
        In the order of their mean RankIC, without it of their excess return, the highest first.
    baseline
        The group that the others are tested against.
    runs
        A row a run: group, id, name, experiment, start, seed, `deflated Sharpe ratio`, and its metrics.
    summary
        A row a group: runs, seeds, and `<metric>` and `<metric>, sd` (over runs, divisor n - 1) of each metric.
    tests
        A row a measure and group other than the baseline: `difference` to the baseline, `low` and `high` of its 95%
        interval, `p`, `p, Holm` and `days`; `low, seeds` and `high, seeds` of the interval that draws trainings too, and
        `trainings`, the number of runs of the group with fewer; and of every group `p, confidence set`.
    spa
        Measure -> p-value that no group is better than the baseline.
    configuration
        Settings that differ: a row a key, a column a group.
    shared
        Settings that are the same in all runs.
    trials
        None without a backtest.
    overfitting
        What choosing the run with the highest ratio of daily excess returns on half of the days is worth on the other; None
        where fewer than two runs have them, or their days in common are too few for 8 blocks.
    warnings
        Why figures may not be comparable.
    left_out
        Runs that were asked for and are not compared.
    """

    groups: Sequence[Group]
    baseline: Group
    runs: pd.DataFrame
    summary: pd.DataFrame
    tests: pd.DataFrame
    spa: Mapping[str, float]
    configuration: pd.DataFrame
    shared: Mapping[str, str]
    trials: Trials | None
    warnings: Sequence[str]
    left_out: Sequence[LeftOut]
    overfitting: Overfitting | None = None

    @property
    def synthetic(self) -> str:
        """What is said first where a run is of a synthetic market; empty where none is."""
        return next((run.synthetic for group in self.groups for run in group.runs if run.synthetic), "")

    @property
    def others(self) -> list[Group]:
        """The groups without the baseline."""
        return [group for group in self.groups if group is not self.baseline]


def compare(
    runs: Sequence[ComparedRun],
    left_out: Sequence[LeftOut] = (),
    *,
    baseline: str | None = None,
    by: Sequence[str] = (),
    draws: int = 2000,
) -> Comparison:
    """Group runs, average over seeds and test the groups against a baseline.

    Parameters
    ----------
    runs
        At least one.
    left_out
        What is to be said of other runs.
    baseline
        Name of a group, the only group whose name has this text in it, or the id or name of a run in a group. The
        default is the group of the first run.
    by
        Keys of settings, tags, `experiment`, `name` or `seed` to group by, as `settings.find_key` takes them. The default is
        all settings that differ among the runs, the seed apart.
    draws
        Of each bootstrap.

    Raises
    ------
    UserError
        If there is no run, or `baseline` or a key of `by` means nothing or several things.
    """
    if not runs:
        reasons = "; ".join(f"{each.name or each.run_id}: {each.why}" for each in left_out)
        raise UserError(f"no run can be compared: {reasons or 'none was given'}")
    asked = [find_key(key, [name for run in runs for name in run.traits]) for key in by]
    runs, repeated = _newest(runs, asked)
    varied = grouping.differing([run.settings for run in runs])
    keys = asked or varied
    traits = [run.traits if asked else run.settings for run in runs]
    parts = grouping.grouped(traits, keys)
    names = grouping.names([traits[part[0]] for part in parts], keys)
    groups = [Group(name, [runs[k] for k in part]) for name, part in zip(names, parts, strict=True)]
    base = _baseline(groups, baseline)
    groups = sorted(groups, key=_place)
    each, trials = _runs(groups)
    return Comparison(
        groups=groups,
        baseline=base,
        runs=each,
        summary=_summary(groups, each),
        tests=_tests(groups, base, draws),
        spa=_spa(groups, base, draws),
        configuration=_configuration(groups, varied),
        shared={key: value for key, value in sorted(runs[0].settings.items()) if key not in varied},
        trials=trials,
        warnings=_warnings(groups, varied if by else ()),
        left_out=[*left_out, *repeated],
        overfitting=_overfitting(runs),
    )


def _newest(runs: Sequence[ComparedRun], by: Sequence[str]) -> tuple[list[ComparedRun], list[LeftOut]]:
    """Leave out runs that a newer one repeats: same settings, seed, data and code give the same figures again."""
    last: dict[tuple[object, ...], ComparedRun] = {}
    for run in sorted(runs, key=lambda run: run.started):
        last[_identity(run, by)] = run
    kept = {run.run_id for run in last.values()}
    repeated = [
        LeftOut(
            run.run_id,
            run.name,
            f"run {last[_identity(run, by)].run_id[:8]} is newer and has the same settings, seed, data and code; "
            "`--by name` tells them apart",
        )
        for run in runs
        if run.run_id not in kept
    ]
    return [run for run in runs if run.run_id in kept], repeated


def _identity(run: ComparedRun, by: Sequence[str]) -> tuple[object, ...]:
    known = tuple(sorted((key, canonical(value)) for key, value in run.settings.items()))
    told = tuple(run.tags.get(tag, "") for tag in ("data_fingerprint", "git_commit", "device", "precision"))
    asked = tuple(run.traits.get(key, "") for key in by)
    return (known, run.seed, told, asked) if known else (run.run_id,)


def _baseline(groups: Sequence[Group], wanted: str | None) -> Group:
    if wanted is None:
        return groups[0]
    exact = [group for group in groups if group.name == wanted]
    of_run = [group for group in groups if any(wanted in (run.name, run.run_id) for run in group.runs)]
    inside = [group for group in groups if wanted.casefold() in group.name.casefold()]
    for found in (exact, of_run, inside):
        if len(found) == 1:
            return found[0]
        if found:
            listed = ", ".join(f"`{group.name}`" for group in found)
            raise UserError(f"`--baseline` must mean one group, found {len(found)} for `{wanted}`: {listed}")
    known = [group.name for group in groups]
    listed = ", ".join(f"`{name}`" for name in known)
    raise UserError(
        f"`--baseline` must be one of the groups {listed}, found `{wanted}`{nearest(wanted, known)}"
    )


def _place(group: Group) -> tuple[bool, float]:
    for metric in ("RankIC", "backtest/annualised_excess_return"):
        values = [run.metrics[metric] for run in group.runs if metric in run.metrics]
        if values:
            return metric != "RankIC", -float(np.mean(values))
    return True, math.inf


# -- tables --------------------------------------------------------------------------------------------------------


def _results(run: ComparedRun) -> dict[str, float]:
    """Metrics that are a result, and not a step on the way to it."""
    return {
        name: value
        for name, value in sorted(run.metrics.items())
        if not name.startswith(_ON_THE_WAY) and name != "best"
    }


def _daily_ratio(run: ComparedRun) -> float:
    """Information ratio of a day, after cost; NaN without a backtest."""
    if EXCESS not in run.daily:
        return math.nan
    shape = moments(run.daily[EXCESS])
    return shape.mean / shape.std if shape.std > 0 else math.nan


def _runs(groups: Sequence[Group]) -> tuple[pd.DataFrame, Trials | None]:
    runs = [(group, run) for group in groups for run in group.runs]
    ratios = np.array([_daily_ratio(run) for _, run in runs])
    others = _others([run for _, run in runs])
    every = np.concatenate([ratios, others])
    deflated = [
        deflated_sharpe_ratio(run.daily[EXCESS], every) if not math.isnan(ratio) else math.nan
        for (_, run), ratio in zip(runs, ratios, strict=True)
    ]
    rows = [
        {
            "group": group.name,
            "run": run.run_id,
            "name": run.name,
            "experiment": run.experiment,
            "started": run.started,
            "seed": run.seed,
            "deflated Sharpe ratio": probability,
            **_results(run),
        }
        for (group, run), probability in zip(runs, deflated, strict=True)
    ]
    there = ratios[~np.isnan(ratios)]
    if len(there) == 0:
        return pd.DataFrame(rows), None
    best = int(np.nanargmax(ratios))
    run = runs[best][1]
    there = np.concatenate([there, others])
    variance = float(there.var(ddof=1)) if len(there) > 1 else 0.0
    year = math.sqrt(float(run.conditions.get("trading days of a year", DAYS_PER_YEAR)))
    luck = expected_maximum_sharpe(variance, len(there)) * year
    return pd.DataFrame(rows), Trials(
        len(there), len(others), run, float(ratios[best]) * year, luck, deflated[best]
    )


def _others(runs: Sequence[ComparedRun]) -> np.ndarray:
    """Daily ratios of the trials that the ledger has, as far as the runs know it, and that are none of the runs."""
    tables = [run.trials for run in runs if len(run.trials)]
    if not tables:
        return np.array([])
    known = pd.concat(tables).drop_duplicates("hash")
    return (
        known.loc[~known["run_id"].isin([run.run_id for run in runs]), "ratio"].dropna().to_numpy(dtype=float)
    )


def _overfitting(runs: Sequence[ComparedRun]) -> Overfitting | None:
    have = [run.daily[EXCESS] for run in runs if EXCESS in run.daily]
    together = pd.concat(have, axis=1).dropna() if len(have) > 1 else pd.DataFrame()
    if len(together) < FEWEST_BLOCKS * BLOCK_DAYS:
        return None
    return backtest_overfitting(together.to_numpy())


def _summary(groups: Sequence[Group], runs: pd.DataFrame) -> pd.DataFrame:
    about = {"group", "run", "name", "experiment", "started", "seed"}
    metrics = [column for column in runs.columns if column not in about]
    rows = []
    for group in groups:
        own = runs[runs["group"] == group.name]
        row: dict[str, object] = {
            "group": group.name,
            "runs": len(own),
            "seeds": " ".join(dict.fromkeys(own["seed"])),
        }
        for metric in metrics:
            values = own[metric].dropna()
            row[metric] = values.mean() if len(values) else math.nan
            row[f"{metric}, sd"] = values.std(ddof=1) if len(values) > 1 else math.nan
        rows.append(row)
    return pd.DataFrame(rows).set_index("group")


def _measures(groups: Sequence[Group]) -> list[str]:
    """What at least two groups have."""
    return [name for name in TESTED if sum(not group.table(name).empty for group in groups) > 1]


def _span_days(groups: Sequence[Group], measure: str) -> int:
    """Days of return that a daily value of a measure looks at: those of the label for ICs, one for an account."""
    return max(run.span_days for group in groups for run in group.runs) if measure in (IC, RANK_IC) else 1


def _tests(groups: Sequence[Group], baseline: Group, draws: int) -> pd.DataFrame:
    columns = [
        "measure", "group", "difference", "low", "high", "p", "p, Holm", "days", "p, confidence set",
        "low, seeds", "high, seeds", "trainings",
    ]  # fmt: skip
    rows = []
    for measure in _measures(groups):
        tables = {group.name: group.table(measure) for group in groups}
        tables = {name: table for name, table in tables.items() if not table.empty}
        daily = {name: table.mean(axis=1) for name, table in tables.items()}
        span, own = _span_days(groups, measure), []
        for name, series in daily.items():
            row: dict[str, object] = {"measure": measure, "group": name}
            if name != baseline.name and baseline.name in daily:
                both = pd.concat([series, daily[baseline.name]], axis=1).dropna()
                block = overlapping_block(len(both), span)
                found = bootstrap_difference(both.iloc[:, 0], both.iloc[:, 1], draws=draws, block_days=block)
                row |= {"difference": found.mean, "low": found.low, "high": found.high}
                row |= {"p": found.p, "days": len(both)}
                pair = [tables[each].loc[both.index].to_numpy().T for each in (name, baseline.name)]
                ends = bootstrap_trainings(*pair, draws=draws, block_days=block)
                row |= {"low, seeds": ends.low, "high, seeds": ends.high, "trainings": min(map(len, pair))}
            own.append(row)
        adjusted = holm([row.get("p", math.nan) for row in own])  # type: ignore[arg-type]
        kept = model_confidence_set(pd.DataFrame(daily), draws=draws, span_days=span)
        for row, corrected, p in zip(own, adjusted, kept, strict=True):
            rows.append({**row, "p, Holm": corrected, "p, confidence set": p})
    return pd.DataFrame(rows, columns=columns)


def _spa(groups: Sequence[Group], baseline: Group, draws: int) -> dict[str, float]:
    found = {}
    for measure in _measures(groups):
        daily = {group.name: group.mean(measure) for group in groups if not group.table(measure).empty}
        if baseline.name in daily:
            table = pd.DataFrame(daily)
            rivals = table.drop(columns=baseline.name)
            span = _span_days(groups, measure)
            found[measure] = superior_predictive_ability(
                table[baseline.name], rivals, draws=draws, span_days=span
            )
    return found


def _configuration(groups: Sequence[Group], keys: Sequence[str]) -> pd.DataFrame:
    """What each group has for each key; several values where its runs differ."""
    columns = {
        group.name: [
            " | ".join(dict.fromkeys(shown(key, run.settings.get(key, ABSENT)) for run in group.runs))
            for key in keys
        ]
        for group in groups
    }
    return pd.DataFrame(columns, index=pd.Index(keys, name="setting"))


# -- what to be wary of --------------------------------------------------------------------------------------------


def _warnings(groups: Sequence[Group], varied: Sequence[str]) -> list[str]:
    runs = [run for group in groups for run in group.runs]
    found = []
    for condition in dict.fromkeys(name for run in runs for name in run.conditions):
        values: dict[str, list[str]] = {}
        for group in groups:
            for run in group.runs:
                if condition in run.conditions:
                    names = values.setdefault(run.conditions[condition], [])
                    if group.name not in names:
                        names.append(group.name)
        if len(values) > 1:
            listed = " | ".join(f"{value} ({_few(names)})" for value, names in values.items())
            found.append(
                f"Not comparable as they stand, since the runs differ in their {condition}: {listed}."
            )
    for group in groups:
        mixed = [
            key for key in varied if len({canonical(run.settings.get(key, ABSENT)) for run in group.runs}) > 1
        ]
        if mixed:
            said = _few([" ".join(path(key)) for key in mixed])
            found.append(f"The runs of {group.name} differ in more than their seed: {said}.")
        again = [seed for seed, count in Counter(run.seed for run in group.runs).items() if count > 1]
        if again and not mixed:
            codes = {run.tags.get("git_commit", "") for run in group.runs}
            why = "by different versions of the code" if len(codes) > 1 else "of different data or machines"
            found.append(
                f"{group.name} has several runs of seed {', '.join(again)}, {why}; they count as several seeds."
            )
        if knowing := sum(COMBINATORIAL in run.tags for run in group.runs):
            found.append(
                f"{knowing} of {len(group.runs)} runs of {group.name} have scores of a combinatorial cross-validation, whose "
                "models learned of days after those that they score: nobody could have traded so."
            )
        for artifact in dict.fromkeys(lacking for run in group.runs for lacking in run.lacking):
            without = sum(artifact in run.lacking for run in group.runs)
            found.append(f"{without} of {len(group.runs)} runs of {group.name} have no `{artifact}`.")
    commits = {run.tags["git_commit"] for run in runs if "git_commit" in run.tags}
    if len(commits) > 1:
        found.append(
            f"The runs were made by {len(commits)} versions of the code: {_few(sorted(c[:8] for c in commits))}."
        )
    counts = {len(group.runs) for group in groups}
    if counts == {1} and len(groups) > 1:
        found.append("Each group has one run: how much another seed would change its figures is not known.")
    if len(counts) > 1:
        listed = "; ".join(f"{len(group.runs)} of {group.name}" for group in groups)
        found.append(f"The groups have different numbers of runs: {listed}.")
    return found


def _few(names: Sequence[str], most: int = 4) -> str:
    return "; ".join(names[:most]) + (f" and {len(names) - most} more" if len(names) > most else "")
