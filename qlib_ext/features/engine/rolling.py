r"""Sums, extremes and moments of the last N days, for all days and stocks of a plane at once.

A window of N days is an older one and a newer one beside each other. What is known of both is put together: a sum is the
sum of two, an extreme the larger of two, and a sum of squared distances to the mean is that of both and of the distance of
their means. Shorter windows serve longer ones, so 5, 10, 20, 30 and 60 days take nine steps over the plane together.
Nothing is ever subtracted again: a running sum keeps the rounding of every large value that it once held, and the
difference of two raw sums of squares is noise where a large price hardly moves.

So what is said of a window follows from its own days alone, to the last bit, whatever else is computed beside it.

Source: P. Pébay, "Formulas for robust, one-pass parallel computation of covariances and arbitrary-order statistical
moments", Sandia report SAND2008-6212, 2008.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, Generic, TypeVar

import numpy as np

Plane = np.ndarray[Any, np.dtype[Any]]
T = TypeVar("T")

SORTED_AT_ONCE = (
    1 << 18
)  # values of windows that are put in order together; they stay in the processor's cache


def split(days: int) -> tuple[int, int]:
    """Days of the older and of the newer part of a window, so that windows of round lengths share parts."""
    if days % 3 == 0:
        return 2 * days // 3, days // 3
    return (days // 2, days // 2) if days % 2 == 0 else (days - 1, 1)


def joined(combine: np.ufunc, newer: Plane, older: Plane, lag: int) -> Plane:
    """Combine each day's value with that of `lag` days ago; on the first days there is none of them."""
    out = np.empty_like(newer)
    out[:lag] = newer[:lag]
    combine(newer[lag:], older[: max(0, len(newer) - lag)], out=out[lag:])
    return out


class Lengths(Generic[T]):
    """Windows of many lengths, each made once, from those of its two parts.

    Parameters
    ----------
    make
        From the days of a window, 0 for all so far, and its older and newer part (None for a single day).
    length
        D, the days of the plane.
    """

    def __init__(self, make: Callable[[int, tuple[T, T] | None], T], length: int) -> None:
        self._make, self._length = make, length
        self._made: dict[int, T] = {}

    def __call__(self, days: int) -> T:
        if days not in self._made:
            # of all days so far: a power of two, whose parts are the same whatever comes later
            number = days or 1 << (self._length - 1).bit_length()
            older, newer = split(number)
            self._made[days] = self._make(days, None if number == 1 else (self(older), self(newer)))
        return self._made[days]


class Presence:
    """Which days of each stock have a value.

    Parameters
    ----------
    valid
        `[D, S]` bool.
    age
        `[D, S]` int: how many days the stock's series has by then, 1 on its first day.
    """

    def __init__(self, valid: Plane, age: Plane) -> None:
        self.valid, self.age = valid, age
        self.complete = bool(valid.all())

    @functools.cached_property
    def counted(self) -> Plane:
        """Valid values up to each day, with a zero in front, `[D + 1, S]`."""
        return _accumulated(self.valid.astype(np.int32))

    @functools.cached_property
    def places(self) -> tuple[Plane, Plane]:
        """Sums of the days' numbers, and of their squares, over the valid days up to each day, `[D + 1, S]`."""
        day = np.arange(len(self.valid), dtype=np.int64)[:, None]
        return _accumulated(day * self.valid), _accumulated(day * day * self.valid)


class Span:
    """Windows of N days of whatever has a value on certain days.

    Attributes
    ----------
    days
        N; of windows of all days so far, a power of two that no window passes.
    lag
        Days of the newer part.
    """

    def __init__(self, presence: Presence, days: int, parts: tuple[Span, Span] | None) -> None:
        self.presence, self.parts = presence, parts
        self.days: int = 1 if parts is None else parts[0].days + parts[1].days
        self.lag: int = 0 if parts is None else parts[1].days

    def of_parts(self, of: Callable[[Span], Plane]) -> tuple[Plane, Plane]:
        """What the older part and the newer one have, where there are both, `[D - lag, S]` each."""
        assert self.parts is not None
        older, newer = self.parts
        return of(older)[: max(0, len(self.presence.valid) - self.lag)], of(newer)[self.lag :]

    @functools.cached_property
    def count(self) -> Plane:
        """Valid values, `[D, S]`."""
        return self.since(self.presence.counted)

    @functools.cached_property
    def number(self) -> Plane:
        """Valid values, at least 1, as a divisor."""
        return np.maximum(self.count, 1).astype(np.float64)

    @functools.cached_property
    def degrees(self) -> Plane:
        """Valid values less one; NaN of fewer than two."""
        degrees = self.count - 1.0
        degrees[degrees < 1] = np.nan
        return degrees

    @functools.cached_property
    def weight(self) -> Plane:
        """What the squared distance of two means counts, `[D - lag, S]`: the product of both numbers over their sum."""
        older, newer = self.of_parts(lambda part: part.count)
        return older * newer / self.number[self.lag :]

    # -- places in the window: 1 for the oldest of N days, N for the newest ----------------------------------

    @functools.cached_property
    def places(self) -> tuple[Plane, Plane]:
        """Mean place of the valid values, and the sum of squared distances to it; from whole numbers, hence exact."""
        first, second = (self.since(x) for x in self.presence.places)
        shift = self.days - np.arange(len(self.count), dtype=np.int64)[:, None]
        sums = first + shift * self.count
        squares = second + 2 * shift * first + shift * shift * self.count
        return sums / self.number, (self.count * squares - sums * sums) / self.number

    @functools.cached_property
    def place_gap(self) -> Plane:
        """From the mean place in the older part to that in the newer one, `[D - lag, S]`."""
        older, newer = self.of_parts(lambda part: part.places[0])
        return newer + (self.days - self.lag) - older

    def since(self, accumulated: Plane) -> Plane:
        """What came in the last N days, of sums up to each day."""
        out = accumulated[1:].copy()
        out[self.days :] -= accumulated[1 : max(1, len(accumulated) - self.days)]
        return out


Known = list[tuple[Presence, Lengths[Span]]]


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
    known
        Where days have a value in other series of these stocks: what follows from that alone is shared.

    Attributes
    ----------
    valid
        `[D, S]` bool: where it has a value.
    infinite
        `[D, S]` bool: where it is infinite; None where it nowhere is.
    presence, spans
        Which days have a value, and the windows of them.
    """

    def __init__(self, values: Plane, listed: Plane, age: Plane, known: Known | None = None) -> None:
        if values.dtype.kind != "f":
            values = values.astype(np.float64)
        valid = np.isfinite(values)
        valid &= listed
        self.infinite: Plane | None = None
        if not valid.all():
            infinite = np.isinf(values) & listed
            self.infinite = infinite if infinite.any() else None
            values = np.where(valid, values, values.dtype.type(np.nan))
        self.values = values
        known = [] if known is None else known
        shared = next((each for each in known if np.array_equal(each[0].valid, valid)), None)
        if shared is None:
            presence = Presence(valid, age)
            shared = presence, Lengths(functools.partial(Span, presence), len(valid))
            known.append(shared)
        self.presence, self.spans = shared
        self.valid, self.age = self.presence.valid, age

    @functools.cached_property
    def filled(self) -> Plane:
        """The values with 0 where one is missing."""
        if self.presence.complete:
            return self.values
        return np.where(self.valid, self.values, self.values.dtype.type(0))

    @functools.cached_property
    def same(self) -> Plane:
        """How many of the newest valid values are equal to the newest, `[D, S]`."""
        days = np.arange(len(self.values), dtype=np.int32)[:, None]
        last = np.maximum.accumulate(np.where(self.valid, days, -1), axis=0)
        first = np.argmax(self.valid, axis=0)
        held = np.take_along_axis(self.filled, np.where(last < 0, first, last), axis=0)
        change = np.zeros(self.valid.shape, dtype=bool)
        change[1:] = held[1:] != held[:-1]
        change &= self.valid
        counted = self.presence.counted[1:]
        return counted - np.maximum.accumulate((counted - 1) * change, axis=0)


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
    parts
        The older windows and the newer ones that these are put together from; None of a single day.
    """

    def __init__(self, series: Series, days: int, parts: tuple[Windows, Windows] | None) -> None:
        self.series, self._parts = series, parts
        self.expanding = days == 0
        self.span = series.spans(days)
        self.days = self.span.days
        self._kept: dict[object, Any] = {}

    @property
    def parts(self) -> tuple[Windows, Windows]:
        """The older windows and the newer ones that these are put together from; not of a single day."""
        assert self._parts is not None
        return self._parts

    def _joined(self, combine: np.ufunc, of: Callable[[Windows], Plane]) -> Plane:
        older, newer = self.parts
        return joined(combine, of(newer), of(older), newer.days)

    # -- sums ----------------------------------------------------------------------------------------------

    @property
    def count(self) -> Plane:
        """Valid values, `[D, S]`."""
        return self.span.count

    @functools.cached_property
    def length(self) -> Plane:
        """Days of the series, valid or not, `[D, S]`."""
        return np.clip(self.series.age, 1, min(self.days, len(self.series.values)))

    @functools.cached_property
    def sum(self) -> Plane:
        """Sum, 0 where no value is valid."""
        if self.days == 1:
            return self.series.filled.astype(np.float64)
        return self._joined(np.add, lambda part: part.sum)

    @functools.cached_property
    def average(self) -> Plane:
        """Mean, 0 where no value is valid."""
        return self.sum / self.span.number

    @property
    def total(self) -> Plane:
        """Sum, NaN where no value is valid."""
        return self._or_missing(self.sum)

    @property
    def mean(self) -> Plane:
        """Mean, NaN where no value is valid."""
        return self._or_missing(self.average)

    def _or_missing(self, values: Plane) -> Plane:
        if self.series.presence.complete:
            return values
        return np.where(self.count > 0, values, np.nan)

    @functools.cached_property
    def placed_sum(self) -> Plane:
        """Sum of value times place, 1 for the oldest of N days."""
        if self.days == 1:
            return self.sum
        older, newer = self.parts
        found = newer.placed_sum + older.days * newer.sum
        return joined(np.add, found, older.placed_sum, newer.days)

    @property
    def infinite(self) -> Plane | None:
        """Windows that hold an infinite value, `[D, S]` bool; None where no window does."""
        if self.series.infinite is None:
            return None
        return self.span.since(_accumulated(self.series.infinite.astype(np.int32))) > 0

    # -- extremes ------------------------------------------------------------------------------------------

    @property
    def maximum(self) -> Plane:
        """The largest valid value."""
        return self._extreme(np.fmax).astype(np.float64)

    @property
    def minimum(self) -> Plane:
        """The smallest valid value."""
        return self._extreme(np.fmin).astype(np.float64)

    def _extreme(self, combine: np.ufunc) -> Plane:
        if self.days == 1:
            return self.series.values
        if combine not in self._kept:
            self._kept[combine] = self._joined(combine, lambda part: part._extreme(combine))
        return self._kept[combine]

    def outermost(self, missing: float) -> tuple[Plane, Plane]:
        """The largest value and how many days ago it first was, `[D, S]` each, where a missing value is infinite.

        Parameters
        ----------
        missing
            Infinity; with a minus, it is the smallest value.
        """
        if self.days == 1:
            values, age = self.series.values, self.series.age
            found = np.where(self.series.valid, values, values.dtype.type(missing))
            found[age <= 0] = -missing  # what lies before the series is never the best
            return found, np.zeros(found.shape, np.int16 if len(found) < 1 << 15 else np.int32)
        if missing not in self._kept:
            keep, compare = (np.maximum, np.greater_equal) if missing > 0 else (np.minimum, np.less_equal)
            older, newer = (part.outermost(missing) for part in self.parts)
            lag = self.span.lag
            length = max(0, len(newer[0]) - lag)
            better = compare(older[0][:length], newer[0][lag:])
            back = newer[1].copy()  # a masked copy waits for every branch
            np.maximum(back[lag:], (older[1][:length] + back.dtype.type(lag)) * better, out=back[lag:])
            self._kept[missing] = joined(keep, newer[0], older[0], lag), back
        return self._kept[missing]

    # -- moments -------------------------------------------------------------------------------------------

    @functools.cached_property
    def gap(self) -> Plane:
        """From the mean of the older part to that of the newer one, `[D - lag, S]`."""
        older, newer = self.parts
        return newer.average[newer.days :] - older.average[: max(0, len(older.average) - newer.days)]

    def product(self, other: Windows) -> Plane:
        """Sum of the products of distances to the means, with a series that is valid on the same days."""
        if self.days == 1:
            return np.zeros(self.series.values.shape)
        if other.series not in self._kept:
            older, newer = other.parts
            mine = self.parts
            found = joined(np.add, mine[1].product(newer), mine[0].product(older), newer.days)
            shift = self.gap * other.gap
            shift *= self.span.weight
            found[newer.days :] += shift
            self._kept[other.series] = found
        return self._kept[other.series]

    @functools.cached_property
    def spread(self) -> Plane:
        """Sum of squared distances to the mean of the window; exactly 0 where all are equal."""
        spread = self.product(self).copy()
        spread[self.equal] = 0.0
        return spread

    @functools.cached_property
    def trend(self) -> Plane:
        """Sum of the products of distances to the mean and to the mean place; exactly 0 where all are equal."""
        trend = self._trend.copy()
        trend[self.equal] = 0.0
        return trend

    @functools.cached_property
    def _trend(self) -> Plane:
        if self.days == 1:
            return np.zeros(self.series.values.shape)
        trend = self._joined(np.add, lambda part: part._trend)
        trend[self.span.lag :] += self.gap * self.span.place_gap * self.span.weight
        return trend

    @functools.cached_property
    def higher(self) -> tuple[Plane, Plane]:
        """Sums of third and fourth powers of distances to the mean."""
        if self.days == 1:
            nothing = np.zeros(self.series.values.shape)
            return nothing, nothing
        lag, gap = self.span.lag, self.gap
        a, b = (counts.astype(np.float64) for counts in self.span.of_parts(lambda part: part.count))
        n = self.span.number[lag:]
        older, newer = self.parts
        two_a, two_b = older.product(older)[: len(gap)], newer.product(newer)[lag:]
        three_a, three_b = older.higher[0][: len(gap)], newer.higher[0][lag:]
        third = joined(np.add, newer.higher[0], older.higher[0], lag)
        third[lag:] += gap**3 * a * b * (a - b) / n**2 + 3 * gap * (a * two_b - b * two_a) / n
        fourth = joined(np.add, newer.higher[1], older.higher[1], lag)
        fourth[lag:] += (
            gap**4 * a * b * (a * a - a * b + b * b) / n**3
            + 6 * gap**2 * (a * a * two_b + b * b * two_a) / n**2
            + 4 * gap * (a * three_b - b * three_a) / n
        )
        return third, fourth

    @functools.cached_property
    def equal(self) -> Plane:
        """Where all valid values are the same, `[D, S]` bool."""
        return self.series.same >= self.count

    @property
    def variance(self) -> Plane:
        """With N - 1 below; NaN of fewer than two values."""
        return self.spread / self.span.degrees

    @functools.cached_property
    def deviation(self) -> Plane:
        """The root of `variance`."""
        return np.sqrt(self.variance)

    # -- lags ----------------------------------------------------------------------------------------------

    def lagged(self, fill: float) -> Plane:
        """The plane with N - 1 days of `fill` in front; its rows from N - 1 - l on are those of l days ago."""
        values, days = self.series.values, min(self.days, len(self.series.values))
        out = np.full((len(values) + days - 1, values.shape[1]), fill, values.dtype)
        out[days - 1 :] = values
        return out

    def quantiles(self, shares: Sequence[float]) -> dict[float, Plane]:
        """Share from 0 to 1 -> the quantile, linear between the two nearest values; NaN where no value is valid.

        The values of a window are put in order once for all shares.
        """
        key = tuple(shares)
        if key not in self._kept:
            self._kept[key] = self._quantiles(key)
        return self._kept[key]

    def _quantiles(self, shares: Sequence[float]) -> dict[float, Plane]:
        values = np.where(self.series.valid, self.series.values, self.series.values.dtype.type(np.inf)).T
        stocks, length = values.shape
        days = min(self.days, length)
        last = (np.maximum(self.count, 1) - 1).T
        found = {share: np.empty((stocks, length)) for share in shares}
        step = max(1, SORTED_AT_ONCE // (length * days))
        for first in range(0, stocks, step):
            part = slice(first, first + step)
            padded = np.full((len(values[part]), length + days - 1), np.inf, values.dtype)
            padded[:, days - 1 :] = values[part]
            windows = np.lib.stride_tricks.sliding_window_view(padded, days, axis=1).copy()
            windows.sort(axis=-1)  # what is missing comes last
            start = np.arange(0, windows.size, days).reshape(-1, length)
            for share, quantile in found.items():
                where = share * last[part]
                low = where.astype(np.int64)
                place = start + low
                lower = windows.take(place).astype(np.float64)
                place += low < last[part]
                np.subtract(where, low, out=where)
                where *= windows.take(place) - lower
                np.add(lower, where, out=quantile[part])
        quantiles = {share: np.ascontiguousarray(quantile.T) for share, quantile in found.items()}
        if not self.series.presence.complete:
            for quantile in quantiles.values():
                quantile[self.count == 0] = np.nan
        return quantiles


def windows_of(series: Series) -> Lengths[Windows]:
    """The windows of a series, by their days; 0 stands for all days so far."""
    return Lengths(functools.partial(Windows, series), len(series.values))
