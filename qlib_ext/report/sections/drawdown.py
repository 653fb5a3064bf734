"""How deep the account fell from its peaks, and for how long."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.figures import BLUE, GREEN, QUIET
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

SERIES = {
    "portfolio_with_cost": "Portfolio, after cost",
    "benchmark": "Index",
    "excess_with_cost": "Over the index, after cost",
}
PORTFOLIO, INDEX, EXCESS = SERIES


class Drawdown(Section):
    """Drawdowns of the portfolio after cost beside those of the index, and the deepest of them with their dates."""

    title = "Drawdown"
    place = 30
    answers = "How deep did it fall, for how long, when?"
    requires = ("backtest/series.parquet", "portfolio/drawdowns.csv", "portfolio/metrics.csv")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Drawdowns over time, the portfolio's filled."""
        table = run.table("backtest/series.parquet")
        lines = {name: table[f"drawdown/{key}"] for key, name in SERIES.items() if f"drawdown/{key}" in table}
        index = SERIES[INDEX] in lines
        return {
            "drawdown": Lines(
                series=lines,
                ylabel="below the peak",
                colours=(BLUE, QUIET, GREEN),
                percent=True,
                filled=[SERIES[PORTFOLIO]],
                hidden=[SERIES[EXCESS]] if index else [],
                alt="Drawdown of the portfolio" + (" and of the index" if index else ""),
                caption="Compounded value over its highest value so far, minus 1, at the close of each day; the start counts "
                "as a peak."
                + (" Over the index: of the portfolio's value in units of the index's." if index else ""),
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """A sentence, the chart, and the deepest falls of each series."""
        parts = [html.paragraph(_told(run.table("portfolio/metrics.csv")))]
        parts += [shown(name, chart) for name, chart in self.charts(run).items()]
        falls = run.table("portfolio/drawdowns.csv")
        told = run.table("portfolio/metrics.csv")
        for key, name in SERIES.items():
            if key not in told:
                continue
            heading, table = f"The deepest: {name}", _table(falls[falls.index == key])
            parts.append(html.heading(heading) + table if key == PORTFOLIO else html.details(heading, table))
        parts.append(
            html.paragraph(
                "Peak is the last day at the highest value so far, recovery the first day back at it. Days are trading days: "
                "down from the peak to the lowest close, up from there to the recovery, and those spent below the peak.",
                "note",
            )
        )
        return "".join(parts)


def _told(metrics: pd.DataFrame) -> str:
    own, index, longest = metrics[PORTFOLIO], "", ""
    if INDEX in metrics:
        index = f", the index by up to {html.percent(-metrics[INDEX]['max_drawdown'])}"
        longest = f" (the index: {html.count(metrics[INDEX]['longest_drawdown'])})"
    return (
        f"After cost the portfolio fell by up to {html.percent(-own['max_drawdown'])} from a peak{index}. It was below a "
        f"peak for at most {html.count(own['longest_drawdown'])} trading days in a row{longest}; a fall was "
        f"{html.percent(-own['average_drawdown'])} deep on average."
    )


def _table(falls: pd.DataFrame) -> str:
    if falls.empty:
        return html.paragraph("It never fell below a peak.")
    rows = [
        (
            fall.rank,
            html.percent(fall.depth),
            "the start" if pd.isna(fall.peak) else fall.peak,
            fall.trough,
            "not yet" if pd.isna(fall.recovery) else fall.recovery,
            html.count(fall.days_to_trough),
            html.count(fall.days_to_recovery),
            html.count(fall.days),
        )
        for fall in falls.itertuples()
    ]
    header = ["", "Depth", "Peak", "Lowest", "Recovery", "Days down", "Days up", "Days below the peak"]
    return html.table(header, rows, numbers=[1, 5, 6, 7])
