"""Charts of a comparison: a line or a bar a group, with what its seeds make of it."""

from __future__ import annotations

import itertools
from collections.abc import Callable

import pandas as pd

from qlib_ext.metrics.risk import wealth
from qlib_ext.report.charts import Bars, Chart, Histogram, Lines, all_positive
from qlib_ext.report.comparison.compared import Comparison
from qlib_ext.report.comparison.runs import EXCESS, IC, INDEX, RANK_IC, RETURN
from qlib_ext.report.comparison.words import ATTRIBUTION, BY_FACTOR, metrics
from qlib_ext.report.figures import COLOURS, MORE_COLOURS, QUIET

MANY = 8  # lines that a reader can follow at once; the rest is shown on request
BAND = "The shade is one standard deviation over a group's seeds to either side."


def charts(comparison: Comparison) -> dict[str, Chart]:
    """The charts that the runs have figures for, by name."""
    found: dict[str, Chart] = {}
    found |= _averages(comparison)
    found |= _attribution(comparison)
    found |= _differences(comparison)
    found |= _returns(comparison)
    found |= _correlations(comparison)
    found |= _choices(comparison)
    return found


def colours(comparison: Comparison) -> dict[str, str]:
    """One colour a group, the same in all charts."""
    house = itertools.cycle([*COLOURS, *(colour for colour in MORE_COLOURS if colour != QUIET)])
    return dict(zip((group.name for group in comparison.groups), house, strict=False))


def _averages(comparison: Comparison) -> dict[str, Chart]:
    summary = comparison.summary
    found: dict[str, Chart] = {}
    spread = "The line is one standard deviation over seeds to either side; a group of one run has none."
    for name, columns, words in (
        (
            "group_ic",
            {"RankIC": "RankIC", "IC": "IC"},
            "Mean daily RankIC and IC of each group, over its runs.",
        ),
        (
            "group_excess_return",
            {"backtest/annualised_excess_return": "excess return a year, after cost"},
            "Return of the portfolio over the index a year, compounded, after cost; mean over the runs of a group.",
        ),
    ):
        there = [column for column in columns if column in summary and summary[column].notna().any()]
        if not there:
            continue
        values = summary[there].astype(float)
        deviation = summary[[f"{column}, sd" for column in there]].astype(float).set_axis(there, axis=1)
        found[name] = Bars(
            values=values.rename(columns=columns),
            low=(values - deviation).rename(columns=columns),
            high=(values + deviation).rename(columns=columns),
            horizontal=True,
            percent=name == "group_excess_return",
            xlabel="",
            ylabel="daily correlation" if name == "group_ic" else "return over the index a year",
            height=140,
            alt=words,
            caption=f"{words} {spread}",
        )
    return found


def _attribution(comparison: Comparison) -> dict[str, Chart]:
    parts = metrics(comparison, BY_FACTOR)
    if not parts:
        return {}
    values = comparison.summary[parts].astype(float)
    return {
        "group_attribution": Bars(
            values=values.set_axis([ATTRIBUTION[part][0] for part in parts], axis=1),
            horizontal=True,
            stacked=True,
            percent=True,
            ylabel="a year",
            colours=(*COLOURS, *MORE_COLOURS)[: len(parts)],
            height=140,
            alt="Where the difference of each group to the universe at equal weight came from",
            caption="Mean daily return beyond the universe at equal weight, a year, by what made it: active exposures to the "
            "market (of which cash is short), to styles and to industries, the selection of stocks that these leave, and what "
            "trading made; mean over the runs of a group.",
        )
    }


def _differences(comparison: Comparison) -> dict[str, Chart]:
    found: dict[str, Chart] = {}
    for name, measures, scale, unit in (
        ("difference_ic", {RANK_IC: "RankIC", IC: "IC"}, 1.0, "difference of daily correlations"),
        ("difference_return", {RETURN: "return after cost"}, 1e4, "basis points a day"),
    ):
        tests = comparison.tests[comparison.tests["measure"].isin([*measures])].dropna(subset=["difference"])
        if tests.empty:
            continue

        def spread(column: str, tests: pd.DataFrame = tests, scale: float = scale) -> pd.DataFrame:
            order = [group.name for group in comparison.others if group.name in {*tests["group"]}]
            wide = tests.pivot(index="group", columns="measure", values=column).astype(float) * scale
            return wide.loc[order, [m for m in measures if m in wide]].rename(columns=measures)  # noqa: B023

        found[name] = Bars(
            values=spread("difference"),
            low=spread("low"),
            high=spread("high"),
            horizontal=True,
            ylabel=unit,
            height=140,
            alt=f"Mean daily difference of each group to {comparison.baseline.name}",
            caption=f"Mean daily difference to {comparison.baseline.name} on the days of both, with its 95% interval from "
            "the stationary bootstrap of days. An interval that includes 0 leaves open which is better.",
        )
    return found


def _returns(comparison: Comparison) -> dict[str, Chart]:
    found: dict[str, Chart] = {}
    grown = _lines(comparison, RETURN, lambda daily: pd.Series(wealth(daily), index=daily.index))
    if grown is not None:
        series, bands, hidden, palette = grown
        index = _index(comparison)
        if index is not None:
            series = {**series, index.name: index}
            palette = [*palette, QUIET]
        found["cumulative_return"] = Lines(
            series=series,
            bands=bands,
            hidden=hidden,
            colours=palette,
            log_choice=all_positive(series),
            ylabel="value of 1 invested",
            height=300,
            alt="Value of the portfolios of each group over time",
            caption=f"Compounded daily returns of the account after cost, mean over the runs of a group. {BAND}",
        )
    over = _lines(comparison, EXCESS, lambda daily: daily.cumsum())
    if over is not None:
        series, bands, hidden, palette = over
        found["cumulative_excess"] = Lines(
            series=series,
            bands=bands,
            hidden=hidden,
            colours=palette,
            percent=True,
            ylabel="sum of daily excess returns",
            alt="Excess return of each group over time",
            caption="Daily return after cost less the index's, added up (not compounded), mean over the runs of a group. "
            + BAND,
        )
    return found


def _correlations(comparison: Comparison) -> dict[str, Chart]:
    found: dict[str, Chart] = {}
    for name, column in (("cumulative_rank_ic", RANK_IC), ("cumulative_ic", IC)):
        lines = _lines(comparison, column, lambda daily: daily.cumsum())
        if lines is None:
            continue
        series, bands, hidden, palette = lines
        found[name] = Lines(
            series=series,
            bands=bands,
            hidden=hidden,
            colours=palette,
            ylabel=f"sum of daily {column}",
            alt=f"Cumulative {column} of each group",
            caption=f"Daily {column} added up, mean over the runs of a group: the steeper, the better the ranking. {BAND}",
        )
    return found


def _choices(comparison: Comparison) -> dict[str, Chart]:
    chosen = comparison.overfitting
    if chosen is None:
        return {}
    return {
        "overfitting": Histogram(
            samples={"choices": chosen.logits},
            bins=min(60, 2 * chosen.configurations + 1),
            marks={"median": 0.0},
            xlabel="logit of its place on the other half",
            ylabel="choices of half of the blocks",
            height=240,
            alt="Where the best run on half of the days stands on the other half",
            caption=f"Of each half of {chosen.blocks} blocks of days, where the run that is the best there stands among all on the other "
            "half: right of 0 above their median, left of it below, which is the probability of backtest overfitting.",
        )
    }


def _lines(
    comparison: Comparison, column: str, cumulative: Callable[[pd.Series], pd.Series]
) -> tuple[dict[str, pd.Series], dict[str, tuple[pd.Series, pd.Series]], list[str], list[str]] | None:
    """Mean over seeds of what `cumulative` makes of a daily series, its bands, the lines to hide, and the colours."""
    series: dict[str, pd.Series] = {}
    bands: dict[str, tuple[pd.Series, pd.Series]] = {}
    every = colours(comparison)
    for group in comparison.groups:
        table = group.table(column)
        if table.empty:
            continue
        paths = table.apply(cumulative)
        mean = paths.mean(axis=1)
        series[group.name] = mean
        if paths.shape[1] > 1:
            deviation = paths.std(axis=1, ddof=1)
            bands[group.name] = (mean - deviation, mean + deviation)
    if not series:
        return None
    kept = {comparison.baseline.name, *[*series][:MANY]}
    return series, bands, [name for name in series if name not in kept], [every[name] for name in series]


def _index(comparison: Comparison) -> pd.Series | None:
    """The index that all runs are measured against, over the longest run; None where they have several."""
    runs = [run for group in comparison.groups for run in group.runs if INDEX in run.daily]
    codes = {run.conditions.get("index") for run in runs}
    if len(codes) != 1:
        return None
    daily = max((run.daily[INDEX].dropna() for run in runs), key=len)
    code = codes.pop()
    return pd.Series(wealth(daily), index=daily.index, name=f"Index {code}" if code else "Index")
