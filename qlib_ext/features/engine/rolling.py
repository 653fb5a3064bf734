r"""Sums, extremes and moments of the last N days, for all days and stocks of a plane at once.

A window of N days that begins at day p lies in at most two blocks of N days: the end of one, and the beginning of the
next. What a block has from each of its days on, and up to each of its days, is accumulated; a window is then one number
of each kind, taken together. So a sum costs the same for any N, nothing is ever subtracted again (a running sum keeps
the rounding of every large value that it once held), and each step is one operation over many stocks and days.

Moments are taken about a value that lies in the window: the last of its first block. A variance of small moves of a large
price is then exact to the last digits, where the difference of two raw sums is noise.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any

import numpy as np

Plane = np.ndarray[Any, np.dtype[Any]]


def reduce_windows(combine: np.ufunc, tail: Plane, head: Plane) -> Plane:
    """Combine each window's days; `tail` is written over.

    Parameters
    ----------
    combine
        An associative operation of two values, such as `np.add`.
    tail, head
        `[B, N, S]`: the blocks, and for each the block that follows it.

    Returns
    -------
    ndarray
        `[B * N, S]`: of the window that begins at each day of the blocks.
    """
    blocks, days, stocks = tail.shape
    out = tail
    for k in range(days - 2, -1, -1):
        combine(out[:, k], out[:, k + 1], out=out[:, k])
    if days > 1:
        ahead = head[:, 0].copy()
        for k in range(1, days):
            combine(out[:, k], ahead, out=out[:, k])
            if k < days - 1:
                combine(ahead, head[:, k], out=ahead)
    return out.reshape(blocks * days, stocks)


class Series:
    """A plane `[D, S]` as pandas' windows see it: NaN where it is missing, infinite or not listed.

    Parameters
    ----------
    values
        `[D, S]` of any number type.
    listed
        `[D, S]` bool: the days on which a stock has a series.
    age
        `[D, S]` int: how many days the series has by then, 1 on its first day.

    Attributes
    ----------
    infinite
        `[D, S]` bool: where it is infinite; None where it nowhere is.
    """

    def __init__(self, values: Plane, listed: Plane, age: Plane) -> None:
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        infinite = np.isinf(values) & listed
        self.infinite = infinite if infinite.any() else None
        self.valid = np.isfinite(values)
        self.valid &= listed
        self.complete = bool(self.valid.all())
        self.values = values if self.complete else np.where(self.valid, values, values.dtype.type(np.nan))
        self.age = age

    @functools.cached_property
    def filled(self) -> Plane:
        """The values with 0 where one is missing."""
        return self.values if self.complete else np.where(self.valid, self.values, self.values.dtype.type(0))

    @functools.cached_property
    def counted(self) -> Plane:
        """Valid values up to each day, with a zero in front, `[D + 1, S]`."""
        return _accumulated(self.valid.astype(np.int32))

    @functools.cached_property
    def places(self) -> tuple[Plane, Plane]:
        """Sums of the days' numbers, and of their squares, over the valid days up to each day, `[D + 1, S]`."""
        day = np.arange(len(self.values), dtype=np.int64)[:, None]
        return _accumulated(day * self.valid), _accumulated(day * day * self.valid)

    @functools.cached_property
    def held(self) -> Plane:
        """The newest valid value of each day, `[D, S]`; before the first, that one."""
        days = np.arange(len(self.values), dtype=np.int32)[:, None]
        last = np.maximum.accumulate(np.where(self.valid, days, -1), axis=0)
        first = np.argmax(self.valid, axis=0)
        return np.take_along_axis(self.filled, np.where(last < 0, first, last), axis=0)

    @functools.cached_property
    def same(self) -> Plane:
        """How many of the newest valid values are equal to the newest, `[D, S]`."""
        held = self.held
        change = np.zeros(self.valid.shape, dtype=bool)
        change[1:] = held[1:] != held[:-1]
        counted = self.counted[1:]
        before = np.maximum.accumulate(np.where(change & self.valid, counted - 1, 0), axis=0)
        return counted - before


def _accumulated(values: Plane) -> Plane:
    out = np.zeros((len(values) + 1, values.shape[1]), values.dtype)
    np.cumsum(values, axis=0, out=out[1:])
    return out


class Windows:
    """The last N days of a series at every day; what several operators need of them is computed once.

    Parameters
    ----------
    series
        What the windows are of.
    days
        N; 0 stands for all days so far.
    shares
        Of the quantiles that will be asked for, from 0 to 1: the values are put in order once for all of them.
    """

    def __init__(self, series: Series, days: int, shares: Sequence[float] = ()) -> None:
        self.series = series
        self.shares = tuple(shares)
        length = len(series.values)
        self.expanding = days == 0
        self.days = length if self.expanding else min(days, length)

    # -- sums ----------------------------------------------------------------------------------------------

    @functools.cached_property
    def count(self) -> Plane:
        """Valid values, `[D, S]`."""
        return self._since(self.series.counted)

    @functools.cached_property
    def length(self) -> Plane:
        """Days of the series, valid or not, `[D, S]`."""
        return np.clip(self.series.age, 1, self.days)

    @functools.cached_property
    def total(self) -> Plane:
        """Sum, NaN where no value is valid."""
        blocks = self._blocks(self.series.filled, 0.0, np.dtype(np.float64))
        total = self._cut(reduce_windows(np.add, blocks[:-1].copy(), blocks[1:]))
        if not self.series.complete:
            total[self.count == 0] = np.nan
        return total

    @functools.cached_property
    def mean(self) -> Plane:
        """Mean, NaN where no value is valid."""
        return self.total / np.maximum(self.count, 1)

    @property
    def maximum(self) -> Plane:
        """The largest valid value."""
        return self._extreme(np.fmax)

    @property
    def minimum(self) -> Plane:
        """The smallest valid value."""
        return self._extreme(np.fmin)

    def _extreme(self, combine: np.ufunc) -> Plane:
        blocks = self._blocks(self.series.values, np.nan, self.series.values.dtype)
        return self._cut(reduce_windows(combine, blocks[:-1].copy(), blocks[1:])).astype(np.float64)

    # -- moments -------------------------------------------------------------------------------------------

    @functools.cached_property
    def centred(self) -> tuple[Plane, Plane, Plane]:
        """Tail and head `[B, N, S]` less the centre of the block, 0 where missing, and the centre `[B, S]`."""
        missing = self._blocks(~self.series.valid, True, np.dtype(bool))
        values = self._blocks(self.series.filled, 0.0, np.dtype(np.float64))
        centre = self.series.held[:: self.days].astype(
            np.float64
        )  # the last of each block, in all its windows
        tail, head = values[:-1] - centre[:, None], values[1:] - centre[:, None]
        np.copyto(tail, 0.0, where=missing[:-1])
        np.copyto(head, 0.0, where=missing[1:])
        return tail, head, centre

    def moment(self, power: int) -> Plane:
        """Sum of a power of the valid values less the centre of their block, `[D, S]`."""
        if power == 1:
            return self._first
        if power == 2:
            return self._second
        tail, head, _ = self.centred
        return self._cut(reduce_windows(np.add, tail**power, head**power))

    @functools.cached_property
    def _first(self) -> Plane:
        tail, head, _ = self.centred
        return self._cut(reduce_windows(np.add, tail.copy(), head))

    @functools.cached_property
    def _second(self) -> Plane:
        tail, head, _ = self.centred
        return self._cut(reduce_windows(np.add, tail * tail, head * head))

    def product(self, other: Windows) -> Plane:
        """Sum of the products with another series that is valid on the same days, each less its centre."""
        (tail, head, _), (others_tail, others_head, _) = self.centred, other.centred
        return self._cut(reduce_windows(np.add, tail * others_tail, head * others_head))

    @functools.cached_property
    def spread(self) -> Plane:
        """Sum of squared distances to the mean of the window; exactly 0 where all are equal."""
        spread = self._second - self._first * self._first / np.maximum(self.count, 1)
        np.maximum(spread, 0.0, out=spread)
        spread[self.equal] = 0.0
        return spread

    @functools.cached_property
    def equal(self) -> Plane:
        """Where all valid values are the same, `[D, S]` bool."""
        return self.series.same >= self.count

    @functools.cached_property
    def variance(self) -> Plane:
        """With N - 1 below; NaN of fewer than two values."""
        return self.spread / self.degrees

    @functools.cached_property
    def degrees(self) -> Plane:
        """Valid values less one; NaN of fewer than two."""
        degrees = self.count - 1.0
        degrees[degrees < 1] = np.nan
        return degrees

    @functools.cached_property
    def deviation(self) -> Plane:
        """The root of `variance`."""
        return np.sqrt(self.variance)

    # -- places in the window: 1 for the oldest of N days, N for the newest ----------------------------------

    @functools.cached_property
    def place_sums(self) -> tuple[Plane, Plane]:
        """Sum of the places of the valid values, and of their squares; whole numbers, hence exact."""
        first, second = (self._since(x) for x in self.series.places)
        shift = self.days - np.arange(len(self.series.values), dtype=np.int64)[:, None]
        sums = first + shift * self.count
        squares = second + 2 * shift * first + shift * shift * self.count
        return sums.astype(np.float64), squares.astype(np.float64)

    @functools.cached_property
    def placed(self) -> Plane:
        """Sum of place times value less the centre of its block."""
        tail, head, _ = self.centred
        return self._placed(tail, head, self._first)

    @functools.cached_property
    def placed_total(self) -> Plane:
        """Sum of place times value."""
        blocks = self._blocks(self.series.filled, 0.0, np.dtype(np.float64))
        return self._placed(blocks[:-1], blocks[1:], np.nan_to_num(self.total, nan=0.0))

    def _placed(self, tail: Plane, head: Plane, total: Plane) -> Plane:
        place = np.arange(2 * self.days, dtype=np.float64)[:, None]
        weighted = reduce_windows(np.add, tail * place[: self.days], head * place[self.days :])
        begin = np.arange(len(self.series.values))[:, None] % self.days
        return self._cut(weighted) - (begin - 1) * total

    @functools.cached_property
    def line(self) -> tuple[Plane, Plane, Plane]:
        """Of the regression on places: N times the covariance, and N times the variance of places; the mean place."""
        sums, squares = self.place_sums
        return (
            np.where(self.equal, 0.0, self.count * self.placed - sums * self._first),
            self.count * squares - sums * sums,
            sums / self.count,
        )

    @property
    def newest(self) -> Plane:
        """The newest value less the centre of its window's block."""
        return self.series.values - np.repeat(self.centred[2], self.days, axis=0)[: len(self.series.values)]

    # -- lags ----------------------------------------------------------------------------------------------

    def lagged(self, fill: float) -> Plane:
        """The plane with N - 1 days of `fill` in front; its rows from N - 1 - l on are those of l days ago."""
        values = self.series.values
        out = np.full((len(values) + self.days - 1, values.shape[1]), fill, values.dtype)
        out[self.days - 1 :] = values
        return out

    def quantile(self, share: float) -> Plane:
        """One of `quantiles`."""
        return self.quantiles[share]

    @functools.cached_property
    def quantiles(self) -> dict[float, Plane]:
        """Share -> the quantile, linear between the two nearest values; NaN where no value is valid.

        The window is held in order, missing values last: from day to day a value is taken out and another put in, by
        comparing neighbours, for all stocks at once.
        """
        kind = self.series.values.dtype
        bits = np.dtype(f"i{kind.itemsize}")
        values = np.where(self.series.valid, self.series.values, kind.type(np.inf))
        length, stocks = values.shape
        days, number = self.days, np.maximum(self.count, 1)
        wanted = {}
        for share in self.shares:
            where = share * (number - 1)
            low = where.astype(np.int64)
            wanted[share] = where - low, low, np.minimum(low + 1, number - 1)
        found = {share: np.empty((2, length, stocks), values.dtype) for share in self.shares}
        column = np.arange(stocks)
        ordered = np.full((days + 1, stocks), np.inf, values.dtype)
        spare, below = ordered.copy(), np.empty((days, stocks), dtype=bool)
        for day in range(length):
            # Those below the value that goes stay, the others move down: by bits, without a branch.
            if day >= days:
                np.less(ordered[:days], values[day - days], out=below)
                now, following = ordered[:days].view(bits), ordered[1:].view(bits)
                choice = np.negative(below.view(np.int8)).astype(bits)
                choice &= now ^ following
                now[:] = following ^ choice
            np.minimum(ordered[:days], values[day], out=spare[:days])
            np.maximum(spare[1:days], ordered[: days - 1], out=spare[1:days])
            ordered, spare = spare, ordered
            for share, (_, low, high) in wanted.items():
                found[share][0, day] = ordered[low[day], column]
                found[share][1, day] = ordered[high[day], column]
        none = self.count == 0
        quantiles = {}
        for share, (between, _, _) in wanted.items():
            lower, upper = found[share].astype(np.float64)
            quantiles[share] = np.where(none, np.nan, lower + (upper - lower) * between)
        return quantiles

    # -- for the above -------------------------------------------------------------------------------------

    def _since(self, accumulated: Plane) -> Plane:
        """What came in the last N days, of sums up to each day."""
        out = accumulated[1:].copy()
        out[self.days :] -= accumulated[1 : len(accumulated) - self.days]
        return out

    def _blocks(self, values: Plane, fill: float, kind: np.dtype[Any]) -> Plane:
        """`[B + 1, N, S]`: window p begins at day p of it, since N - 1 days of `fill` come first."""
        length, stocks = values.shape
        number = -(-length // self.days) + 1
        out = np.empty((number * self.days, stocks), kind)
        first = self.days - 1
        out[:first] = fill
        out[first : first + length] = values
        out[first + length :] = fill
        return out.reshape(number, self.days, stocks)

    def _cut(self, windows: Plane) -> Plane:
        return windows[: len(self.series.values)]
