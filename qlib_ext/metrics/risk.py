"""Return and risk of a daily series of portfolio returns, always compounded.

Returns are simple, as fractions: 0.01 is one percent. Every function wants every day: a missing return has no
meaning in a compounded series, so NaN is an error. Ratios that have no value (no day, or no spread) are NaN.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, above
from qlib_ext.metrics.cross_section import Floats


def wealth(returns: npt.ArrayLike) -> Floats:
    """Value at the end of each day ``[D]`` of 1 invested before the first, from daily returns ``[D]``."""
    return np.cumprod(1 + daily_series("returns", returns), dtype=np.float64)


def cumulative_return(returns: npt.ArrayLike) -> float:
    """Return over the whole of a daily series ``[D]``; 0 without any day."""
    return float(np.prod(1 + daily_series("returns", returns)) - 1)


def annualised_return(returns: npt.ArrayLike, periods_per_year: float = 252) -> float:
    r"""Constant yearly return that leads to the same wealth (CAGR).

    .. math:: W_D^{P / D} - 1

    Parameters
    ----------
    returns
        Daily returns ``[D]``.
    periods_per_year
        Trading days P in a year.

    Returns
    -------
    A fraction a year; NaN without any day.

    Raises
    ------
    UserError
        If a return is missing or below -1.
    """
    series = daily_series("returns", returns)
    above("periods_per_year", periods_per_year, 0)
    if len(series) == 0:
        return math.nan
    return float(np.prod(1 + series) ** (periods_per_year / len(series)) - 1)


def annualised_volatility(returns: npt.ArrayLike, periods_per_year: float = 252) -> float:
    """Standard deviation (divisor D - 1) of daily returns ``[D]`` times the root of the days in a year.

    NaN with fewer than two days.
    """
    series = daily_series("returns", returns)
    above("periods_per_year", periods_per_year, 0)
    if len(series) < 2:
        return math.nan
    return float(series.std(ddof=1) * math.sqrt(periods_per_year))


def sharpe_ratio(returns: npt.ArrayLike, periods_per_year: float = 252) -> float:
    """Mean over standard deviation of daily returns ``[D]``, annualised, with a riskless return of 0.

    For another riskless return subtract it from `returns` first. NaN with fewer than two days or no spread.
    """
    return _ratio(daily_series("returns", returns), periods_per_year)


def information_ratio(
    returns: npt.ArrayLike, benchmark: npt.ArrayLike, periods_per_year: float = 252
) -> float:
    r"""Mean over standard deviation of the daily difference to a benchmark, annualised.

    .. math:: \frac{\mathrm{mean}(r - b)}{\mathrm{std}(r - b)} \sqrt P

    Parameters
    ----------
    returns, benchmark
        Daily returns ``[D]`` of the portfolio and of its benchmark on the same days.
    periods_per_year
        Trading days P in a year.

    Returns
    -------
    NaN with fewer than two days or no spread.

    Raises
    ------
    UserError
        If a return is missing or below -1, or the two differ in length.
    """
    r, b = same_days(returns, benchmark)
    return _ratio(r - b, periods_per_year)


def relative_return(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> Floats:
    r"""Daily return of the portfolio measured in units of its benchmark.

    .. math:: (1 + r) / (1 + b) - 1

    Compounded it gives the relative wealth :math:`\prod (1 + r) / \prod (1 + b)`, so `wealth`, `drawdown` and
    the other functions of one series apply to it.

    Parameters
    ----------
    returns, benchmark
        Daily returns ``[D]`` of the portfolio and of its benchmark on the same days.

    Returns
    -------
    ``[D]``.

    Raises
    ------
    UserError
        If a return is missing or below -1, a benchmark's is -1, or the two differ in length.
    """
    r, b = same_days(returns, benchmark)
    if (b == -1).any():
        raise UserError("`benchmark` must stay above -1, found a day on which it loses everything")
    return (1 + r) / (1 + b) - 1


def relative_wealth(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> Floats:
    """Wealth over that of the benchmark at the end of each day ``[D]`` (see `relative_return`)."""
    return wealth(relative_return(returns, benchmark))


def annualised_excess_return(
    returns: npt.ArrayLike, benchmark: npt.ArrayLike, periods_per_year: float = 252
) -> float:
    r"""Constant yearly return over the benchmark that leads to the same relative wealth.

    .. math:: W^{P / D} - 1, \qquad W = \prod (1 + r) / \prod (1 + b)

    It is the geometric excess, not the difference of two annualised returns. Arguments, result and errors as
    in `relative_return` and `annualised_return`.
    """
    return annualised_return(relative_return(returns, benchmark), periods_per_year)


def downside_deviation(returns: npt.ArrayLike, target: float = 0.0, periods_per_year: float = 252) -> float:
    r"""Root mean square of what falls short of a daily target, annualised.

    Source: Sortino and van der Meer (1991), "Downside Risk", Journal of Portfolio Management 17. Days above the
    target count as 0 and stay in the divisor D.

    .. math:: \sqrt{\frac 1 D \sum_d \min(r_d - t, 0)^2} \sqrt P

    Parameters
    ----------
    returns
        Daily returns ``[D]``.
    target
        Daily return t below which a day falls short.
    periods_per_year
        Trading days P in a year.

    Returns
    -------
    A fraction a year; 0 where no day falls short, NaN without any day.

    Raises
    ------
    UserError
        If a return is missing or below -1.
    """
    series = daily_series("returns", returns)
    above("periods_per_year", periods_per_year, 0)
    if len(series) == 0:
        return math.nan
    short = np.minimum(series - target, 0.0)
    return float(math.sqrt(np.mean(short**2)) * math.sqrt(periods_per_year))


def sortino_ratio(returns: npt.ArrayLike, target: float = 0.0, periods_per_year: float = 252) -> float:
    r"""Mean over the daily target, annualised, for each unit of downside deviation.

    Source: as `downside_deviation`.

    .. math:: \frac{\mathrm{mean}(r - t)}{\sqrt{\mathrm{mean}(\min(r - t, 0)^2)}} \sqrt P

    Arguments and errors as in `downside_deviation`. NaN with fewer than two days, or where no day falls short.
    """
    series = daily_series("returns", returns)
    deviation = downside_deviation(series, target, periods_per_year)
    if len(series) < 2 or deviation == 0:
        return math.nan
    return float((series.mean() - target) * periods_per_year / deviation)


def stability(returns: npt.ArrayLike) -> float:
    r"""How straight the road was: R squared of log wealth on time.

    .. math:: \mathrm{corr}\left(d, \sum_{e \le d} \ln (1 + r_e)\right)^2

    Parameters
    ----------
    returns
        Daily returns ``[D]``.

    Returns
    -------
    In [0, 1]: 1 where every day earns the same. A steady loss is as stable as a steady gain. NaN with fewer than two
    days, after a total loss, or where the wealth never moves.

    Raises
    ------
    UserError
        If a return is missing or below -1.
    """
    series = daily_series("returns", returns)
    if len(series) < 2 or (series == -1).any():
        return math.nan
    road = np.log1p(series).cumsum()
    if np.ptp(road) == 0:
        return math.nan
    return float(np.corrcoef(np.arange(len(road)), road)[0, 1] ** 2)


def drawdown(returns: npt.ArrayLike) -> Floats:
    """Loss from the highest wealth so far at the end of each day ``[D]``, from daily returns ``[D]``.

    At most 0: -0.2 is 20% below the peak. The wealth before the first day counts as a peak.
    """
    value = wealth(returns)
    peak = np.maximum.accumulate(np.append(1.0, value))[1:]
    return value / peak - 1


def max_drawdown(returns: npt.ArrayLike) -> float:
    """Largest loss from a peak of daily returns ``[D]``, at most 0; 0 where there is none (`drawdown`)."""
    return float(drawdown(returns).min(initial=0.0))


def hit_rate(returns: npt.ArrayLike, benchmark: npt.ArrayLike | None = None) -> float:
    """Share of days whose return is above the benchmark's, or above 0 without one; NaN without any day."""
    series = daily_series("returns", returns)
    if benchmark is None:
        better = series > 0
    else:
        series, other = same_days(returns, benchmark)
        better = series > other
    return float(better.mean()) if len(better) else math.nan


def _ratio(series: Floats, periods_per_year: float) -> float:
    above("periods_per_year", periods_per_year, 0)
    if len(series) < 2 or np.ptp(series) == 0:
        return math.nan
    return float(series.mean() / series.std(ddof=1) * math.sqrt(periods_per_year))


def daily_series(name: str, value: npt.ArrayLike) -> Floats:
    """Return `value` as float64 returns ``[D]``, each finite and at least -1, or raise a UserError."""
    series = np.asarray(value, dtype=np.float64)
    if series.ndim != 1:
        raise UserError(f"`{name}` must be a series [days], found the shape {series.shape}")
    missing = int((~np.isfinite(series)).sum())
    if missing:
        raise UserError(
            f"`{name}` must have a finite return on every day, found {missing} of {len(series)} days "
            "without one; give the days on which it has a value, or 0 where nothing was held"
        )
    if (series < -1).any():
        raise UserError(
            f"`{name}` must be at least -1 on every day, found {series.min():g}; returns are fractions"
        )
    return series


def same_days(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Return two series of returns ``[D]`` of the same days, or raise a UserError."""
    r, b = daily_series("returns", returns), daily_series("benchmark", benchmark)
    if len(r) != len(b):
        raise UserError(f"`returns` and `benchmark` must cover the same days, found {len(r)} and {len(b)}")
    return r, b
