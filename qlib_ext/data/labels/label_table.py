"""Labels as Qlib makes them: one table of all days, for processors that need all of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qlib_ext.data.labels.base import GROUP, Labels
from qlib_ext.features.market_panel import MarketPanel


@dataclass(frozen=True)
class LabelTable(Labels):
    """Labels of every day and stock, held as tables.

    Attributes
    ----------
    market
        What they are labels of.
    tables
        `infer` and `learn` -> the table, as the processors leave it.
    """

    market: MarketPanel
    tables: Mapping[str, pd.DataFrame]
    _planes: dict[str, dict[str, np.ndarray]] = field(default_factory=dict)

    def planes(self, key: str) -> dict[str, np.ndarray]:
        if key not in self._planes:
            self._planes[key] = self._scattered(self.table(slice(None), key)[GROUP])
        return dict(self._planes[key])

    def table(self, days: slice, key: str) -> pd.DataFrame:
        """The table of all days: it is there."""
        return self.tables["learn" if key == "learn" else "infer"]  # raw ones are those of inference

    def _scattered(self, label: pd.DataFrame) -> dict[str, np.ndarray]:
        days = self.market.calendar.get_indexer(label.index.get_level_values("datetime"))
        stocks = pd.Index(self.market.instruments).get_indexer(label.index.get_level_values("instrument"))
        planes = {}
        for name in label.columns:
            planes[name] = np.full(self.market.members.shape, np.nan, np.float32)
            planes[name][days, stocks] = label[name].to_numpy(dtype=np.float32)
        return planes
