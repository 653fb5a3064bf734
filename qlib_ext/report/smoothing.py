"""Moving averages for lines over days, which are too ragged to read as they are."""

from __future__ import annotations

import pandas as pd

WINDOW_DAYS = 60


def window_days(count: int, window: int = WINDOW_DAYS) -> int:
    """Days of the moving average of a series of `count` days: `window`, of a short series a quarter of its days."""
    return min(window, max(1, count // 4))


def smooth(values: pd.Series, days: int) -> pd.Series:
    """Mean of the last `days` days, where at least half of them have a value."""
    return values.rolling(days, min_periods=max(1, days // 2)).mean()
