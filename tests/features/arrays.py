"""A market in memory from arrays alone."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from qlib_ext.features.market_panel import MarketPanel


def market_of(values: np.ndarray, fields: Sequence[str]) -> MarketPanel:
    """Bars `[F, D, S]` of stocks that are members on all days."""
    _, days, stocks = values.shape
    return MarketPanel(
        fields=tuple(fields),
        calendar=pd.bdate_range("2020-01-01", periods=days),
        instruments=tuple(f"S{i}" for i in range(stocks)),
        values=values,
        members=np.ones((days, stocks), dtype=bool),
        missing_fields=(),
    )
