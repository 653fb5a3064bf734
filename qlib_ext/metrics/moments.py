"""The shape of a daily series such as the IC: its moments, how often it is positive, how far it is from normal."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import integer
from qlib_ext.metrics.cross_section import Floats, present


class Moments(NamedTuple):
    """Mean, standard deviation, skewness and excess kurtosis of a series."""

    mean: float
    std: float
    skewness: float
    kurtosis: float


def moments(daily: npt.ArrayLike) -> Moments:
    r"""Moments of a daily series.

    .. math::

        \text{skewness} = m_3 / m_2^{3/2}, \quad \text{kurtosis} = m_4 / m_2^2 - 3, \quad
        m_k = \frac{1}{D} \sum_d (x_d - \bar x)^k

    Both are 0 for a normal distribution. They have the divisor D, as in `scipy.stats.skew` and alphalens; the
    standard deviation has the divisor D - 1.

    Parameters
    ----------
    daily
        ``[D]``; days of NaN do not count.

    Returns
    -------
    `Moments`. The mean is NaN without a value, the deviation with fewer than two, and skewness and kurtosis when all
    values are equal.
    """
    values = present("daily", daily)
    if len(values) == 0:
        return Moments(math.nan, math.nan, math.nan, math.nan)
    largest = float(np.abs(values).max()) or 1.0  # the powers of very small or large values stay in range
    scaled = values / largest
    centred = scaled - scaled.mean()
    mean = float(scaled.mean()) * largest
    std = float(scaled.std(ddof=1)) * largest if len(values) > 1 else math.nan
    if np.ptp(values) == 0:
        return Moments(mean, std, math.nan, math.nan)
    second = (centred**2).mean()
    skewness, kurtosis = (centred**3).mean() / second**1.5, (centred**4).mean() / second**2 - 3
    return Moments(mean, std, float(skewness), float(kurtosis))


def positive_share(daily: npt.ArrayLike) -> float:
    """Share of the days of a series ``[D]`` whose value is above 0; days of NaN do not count.

    NaN without a value.
    """
    values = present("daily", daily)
    return float((values > 0).mean()) if len(values) else math.nan


def normal_quantiles(count: int) -> Floats:
    r"""Where the ordered values of a normal sample lie on average: the horizontal axis of a Q-Q plot.

    Source: Filliben (1975), "The Probability Plot Correlation Coefficient Test for Normality", Technometrics 17:
    the medians of the order statistics, as `scipy.stats.probplot` has them.

    .. math::

        z_i = \Phi^{-1}(m_i), \quad m_1 = 1 - m_D, \quad m_i = \frac{i - 0.3175}{D + 0.365}, \quad
        m_D = 0.5^{1/D}

    Parameters
    ----------
    count
        Number of values D, at least 0.

    Returns
    -------
    ``[D]``, ascending.
    """
    integer("count", count, 0, 2**63 - 1)
    if count == 0:
        return np.empty(0)
    at = (np.arange(1, count + 1) - 0.3175) / (count + 0.365)
    at[-1] = 0.5 ** (1 / count)
    at[0] = 1 - at[-1]
    normal = NormalDist()
    return np.array([normal.inv_cdf(p) for p in at.tolist()])
