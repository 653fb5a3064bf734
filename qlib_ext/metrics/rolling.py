"""Risk as it was measured at the end of each day, over the days just before it.

But for `trailing_beta`, each function takes daily simple returns ``[D]``, none missing (`risk`), and a window of W days.
The value of a day is that of the function of the same name over the W days that end with it; NaN on the first W - 1 days,
and where the window has no spread.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from numpy.lib.stride_tricks import sliding_window_view

from qlib_ext.checks import UserError, above, integer
from qlib_ext.metrics.cross_section import Floats, matrix
from qlib_ext.metrics.risk import daily_series, same_days


def rolling_volatility(returns: npt.ArrayLike, window_days: int, periods_per_year: float = 252) -> Floats:
    """`risk.annualised_volatility` over a window.

    Parameters
    ----------
    returns
        Daily returns ``[D]``.
    window_days
        Days W of a window, at least 2.
    periods_per_year
        Trading days in a year.

    Returns
    -------
    ``[D]``, NaN on the first W - 1 days.

    Raises
    ------
    UserError
        If a return is missing or below -1, or `window_days` is below 2.
    """
    above("periods_per_year", periods_per_year, 0)

    def figure(window: Floats) -> Floats:
        return window.std(axis=1, ddof=1) * math.sqrt(periods_per_year)

    return _rolling(figure, window_days, daily_series("returns", returns))


def rolling_sharpe(returns: npt.ArrayLike, window_days: int, periods_per_year: float = 252) -> Floats:
    """`risk.sharpe_ratio` over a window; arguments, result and errors as in `rolling_volatility`."""
    above("periods_per_year", periods_per_year, 0)

    def figure(window: Floats) -> Floats:
        spread = np.where(np.ptp(window, axis=1) == 0, np.nan, window.std(axis=1, ddof=1))
        return window.mean(axis=1) / spread * math.sqrt(periods_per_year)

    return _rolling(figure, window_days, daily_series("returns", returns))


def rolling_beta(returns: npt.ArrayLike, benchmark: npt.ArrayLike, window_days: int) -> Floats:
    """`relative.beta` over a window; NaN too where the index has no spread in it.

    Parameters
    ----------
    returns, benchmark
        Daily returns ``[D]`` of the portfolio and of its index on the same days.
    window_days
        Days W of a window, at least 2.

    Returns
    -------
    ``[D]``, NaN on the first W - 1 days.

    Raises
    ------
    UserError
        As in `rolling_volatility`, or if the two differ in length.
    """

    def figure(r: Floats, b: Floats) -> Floats:
        deviation = b - b.mean(axis=1, keepdims=True)
        variance = np.where(np.ptp(b, axis=1) == 0, np.nan, (deviation**2).sum(axis=1))
        return (deviation * r).sum(axis=1) / variance

    return _rolling(figure, window_days, *same_days(returns, benchmark))


def trailing_beta(
    returns: npt.ArrayLike, market: npt.ArrayLike, window_days: int = 60, min_days: int = 40
) -> Floats:
    """Slope of each stock's daily returns on those of the market, over the W days that end with each day.

    Parameters
    ----------
    returns
        Daily returns ``[D, S]`` (days x stocks), NaN where there is none.
    market
        Daily returns of the market ``[D]``, NaN where there is none.
    window_days
        Days W of a window, at least 2.
    min_days
        Days of a window on which both must have a return, at least 2.

    Returns
    -------
    ``[D, S]``, NaN with fewer days, or where the market does not move on them.

    Raises
    ------
    UserError
        If a window is out of its range, or the two are of different days.
    """
    r, m = matrix("returns", returns), np.asarray(market, dtype=np.float64)
    integer("window_days", window_days, 2)
    integer("min_days", min_days, 2)
    if m.shape != r.shape[:1]:
        raise UserError(f"`market` must be [days] as `returns` {r.shape}, found the shape {m.shape}")
    there = ~np.isnan(r) & ~np.isnan(m)[:, None]
    x, y = np.where(there, m[:, None], 0.0), np.where(there, r, 0.0)
    n, sx, sy, sxx, sxy = (_trailing_sum(each, window_days) for each in (there, x, y, x * x, x * y))
    spread = sxx - sx * sx / np.maximum(n, 1)
    known = (n >= min_days) & (spread > 1e-10 * sxx)
    return np.where(known, (sxy - sx * sy / np.maximum(n, 1)) / np.where(known, spread, 1.0), np.nan)


def _trailing_sum(values: npt.NDArray[Any], window_days: int) -> Floats:
    total = np.cumsum(values, axis=0, dtype=np.float64)
    total[window_days:] -= total[:-window_days].copy()
    return total


def _rolling(figure: Callable[..., Floats], window_days: int, *series: Floats) -> Floats:
    """A figure of windows ``[D - W + 1, W]``, put on the days ``[D]`` on which they end."""
    integer("window_days", window_days, 2)
    result = np.full(len(series[0]), np.nan)
    if len(result) >= window_days:
        result[window_days - 1 :] = figure(*(sliding_window_view(values, window_days) for values in series))
    return result
