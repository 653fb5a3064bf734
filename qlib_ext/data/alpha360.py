"""Alpha360 as windows of a market panel, instead of a table that holds every price sixty times.

Qlib's Alpha360 divides each of the last 60 values of close, open, high, low and vwap by today's close, and of
volume by today's volume. Its usual processors then subtract each column's median over the training days, divide
by 1.4826 times its median absolute deviation, clip to [-3, 3] and fill what is missing with 0. Everything here
computes these numbers from a `[field, day, stock]` panel, a day at a time.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qlib_ext import checks
from qlib_ext.checks import UserError

FIELDS = ("close", "open", "high", "low", "vwap", "volume")
MAD_TO_STD = 1.4826  # the standard deviation of a normal variable is 1.4826 median absolute deviations
EPSILON = 1e-12  # Qlib's guard against division by zero, in the volume ratio and in the deviation
CLIP = 3.0


class Alpha360Windows:
    """Windows of T days over F fields, normalised by statistics of the training days.

    Parameters
    ----------
    fields
        Fields of the panel, in the order of the features; `close` must be among them.
    lookback_days
        T, the length of a window; 60 gives Alpha360.

    Attributes
    ----------
    median, scale : ndarray `[T, F]` float32
        Fitted statistics; lag T - 1 first, today last.

    Notes
    -----
    Same numbers as Qlib's Alpha360 under RobustZScoreNorm(clip_outlier=True) and Fillna. A field that the store
    lacks is all missing, hence 0 after normalisation, as it is in Qlib.
    """

    def __init__(self, fields: Sequence[str] = FIELDS, lookback_days: int = 60) -> None:
        self.fields = tuple(fields)
        self.lookback_days = checks.integer("lookback_days", lookback_days, 1)
        if "close" not in self.fields:
            raise UserError(
                f"`fields` must hold `close`, which every price is divided by; found {self.fields}"
            )
        self.median: np.ndarray | None = None
        self.scale: np.ndarray | None = None
        self._on_device: tuple[Tensor, Tensor] | None = None

    def column_names(self) -> list[str]:
        """Qlib's column names, field by field, oldest lag first: CLOSE59, ..., CLOSE0, OPEN59, ..."""
        lags = range(self.lookback_days - 1, -1, -1)
        return [f"{field.upper()}{lag}" for field in self.fields for lag in lags]

    def pad(self, values: np.ndarray) -> np.ndarray:
        """Turn `[F, D, S]` into `[D + T - 1, S, F]` with T - 1 empty days in front, so that each day has a window."""
        fields, days, stocks = values.shape
        padded = np.full((days + self.lookback_days - 1, stocks, fields), np.nan, dtype=np.float32)
        for i in range(fields):
            padded[self.lookback_days - 1 :, :, i] = values[i]
        return padded

    def fit(self, values: np.ndarray, rows: np.ndarray) -> Alpha360Windows:
        """Fit median and scale of every (lag, field).

        Parameters
        ----------
        values
            `[F, D, S]` float32 panel.
        rows
            `[D, S]` bool: the rows (day, stock) of the training days.

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
        steps, stocks = self.lookback_days, values.shape[2]
        days, columns = np.nonzero(rows)
        today = (days + steps - 1) * stocks + columns  # flat positions in a padded [D + T - 1, S] plane
        planes = {
            field: np.concatenate([np.full((steps - 1, stocks), np.nan, np.float32), values[i]]).ravel()
            for i, field in enumerate(self.fields)
        }
        close = planes["close"].take(today)
        self._on_device = None  # what `gather` keeps on the device is of an earlier fit
        self.median = np.full((steps, len(self.fields)), np.nan, np.float32)
        self.scale = np.full((steps, len(self.fields)), np.nan, np.float32)
        with np.errstate(divide="ignore", invalid="ignore"):
            for i, field in enumerate(self.fields):
                plane = planes[field]
                if np.isnan(plane).all():  # the store lacks this field
                    continue
                base = plane.take(today) + np.float32(EPSILON) if field == "volume" else close
                for step in range(steps):
                    ratio = plane.take(today - (steps - 1 - step) * stocks) / base
                    ratio = ratio[~np.isnan(ratio)]
                    center = _median(ratio)
                    self.median[step, i] = center
                    deviation = _median(np.abs(ratio - center))
                    self.scale[step, i] = (deviation + np.float32(EPSILON)) * np.float32(MAD_TO_STD)
        return self

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day.

        Parameters
        ----------
        padded
            `[D + T - 1, S, F]` from `pad`, on any device.
        day
            Position of the day in the calendar of D days.
        columns
            `[N]` positions of the stocks.

        Returns
        -------
        Tensor
            `[N, T, F]` float32, finite. Uses no value after `day`.
        """
        window = padded[day : day + self.lookback_days].index_select(1, columns)  # [T, N, F]
        today = window[-1]  # [N, F]
        base = today[:, [self.fields.index("close")] * len(self.fields)]  # [N, F]
        if "volume" in self.fields:
            volume = self.fields.index("volume")
            base[:, volume] = today[:, volume] + EPSILON
        median, scale = self._statistics(padded.device)
        features = (window / base - median) / scale  # [T, N, F]
        return features.clamp_(-CLIP, CLIP).nan_to_num_(nan=0.0).transpose(0, 1)  # [N, T, F]

    def _statistics(self, device: torch.device) -> tuple[Tensor, Tensor]:
        if self.median is None or self.scale is None:
            raise RuntimeError("the windows are not fitted: call `fit` first")
        if self._on_device is None or self._on_device[0].device != device:
            median, scale = (torch.from_numpy(x).unsqueeze(1).to(device) for x in (self.median, self.scale))
            self._on_device = median, scale  # [T, 1, F] each
        return self._on_device

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "_on_device": None}


def _median(values: np.ndarray, sample: int = 4096) -> np.floating:
    """Median of an array without NaN, exactly: the mean of the two middle values where their number is even.

    A small strided sample brackets the median; only the few values inside the bracket are then partitioned.
    When the bracket misses, the whole array is partitioned.
    """
    n = len(values)
    if n == 0:
        return np.float32(np.nan)
    low, high = (n - 1) // 2, n // 2
    if n > 16 * sample:
        probe = np.sort(values[:: n // sample])
        middle, margin = len(probe) // 2, len(probe) // 32
        lower, upper = probe[middle - margin], probe[middle + margin]
        below = int(np.count_nonzero(values < lower))
        inside = values[(values >= lower) & (values <= upper)]
        if below <= low and high < below + len(inside):
            values, low, high = inside, low - below, high - below
    part = np.partition(values, (low, high))
    return part[low] if low == high else np.mean(part[[low, high]])
