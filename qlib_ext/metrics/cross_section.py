"""Agreement of a score with a return across the stocks of a day, and how steady it is over days."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
from scipy.special import ndtri

from qlib_ext.checks import UserError, integer

Floats = npt.NDArray[np.float64]


def pearson(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Pearson correlation of two values across the stocks of each day: the daily IC.

    A stock counts on a day when both values are there.

    Parameters
    ----------
    x, y
        Values ``[D, S]`` (days x stocks), NaN where there is none.

    Returns
    -------
    ``[D]``. NaN on a day with fewer than two pairs, with a constant side, or with an infinite value.

    Raises
    ------
    UserError
        If the two are not matrices of one shape.

    Examples
    --------
    >>> pearson([[1.0, 2.0, 3.0, np.nan]], [[2.0, 4.0, 6.0, 1.0]])
    array([1.])
    """
    a, b = _pairs(x, y)
    with np.errstate(invalid="ignore", over="ignore"):  # infinite values: their day is NaN
        (a, a_undefined), (b, b_undefined) = _standardise(a), _standardise(b)
        correlation = np.clip((a * b).sum(axis=1), -1.0, 1.0)
    correlation[a_undefined | b_undefined] = np.nan
    return correlation


def spearman(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Spearman rank correlation of two values across the stocks of each day: the daily RankIC.

    It is the Pearson correlation of the ranks among the stocks that have both values; ties take the average
    of their ranks, as in `scipy.stats.spearmanr`. Infinite values are ranked as any other.

    Parameters
    ----------
    x, y
        Values ``[D, S]`` (days x stocks), NaN where there is none.

    Returns
    -------
    ``[D]``. NaN on a day with fewer than two pairs or with a constant side.

    Raises
    ------
    UserError
        If the two are not matrices of one shape.
    """
    a, b = _pairs(x, y)
    return pearson(rank(a), rank(b))


def rank(x: npt.ArrayLike) -> Floats:
    """Rank the stocks of each day in ascending order from 1; ties take the average of their ranks.

    Parameters
    ----------
    x
        Values ``[D, S]`` (days x stocks), NaN where there is none.

    Returns
    -------
    ``[D, S]``, NaN where `x` is.

    Examples
    --------
    >>> rank([[10.0, 30.0, np.nan, 10.0]])
    array([[1.5, 3. , nan, 1.5]])
    """
    values = matrix("x", x)
    days, stocks = values.shape
    if stocks == 0:
        return values.copy()
    order = np.argsort(values, axis=1)  # NaN last, so that it takes no rank from a value
    ordered = np.take_along_axis(values, order, axis=1)
    changes = ordered[:, 1:] != ordered[:, :-1]
    position = np.arange(stocks)
    edge = np.ones((days, 1), dtype=bool)
    first = np.maximum.accumulate(np.where(np.hstack([edge, changes]), position, 0), axis=1)
    last = np.where(np.hstack([changes, edge]), position, stocks)
    last = np.minimum.accumulate(last[:, ::-1], axis=1)[:, ::-1]
    ranks = np.empty_like(values)
    np.put_along_axis(ranks, order, (first + last) / 2 + 1, axis=1)
    ranks[np.isnan(values)] = np.nan
    return ranks


def normal_scores(x: npt.ArrayLike) -> Floats:
    r"""Ranks of a day's stocks as quantiles of the normal distribution: van der Waerden's scores, with places in the middle.

    .. math:: z_i = \Phi^{-1}\left(\frac{\mathrm{rank}_i - 1/2}{n}\right)

    Parameters
    ----------
    x
        Values ``[D, S]`` (days x stocks), NaN where there is none.

    Returns
    -------
    ``[D, S]`` of mean 0 where no two are equal, NaN where `x` is.

    Examples
    --------
    >>> normal_scores([[10.0, 30.0, np.nan, 20.0]]).round(2)
    array([[-0.97,  0.97,   nan,  0.  ]])
    """
    ranks = rank(x)
    count = np.maximum((~np.isnan(ranks)).sum(axis=1, keepdims=True), 1)
    return np.asarray(ndtri((ranks - 0.5) / count), dtype=np.float64)


def icir(daily: npt.ArrayLike) -> float:
    """Mean over standard deviation of a daily series: the ICIR of a daily IC, not annualised.

    The standard deviation has the divisor D - 1. Days of NaN do not count.

    Parameters
    ----------
    daily
        ``[D]``, NaN on a day without a value.

    Returns
    -------
    NaN with fewer than two values or when all are equal.
    """
    values = present("daily", daily)
    if len(values) < 2 or np.ptp(values) == 0:
        return math.nan
    return float(values.mean() / values.std(ddof=1))


def newey_west_t(daily: npt.ArrayLike, lags: int | None = None, *, span_days: int = 1) -> float:
    r"""Statistic t of the mean of a daily series, robust to autocorrelation and heteroscedasticity.

    Source: Newey and West (1987), "A Simple, Positive Semi-definite, Heteroskedasticity and Autocorrelation
    Consistent Covariance Matrix", Econometrica 55.

    .. math::

        t = \bar x / \sqrt{S / D}, \quad
        S = \gamma_0 + 2 \sum_{j=1}^{L} \left(1 - \frac{j}{L + 1}\right) \gamma_j, \quad
        \gamma_j = \frac{1}{D} \sum_{d > j} (x_d - \bar x)(x_{d-j} - \bar x)

    Parameters
    ----------
    daily
        ``[D]`` in the order of time, NaN on a day without a value; such days are cut out, and the days at
        either side count as neighbours.
    lags
        Autocovariances L that count; those beyond the length of the series are none. The default is the rule
        of Newey and West (1994), ``floor(4 (D / 100)^(2/9))``, and at least ``2 (h - 1)``.
    span_days
        h, the days of return that a value looks at: neighbouring values share h - 1 of them, and are correlated so far.

    Returns
    -------
    NaN with fewer than two values or when all are equal.

    Raises
    ------
    UserError
        If `lags` is not an integer of at least 0, or `span_days` of at least 1.
    """
    values = present("daily", daily)
    if lags is not None:
        integer("lags", lags, 0)
    integer("span_days", span_days, 1)
    days = len(values)
    if days < 2 or np.ptp(values) == 0:
        return math.nan
    if lags is None:
        lags = max(math.floor(4 * (days / 100) ** (2 / 9)), 2 * (span_days - 1))
    deviation = values - values.mean()
    variance = deviation @ deviation
    for lag in range(1, min(lags, days - 1) + 1):
        variance += 2 * (1 - lag / (lags + 1)) * (deviation[lag:] @ deviation[:-lag])
    return float(values.mean() / math.sqrt(variance) * days)


def checked_returns(returns: Floats, *weights: Floats, called: str = "weights") -> Floats:
    """Returns ``[D, S]`` with 0 where no weight asks for one; `called` is what messages call the weights.

    Raises
    ------
    UserError
        If a weight is missing or of another shape, or a stock with a weight has no return.
    """
    for held in weights:
        if held.shape != returns.shape:
            raise UserError(f"{called} must be {returns.shape} as `returns`, found the shape {held.shape}")
        if not np.isfinite(held).all():
            raise UserError(
                f"{called} must be there for each day and stock, found {(~np.isfinite(held)).sum()} missing"
            )
        lacking = (held != 0) & ~np.isfinite(returns)
        if lacking.any():
            raise UserError(
                f"a stock with a weight needs a return, found {lacking.sum()} without; give 0 where the price stood still"
            )
    return np.where(np.isfinite(returns), returns, 0.0)


def matrix(name: str, value: npt.ArrayLike) -> Floats:
    """Return `value` as a float64 matrix ``[D, S]``, or raise a UserError."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 2:
        raise UserError(f"`{name}` must be a matrix [days, stocks], found the shape {array.shape}")
    return array


def same_shape(x_name: str, x: npt.ArrayLike, y_name: str, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return two values as float64 matrices of one shape ``[D, S]``, or raise a UserError."""
    a, b = matrix(x_name, x), matrix(y_name, y)
    if a.shape != b.shape:
        raise UserError(
            f"`{x_name}` and `{y_name}` must have one shape [days, stocks], found {a.shape} and {b.shape}"
        )
    return a, b


def present(name: str, value: npt.ArrayLike) -> Floats:
    """Return the values of a series ``[D]`` that are not NaN, or raise a UserError if it is no series."""
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 1:
        raise UserError(f"`{name}` must be a series [days], found the shape {array.shape}")
    return array[~np.isnan(array)]


def _pairs(x: npt.ArrayLike, y: npt.ArrayLike) -> tuple[Floats, Floats]:
    """The two matrices, with NaN in both where either has it."""
    a, b = same_shape("x", x, "y", y)
    missing = np.isnan(a) | np.isnan(b)
    return np.where(missing, np.nan, a), np.where(missing, np.nan, b)


def _standardise(values: Floats) -> tuple[Floats, npt.NDArray[np.bool_]]:
    """Rows of mean 0 and length 1, with 0 for a missing value; and which rows cannot have that, ``[D]``."""
    there = ~np.isnan(values)
    count = there.sum(axis=1, keepdims=True)
    mean = np.where(there, values, 0.0).sum(axis=1, keepdims=True) / np.maximum(count, 1)
    centred = np.where(there, values - mean, 0.0)
    # Constant is judged on the values: a rounded mean can leave a constant row with a tiny spread.
    high = np.where(there, values, -np.inf).max(axis=1, initial=-np.inf)
    low = np.where(there, values, np.inf).min(axis=1, initial=np.inf)
    # Scaled by the largest first, so that the squares of very small or large values stay in range.
    largest = np.abs(centred).max(axis=1, keepdims=True, initial=0.0)
    scaled = centred / np.where(largest == 0, 1.0, largest)
    length = np.sqrt((scaled**2).sum(axis=1, keepdims=True))
    return scaled / np.where(length == 0, 1.0, length), (count[:, 0] < 2) | (high <= low)
