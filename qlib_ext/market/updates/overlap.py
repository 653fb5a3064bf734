"""Whether a store and a source of further days agree on the days that both have, and on what scale the prices are.

Adjusted prices are known up to a factor. A vendor that anchors them at the last day rescales all of history at each
split and dividend; a store must not, or everything learned from it would change. So one ratio between the two, the
same on every day, is no contradiction: the new rows are brought to the store's scale. Anything else is one.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qlib_ext.checks import UserError

OHLC = ("open", "high", "low", "close")
# A field grows with the scale of the prices to this power.
POWERS: Mapping[str, int] = {**dict.fromkeys((*OHLC, "vwap", "factor"), 1), "volume": -1}
# Relative: float32 has 6e-8, and a value may have gone through a few of its roundings. Of a return it is absolute.
ROUNDING = 1e-6
MOST_DECIMALS = 6
# Prices of few days may all be round by chance: a unit above both of these is not believed.
COARSEST, COARSEST_SHARE = 0.01, 1e-4


class NotProportionalError(UserError):
    """The prices of a source are not those of the store in another scale."""


@dataclass(frozen=True)
class Overlap:
    """One instrument on the n days that a store and a source both have.

    Attributes
    ----------
    days : int
        Days of which both have a factor, or a price, to tell the scale by.
    scale : float
        Prices of the source / prices of the store; 1 where they are on one scale, or no day tells.
    divisors : mapping
        Field to what its values in the source are divided by to be those of the store.
    disagreeing : mapping
        Field to bool `[n]`: both have a value, and they differ beyond rounding.
    lacking : mapping
        Field to bool `[n]`: the source has a value and the store has none.
    gone : mapping
        Field to bool `[n]`: the store has a value and the source has none.
    """

    days: int
    scale: float
    divisors: Mapping[str, float]
    disagreeing: Mapping[str, np.ndarray]
    lacking: Mapping[str, np.ndarray]
    gone: Mapping[str, np.ndarray]


@dataclass(frozen=True)
class _Scale:
    """Prices of the source / those of the store, and what rounding leaves open of it."""

    value: float = 1.0
    low: float = 1.0
    high: float = 1.0
    half: float = 0.0  # of a unit of the last decimal of the source's prices
    fits: Mapping[str, np.ndarray] | None = None  # bool [n], days on which a reference field allows the scale


def compare(store: Mapping[str, np.ndarray], source: Mapping[str, np.ndarray]) -> Overlap:
    r"""Find the scale of a source against a store, and the values that do not agree.

    The scale is the ratio of the factors, or that of open, high, low and close where not both sides have a factor.
    It is 1 if half of the pairs agree as they stand. Otherwise a pair a of the store and b of the source allows

    .. math:: \left[\frac{b - h}{a + h},\ \frac{b + h}{a - h}\right]

    where h is half a unit of the last decimal that the source writes. The scale lies in as many of these intervals
    as possible; a pair whose interval leaves it out disagrees. The other fields are then compared on that scale:
    prices divided by it, volume times it, unless most values of a field agree as they stand (a vendor may rescale
    prices and leave volumes). What rounding to the last decimal can do to them is forgiven. Where the scale is 1,
    nothing is forgiven but the rounding of float32.

    Parameters
    ----------
    store, source
        The same fields, float `[n]` each, NaN where there is no value.

    Raises
    ------
    NotProportionalError
        If no scale fits at least half of the pairs. The message says the smallest and the largest ratio.
    """
    old = {field: np.asarray(values, dtype=np.float64) for field, values in store.items()}
    new = {field: np.asarray(source[field], dtype=np.float64) for field in old}
    both = {field: np.isfinite(old[field]) & np.isfinite(new[field]) for field in old}
    by_factor = "factor" in both and bool(both["factor"].any())
    reference = ["factor"] if by_factor else [field for field in OHLC if field in old]
    scale = _find_scale(old, new, both, reference)
    divisors = _divisors(old, new, both, reference, scale.value)
    disagreeing = {}
    for field, at in both.items():
        if scale.fits is not None and field in reference:
            disagreeing[field] = at & ~scale.fits[field]
            continue
        a, b = old[field][at], new[field][at] / divisors[field]
        allowed = ROUNDING * (np.ones(len(a)) if field == "change" else np.maximum(np.abs(a), np.abs(b)))
        if scale.fits is not None and (divisors[field] != 1 or field == "change"):
            if by_factor:
                b = b * _drift_of_factor(old, new, scale)[at] ** POWERS.get(field, 0)
            else:
                doubt = _doubt(old, new, scale)[at]
                allowed = allowed + doubt * (2 * (1 + np.abs(a)) if field == "change" else np.abs(a))
        wrong = np.zeros(len(at), dtype=bool)
        wrong[at] = np.abs(b - a) > allowed
        disagreeing[field] = wrong
    told = [both[field] for field in reference]
    return Overlap(
        days=int(np.logical_or.reduce(told).sum()) if told else 0,
        scale=scale.value,
        divisors=divisors,
        disagreeing=disagreeing,
        lacking={field: np.isfinite(new[field]) & ~np.isfinite(old[field]) for field in old},
        gone={field: np.isfinite(old[field]) & ~np.isfinite(new[field]) for field in old},
    )


def last_decimal(values: np.ndarray) -> float:
    """Unit of the last decimal that `values` were written with, such as 0.01; 0 where float32 does not show it."""
    values = np.abs(values[np.isfinite(values)])
    if not values.size:
        return 0.0
    blur = 2.0**-23 * values.max()
    for decimals in range(MOST_DECIMALS + 1):
        unit = 10.0**-decimals
        if blur > 0.05 * unit:
            break  # finer units are met by chance
        if (np.abs(values / unit - np.round(values / unit)) * unit <= blur).all():
            return unit
    return 0.0


def _find_scale(
    old: Mapping[str, np.ndarray],
    new: Mapping[str, np.ndarray],
    both: Mapping[str, np.ndarray],
    reference: Sequence[str],
) -> _Scale:
    usable = {field: both[field] & (old[field] > 0) & (new[field] > 0) for field in reference}
    if not any(mask.any() for mask in usable.values()):
        return _Scale()
    a = np.concatenate([old[field][usable[field]] for field in reference])
    b = np.concatenate([new[field][usable[field]] for field in reference])
    if _same(a, b).mean() >= 0.5:
        return _Scale()
    h = min(last_decimal(b), max(COARSEST, COARSEST_SHARE * float(np.median(b)))) / 2
    least = (b * (1 - ROUNDING) - h) / (a * (1 + ROUNDING) + h)
    below = a * (1 - ROUNDING) - h
    with np.errstate(divide="ignore"):
        most = np.where(below > 0, (b * (1 + ROUNDING) + h) / below, np.inf)
    low, high = _deepest(least, most)
    fits = (least <= low) & (high <= most)
    if fits.mean() < 0.5:
        ratio = b / a
        what = "factors" if "factor" in reference else "prices"
        raise NotProportionalError(
            f"the {what} of the source must be those of the store times one number, found ratios from "
            f"{ratio.min():.6g} to {ratio.max():.6g}"
        )
    if low <= 1 <= high:  # rounded otherwise, but not rescaled
        return _Scale()
    by_field, start = {}, 0
    for field in reference:
        by_field[field] = old[field] == new[field]
        count = int(usable[field].sum())
        by_field[field][usable[field]] = fits[start : start + count]
        start += count
    value = float(np.clip(b[fits].sum() / a[fits].sum(), low, high))
    return _Scale(value, low, high, h, by_field)


def _same(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    return np.abs(b - a) <= ROUNDING * np.maximum(np.abs(a), np.abs(b))


def _deepest(least: np.ndarray, most: np.ndarray) -> tuple[float, float]:
    """The first interval that lies in as many of the intervals as possible."""
    ends = np.concatenate([least, most])
    step = np.concatenate([np.ones(len(least)), -np.ones(len(most))])
    order = np.lexsort((-step, ends))  # where one begins as another ends, both are there
    top = int(np.cumsum(step[order]).argmax())
    return float(ends[order[top]]), float(ends[order[top + 1]])


def _divisors(
    old: Mapping[str, np.ndarray],
    new: Mapping[str, np.ndarray],
    both: Mapping[str, np.ndarray],
    reference: Sequence[str],
    scale: float,
) -> dict[str, float]:
    divisors = {}
    for field, at in both.items():
        divisors[field] = scale ** POWERS.get(field, 0)
        a, b = old[field][at], new[field][at]
        moving = (a != 0) & (b != 0)
        if field not in reference and moving.any() and _same(a[moving], b[moving]).mean() >= 0.5:
            divisors[field] = 1.0
    return divisors


def _drift_of_factor(
    old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], scale: _Scale
) -> np.ndarray:
    """What the rounding of the source's factor takes off its adjusted prices, by day: raw prices know no rounding."""
    assert scale.fits is not None
    drift = old["factor"] * scale.value / new["factor"]
    return np.where(scale.fits["factor"] & np.isfinite(drift), drift, 1.0)


def _doubt(old: Mapping[str, np.ndarray], new: Mapping[str, np.ndarray], scale: _Scale) -> np.ndarray:
    """Relative difference by day that rounding of the source's prices and volumes can make."""
    prices = np.fmin.reduce([old[field] for field in OHLC if field in old])
    doubt = scale.half * (1 + 1 / scale.value) / prices + scale.high / scale.low - 1
    if "volume" in old:
        shares = np.fmin(old["volume"], new["volume"])
        with np.errstate(divide="ignore", invalid="ignore"):
            doubt = doubt + np.where(shares > 0, last_decimal(new["volume"]) / shares, 0.0)
    return np.nan_to_num(doubt, nan=0.0, posinf=0.0)
