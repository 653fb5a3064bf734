"""What a model sees of a stock on a day: windows of T days over F features, gathered a trading day at a time."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, integer
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.features.allocation import Allocate, in_memory
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.known_field import KnownField
from qlib_ext.market.store import QlibStore


def prices_and_volume(fields: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """The families of fields of bars."""
    prices = tuple(field for field in fields if field != "volume")
    families = {"prices": prices, "volume": ("volume",) if "volume" in fields else ()}
    return {name: family for name, family in families.items() if family}


class FeatureSet(Rebuildable, ABC):
    """Windows of T days over F features, normalised by statistics of the training days.

    A feature set is one class. It says which bars it reads, how many days it looks back and what its features are
    called, and it makes the windows of a day. It holds no label.

    Parameters
    ----------
    names
        Of the F features.
    lookback_days
        T, the length of a window in trading days.
    fields
        Fields of the bars that it reads. `close` is read in any case: a stock without one is no row of its day.
    optional_fields
        Those of them that a store may lack.

    Attributes
    ----------
    median, scale : ndarray `[T, F]` float32
        What is subtracted from a feature and what the rest is divided by, at each lag; lag T - 1 first, today last.
        None before they are fitted. The class says how they follow from the training days.
    """

    _plain = False

    def __init__(
        self,
        names: Sequence[str],
        lookback_days: int,
        *,
        fields: Sequence[str],
        optional_fields: Sequence[str] = (),
    ) -> None:
        self.names = tuple(names)
        self.lookback_days = integer("lookback_days", lookback_days, 1)
        self.fields = tuple(fields) if "close" in fields else (*fields, "close")
        self.optional_fields = tuple(optional_fields)
        self.median: np.ndarray | None = None
        self.scale: np.ndarray | None = None
        self._on_device: tuple[Tensor, Tensor] | None = None

    def unnormalised(self) -> FeatureSet:
        """A copy whose `gather` gives features as they are: not centred, scaled or clipped, NaN where missing.

        For those who judge features one by one. It needs no fit, and joins a market of its own.
        """
        twin = copy.copy(self)
        twin._plain = True
        return twin

    # -- what it is made of --------------------------------------------------------------------------------

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the features beside the bars, ready for JSON."""

    def describe(self) -> dict[str, Any]:
        """What a reader of a run should see of its settings, ready for JSON."""
        return {}

    def look_ahead(self) -> list[str]:
        """What of the features is known only later, as sentences; empty where nothing is."""
        return []

    def notes(self, store: QlibStore) -> list[str]:
        """What a reader of the results should know, as sentences."""
        return [f"LOOK-AHEAD: {sentence}" for sentence in self.look_ahead()]

    @property
    def required_fields(self) -> list[str]:
        """The fields that a store must have."""
        return [field for field in self.fields if field not in self.optional_fields]

    @property
    def history_days(self) -> int:
        """How many days up to t its features of t follow from, as far as it can say."""
        return self.lookback_days

    def column_names(self) -> list[str]:
        """Qlib's column names, feature by feature, oldest lag first: CLOSE59, ..., CLOSE0, OPEN59, ..."""
        lags = range(self.lookback_days - 1, -1, -1)
        return [f"{name.upper()}{lag}" for name in self.names for lag in lags]

    def feature_places(self) -> dict[str, tuple[int, ...]]:
        """Feature -> its places among `names`: one, but where the lags of a feature are names of their own."""
        return {name: (place,) for place, name in enumerate(self.names)}

    def families(self) -> dict[str, tuple[str, ...]]:
        """Features that tell much the same, by the name of their family; empty where the set knows of none."""
        return {}

    # -- what it needs beside bars -------------------------------------------------------------------------

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if the store lacks what the features need beside bars."""

    def join(self, store: QlibStore, market: MarketPanel) -> None:
        """Load what the features need beside bars, for the days and stocks of `market`."""

    def side_fields(self) -> dict[str, KnownField]:
        """The side data that expressions name, once they are joined: `side.NAME.FIELD` -> what is known of it."""
        return {}

    # -- the windows ---------------------------------------------------------------------------------------

    @abstractmethod
    def pad(self, market: MarketPanel, allocate: Allocate = in_memory) -> np.ndarray:
        """The market as `gather` reads it, float32 of the shape `padded_shape`.

        Parameters
        ----------
        market
            The bars.
        allocate
            Makes the array from its shape; a large one may be a file that is mapped.
        """

    def padded_shape(self, market: MarketPanel) -> tuple[int, ...]:
        """Shape of what `pad` gives: `[D + T - 1, S, F]`, T - 1 empty days first, so that each day has a window."""
        days, stocks = market.members.shape
        return days + self.lookback_days - 1, stocks, len(self.names)

    def fit(self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray | None = None) -> FeatureSet:
        """Fit `median` and `scale`.

        Parameters
        ----------
        market
            The bars.
        rows
            `[D, S]` bool: the rows (day, stock) of the training days.
        padded
            From `pad`, where it is there already.

        Raises
        ------
        UserError
            If `rows` selects nothing.
        """
        if not rows.any():
            raise UserError(
                "the days to fit on hold no stock: widen `fit_start_time` and `fit_end_time`, "
                "or take a store whose universe covers them"
            )
        self.restore(*self.statistics(market, rows, self.pad(market) if padded is None else padded))
        return self

    @abstractmethod
    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """`median` and `scale` `[T, F]` of the rows `[D, S]`, of which there is at least one; `padded` is what `pad` made.

        Nothing that comes after the last day with a row may reach them.
        """

    def restore(self, median: np.ndarray, scale: np.ndarray) -> None:
        """Take statistics `[T, F]` that were fitted before."""
        self.median, self.scale = median, scale
        self._on_device = None  # what is kept on the device is of an earlier fit

    @abstractmethod
    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day.

        Parameters
        ----------
        padded
            From `pad`, on any device.
        day
            Position of the day in the calendar of D days.
        columns
            `[N]` positions of the stocks.

        Returns
        -------
        Tensor
            `[N, T, F]` float32, finite.
        """

    # -- for subclasses ------------------------------------------------------------------------------------

    def padded_planes(
        self,
        market: MarketPanel,
        plane: Callable[[str], np.ndarray],
        names: Sequence[str],
        allocate: Allocate = in_memory,
    ) -> np.ndarray:
        """`plane(name)` `[D, S]` of each name, with T - 1 empty days in front: `[D + T - 1, S, names]`."""
        days, stocks = market.members.shape
        padded = allocate((days + self.lookback_days - 1, stocks, len(names)))
        padded[: self.lookback_days - 1] = np.nan
        for i, name in enumerate(names):
            padded[self.lookback_days - 1 :, :, i] = plane(name)
        return padded

    def normalised(self, window: Tensor, clip: float | None) -> Tensor:
        """A window `[T, N, F]` less the median, over the scale, clipped, and 0 where missing: `[N, T, F]`."""
        if self._plain:
            return window.transpose(0, 1)
        median, scale = self._fitted(window.device)
        features = (window - median) / scale
        if clip is not None:
            features = features.clamp_(-clip, clip)
        return features.nan_to_num_(nan=0.0, posinf=0.0, neginf=0.0).transpose(0, 1)

    def _fitted(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Median and scale on `device`, `[T, 1, F]` each."""
        if self.median is None or self.scale is None:
            raise RuntimeError("the features are not fitted: call `fit` first")
        if self._on_device is None or self._on_device[0].device != device:
            median, scale = (torch.from_numpy(x).unsqueeze(1).to(device) for x in (self.median, self.scale))
            self._on_device = median, scale
        return self._on_device

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_on_device": None}
