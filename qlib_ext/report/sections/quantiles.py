"""What groups of stocks by score earned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines, all_positive
from qlib_ext.report.colours import ramp
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.report.smoothing import smooth, window_days
from qlib_ext.tracking.artifacts import RunArtifacts

FOLDER = "signal_analysis"
BASIS_POINT = 1e-4


class Quantiles(Section):
    """Returns of equal groups by score: mean, cumulative, and the highest less the lowest."""

    title = "Returns by score"
    place = 140
    answers = "Does each group of stocks earn more than the one below?"
    requires = (f"{FOLDER}/daily.parquet", f"{FOLDER}/quantiles.csv", f"{FOLDER}/summary.json")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Bars of means, and lines of what they come to."""
        summary = run.json(f"{FOLDER}/summary.json")
        labels, groups = summary["labels"], summary["quantiles"]
        means, daily = run.table(f"{FOLDER}/quantiles.csv"), run.table(f"{FOLDER}/daily.parquet")
        found: dict[str, Chart] = {}
        if means["excess"].notna().any():
            found["quantile_means"] = _bars(means, labels)
        if daily[f"all/{labels[0]}"].notna().any():
            found["quantile_values"] = _values(daily, labels[0], groups)
            found["quantile_spread"] = _spread(daily, labels)
        return found

    def render(self, run: RunArtifacts) -> str:
        """The charts and their tables."""
        summary = run.json(f"{FOLDER}/summary.json")
        labels, groups = summary["labels"], summary["quantiles"]
        said = html.paragraph(
            f"Each day's stocks are split into {groups} groups of equal size by their score, 1 with the lowest and "
            f"{groups} with the highest; within a group all weigh the same. A useful score lets each group earn more than "
            "the one below. Groups are formed anew each day and nothing is paid for trading: these are not returns that "
            "anyone could have had."
        )
        charts = html.beside(*(shown(name, chart) for name, chart in self.charts(run).items()))
        means = run.table(f"{FOLDER}/quantiles.csv")
        return said + charts + _spread_table(summary["spread"]) + _group_table(means, labels)


def _bars(means: pd.DataFrame, labels: Sequence[str]) -> Chart:
    def wide(column: str) -> pd.DataFrame:
        table = {label: means.loc[means["label"] == label, column] / BASIS_POINT for label in labels}
        return pd.DataFrame(table)

    return Bars(
        values=wide("excess"),
        low=wide("excess_low"),
        high=wide("excess_high"),
        xlabel="group by score, from the lowest to the highest",
        ylabel="basis points a day",
        alt="Mean return of each group by score, beyond that of all stocks",
        caption="Mean daily return of each group less that of all stocks, in basis points (1 is 0.01%), for each return "
        "label, with the 95% interval of the mean over days.",
    )


def _values(daily: pd.DataFrame, label: str, groups: int) -> Chart:
    columns = {f"group {q}": f"quantile/{label}/{q}" for q in range(1, groups + 1)}
    lines = {name: _value(daily[column]) for name, column in columns.items()}
    return Lines(
        series=lines | {"all stocks": _value(daily[f"all/{label}"])},
        colours=[*ramp(groups), "#22282f"],
        log_choice=all_positive(lines),
        ylabel="value of 1",
        alt=f"Value of 1 in each group by score, against {label}",
        caption=f"What 1 in each group became, at the returns {label}, compounded day by day without cost. The spread of "
        "the lines at the end is the signal; the path that they share is the market.",
    )


def _spread(daily: pd.DataFrame, labels: Sequence[str]) -> Chart:
    window = window_days(len(daily))
    sums = {f"running sum, {label}": daily[f"spread/{label}"].fillna(0.0).cumsum() for label in labels}
    means = {f"mean of {window} days, {label}": smooth(daily[f"spread/{label}"], window) for label in labels}
    return Lines(
        series=sums | means,
        hidden=[*means],
        percent=True,
        ylabel="highest less lowest group",
        alt="Return of the highest group less that of the lowest over time",
        caption="Return of the group with the highest scores less that of the group with the lowest, added up day by day "
        f"(one unit bought, one sold, each day anew); the mean of {window} days can be switched on.",
    )


def _value(daily: pd.Series) -> pd.Series:
    return (1 + daily.fillna(0.0)).cumprod()


def _spread_table(spreads: Mapping[str, Mapping[str, Any]]) -> str:
    rows = []
    for label, found in spreads.items():
        mean, low, high, t, hits, order = (
            float("nan") if found[key] is None else found[key]
            for key in ("mean", "low", "high", "t", "hit_rate", "monotonicity")
        )
        rows.append(
            (
                label,
                html.number(mean / BASIS_POINT, 1, signed=True),
                f"{html.number(low / BASIS_POINT, 1)} to {html.number(high / BASIS_POINT, 1)}",
                html.number(t, 1),
                html.percent(hits, 1),
                html.number(order, 2),
            )
        )
    header = [
        "Highest less lowest",
        "Basis points a day",
        "95% interval",
        "t",
        "Days above 0",
        "Monotonicity",
    ]
    return html.table(header, rows, numbers=range(1, 6)) + html.paragraph(
        "t is robust to autocorrelation (Newey-West). Monotonicity is the rank correlation of the groups' numbers with "
        "their mean returns: 1 if every group earned more than the one below.",
        "note",
    )


def _group_table(means: pd.DataFrame, labels: Sequence[str]) -> str:
    rows = [
        (
            f"Group {quantile}",
            label,
            html.number(row["return"] / BASIS_POINT, 1, signed=True),
            html.number(row["excess"] / BASIS_POINT, 1, signed=True),
            f"{html.number(row['excess_low'] / BASIS_POINT, 1)} to {html.number(row['excess_high'] / BASIS_POINT, 1)}",
            html.number(row["stocks"], 1),
            html.percent(row["turnover"], 1),
        )
        for label in labels
        for quantile, row in means[means["label"] == label].iterrows()
    ]
    header = [
        "",
        "Label",
        "Return, bp a day",
        "Beyond all stocks",
        "95% interval",
        "Stocks a day",
        "Turnover a day",
    ]
    return html.details("All groups", html.table(header, rows, numbers=range(2, 7)))
