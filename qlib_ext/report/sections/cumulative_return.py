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
        """The three values in one chart, the value over the index in another."""
        setup = run.json("backtest/setup.json")
        daily = run.table("backtest/daily.parquet")
        after, before, index = daily["return"] - daily["cost"], daily["return"], daily["benchmark"]
        values = {
            SERIES["portfolio_with_cost"]: pd.Series(wealth(after), daily.index),
            SERIES["portfolio_without_cost"]: pd.Series(wealth(before), daily.index),
            SERIES["benchmark"]: pd.Series(wealth(index), daily.index),
        }
        over = {
            SERIES["excess_with_cost"]: pd.Series(relative_wealth(after, index), daily.index),
            SERIES["excess_without_cost"]: pd.Series(relative_wealth(before, index), daily.index),
        }
        return {
            "cumulative_return": Lines(
                series=values,
                ylabel="value of 1 invested",
                colours=(BLUE, GREEN, QUIET),
                log_choice=_positive(values),
                levels={"start": 1.0},
                height=340,
                alt="Value of 1 invested in the portfolio, after and before cost, and in the index",
                caption="What 1 became at the close of each day: daily returns of the account, cash included, and of the "
                f"index {setup['benchmark']}, compounded. 1.5 is a return of 50%.",
            ),
            "excess_return": Lines(
                series=over,
                ylabel="value in units of the index",
                colours=(BLUE, GREEN),
                log_choice=_positive(over),
                levels={"start": 1.0},
                height=260,
                alt="Value of the portfolio in units of the index, after and before cost",
                caption="Value of the portfolio over the value of the index, both 1 at the start: where the line rises, the "
                "portfolio beats the index. 1.1 is 10% more than the index.",
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


def _positive(values: Mapping[str, pd.Series]) -> bool:
    """Whether a logarithmic axis can show all of it: an account that lost everything has none."""
    return all((line > 0).all() for line in values.values())


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
        else "no price limit"
        if limit is None
        else f"limits {limit}"
    )
    return (
        f"{name} ({arguments}) trades from {setup['start']} to {setup['end']}, each day on the scores of the day before, "
        f"with {float(str(setup['account'])):,.0f} to begin with. Orders fill at the day's {exchange['deal_price']}; to buy "
        f"costs {html.percent(exchange['open_cost'])} of the value, to sell {html.percent(exchange['close_cost'])}, at least "
        f"{exchange['min_cost']} each; {limited}; lots of {setup['trade_unit']} shares."
    )
