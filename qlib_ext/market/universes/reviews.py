"""Days on which the members of a universe are reviewed."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np
import pandas as pd

FRIDAY = 4


def after_fridays(calendar: pd.DatetimeIndex, months: Iterable[int], nth: int) -> np.ndarray:
    """Positions of the first trading days after the nth Friday of some months of each year of the calendar.

    As index providers do. A Friday before the calendar or on its last day, and after, gives 0 or its length.
    """
    years = range(calendar[0].year, calendar[-1].year + 1)
    starts = [pd.Timestamp(year=year, month=month, day=1) for year in years for month in months]
    fridays = [start + pd.Timedelta(days=7 * (nth - 1) + (FRIDAY - start.weekday()) % 7) for start in starts]
    return calendar.searchsorted(pd.DatetimeIndex(fridays), side="right")


def mean_of_days(values: np.ndarray) -> np.ndarray:
    """Mean over days of what is there, NaN where nothing is: float64 [S]."""
    there = ~np.isnan(values)
    count = there.sum(axis=0)
    total = np.where(there, values, 0.0).sum(axis=0, dtype=np.float64)
    return np.divide(total, count, out=np.full(values.shape[1], np.nan), where=count > 0)
