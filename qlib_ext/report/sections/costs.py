"""How much was traded, what it cost, and what would be left at other costs."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.figures import BLUE, GREEN
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

SWEPT = {"annualised_return": "Return a year", "annualised_excess_return": "Return a year over the index"}


class Costs(Section):
    """Turnover and cost by month, and the return at costs from nothing to 0.6% of each trade."""

    title = "Turnover and costs"
    place = 70
    answers = "What does trading cost, and what would it cost elsewhere?"
    requires = (
        "portfolio/monthly.csv",
        "portfolio/cost_sweep.csv",
        "portfolio/setup.json",
        "backtest/daily.parquet",
    )

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """Bars of months, and lines over the cost."""
        months, sweep = run.table("portfolio/monthly.csv"), run.table("portfolio/cost_sweep.csv")
        setup = run.json("portfolio/setup.json")
        marks = {} if setup["own_cost_bps"] is None else {"this backtest": round(setup["own_cost_bps"], 1)}
        return {
            "turnover": Bars(
                values=months[["turnover"]].set_axis(["turnover"], axis=1),
                percent=True,
                ylabel="of the account, a month",
                colours=(BLUE,),
                height=220,
                alt="Turnover by month",
                caption="Bought plus sold value of each day as a share of the account of the day before, summed over the "
                "month: selling everything and buying something else is 200%.",
            ),
            "costs": Bars(
                values=months[["cost"]].set_axis(["cost"], axis=1),
                percent=True,
                ylabel="of the account, a month",
                colours=(GREEN,),
                height=220,
                alt="Cost of trading by month",
                caption="Commission and fees of each day as a share of the account of the day before, summed over the month.",
            ),
            "cost_sweep": Lines(
                series={name: sweep[key] for key, name in SWEPT.items() if key in sweep},
                percent=True,
                dots=True,
                xlabel="cost of a trade one way, in basis points of its value (10 are 0.1%)",
                ylabel="a year",
                colours=(BLUE, GREEN),
                levels={"nothing left": 0.0},
                marks=marks,
                height=280,
                alt="Return a year of the portfolio by cost of a trade",
                caption="Daily return before cost less the day's turnover times the cost, compounded. The trades are those of "
                "this backtest at every cost; a strategy that knew the cost would trade differently.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """Sentences, charts, and the table of the sweep."""
        daily, setup = run.table("backtest/daily.parquet"), run.json("portfolio/setup.json")
        year = setup["days_per_year"]
        turnover, cost = daily["turnover"].mean(), daily["cost"].mean()
        traded = html.paragraph(
            f"{html.percent(turnover)} of the account is bought or sold on a mean day, {html.percent(turnover * year, 0)} a "
            f"year. That costs {html.percent(cost * year)} of the account a year{_own(setup)}."
        )
        charts = self.charts(run)
        first = html.beside(*(shown(name, charts[name]) for name in ("turnover", "costs")))
        sweep = _sweep(run.table("portfolio/cost_sweep.csv"))
        return (
            traded
            + first
            + html.heading("At other costs")
            + html.paragraph(_break_even(setup))
            + shown("cost_sweep", charts["cost_sweep"])
            + html.details("The same as a table", sweep)
        )


def _own(setup: Mapping[str, Any]) -> str:
    own = setup["own_cost_bps"]
    return "" if own is None else f", {html.number(own, 1)} basis points of what is traded"


def _break_even(setup: Mapping[str, Any]) -> str:
    """What the trades may cost."""
    if setup["own_cost_bps"] is None:
        return "Nothing was traded: no cost could change the return."
    said = f"The portfolio {_bears('ends below its start', setup['break_even_bps'])}"
    if "break_even_excess_bps" in setup:
        said += f"; it {_bears('falls behind the index', setup['break_even_excess_bps'])}"
    return f"{said}."


def _bears(what: str, bps: float | None) -> str:
    if bps is None or math.isinf(bps):
        return f"{what} at no cost"
    if bps == 0:
        return f"{what} even if trading is free"
    return f"{what} once a trade costs more than {html.number(bps, 1)} basis points one way"


def _sweep(table: pd.DataFrame) -> str:
    indexed = "information_ratio" in table

    def beside(row: pd.Series) -> list[str]:
        if not indexed:
            return []
        return [
            html.percent(row["annualised_excess_return"], signed=True),
            html.number(row["information_ratio"], 2),
        ]

    rows = [
        (
            f"{bps:g}",
            html.percent(row["cumulative_return"], signed=True),
            html.percent(row["annualised_return"], signed=True),
            html.number(row["sharpe_ratio"], 2),
            html.percent(row["max_drawdown"]),
            *beside(row),
        )
        for bps, row in table.iterrows()
    ]
    header = [
        "Cost, basis points",
        "Return over the whole",
        "Return a year",
        "Sharpe ratio",
        "Max drawdown",
        *(["Over the index a year", "Information ratio"] if indexed else []),
    ]
    return html.table(header, rows, numbers=range(len(header)))
