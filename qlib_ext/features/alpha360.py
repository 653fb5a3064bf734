"""Alpha360 as windows of a market panel, instead of a table that holds every price sixty times.

Qlib's Alpha360 divides each of the last 60 values of close, open, high, low and vwap by today's close, and of
volume by today's volume. Its usual processors then subtract each column's median over the training days, divide
by 1.4826 times its median absolute deviation, clip to [-3, 3] and fill what is missing with 0. Everything here
computes these numbers from a `[field, day, stock]` panel, a day at a time.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from qlib_ext import checks
from qlib_ext.checks import UserError
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel, day_blocks

FIELDS = ("close", "open", "high", "low", "vwap", "volume")
MAD_TO_STD = 1.4826  # the standard deviation of a normal variable is 1.4826 median absolute deviations
EPSILON = 1e-12  # Qlib's guard against division by zero, in the volume ratio and in the deviation
CLIP = 3.0
SMALL = 1 << 16  # rows; fewer are looked at all at once
BLOCK_CELLS = 1 << 16  # days times stocks; what is computed on them fits into a core's cache
EVERYTHING = np.float32(-np.inf), np.float32(np.inf)


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
        names = checks.words("fields", fields)
        if "close" not in names:
            raise UserError(f"`fields` must hold `close`, which every price is divided by; found {names}")
        optional = checks.words("optional_fields", optional_fields)
        super().__init__(names, lookback_days, fields=names, optional_fields=optional)

    def identity(self) -> dict[str, Any]:
        return {"class": type(self).__name__, "fields": self.fields, "lookback_days": self.lookback_days}

    def pad(self, market: MarketPanel) -> np.ndarray:
        """The bars themselves, `[D + T - 1, S, F]`."""
        days, stocks = market.members.shape
        shape = days + self.lookback_days - 1, stocks, len(self.names)
        if market.padded is not None and market.padded.shape == shape and market.fields == self.names:
            return market.padded
        padded = np.full(shape, np.nan, dtype=np.float32)
        for i, field in enumerate(self.names):
            padded[self.lookback_days - 1 :, :, i] = market.field(field)
        return padded

    def statistics(self, market: MarketPanel, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        fitted = np.flatnonzero(rows.any(axis=1))
        first, stop = int(fitted[0]), int(fitted[-1]) + 1
        rows = rows[first:stop]
        steps = self.lookback_days
        median = np.full((steps, len(self.names)), np.nan, np.float32)
        scale = np.full((steps, len(self.names)), np.nan, np.float32)
        close = np.where(rows, market.field("close")[first:stop], np.float32(np.nan))
        sample = _sample(rows)
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
                lags = _Lags(plane, base, steps, sample, pool)
                median[:, i] = center = lags.medians()
                deviation = lags.medians(center)
                scale[:, i] = (deviation + np.float32(EPSILON)) * np.float32(MAD_TO_STD)
        return median, scale

    def gather(self, padded: Tensor, day: int, columns: Tensor) -> Tensor:
        """Features of one day, `[N, T, F]` float32, finite; they use no value after `day`."""
        window = padded[day : day + self.lookback_days].index_select(1, columns)  # [T, N, F]
        today = window[-1]  # [N, F]
        base = today[:, [self.names.index("close")] * len(self.names)]  # [N, F]
        if "volume" in self.names:
            volume = self.names.index("volume")
            base[:, volume] = today[:, volume] + EPSILON
        median, scale = self._fitted(padded.device)
        features = (window / base - median) / scale  # [T, N, F]
        return features.clamp_(-CLIP, CLIP).nan_to_num_(nan=0.0).transpose(0, 1)  # [N, T, F]


class _Lags:
    """The ratios of a field at each of T lags, over all rows: medians without ever holding a lag's ratios at once.

    A random sample of the rows brackets each lag's median. One pass over the days, in blocks that stay in the
    processor's cache for all lags, counts what lies below the bracket and keeps what lies inside, about one value
    in a hundred; the median is among those, and exact. Where the sample misled, that lag is done without a bracket.

    Parameters
    ----------
    plane
        `[T - 1 + n, S]`: the field on the n fitted days and on the T - 1 days before them.
    base
        `[n, S]`: what the values of a row's window are divided by; NaN where there is no row.
    steps
        T; step 0 is the oldest lag.
    sample
        Positions in the flat `[n, S]` of a sample of the rows, or None where there are too few rows to need one.
    """

    def __init__(
        self,
        plane: np.ndarray,
        base: np.ndarray,
        steps: int,
        sample: np.ndarray | None,
        pool: ThreadPoolExecutor,
    ) -> None:
        self.plane, self.base, self.steps, self.pool = plane, base, steps, pool
        self._sampled = None if sample is None else self._ratios_of(sample)  # [T, rows of the sample]

    def medians(self, center: np.ndarray | None = None) -> np.ndarray:
        """`[T]` float32: the median at each lag, of the ratios or of their distances to `center` `[T]`."""
        brackets = list(self.pool.map(lambda step: self._bracket(step, center), range(self.steps)))
        counts = self._scan(range(self.steps), brackets, center)
        found = list(self.pool.map(_select, counts))
        for step in [step for step, value in enumerate(found) if value is None]:
            (count,) = self._scan([step], [EVERYTHING], center)
            found[step] = _median(np.concatenate(count.inside))
        return np.array(found, dtype=np.float32)

    def _bracket(self, step: int, center: np.ndarray | None) -> tuple[np.floating, np.floating]:
        """Two values of the sample that have the median between them, but for one chance in a million."""
        if self._sampled is None:
            return EVERYTHING
        ratio = self._sampled[step]
        if center is not None:
            with np.errstate(all="ignore"):
                ratio = np.abs(ratio - center[step])
        there = len(ratio) - int(np.count_nonzero(np.isnan(ratio)))
        margin = int(2.5 * there**0.5) + 1  # the median's rank in a sample of n has the deviation sqrt(n) / 2
        low, high = there // 2 - margin, there // 2 + margin
        if low < 0 or high >= there:
            return EVERYTHING
        part = np.partition(ratio, (low, high))  # NaN last
        return part[low], part[high]

    def _ratios_of(self, sample: np.ndarray) -> np.ndarray:
        base = self.base.reshape(-1).take(sample)
        ratios = np.empty((self.steps, len(sample)), np.float32)

        def fill(step: int) -> None:
            with np.errstate(all="ignore"):
                np.divide(self.plane[step:].reshape(-1).take(sample), base, out=ratios[step])

        list(self.pool.map(fill, range(self.steps)))
        return ratios

    def _scan(
        self,
        steps: Sequence[int],
        brackets: Sequence[tuple[np.floating, np.floating]],
        center: np.ndarray | None,
    ) -> list[_Count]:
        blocks = list(day_blocks(self.base.shape, BLOCK_CELLS))
        shares = -(-len(blocks) // (4 * torch.get_num_threads()))
        parts = [blocks[i : i + shares] for i in range(0, len(blocks), shares)]
        counted = self.pool.map(lambda part: self._scan_blocks(part, steps, brackets, center), parts)
        return [_Count.merge(of_lag) for of_lag in zip(*counted, strict=True)]

    def _scan_blocks(
        self,
        blocks: Sequence[slice],
        steps: Sequence[int],
        brackets: Sequence[tuple[np.floating, np.floating]],
        center: np.ndarray | None,
    ) -> list[_Count]:
        counts = [_Count(*bracket) for bracket in brackets]
        size = max((block.stop - block.start) * self.base.shape[1] for block in blocks)
        buffer = np.empty(size, np.float32)
        masks = np.empty((2, size), dtype=bool)
        with np.errstate(all="ignore"):
            for block in blocks:
                base = self.base[block].reshape(-1)
                ratio, (first, second) = buffer[: len(base)], masks[:, : len(base)]
                for step, count in zip(steps, counts, strict=True):
                    window = self.plane[block.start + step : block.stop + step].reshape(-1)
                    np.divide(window, base, out=ratio)
                    if center is not None:
                        np.subtract(ratio, center[step], out=ratio)
                        np.abs(ratio, out=ratio)
                    count.add(ratio, first, second)
        return counts


@dataclass
class _Count:
    """How many values of a lag there are, how many lie below its bracket, and those inside it."""

    lower: np.floating
    upper: np.floating
    there: int = 0
    below: int = 0
    within: int = 0
    inside: list[np.ndarray] = dataclasses.field(default_factory=list)

    def add(self, values: np.ndarray, first: np.ndarray, second: np.ndarray) -> None:
        """Count `values`; `first` and `second` are bool arrays of their length to work in."""
        np.equal(values, values, out=first)  # not NaN
        self.there += int(np.count_nonzero(first))
        np.less(values, self.lower, out=first)
        below = int(np.count_nonzero(first))
        np.less_equal(values, self.upper, out=second)
        within = int(np.count_nonzero(second)) - below
        self.below += below
        self.within += within
        if within and self.lower != self.upper:  # of equal values their number is enough
            np.not_equal(first, second, out=first)
            self.inside.append(values[first])

    @classmethod
    def merge(cls, parts: Sequence[_Count]) -> _Count:
        """Of all parts together; all have the same bracket."""
        whole = cls(parts[0].lower, parts[0].upper)
        for part in parts:
            whole.there += part.there
            whole.below += part.below
            whole.within += part.within
            whole.inside += part.inside
        return whole


def _select(count: _Count) -> np.floating | None:
    """The median, or None where the bracket does not hold it: the mean of the two middle values of an even number."""
    if count.there == 0:
        return np.float32(np.nan)
    low, high = (count.there - 1) // 2 - count.below, count.there // 2 - count.below
    if low < 0 or high >= count.within:
        return None
    if count.lower == count.upper:
        values = np.array([count.lower, count.upper])
        low, high = 0, int(high > low)
    else:
        values = np.partition(np.concatenate(count.inside), (low, high))
    return values[low] if low == high else np.mean(values[[low, high]])


def _sample(rows: np.ndarray) -> np.ndarray | None:
    """Flat positions of random rows, about as many as make the bracket and its content the least work together."""
    number = int(np.count_nonzero(rows))
    if number < SMALL:
        return None
    cells = int(3 * number ** (2 / 3) * rows.size / number)
    drawn = np.sort(np.random.default_rng(0).integers(0, rows.size, cells))
    return drawn[rows.reshape(-1)[drawn]]


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
