"""What became of the account, beside the index."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.metrics.risk import relative_wealth, wealth
from qlib_ext.report import html
from qlib_ext.report.artifacts import RunArtifacts
from qlib_ext.report.charts import Chart, Lines
from qlib_ext.report.figures import BLUE, GREEN, QUIET
from qlib_ext.report.sections.base import Section, shown

SERIES = {
    "portfolio_with_cost": "Portfolio, after cost",
    "portfolio_without_cost": "Portfolio, before cost",
    "benchmark": "Index",
    "excess_with_cost": "Over the index, after cost",
    "excess_without_cost": "Over the index, before cost",
}


class CumulativeReturn(Section):
    """Cumulative return of the portfolio with and without cost, of the index, and of the one over the other."""

    title = "Cumulative return"
    requires = ("backtest/daily.parquet", "backtest/summary.csv", "backtest/setup.json")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """The three values in one chart, the excess in another."""
        setup = run.json("backtest/setup.json")
        daily = run.table("backtest/daily.parquet")
        after, before, index = daily["return"] - daily["cost"], daily["return"], daily["benchmark"]

        def grown(values: pd.Series) -> pd.Series:
            return pd.Series(values, index=daily.index) - 1

        return {
            "cumulative_return": Lines(
                series={
                    SERIES["portfolio_with_cost"]: grown(wealth(after)),
                    SERIES["portfolio_without_cost"]: grown(wealth(before)),
                    SERIES["benchmark"]: grown(wealth(index)),
                },
                ylabel="return since the start",
                colours=(BLUE, GREEN, QUIET),
                percent=True,
                alt="Cumulative return of the portfolio and of the index",
                caption="Compounded daily returns of the account, cash included, and of the index "
                f"{setup['benchmark']}.",
            ),
            "excess_return": Lines(
                series={
                    SERIES["excess_with_cost"]: grown(relative_wealth(after, index)),
                    SERIES["excess_without_cost"]: grown(relative_wealth(before, index)),
                },
                ylabel="return over the index",
                colours=(BLUE, GREEN),
                percent=True,
                height=240,
                alt="Cumulative return of the portfolio over the index",
                caption="Value of the portfolio over the value of the index, both starting at 1, minus 1.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """What was traded and how in a sentence, the charts and the table."""
        setup = run.json("backtest/setup.json")
        summary = run.table("backtest/summary.csv")
        rows = [
            (
                name,
                html.percent(summary.loc[key, "cumulative_return"], signed=True),
                html.percent(summary.loc[key, "annualised_return"], signed=True),
                html.percent(summary.loc[key, "annualised_volatility"]),
                html.number(summary.loc[key, "ratio"], 2),
                html.percent(summary.loc[key, "max_drawdown"]),
            )
            for key, name in SERIES.items()
        ]
        header = ["", "Return", "Return a year", "Volatility a year", "Ratio", "Max drawdown"]
        return "".join(
            [
                html.paragraph(_told(setup)),
                html.items(note[0].upper() + note[1:] + "." for note in setup["notes"])
                if setup["notes"]
                else "",
                *(shown(name, chart) for name, chart in self.charts(run).items()),
                html.table(header, rows, numbers=range(1, 6)),
                html.paragraph(
                    f"A year is {setup['days_per_year']:g} trading days. Returns compound. The ratio is the mean over the "
                    "volatility of daily returns, Sharpe's with no riskless return; in the rows over the index both are of "
                    "the daily differences to it, which makes it the information ratio.",
                    "note",
                ),
            ]
        )


def _told(setup: Mapping[str, object]) -> str:
    strategy = setup["strategy"]
    exchange = setup["exchange"]
    assert isinstance(strategy, Mapping)
    assert isinstance(exchange, Mapping)
    name = str(strategy["class"]).rpartition(".")[2]
    arguments = ", ".join(f"{key} {value}" for key, value in (strategy.get("kwargs") or {}).items())
    limit = exchange["limit_threshold"]
    limited = (
        f"no trade beyond a move of {html.percent(limit, 1)} or on a day without volume"
        if isinstance(limit, float)
        else f"limits {limit}"
    )
    return (
        f"{name} ({arguments}) trades from {setup['start']} to {setup['end']}, each day on the scores of the day before, "
        f"with {float(str(setup['account'])):,.0f} to begin with. Orders fill at the day's {exchange['deal_price']}; to buy "
        f"costs {html.percent(exchange['open_cost'])} of the value, to sell {html.percent(exchange['close_cost'])}, at least "
        f"{exchange['min_cost']} each; {limited}; lots of {setup['trade_unit']} shares."
    )
