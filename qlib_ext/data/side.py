"""What a dataset adds to its panels beside bars: market values, concepts and the market's status, day by day."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch

from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.concepts import ConceptGather, Concepts, ConceptSpells
from qlib_ext.features.side_data.market_status import MarketStatus
from qlib_ext.features.side_data.market_value import MarketValue, fill
from qlib_ext.features.side_data.source import Source
from qlib_ext.market.store import QlibStore

LITTLE = 0.8  # of stocks and days; where less is known, a note says so
WITHOUT = {
    "market_value": "of the stocks and days; the others have the median of the day",
    "concepts": "of the stocks and days; the others have none",
    "market_status": "of the features and days; the others are 0",
}


class SidePlanes:
    """Market values, concepts and status of a market, read from the sources that a dataset names.

    Parameters
    ----------
    sources
        Name, `market_value`, `concepts` or `market_status` -> where they come from.
    store
        What they are read from.
    market
        The days and stocks that they are for.
    fit_days
        `[D]` bool: the days that the market's status is normalised by.
    refit
        Whether to fit what was fitted before.

    Attributes
    ----------
    market_value : ndarray `[D, S]` or None
        As panels hold it: every stock of a day has one.
    market_status : ndarray `[D, M]` or None
        As panels hold it: normalised, 0 where it is missing.
    described
        Name -> what the data are, for the description of a run.
    notes
        What a reader of the results should know of them.
    """

    def __init__(
        self,
        sources: Mapping[str, Source],
        store: QlibStore,
        market: MarketPanel,
        fit_days: np.ndarray,
        *,
        refit: bool = False,
    ) -> None:
        self.market_value: np.ndarray | None = None
        self.market_status: np.ndarray | None = None
        self.described: dict[str, dict[str, Any]] = {}
        self.notes: list[str] = []
        self._spells: ConceptSpells | None = None
        self._shape = market.present.shape
        self._fit_days, self._refit = fit_days, refit
        self._on_device: tuple[torch.device, ConceptGather] | None = None
        for name, source in sources.items():
            self.described[name] = {"class": type(source).__name__, **source.describe(store)}
            self.notes += source.notes(store)
            known = self._load(source, store, market)
            if known is None:
                continue
            share = float(known.mean())
            self.described[name]["coverage"] = round(share, 4)
            if share < LITTLE:
                self.notes.append(f"{name}: known for {share:.0%} {WITHOUT[name]}")

    def _load(self, source: Source, store: QlibStore, market: MarketPanel) -> np.ndarray | None:
        """Read what a source has; an array of bool says of what it knows something, None of nothing at all."""
        if isinstance(source, MarketValue):
            values = source.load(store, market.instruments)
            values = values[store.calendar.get_indexer(market.calendar)]
            self.market_value = fill(values, market.present)
            return ~np.isnan(values)[market.present]
        if isinstance(source, MarketStatus):
            values = source.load(store)[store.calendar.get_indexer(market.calendar)]
            if source.median is None or self._refit:
                source.fit(values[self._fit_days])
            self.market_status = source.normalised(values)
            return ~np.isnan(values)
        assert isinstance(source, Concepts)
        self._spells = source.load(store, market)
        if self._spells is None:
            return None
        self.described["concepts"]["count"] = len(self._spells.names)
        return self._spells.covered(*self._shape)[market.present]

    def concepts(self, device: torch.device) -> ConceptGather | None:
        """The concepts of a day's stocks, gathered on `device`; None where there are none."""
        if self._spells is None:
            return None
        if self._on_device is None or self._on_device[0] != device:
            days, stocks = self._shape
            self._on_device = device, ConceptGather(self._spells, days, stocks, device)
        return self._on_device[1]
