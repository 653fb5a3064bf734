"""How the returns of single days, months or years are spread: shape, tails, and gains beside losses.

Returns are simple, as fractions, and every function wants all of them (`risk`). None of these figures depends on the
order of the returns, except the longest streak. They take returns of any period; a quantile of monthly returns is one of
a month.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import between
from qlib_ext.metrics.risk import daily_series


def skewness(returns: npt.ArrayLike) -> float:
    r"""Asymmetry of returns ``[D]``, unbiased for a normal sample: below 0 where the large moves are losses.

    .. math:: G_1 = \frac{\sqrt{D (D - 1)}}{D - 2} \frac{m_3}{m_2^{3/2}}, \quad m_k = \frac 1 D \sum_d (r_d - \bar r)^k

    NaN with fewer than three days or no spread.
    """
    series = daily_series("returns", returns)
    n = len(series)
    if n < 3 or np.ptp(series) == 0:
        return math.nan
    deviation = (series - series.mean()) / np.ptp(series)
    m2, m3 = (np.mean(deviation**k) for k in (2, 3))
    return float(math.sqrt(n * (n - 1)) / (n - 2) * m3 / m2**1.5)


def excess_kurtosis(returns: npt.ArrayLike) -> float:
    r"""Weight of both tails of returns ``[D]`` over that of a normal distribution, which has 0; unbiased for one.

    .. math:: G_2 = \frac{D - 1}{(D - 2)(D - 3)} \left((D + 1) \left(\frac{m_4}{m_2^2} - 3\right) + 6\right)

    with the moments of `skewness`. NaN with fewer than four days or no spread.
    """
    series = daily_series("returns", returns)
    n = len(series)
    if n < 4 or np.ptp(series) == 0:
        return math.nan
    deviation = (series - series.mean()) / np.ptp(series)
    m2, m4 = (np.mean(deviation**k) for k in (2, 4))
    return float((n - 1) / ((n - 2) * (n - 3)) * ((n + 1) * (m4 / m2**2 - 3) + 6))


def value_at_risk(returns: npt.ArrayLike, share: float = 0.05) -> float:
    """Historical value at risk: the return that the worst `share` of days stays at or below.

    It is the quantile of the returns themselves, interpolated linearly between neighbours; no distribution is assumed.

    Parameters
    ----------
    returns
        Returns ``[D]``.
    share
        Of the days, in (0, 1).

    Returns
    -------
    A return, with its sign: -0.02 means that on one day in twenty the loss is 2% or more. NaN without any day.

    Raises
    ------
    UserError
        If a return is missing or below -1, or `share` lies outside its range.
    """
    series = daily_series("returns", returns)
    between("share", share, 0, 1, open_low=True, open_high=True)
    return float(np.quantile(series, share)) if len(series) else math.nan


def conditional_value_at_risk(returns: npt.ArrayLike, share: float = 0.05) -> float:
    """Historical expected shortfall: mean of the returns at or below the `value_at_risk`.

    Arguments, sign and errors as there. NaN without any day.
    """
    series = daily_series("returns", returns)
    threshold = value_at_risk(series, share)
    return float(series[series <= threshold].mean()) if len(series) else math.nan


def tail_ratio(returns: npt.ArrayLike, share: float = 0.05) -> float:
    """Size of the good tail over that of the bad one: ``|quantile(1 - share)| / |quantile(share)|``.

    Arguments and errors as in `value_at_risk`. NaN without any day or where the lower quantile is 0.
    """
    series = daily_series("returns", returns)
    low = value_at_risk(series, share)
    if math.isnan(low) or low == 0:
        return math.nan
    return abs(value_at_risk(series, 1 - share)) / abs(low)


def omega_ratio(returns: npt.ArrayLike, threshold: float = 0.0) -> float:
    r"""What is earned above a threshold over what is missed below it.

    Source: Keating and Shadwick (2002), "A Universal Performance Measure", Journal of Performance Measurement 6.

    .. math:: \frac{\sum_d \max(r_d - t, 0)}{\sum_d \max(t - r_d, 0)}

    Parameters
    ----------
    returns
        Returns ``[D]``.
    threshold
        Return t of one period; with 0 the ratio is the `profit_factor`.

    Returns
    -------
    NaN where no return lies below the threshold.

    Raises
    ------
    UserError
        If a return is missing or below -1.
    """
    over = daily_series("returns", returns) - threshold
    missed = -over[over < 0].sum()
    return float(over[over > 0].sum() / missed) if missed > 0 else math.nan


def profit_factor(returns: npt.ArrayLike) -> float:
    """Sum of the gains over the sum of the losses of returns ``[D]``; NaN where there is no loss."""
    return omega_ratio(returns)


def gain_to_pain(returns: npt.ArrayLike) -> float:
    """Sum of all returns ``[D]`` over the sum of the losses, which is the `profit_factor` minus 1.

    Source: Schwager (2012), "Hedge Fund Market Wizards", with monthly returns. NaN where there is no loss.
    """
    series = daily_series("returns", returns)
    lost = -series[series < 0].sum()
    return float(series.sum() / lost) if lost > 0 else math.nan


def average_gain(returns: npt.ArrayLike) -> float:
    """Mean of the returns ``[D]`` above 0; NaN where there is none."""
    series = daily_series("returns", returns)
    gains = series[series > 0]
    return float(gains.mean()) if len(gains) else math.nan


def average_loss(returns: npt.ArrayLike) -> float:
    """Mean of the returns ``[D]`` below 0, with its sign; NaN where there is none."""
    series = daily_series("returns", returns)
    losses = series[series < 0]
    return float(losses.mean()) if len(losses) else math.nan


def payoff_ratio(returns: npt.ArrayLike) -> float:
    """Average gain over the size of the average loss of returns ``[D]``; NaN where either is missing."""
    return average_gain(returns) / -average_loss(returns)


def longest_streak(returns: npt.ArrayLike, *, losing: bool = False) -> int:
    """Most days in a row of returns ``[D]`` above 0, or below 0 where `losing`; 0 where there is none."""
    series = daily_series("returns", returns)
    hits = series < 0 if losing else series > 0
    misses = np.flatnonzero(~np.concatenate([[False], hits, [False]]))
    return int(np.diff(misses).max() - 1)


def best(returns: npt.ArrayLike) -> float:
    """Highest of returns ``[D]``; NaN where there is none."""
    return float(daily_series("returns", returns).max(initial=-1.0)) if np.size(returns) else math.nan


def worst(returns: npt.ArrayLike) -> float:
    """Lowest of returns ``[D]``; NaN where there is none."""
    return float(daily_series("returns", returns).min(initial=math.inf)) if np.size(returns) else math.nan
