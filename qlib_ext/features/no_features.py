"""No features at all: for a model that brings its scores, and a dataset that is asked for labels and members only."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import words
from qlib_ext.features.allocation import Allocate, in_memory
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel


class NoFeatures(FeatureSet):
    """F = 0 features. Nothing is fitted, so the handler needs no days to fit on.

    Parameters
    ----------
    fields
        Fields of the bars that are read nevertheless: those of the labels.
    """

    def __init__(self, fields: Sequence[str] = ("close",)) -> None:
        super().__init__((), 1, fields=words("fields", fields))
        self.restore(np.empty((1, 0), np.float32), np.empty((1, 0), np.float32))

    def identity(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "fields": list(self.fields)}

    def pad(self, market: MarketPanel, allocate: Allocate = in_memory) -> np.ndarray:
        """Days and stocks without a feature, `[D, S, 0]`."""
        return np.empty(self.padded_shape(market), np.float32)

    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        """Those of no feature, `[1, 0]` each."""
        return np.empty((1, 0), np.float32), np.empty((1, 0), np.float32)

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """`[N, 1, 0]`."""
        return torch.empty(len(columns), 1, 0)
