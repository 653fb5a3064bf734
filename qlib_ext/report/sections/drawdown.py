"""How deep the account fell from its peaks, and for how long."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.metrics.drawdowns import average_drawdown, drawdowns, longest_drawdown
from qlib_ext.metrics.risk import drawdown, max_drawdown, relative_return
from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.figures import BLUE, GREEN, QUIET
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

PORTFOLIO, INDEX, EXCESS = "Portfolio, after cost", "Index", "Over the index, after cost"
WORST = 10


class Drawdown(Section):
    """Drawdowns of the portfolio after cost beside those of the index, and the deepest of them with their dates."""

    title = "Drawdown"
    place = 30
    requires = ("backtest/daily.parquet",)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Drawdowns over time, the portfolio's filled."""
        series = _returns(run)
        return {
            "drawdown": Lines(
                series={
                    name: pd.Series(drawdown(values), index=values.index) for name, values in series.items()
                },
                ylabel="below the peak",
                colours=(BLUE, QUIET, GREEN),
                percent=True,
                filled=[PORTFOLIO],
                hidden=[EXCESS],
                alt="Drawdown of the portfolio and of the index",
                caption="Compounded value over its highest value so far, minus 1, at the close of each day; the start counts "
                "as a peak. Over the index: of the portfolio's value in units of the index's.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """A sentence, the chart, and the deepest falls of each series."""
        series = _returns(run)
        parts = [html.paragraph(_told(series[PORTFOLIO], series[INDEX]))]
        parts += [shown(name, chart) for name, chart in self.charts(run).items()]
        for name, returns in series.items():
            heading, falls = f"The deepest: {name}", _table(returns)
            parts.append(html.heading(heading) + falls if name == PORTFOLIO else html.details(heading, falls))
        parts.append(
            html.paragraph(
                "Peak is the last day at the highest value so far, recovery the first day back at it. Days are trading days: "
                "down from the peak to the lowest close, up from there to the recovery, and those spent below the peak.",
                "note",
            )
        )
        return "".join(parts)


def _returns(run: RunArtifacts) -> dict[str, pd.Series]:
    daily = run.table("backtest/daily.parquet")
    after, index = daily["return"] - daily["cost"], daily["benchmark"].astype(float)
    excess = pd.Series(relative_return(after, index), daily.index)
    return {PORTFOLIO: after, INDEX: index, EXCESS: excess}


def _told(own: pd.Series, index: pd.Series) -> str:
    return (
        f"After cost the portfolio fell by up to {html.percent(-max_drawdown(own))} from a peak, the index by up to "
        f"{html.percent(-max_drawdown(index))}. It was below a peak for at most {html.count(longest_drawdown(own))} trading "
        f"days in a row (the index: {html.count(longest_drawdown(index))}); a fall was "
        f"{html.percent(-average_drawdown(own))} deep on average."
    )


def _table(returns: pd.Series) -> str:
    falls = drawdowns(returns)[:WORST]
    if not falls:
        return html.paragraph("It never fell below a peak.")

    def day(position: int) -> str:
        return f"{returns.index[position]:%Y-%m-%d}"

    rows = [
        (
            rank,
            html.percent(fall.depth),
            "the start" if fall.peak < 0 else day(fall.peak),
            day(fall.trough),
            "not yet" if fall.recovery is None else day(fall.recovery),
            html.count(fall.trough - fall.peak),
            html.NONE if fall.recovery is None else html.count(fall.recovery - fall.trough),
            html.count(fall.days),
        )
        for rank, fall in enumerate(falls, start=1)
    ]
    header = ["", "Depth", "Peak", "Lowest", "Recovery", "Days down", "Days up", "Days below the peak"]
    return html.table(header, rows, numbers=[1, 5, 6, 7])
