"""How the risk of the portfolio changed over time."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.figures import BLUE, QUIET
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

PORTFOLIO, INDEX = "Portfolio, after cost", "Index"


class RollingRisk(Section):
    """Sharpe ratio, volatility and beta over the days just past, day by day."""

    title = "Rolling risk"
    place = 60
    answers = "Were Sharpe ratio, volatility and beta steady?"
    requires = ("portfolio/rolling.parquet", "portfolio/setup.json")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Three charts; none where the backtest is shorter than the window."""
        table, setup = run.table("portfolio/rolling.parquet"), run.json("portfolio/setup.json")
        window, year = setup["window_days"], setup["days_per_year"]
        table = table.iloc[window - 1 :]
        if table.empty:
            return {}

        def both(name: str) -> dict[str, pd.Series]:
            index = {INDEX: table[f"benchmark_{name}"]} if indexed else {}
            return {PORTFOLIO: table[name], **index}

        indexed = "beta" in table
        of = "of the portfolio" + (" and of the index" if indexed else "")
        charts = {
            "rolling_sharpe": Lines(
                series=both("sharpe_ratio"),
                ylabel="Sharpe ratio",
                colours=(BLUE, QUIET),
                height=240,
                alt=f"Rolling Sharpe ratio {of}",
                caption=f"Mean over standard deviation of the last {window} daily returns, times the root of {year:g}; no "
                "riskless return.",
            ),
            "rolling_volatility": Lines(
                series=both("volatility"),
                ylabel="volatility a year",
                percent=True,
                colours=(BLUE, QUIET),
                height=240,
                alt=f"Rolling volatility {of}",
                caption=f"Standard deviation of the last {window} daily returns, times the root of {year:g}.",
            ),
        }
        if not indexed:
            return charts
        return charts | {
            "rolling_beta": Lines(
                series={PORTFOLIO: table["beta"]},
                ylabel="beta",
                colours=(BLUE,),
                levels={"as the index": 1.0},
                height=240,
                alt="Rolling beta of the portfolio to the index",
                caption=f"Slope of the last {window} daily returns on those of the index: at 1 the portfolio moves with the "
                "index one for one, below it less.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """The charts, or why there are none."""
        setup = run.json("portfolio/setup.json")
        window, days = setup["window_days"], setup["days"]
        charts = self.charts(run)
        if not charts:
            return html.paragraph(
                f"The backtest has {days} days, fewer than the {window} of a window; set `window_days` of the portfolio "
                "record to less to see these figures."
            )
        said = html.paragraph(
            f"Each point looks back over {window} trading days and no further: the first is of {_first(run, window)}."
        )
        return said + html.beside(*(shown(name, chart) for name, chart in charts.items()))


def _first(run: RunArtifacts, window: int) -> str:
    return f"{run.table('portfolio/rolling.parquet').index[window - 1]:%Y-%m-%d}"
