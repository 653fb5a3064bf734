"""How long a score keeps telling returns apart."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import integer
from qlib_ext.metrics.cross_section import Floats, pearson, same_shape, spearman


def lagged_correlation(
    score: npt.ArrayLike, ret: npt.ArrayLike, lags: Sequence[int], *, ranks: bool = False
) -> Floats:
    r"""Correlation of the score of day t with the return label of day t + L, for each lag L.

    .. math:: c_{L,t} = \mathrm{corr}_n(s_{t,n}, \; r_{t+L,n})

    The label of a day is already a return after it. With :math:`r_t = p_{t+1} / p_t - 1`, lag L is the return
    from the close of t + L to that of t + L + 1; with :math:`r_t = p_{t+2} / p_{t+1} - 1` it is the one from
    the close of t + L + 1 to that of t + L + 2. Lag 0 is the IC. It is a return of one day at each lag, not the
    return over L days.

    Parameters
    ----------
    score, ret
        Values ``[D, S]`` (days x stocks), NaN where there is none. The rows must be all trading days from the first
        to the last, in order: then a stock that is missing on some days keeps its place, and no return is taken for
        that of another day.
    lags
        The lags L in trading days, each at least 0.
    ranks
        Whether to correlate ranks (RankIC) instead of values (IC).

    Returns
    -------
    ``[L, D]``: a row for each lag, a column for each day t of the score. NaN on the last L days, and where the
    correlation is; a stock counts when it has a score on day t and a return on day t + L.

    Raises
    ------
    UserError
        If the two are not matrices of one shape, or a lag is not an integer of at least 0.
    """
    s, r = same_shape("score", score, "ret", ret)
    correlation = spearman if ranks else pearson
    found = np.full((len(lags), len(s)), np.nan)
    for row, lag in enumerate(lags):
        days = len(s) - integer("lags", lag, 0)
        if days > 0:
            found[row, :days] = correlation(s[:days], r[lag:])
    return found


def half_life(decay: npt.ArrayLike) -> float:
    """Days until the mean correlation has fallen to half of what it was at lag 0, for good or not.

    Parameters
    ----------
    decay
        Mean correlation ``[L + 1]`` at the lags 0 ... L.

    Returns
    -------
    The first lag at which it is at most half of that at lag 0, or of the other sign; infinite where there is none among
    the lags, NaN where lag 0 has none.

    Examples
    --------
    >>> half_life([-0.04, -0.03, -0.015])
    2.0
    """
    values = np.asarray(decay, dtype=np.float64)
    if not len(values) or np.isnan(values[0]) or values[0] == 0:
        return math.nan
    below = np.flatnonzero(values[1:] / values[0] <= 0.5)
    return float(below[0] + 1) if len(below) else math.inf
