"""What features are: windows of T days over F fields, gathered a trading day at a time."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext import checks


class Windows(ABC):
    """Windows of T days over F features, normalised by statistics of the training days.

    Parameters
    ----------
    fields
        Names of the F features.
    lookback_days
        T, the length of a window in trading days.

    Attributes
    ----------
    median, scale : ndarray `[T, F]` float32
        What is subtracted from a feature and what the rest is divided by, at each lag; lag T - 1 first, today last.
        None before they are fitted. The class says how they follow from the training days.
    """

    def __init__(self, fields: Sequence[str], lookback_days: int) -> None:
        self.fields = tuple(fields)
        self.lookback_days = checks.integer("lookback_days", lookback_days, 1)
        self.median: np.ndarray | None = None
        self.scale: np.ndarray | None = None
        self._on_device: tuple[Tensor, Tensor] | None = None

    @abstractmethod
    def identity(self) -> dict[str, Any]:
        """What decides the features beside the data, ready for JSON."""

    @abstractmethod
    def pad(self, values: np.ndarray) -> np.ndarray:
        """Turn the market's `[fields, D, S]` into what `gather` reads, `[D + T - 1, S, ...]`.

        T - 1 empty days come first, so that each day has a window.
        """

    @abstractmethod
    def fit(self, values: np.ndarray, rows: np.ndarray) -> Windows:
        """Fit `median` and `scale`.

        Parameters
        ----------
        values
            `[fields, D, S]` float32: the market.
        rows
            `[D, S]` bool: the rows (day, stock) of the training days.

        Raises
        ------
        UserError
            If `rows` selects nothing.
        """

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

    def column_names(self) -> list[str]:
        """Qlib's column names, field by field, oldest lag first: CLOSE59, ..., CLOSE0, OPEN59, ..."""
        lags = range(self.lookback_days - 1, -1, -1)
        return [f"{field.upper()}{lag}" for field in self.fields for lag in lags]

    def restore(self, median: np.ndarray, scale: np.ndarray) -> None:
        """Take statistics `[T, F]` that were fitted before."""
        self.median, self.scale = median, scale
        self._on_device = None  # what is kept on the device is of an earlier fit

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        """Median and scale on `device`, `[T, 1, F]` each."""
        if self.median is None or self.scale is None:
            raise RuntimeError("the windows are not fitted: call `fit` first")
        if self._on_device is None or self._on_device[0].device != device:
            median, scale = (torch.from_numpy(x).unsqueeze(1).to(device) for x in (self.median, self.scale))
            self._on_device = median, scale
        return self._on_device

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_on_device": None}
