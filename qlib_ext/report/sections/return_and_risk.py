"""Every figure of the portfolio, with how sure it is and how it is computed."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.sections.base import Section
from qlib_ext.tracking.artifacts import RunArtifacts

BESIDE = "Beside the index"
COLUMNS = {
    "portfolio_with_cost": "After cost",
    "portfolio_without_cost": "Before cost",
    "benchmark": "Index",
    "excess_with_cost": "Over the index",
}
OVER = (
    "Over the index, what compounds (returns, drawdowns, months, years) is the portfolio's value in units of the index's, "
    "and single days are the daily differences. "
)
WRITTEN: Mapping[str, Callable[[float], str]] = {
    "percent": html.percent,
    "ratio": lambda value: html.number(value, 2),
    "days": lambda value: html.NONE if math.isnan(value) else f"{html.count(value)} days",
}


class ReturnAndRisk(Section):
    """Return, risk, drawdowns, ratios, gains and losses, and the portfolio beside its index, in tables."""

    title = "Return and risk"
    place = 40
    answers = "Forty figures with intervals"
    requires = ("portfolio/metrics.csv", "portfolio/setup.json")

    def render(self, run: RunArtifacts) -> str:
        """A table a group, then how each figure is computed."""
        metrics, setup = run.table("portfolio/metrics.csv"), run.json("portfolio/setup.json")
        parts = []
        indexed = "benchmark" in metrics
        if not indexed:
            metrics = metrics[metrics["group"] != BESIDE]
            metrics = metrics.assign(how=metrics["how"].str.partition(" Over the index:")[0])
        for group, rows in metrics.groupby("group", sort=False):
            parts.append(
                html.heading(group) + _table(rows, html.percent(setup["level"], 0), beside=group == BESIDE)
            )
        parts.append(
            html.details(
                "How each figure is computed", html.facts(zip(metrics["name"], metrics["how"], strict=True))
            )
        )
        parts.append(
            html.paragraph(
                f"Of {html.count(setup['days'])} trading days, after cost where nothing else is said; a year is "
                f"{setup['days_per_year']:g} trading days; returns compound; the riskless return is 0. {OVER if indexed else ''}"
                "Intervals: a figure of an average of days is computed anew on "
                f"{setup['draws']:,} resampled series made of blocks of days (stationary bootstrap), and the middle "
                f"{html.percent(setup['level'], 0)} of the results is shown. Figures that hang on the order of the days or on "
                "a single one have none.",
                "note",
            )
        )
        return "".join(parts)


def _table(rows: pd.DataFrame, level: str, *, beside: bool) -> str:
    """A row a measure; the portfolio's columns alone where they are measured beside the index."""
    columns = [*COLUMNS][:2] if beside else [column for column in COLUMNS if column in rows]
    header, numbers = ["Measure"], []
    for column in columns:
        header.append(COLUMNS[column])
        numbers.append(len(header) - 1)
        if f"{column}_low" in rows and rows[f"{column}_low"].notna().any():
            header.append(f"{level} interval")
            numbers.append(len(header) - 1)
    body = []
    for _, row in rows.iterrows():
        written = WRITTEN[row["unit"]]
        cells = [row["name"]]
        for column in columns:
            cells.append(written(row[column]))
            if f"{column}_low" in rows and rows[f"{column}_low"].notna().any():
                low, high = row[f"{column}_low"], row[f"{column}_high"]
                cells.append("" if math.isnan(low) else f"{written(low)} to {written(high)}")
        body.append(cells)
    return html.table(header, body, numbers=numbers)
