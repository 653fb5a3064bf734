"""What Qlib's rolling operators make of windows beyond what `Windows` has; NaN where no value is valid, as with pandas."""

from __future__ import annotations

import numpy as np

from qlib_ext.features.engine.rolling import Plane, Series, Windows

FLAT = 2e-05  # Qlib takes a window for constant whose deviation is not above it
LEVEL = 1e-14  # pandas calls no skewness or kurtosis of a variance that is not above it


def skewness(windows: Windows) -> Plane:
    """Fisher's, corrected for bias; of at least three values, and 0 where all are equal."""
    number = windows.span.number
    second, third = windows.spread / number, windows.higher[0] / number
    found = np.sqrt(number * (number - 1)) * third / ((number - 2) * second**1.5)
    return _shaped(windows, found, 3, 0.0, second)


def kurtosis(windows: Windows) -> Plane:
    """Excess, corrected for bias; of at least four values, and -3 where all are equal."""
    number = windows.span.number
    second, fourth = windows.spread / number, windows.higher[1] / number
    found = (number**2 - 1) * fourth / second**2 - 3 * (number - 1) ** 2
    return _shaped(windows, found / ((number - 2) * (number - 3)), 4, -3.0, second)


def _shaped(windows: Windows, found: Plane, least: int, equal: float, second: Plane) -> Plane:
    found = np.where(second > LEVEL, found, np.nan)
    found[windows.equal] = equal
    found[windows.count < least] = np.nan
    return found


def absolute_deviation(windows: Windows) -> Plane:
    """Mean distance to the mean."""
    values, centre = windows.lagged(np.nan), windows.mean
    length = len(centre)
    found = np.zeros_like(centre)
    for k in range(len(values) - length + 1):
        distance = np.abs(values[k : k + length] - centre)
        np.add(found, distance, out=found, where=~np.isnan(distance))
    return found / np.where(windows.count > 0, windows.count, np.nan)


def rank(windows: Windows) -> Plane:
    """Of the newest value among the valid ones, ties by their mean, over their number; NaN where the newest is missing."""
    values, newest = windows.lagged(np.nan), windows.series.values
    days = len(values) - len(newest) + 1
    places: Plane = np.zeros(newest.shape, np.uint8 if days < 128 else np.uint32)
    holds = np.empty(newest.shape, dtype=bool)
    for k in range(days):
        aged = values[k : k + len(newest)]
        for compare in (np.less, np.less_equal):
            compare(aged, newest, out=holds)
            places += holds
    return np.where(windows.series.valid, (places + 1.0) / (2.0 * windows.span.number), np.nan)


def place_of_maximum(windows: Windows) -> Plane:
    """Place of the first of the largest values, 1 for the oldest day; a missing value counts as the largest."""
    return _place(windows, np.inf)


def place_of_minimum(windows: Windows) -> Plane:
    """Place of the first of the smallest values, 1 for the oldest day; a missing value counts as the smallest."""
    return _place(windows, -np.inf)


def _place(windows: Windows, missing: float) -> Plane:
    _, back = windows.outermost(missing)
    return np.where(windows.count > 0, windows.length - back, np.nan)


def slope(windows: Windows) -> Plane:
    """Of the regression on the days of the window."""
    return _without_infinite(windows, windows.trend / windows.span.places[1])


def residual(windows: Windows) -> Plane:
    """Of the newest value."""
    place, spread = windows.span.places
    distance = np.where(windows.equal, 0.0, windows.series.values - windows.average)
    found = distance - windows.trend / spread * (windows.days - place)
    return _without_infinite(windows, np.where(windows.series.valid, found, np.nan))


def r_square(windows: Windows) -> Plane:
    """Of the regression on the days of the window; NaN where the values hardly differ."""
    found = windows.trend**2 / (windows.span.places[1] * windows.spread)
    if not windows.expanding:
        found[windows.deviation <= FLAT] = np.nan
    return _without_infinite(windows, found)


def _without_infinite(windows: Windows, found: Plane) -> Plane:
    # Qlib's running sums hold an infinite value for good: what a day is worth would hang on all days before it
    if windows.infinite is not None:
        found[windows.infinite] = np.nan
    return found


def weighted_mean(windows: Windows) -> Plane:
    """Qlib's: values times place over the sum of places, and the mean of that (not its sum) over the valid ones."""
    length = windows.length.astype(np.float64)
    summed = windows.placed_sum - (windows.days - length) * windows.sum
    return summed / (length * (length + 1) / 2) / np.where(windows.count > 0, windows.count, np.nan)


def smoothed(series: Series, alpha: float) -> Plane:
    """Exponentially weighted mean, a day with a missing value counting as time passed."""
    values, valid = series.values.astype(np.float64), series.valid
    out = np.empty_like(values)
    weight, held = np.zeros(values.shape[1]), np.full(values.shape[1], np.nan)
    for day, (value, there) in enumerate(zip(values, valid, strict=True)):
        weight *= 1 - alpha
        now = weight + there
        moved = np.where(weight > 0, held + (value - held) / now, value)
        held = np.where(there, moved, held)
        weight = now
        out[day] = held
    return out


def smoothed_over_all(series: Series) -> Plane:
    """Qlib's `EMA(x, 0)`: on each day, over all days so far, with a span of as many days."""
    out = np.full(series.values.shape, np.nan)
    for stock in range(series.values.shape[1]):
        begun = int(np.argmax(series.age[:, stock] > 0))
        values = np.nan_to_num(series.values[begun:, stock].astype(np.float64), nan=0.0)
        for day in range(len(values)):
            weights = (1 - 2 / (2 + day)) ** np.arange(day, -1, -1.0)
            out[begun + day, stock] = weights @ values[: day + 1] / weights.sum()
    return np.where(np.maximum.accumulate(series.valid, axis=0), out, np.nan)


def covariance(left: Windows, right: Windows) -> Plane:
    """Of days on which both are valid."""
    return left.product(right) / left.span.degrees


def correlation(left: Windows, right: Windows) -> Plane:
    """Of days on which both are valid."""
    return covariance(left, right) / np.sqrt(left.variance * right.variance)
