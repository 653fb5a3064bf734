"""The backtest with other numbers of stocks."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import pandas as pd

from qlib_ext.report import html
from qlib_ext.report.charts import Bars, Chart, Lines
from qlib_ext.report.sections.base import Section, shown
from qlib_ext.tracking.artifacts import RunArtifacts

TABLE, WEALTH = "sweeps/topk.csv", "sweeps/topk_wealth.parquet"


OVER = (
    "All after cost, but for the bars before cost. Replaced: stocks a day at most. Return, excess over the index and cost are "
    "a year's; IR is the information ratio, drawdown the deepest fall of the account and of its value over the index's. "
)
ALONE = (
    "All after cost. Replaced: stocks a day at most. Return and cost are a year's; drawdown is the deepest fall of the "
    "account. "
)


class Sweeps(Section):
    """Return, ratio and drawdown by number of stocks held, each a backtest of its own."""

    title = "Other numbers of stocks"
    place = 100
    answers = "Would 20 or 100 stocks have done as well?"
    requires = (TABLE, WEALTH, "sweeps/setup.json")

    def charts(self, run: RunArtifacts) -> Mapping[str, Chart]:
        """By number of stocks: excess return, information ratio and wealth over the index's; without an index, the return."""
        table = run.table(TABLE)
        names = pd.Index([_name(topk, row["own"]) for topk, row in table.iterrows()])
        wealth = run.table(WEALTH)
        lines = {name: wealth[str(topk)] - 1 for name, topk in zip(names, table.index, strict=True)}

        def drawn(ylabel: str, alt: str, caption: str) -> Lines:
            return Lines(series=lines, percent=True, ylabel=ylabel, height=300, alt=alt, caption=caption)

        if not _indexed(table):
            return {
                "sweep_return": drawn(
                    "return, after cost",
                    "Return of the account by number of stocks held",
                    "Value of the account after cost, 1 at the start, minus 1.",
                )
            }
        excess = pd.DataFrame(
            {
                "before cost": table["annualised_excess_return_without_cost"].to_numpy(),
                "after cost": table["annualised_excess_return"].to_numpy(),
            },
            index=names,
        )
        ratios = pd.DataFrame(
            {
                "before cost": table["information_ratio_without_cost"].to_numpy(),
                "after cost": table["information_ratio"].to_numpy(),
            },
            index=names,
        )
        return {
            "sweep_excess_return": Bars(
                values=excess,
                percent=True,
                xlabel="stocks held",
                ylabel="excess return a year",
                height=260,
                alt="Annualised excess return by number of stocks held",
                caption="Annualised return over the index's, compounded.",
            ),
            "sweep_information_ratio": Bars(
                values=ratios,
                xlabel="stocks held",
                ylabel="information ratio",
                height=260,
                alt="Information ratio by number of stocks held",
                caption="Mean over standard deviation of the daily return less the index's, times the root of the trading days "
                "in a year.",
            ),
            "sweep_excess": drawn(
                "over the index, after cost",
                "Wealth over the index's by number of stocks held",
                "Value of the account after cost over that of the index, both 1 at the start, minus 1.",
            ),
        }

    def render(self, run: RunArtifacts) -> str:
        """What was run, the charts, and a row for each number of stocks."""
        table, setup = run.table(TABLE), run.json("sweeps/setup.json")
        drawn = {name: shown(name, chart) for name, chart in self.charts(run).items()}
        columns: dict[str, tuple[str, Callable[[float], str]]] = {
            "n_drop": ("Replaced", html.count),
            "annualised_return": ("Return", _signed),
            "annualised_excess_return": ("Excess", _signed),
            "information_ratio": ("IR", lambda value: html.number(value, 2)),
            "max_drawdown": ("Drawdown", _share),
            "excess_max_drawdown": ("of excess", _share),
            "turnover": ("Turnover", _share),
            "annual_cost": ("Cost", _share),
            "unfilled": ("Not filled", _share),
        }
        there = {name: told for name, told in columns.items() if name in table}
        rows = [
            (_name(topk, row["own"]), *(write(row[name]) for name, (_, write) in there.items()))
            for topk, row in table.iterrows()
        ]
        header = ["Stocks", *(head for head, _ in there.values())]
        bars = [drawn[name] for name in ("sweep_excess_return", "sweep_information_ratio") if name in drawn]
        told = (
            "Each row is a backtest of its own on the same scores, with the same account, costs, limits and lots; only the "
            "number of stocks differs, and with it how many of them are replaced a day at most"
        )
        if setup["left_out"]:
            many = ", ".join(map(str, setup["left_out"]))
            told += f" ({many} were left out: on a usual day {setup['stocks_a_day']} stocks are scored)"
        return "".join(
            [
                html.paragraph(f"{told}. {_spoken(table)}"),
                html.beside(*bars) if bars else "",
                drawn["sweep_excess" if bars else "sweep_return"],
                html.table(header, rows, numbers=range(1, len(header))),
                html.paragraph(
                    f"{OVER if bars else ALONE}Turnover is bought plus sold value a day over the account of the day before; not "
                    "filled, the share of orders that did not fill in full. To choose the best row is to choose by the test "
                    "period: its figures are then better than what is to be expected.",
                    "note",
                ),
            ]
        )


def _indexed(table: pd.DataFrame) -> bool:
    """Whether the backtest has an index."""
    return "annualised_excess_return" in table


def _signed(value: float) -> str:
    return html.percent(value, 1, signed=True)


def _share(value: float) -> str:
    return html.percent(value, 1)


def _name(topk: object, own: bool) -> str:
    return f"{topk} (this run)" if own else str(topk)


def _spoken(table: pd.DataFrame) -> str:
    """Whether the result hangs on the number of stocks."""
    if not _indexed(table):
        return ""
    excess = table["annualised_excess_return"].to_numpy()
    if len(excess) < 2 or np.isnan(excess).any():
        return ""
    low, high = html.percent(excess.min(), 1, signed=True), html.percent(excess.max(), 1, signed=True)
    positive = int((excess > 0).sum())
    if positive == len(excess):
        return f"The excess return a year after cost is above zero for all of them, {low} to {high}."
    if positive == 0:
        return f"The excess return a year after cost is not above zero for any of them, {low} to {high}."
    return (
        f"The excess return a year after cost runs from {low} to {high} and is above zero for {positive} of {len(excess)}: "
        "the result hangs on the number of stocks."
    )
