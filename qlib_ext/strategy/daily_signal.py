"""Scores of which one day is asked for at a time."""

from __future__ import annotations

import functools
from typing import Any

import pandas as pd
from qlib.backtest.signal import SignalWCache
from qlib.utils import lazy_sort_index


class DailySignal(SignalWCache):
    """Qlib's signal of a table, which gives the scores of a day as they stand in it.

    Qlib groups each answer by stock and takes the last of several days; a step of a backtest by day asks for one.

    Parameters
    ----------
    signal
        Scores, one or more columns, indexed by `datetime` and `instrument` in either order.
    """

    signal_cache: pd.Series | pd.DataFrame

    def __init__(self, signal: pd.Series | pd.DataFrame) -> None:
        super().__init__(signal)
        self.signal_cache = lazy_sort_index(self.signal_cache)

    @functools.cached_property
    def days(self) -> pd.Index:
        """The day of each score; none where a stock is scored twice on a day, and Qlib has to choose."""
        days = self.signal_cache.index.get_level_values("datetime")
        return days if self.signal_cache.index.is_unique else days[:0]

    def get_signal(self, start_time: pd.Timestamp, end_time: pd.Timestamp) -> pd.Series | pd.DataFrame | None:
        """Scores by `instrument` of the step's days, the last of each; None where there are none."""
        first, after = self.days.searchsorted(start_time), self.days.searchsorted(end_time, side="right")
        if first == after and len(self.days):
            return None
        if first == after or self.days[first] != self.days[after - 1]:
            return super().get_signal(start_time, end_time)
        return self.signal_cache.iloc[first:after].droplevel("datetime")


def daily(signal: Any) -> Any:
    """A table of scores as a `DailySignal`, None as one without scores; any other thing that Qlib makes a signal of as it is."""
    if signal is None:
        index = pd.MultiIndex.from_arrays([pd.DatetimeIndex([]), []], names=["datetime", "instrument"])
        signal = pd.Series(index=index, dtype="float64", name="score")
    return DailySignal(signal) if isinstance(signal, pd.Series | pd.DataFrame) else signal
