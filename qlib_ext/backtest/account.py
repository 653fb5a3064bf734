"""An account of which nothing is reckoned that nobody reads."""

from __future__ import annotations

from typing import Any

import pandas as pd
from qlib.backtest.account import Account
from qlib.backtest.report import PortfolioMetrics

from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.backtest.shorts import ShortPosition


class DailyAccount(Account):
    """Qlib's account with a position that is an `OrderedPosition`, or a `ShortPosition` where stocks can be borrowed.

    Parameters
    ----------
    cash
        At the beginning, in currency.
    borrowing
        Yearly fee of a stock that is held short, as a fraction; None: no holding is below 0.

    Departures
    ----------
    Qlib's `Account`, except that each day's return of the index is left to `benchmark_returns`, which knows all days at
    once, and that there are no indicators of how well orders were executed: the exchange's book says what became of each.
    """

    def __init__(self, cash: float, borrowing: float | None = None) -> None:
        kind = OrderedPosition if borrowing is None else ShortPosition
        super().__init__(
            cash,
            benchmark_config={"benchmark": None},
            pos_type=f"{kind.__module__}.{kind.__name__}",
        )
        if borrowing is not None:
            self.current_position.borrowing = borrowing

    def update_indicator(self, *args: Any, **kwargs: Any) -> None:
        """Nothing."""


def benchmark_returns(benchmark: str, days: pd.DatetimeIndex) -> pd.Series:
    """Return of an index by day, as Qlib reports it: 0 where a close or the one before is missing."""
    settings = {"benchmark": benchmark, "start_time": days[0], "end_time": days[-1]}
    bench = PortfolioMetrics("day", settings).bench
    known = dict(
        zip(bench.index, (bench + 1).to_numpy() - 1, strict=True)
    )  # rounded as Qlib's product of one day is
    return pd.Series({day: known.get(day, 0.0) for day in days})
