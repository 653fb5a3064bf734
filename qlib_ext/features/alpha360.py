"""Alpha360 as windows of a market panel, instead of a table that holds every price sixty times.

Qlib's Alpha360 divides each of the last 60 values of close, open, high, low and vwap by today's close, and of
volume by today's volume. Its usual processors then subtract each column's median over the training days, divide
by 1.4826 times its median absolute deviation, clip to [-3, 3] and fill what is missing with 0. Everything here
computes these numbers from a `[field, day, stock]` panel, a day at a time.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, words
from qlib_ext.features.allocation import Allocate, in_memory
from qlib_ext.features.base import FeatureSet, prices_and_volume
from qlib_ext.features.lag_ratios import LagRatios, sample_rows
from qlib_ext.features.market_panel import MarketPanel

FIELDS = ("close", "open", "high", "low", "vwap", "volume")
MAD_TO_STD = 1.4826  # the standard deviation of a normal variable is 1.4826 median absolute deviations
EPSILON = 1e-12  # Qlib's guard against division by zero, in the volume ratio and in the deviation
CLIP = 3.0


class Alpha360(FeatureSet):
    """The last T days of close, open, high, low, vwap and volume, over today's close or today's volume.

    Parameters
    ----------
    fields
        Fields of the bars, in the order of the features; `close` must be among them.
    lookback_days
        T, the length of a window; 60 gives Alpha360.
    optional_fields
        Fields that a store may lack; their features are 0 then, as they are under Qlib's processors.

    Attributes
    ----------
    median, scale : ndarray `[T, F]` float32
        The median and 1.4826 median absolute deviations of each lag and field over the training rows.

    Notes
    -----
    Same numbers as Qlib's Alpha360 under RobustZScoreNorm(clip_outlier=True) and Fillna. A field that the store
    lacks is all missing, hence 0 after normalisation, as it is in Qlib.

    Departures
    ----------
    Members without a close of the day (suspended) are no rows, since nothing is known of them at its close and they
    cannot be traded; Qlib keeps them with all features 0.
    """

    def __init__(
        self,
        fields: Sequence[str] = FIELDS,
        lookback_days: int = 60,
        optional_fields: Sequence[str] = ("vwap",),
    ) -> None:
        names = words("fields", fields)
        if "close" not in names:
            raise UserError(f"`fields` must hold `close`, which every price is divided by; found {names}")
        optional = words("optional_fields", optional_fields)
        super().__init__(names, lookback_days, fields=names, optional_fields=optional)

    def identity(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "fields": self.fields, "lookback_days": self.lookback_days}

    def families(self) -> dict[str, tuple[str, ...]]:
        """The prices, of which each tells much of the others, and the volume."""
        return prices_and_volume(self.names)

    def pad(self, market: MarketPanel, allocate: Allocate = in_memory) -> np.ndarray:
        """The bars themselves, `[D + T - 1, S, F]`."""
        held, days = market.padded, len(market.calendar) + self.lookback_days - 1
        if held is not None and len(held) == days and market.fields == self.names:
            return held  # it was read in this layout
        return self.padded_planes(market, market.field, self.names, allocate)

    def statistics(
        self, market: MarketPanel, rows: np.ndarray, padded: np.ndarray
    ) -> tuple[np.ndarray, np.ndarray]:
        fitted = np.flatnonzero(rows.any(axis=1))
        first, stop = int(fitted[0]), int(fitted[-1]) + 1
        rows = rows[first:stop]
        steps = self.lookback_days
        median = np.full((steps, len(self.names)), np.nan, np.float32)
        scale = np.full((steps, len(self.names)), np.nan, np.float32)
        close = np.where(rows, market.field("close")[first:stop], np.float32(np.nan))
        sample = sample_rows(rows)
        with ThreadPoolExecutor(torch.get_num_threads()) as pool:
            for i, field in enumerate(self.names):
                plane = np.full((steps - 1 + stop - first, rows.shape[1]), np.nan, np.float32)
                ahead = max(0, first - (steps - 1))  # the window of the first day begins before it
                plane[len(plane) - (stop - ahead) :] = market.field(field)[ahead:stop]
                if np.isnan(plane).all():  # the store lacks this field
                    continue
                base = close
                if field == "volume":
                    base = np.where(rows, plane[steps - 1 :] + np.float32(EPSILON), np.float32(np.nan))
                lags = LagRatios(plane, base, steps, sample, pool)
                median[:, i] = center = lags.medians()
                deviation = lags.medians(center)
                scale[:, i] = (deviation + np.float32(EPSILON)) * np.float32(MAD_TO_STD)
        return median, scale

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day, `[N, T, F]` float32, finite; they use no value after `day`."""
        window = padded[day : day + self.lookback_days].index_select(1, columns)  # [T, N, F]
        today = window[-1]  # [N, F]
        close = self.names.index("close")
        base = today[:, close : close + 1].repeat(1, len(self.names))  # [N, F]
        if "volume" in self.names:
            volume = self.names.index("volume")
            base[:, volume] = today[:, volume] + EPSILON
        return self.normalised(window / base, CLIP)  # [N, T, F]
