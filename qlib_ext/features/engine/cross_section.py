"""Statistics of a day: of the stocks that a universe has then, with a close of the day, and that have a value."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qlib_ext.features.engine.rolling import Plane


def rank(values: Plane) -> Plane:
    """Share of the day's stocks at or below each, ties by their mean: from 1 / n to 1."""
    return pd.DataFrame(values).rank(axis=1, pct=True).to_numpy()


def zscore(values: Plane) -> Plane:
    """Distance to the mean of the day, over the standard deviation (with N - 1); NaN where all are equal."""
    number, distance = _centred(values)
    spread = np.nansum(distance**2, axis=1, keepdims=True) / np.maximum(number - 1, 1)
    # by the values: the mean of equal ones may be off in its last bit
    differs = np.fmax.reduce(values, axis=1, keepdims=True) > np.fmin.reduce(values, axis=1, keepdims=True)
    return distance / np.where(differs & (spread > 0), np.sqrt(spread), np.nan)


def neutralize(values: Plane, groups: Plane) -> Plane:
    """Distance to the mean of the stock's group on the day; NaN of a stock without one.

    Parameters
    ----------
    values
        `[D, S]`.
    groups
        `[D, S]` int: number of each stock's group, below 0 where it has none.
    """
    number = int(groups.max(initial=0)) + 1
    day = np.arange(len(values))[:, None] * number
    used = ~np.isnan(values) & (groups >= 0)
    place = (day + np.maximum(groups, 0))[used]
    counts = np.bincount(place, minlength=len(values) * number)
    sums = np.bincount(place, values[used], minlength=len(values) * number)
    out = np.full(values.shape, np.nan)
    out[used] = values[used] - (sums / np.maximum(counts, 1))[place]
    return out


def _centred(values: Plane) -> tuple[Plane, Plane]:
    number = (~np.isnan(values)).sum(axis=1, keepdims=True)
    mean = np.nansum(values, axis=1, keepdims=True) / np.maximum(number, 1)
    return number, values - mean
