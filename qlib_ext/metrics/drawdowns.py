"""Every fall from a peak, one by one, and what is measured by them.

A fall begins on the last day at a peak and ends on the first day back at it or above; in between lies its lowest day.
The wealth before the first day counts as a peak. Depths are at most 0, as in `risk.drawdown`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.metrics.risk import annualised_return, cumulative_return, drawdown, max_drawdown


class Drawdown(NamedTuple):
    """One fall from a peak.

    Attributes
    ----------
    depth
        Wealth on the lowest day over that of the peak, minus 1.
    peak
        Position of the last day at the peak; -1 is the start, before the first day.
    trough
        Position of the lowest day, the first of them where there are several.
    recovery
        Position of the first day back at the peak; None where the series ends before.
    days
        Trading days below the peak, so that one day down and up again the next is 1.
    """

    depth: float
    peak: int
    trough: int
    recovery: int | None
    days: int


def drawdowns(returns: npt.ArrayLike) -> list[Drawdown]:
    """All falls from a peak, the deepest first; of equal ones the earlier first.

    Parameters
    ----------
    returns
        Daily returns ``[D]``.

    Returns
    -------
    Empty where the wealth never falls.

    Raises
    ------
    UserError
        If a return is missing or below -1.

    Examples
    --------
    >>> drawdowns([0.0, -0.5, 1.0, -0.25])
    [Drawdown(depth=-0.5, peak=0, trough=1, recovery=2, days=1), Drawdown(depth=-0.25, peak=2, trough=3, recovery=None, days=1)]
    """
    below = drawdown(returns)
    days = len(below)
    edges = np.diff(np.concatenate([[False], below < 0, [False]]).astype(np.int8))
    found = []
    for first, after in zip(np.flatnonzero(edges == 1), np.flatnonzero(edges == -1), strict=True):
        trough = first + int(np.argmin(below[first:after]))
        recovery = int(after) if after < days else None
        found.append(
            Drawdown(float(below[trough]), int(first) - 1, int(trough), recovery, int(after - first))
        )
    return sorted(found)


def average_drawdown(returns: npt.ArrayLike) -> float:
    """Mean depth of all falls of daily returns ``[D]``, at most 0; 0 where there is none."""
    found = drawdowns(returns)
    return sum(fall.depth for fall in found) / len(found) if found else 0.0


def longest_drawdown(returns: npt.ArrayLike) -> int:
    """Most trading days in a row below a peak, of daily returns ``[D]``; a fall that goes on counts to the end."""
    return max((fall.days for fall in drawdowns(returns)), default=0)


def ulcer_index(returns: npt.ArrayLike) -> float:
    r"""Root mean square of the drawdown at the end of each day: depth and length in one figure.

    Source: Martin and McCann (1989), "The Investor's Guide to Fidelity Funds".

    .. math:: \sqrt{\frac 1 D \sum_d \mathrm{drawdown}_d^2}

    Parameters
    ----------
    returns
        Daily returns ``[D]``.

    Returns
    -------
    A fraction of the wealth, at least 0; NaN without any day.

    Raises
    ------
    UserError
        If a return is missing or below -1.
    """
    below = drawdown(returns)
    return float(math.sqrt(np.mean(below**2))) if len(below) else math.nan


def calmar_ratio(returns: npt.ArrayLike, periods_per_year: float = 252) -> float:
    """Annualised return over the size of the deepest drawdown, over all of the daily returns ``[D]``.

    Source: Young (1991), "Calmar Ratio: A Smoother Tool", Futures 20, over 36 months there. NaN without a drawdown.
    """
    return _over(annualised_return(returns, periods_per_year), -max_drawdown(returns))


def martin_ratio(returns: npt.ArrayLike, periods_per_year: float = 252) -> float:
    """Annualised return of daily returns ``[D]`` over their `ulcer_index`, with a riskless return of 0.

    Source: as `ulcer_index`; also called the ulcer performance index. NaN without a drawdown.
    """
    return _over(annualised_return(returns, periods_per_year), ulcer_index(returns))


def recovery_factor(returns: npt.ArrayLike) -> float:
    """Return over the whole of daily returns ``[D]`` over the size of the deepest drawdown; NaN without one."""
    return _over(cumulative_return(returns), -max_drawdown(returns))


def _over(gain: float, pain: float) -> float:
    return gain / pain if pain > 0 else math.nan
