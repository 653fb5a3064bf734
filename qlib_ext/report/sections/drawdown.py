"""How deep the account fell from its peaks, and for how long."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from qlib_ext.metrics.risk import drawdown
from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.figures import BLUE, QUIET
from qlib_ext.report.sections.base import Section, shown


class Drawdown(Section):
    """Drawdown of the portfolio after cost, beside that of the index."""

    title = "Drawdown"
    requires = ("backtest/daily.parquet",)

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Both drawdowns over time, the portfolio's filled."""
        fallen = _drawdowns(run)
        return {
            "drawdown": Lines(
                series=fallen,
                ylabel="below the peak",
                colours=(BLUE, QUIET),
                percent=True,
                filled=[next(iter(fallen))],
                height=260,
                alt="Drawdown of the portfolio and of the index",
                caption="Compounded value over its highest value so far, minus 1, at the close of each day. The start "
                "counts as a peak.",
            )
        }

    def render(self, run: RunArtifacts) -> str:
        """The chart, and the deepest fall of each with its days."""
        rows = [(name, *_deepest(values)) for name, values in _drawdowns(run).items()]
        table = html.table(["", "Max drawdown", "Peak", "Lowest", "Back at the peak"], rows, numbers=[1])
        return "".join(shown(name, chart) for name, chart in self.charts(run).items()) + table


def _drawdowns(run: RunArtifacts) -> dict[str, pd.Series]:
    daily = run.table("backtest/daily.parquet")
    returns = {"Portfolio, after cost": daily["return"] - daily["cost"], "Index": daily["benchmark"]}
    return {name: pd.Series(drawdown(values), index=daily.index) for name, values in returns.items()}


def _deepest(fallen: pd.Series) -> tuple[str, str, str, str]:
    """Depth of the deepest fall, its last day at the peak, its lowest day and its first day back at the peak."""
    if not (fallen < 0).any():
        return html.percent(0.0), html.NONE, html.NONE, html.NONE
    lowest = int(np.argmin(fallen))
    at_peak = np.flatnonzero(fallen.to_numpy() == 0)
    before, after = at_peak[at_peak < lowest], at_peak[at_peak > lowest]

    def day(position: int) -> str:
        return f"{fallen.index[position]:%Y-%m-%d}"

    return (
        html.percent(fallen.iloc[lowest]),
        day(before[-1]) if len(before) else "the start",
        day(lowest),
        day(after[0]) if len(after) else "not yet",
    )
