"""Medians of many values, exact, without ever holding them at once: a sample brackets each, and few lie inside."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np

SMALL = 1 << 16  # values; fewer are looked at all at once
EVERYTHING = np.float32(-np.inf), np.float32(np.inf)


def sample_size(number: int) -> int | None:
    """Of so many values, as many as make the bracket and its content the least work together; None of few."""
    return None if number < SMALL else int(3 * number ** (2 / 3))


def bracket_of(sample: np.ndarray) -> tuple[np.floating, np.floating]:
    """Two values of a sample that have the median between them, but for one chance in a million."""
    there = len(sample) - int(np.count_nonzero(np.isnan(sample)))
    margin = int(2.5 * there**0.5) + 1  # the median's rank in a sample of n has the deviation sqrt(n) / 2
    low, high = there // 2 - margin, there // 2 + margin
    if low < 0 or high >= there:
        return EVERYTHING
    part = np.partition(sample, (low, high))  # NaN last
    return part[low], part[high]


def column_medians(
    blocks: Callable[[], Iterable[np.ndarray]],
    columns: int,
    sample: np.ndarray | None,
    center: np.ndarray | None = None,
) -> np.ndarray:
    """The median of each column of a table that is read some rows at a time, of its values that are no NaN.

    The table is read once, and once more for a column whose sample misled.

    Parameters
    ----------
    blocks
        The rows of the table, float32 `[n, F]` at a time; called for each reading.
    columns
        F.
    sample
        `[m, F]`: random rows of it; None where all of them are few.
    center
        `[F]`: then of the distances to it.

    Returns
    -------
    ndarray
        `[F]` float32.
    """
    brackets = [EVERYTHING] * columns
    if sample is not None:
        brackets = [bracket_of(values) for values in _distances(sample.T, center)]
    found = [select(count) for count in _scan(blocks, range(columns), brackets, center)]
    for column in [column for column, value in enumerate(found) if value is None]:
        (count,) = _scan(blocks, [column], [EVERYTHING], center)
        found[column] = median_of(np.concatenate(count.inside))
    return np.array(found, dtype=np.float32)


def _scan(
    blocks: Callable[[], Iterable[np.ndarray]],
    columns: Sequence[int],
    brackets: Sequence[tuple[np.floating, np.floating]],
    center: np.ndarray | None,
) -> list[Count]:
    counts = [Count(*bracket) for bracket in brackets]
    chosen = list(columns)
    for block in blocks():
        values = block.T if len(chosen) == block.shape[1] else block.T[chosen]
        masks = np.empty((2, len(block)), dtype=bool)
        with np.errstate(invalid="ignore"):
            for column, count in zip(
                _distances(values, None if center is None else center[chosen]), counts, strict=True
            ):
                count.add(column, *masks)
    return counts


def _distances(values: np.ndarray, center: np.ndarray | None) -> np.ndarray:
    """`[F, n]`, a column beside itself in memory: the values, or their distances to `center` `[F]`."""
    if center is None:
        return np.ascontiguousarray(values)
    with np.errstate(invalid="ignore"):
        found = np.subtract(values, center[:, None], order="C")
    return np.abs(found, out=found)


@dataclass
class Count:
    """How many values of a lag or a column there are, how many lie below its bracket, and those inside it."""

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
    def merge(cls, parts: Sequence[Count]) -> Count:
        """Of all parts together; all have the same bracket."""
        whole = cls(parts[0].lower, parts[0].upper)
        for part in parts:
            whole.there += part.there
            whole.below += part.below
            whole.within += part.within
            whole.inside += part.inside
        return whole


def select(count: Count) -> np.floating | None:
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
