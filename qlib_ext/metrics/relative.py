r"""A portfolio beside its index: the line of its daily returns on those of the index, and what is left over.

.. math:: r_d = \alpha + \beta b_d + \varepsilon_d

by ordinary least squares. Both series are daily simple returns ``[D]`` of the same days, none missing (`risk`); the
riskless return is 0, for another subtract it from both.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import above
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.risk import annualised_return, same_days


def beta(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> float:
    """Slope of the line: the covariance of both over the variance of the index.

    NaN with fewer than two days, or where the index has no spread.
    """
    r, b = same_days(returns, benchmark)
    return _slope(r, b)


def alpha(returns: npt.ArrayLike, benchmark: npt.ArrayLike, periods_per_year: float = 252) -> float:
    r"""Intercept of the line times the days of a year (Jensen's alpha).

    Source: Jensen (1968), "The Performance of Mutual Funds in the Period 1945-1964", Journal of Finance 23.

    .. math:: (\bar r - \beta \bar b) P

    Parameters
    ----------
    returns, benchmark
        Daily returns ``[D]`` of the portfolio and of its index on the same days.
    periods_per_year
        Trading days P in a year.

    Returns
    -------
    A fraction a year, arithmetic and not compounded; NaN where `beta` is.

    Raises
    ------
    UserError
        If a return is missing or below -1, or the two differ in length.
    """
    r, b = same_days(returns, benchmark)
    above("periods_per_year", periods_per_year, 0)
    slope = _slope(r, b)
    return math.nan if math.isnan(slope) else float((r.mean() - slope * b.mean()) * periods_per_year)


def correlation(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> float:
    """Pearson's correlation of both; NaN with fewer than two days, or where either has no spread."""
    r, b = same_days(returns, benchmark)
    if len(r) < 2 or np.ptp(r) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(r, b)[0, 1])


def r_squared(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> float:
    """Share of the variance of the returns that the line explains: the `correlation` squared, NaN where that is."""
    return correlation(returns, benchmark) ** 2


def tracking_error(returns: npt.ArrayLike, benchmark: npt.ArrayLike, periods_per_year: float = 252) -> float:
    """Standard deviation (divisor D - 1) of the daily differences to the index, times the root of the days in a year.

    NaN with fewer than two days. `risk.information_ratio` divides by it.
    """
    r, b = same_days(returns, benchmark)
    above("periods_per_year", periods_per_year, 0)
    return float((r - b).std(ddof=1) * math.sqrt(periods_per_year)) if len(r) > 1 else math.nan


def treynor_ratio(returns: npt.ArrayLike, benchmark: npt.ArrayLike, periods_per_year: float = 252) -> float:
    """Annualised return for each unit of `beta`.

    Source: Treynor (1965), "How to Rate Management of Investment Funds", Harvard Business Review 43. NaN where beta
    is, or where it is 0.
    """
    slope = beta(returns, benchmark)
    return annualised_return(returns, periods_per_year) / slope if slope else math.nan


def up_capture(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> float:
    r"""What the portfolio earns on the days on which the index rises, as a share of what the index earns on them.

    .. math:: \frac{\left(\prod_{d: b_d > 0} (1 + r_d)\right)^{1/n} - 1}{\left(\prod_{d: b_d > 0} (1 + b_d)\right)^{1/n} - 1}

    over the n days on which the index rises: both sides are the constant return a day that compounds to the same.

    Parameters
    ----------
    returns, benchmark
        Returns ``[D]`` of the portfolio and of its index on the same days, or months.

    Returns
    -------
    1 where the portfolio rises as the index does; NaN where the index never rises.

    Raises
    ------
    UserError
        If a return is missing or below -1, or the two differ in length.
    """
    r, b = same_days(returns, benchmark)
    return _capture(r[b > 0], b[b > 0])


def down_capture(returns: npt.ArrayLike, benchmark: npt.ArrayLike) -> float:
    """What the portfolio loses on the days on which the index falls, as a share of what the index loses.

    As `up_capture`, over the days on which the index falls: below 1 the portfolio falls less, below 0 it rises.
    """
    r, b = same_days(returns, benchmark)
    return _capture(r[b < 0], b[b < 0])


def _slope(r: Floats, b: Floats) -> float:
    if len(r) < 2 or np.ptp(b) == 0:
        return math.nan
    deviation = b - b.mean()
    return float(deviation @ (r - r.mean()) / (deviation @ deviation))


def _capture(r: Floats, b: Floats) -> float:
    """Geometric mean of the returns over that of the index, on the days chosen."""
    if len(b) == 0:
        return math.nan
    mine, index = (np.prod(1 + series) ** (1 / len(series)) - 1 for series in (r, b))
    return float(mine / index)
