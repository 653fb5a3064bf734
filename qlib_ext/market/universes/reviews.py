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
