"""Medians of a field's ratios at many lags, exact, without ever holding a lag's ratios at once."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch

from qlib_ext.features.market_panel import day_blocks

SMALL = 1 << 16  # rows; fewer are looked at all at once
BLOCK_CELLS = 1 << 16  # days times stocks; what is computed on them fits into a core's cache
EVERYTHING = np.float32(-np.inf), np.float32(np.inf)


class LagRatios:
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
            found[step] = median_of(np.concatenate(count.inside))
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


def sample_rows(rows: np.ndarray) -> np.ndarray | None:
    """Flat positions of random rows, about as many as make the bracket and its content the least work together."""
    number = int(np.count_nonzero(rows))
    if number < SMALL:
        return None
    cells = int(3 * number ** (2 / 3) * rows.size / number)
    drawn = np.sort(np.random.default_rng(0).integers(0, rows.size, cells))
    return drawn[rows.reshape(-1)[drawn]]


def median_of(values: np.ndarray, sample: int = 4096) -> np.floating:
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
