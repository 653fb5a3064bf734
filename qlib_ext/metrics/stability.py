"""How much of a day's ranking is left on later days."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import integer
from qlib_ext.metrics.cross_section import Floats, matrix, spearman


def rank_autocorrelation(score: npt.ArrayLike, lag: int = 1) -> Floats:
    """Spearman correlation of the score of each day with that of `lag` days before, across stocks.

    Parameters
    ----------
    score
        Values ``[D, S]`` (days x stocks), NaN where there is none. A stock counts that has a score on both days; the
        ranks are taken among these.
    lag
        Days between, in rows of `score`, at least 1.

    Returns
    -------
    ``[D]``; NaN on the first `lag` days, with fewer than two stocks and with constant scores.

    Raises
    ------
    UserError
        If `score` is no matrix or `lag` is not an integer of at least 1.

    Departures
    ----------
    alphalens ranks among all stocks of each day and then drops those that are missing on the other day, so that stocks
    which count on neither side move its figure. Where the same stocks have scores on both days the two agree.
    """
    s = matrix("score", score)
    integer("lag", lag, 1)
    found = np.full(len(s), np.nan)
    if lag < len(s):
        found[lag:] = spearman(s[lag:], s[:-lag])
    return found


def top_turnover(score: npt.ArrayLike, n: int, lag: int = 1) -> Floats:
    """Share of the n highest scored stocks of each day that were not among the n highest `lag` days before.

    Parameters
    ----------
    score
        Values ``[D, S]`` (days x stocks), NaN where there is none. Equal scores are taken in the order of the columns;
        with fewer than n scores all count.
    n
        Length of the list, at least 1.
    lag
        Days between, in rows of `score`, at least 1.

    Returns
    -------
    ``[D]``, in [0, 1]; NaN on the first `lag` days and where one of the two days has no score.

    Raises
    ------
    UserError
        If an argument is out of its range.
    """
    s = matrix("score", score)
    integer("n", n, 1)
    best = np.argsort(np.where(np.isnan(s), np.nan, -s), axis=1, kind="stable")[:, :n]  # NaN last
    inside = np.zeros(s.shape, dtype=bool)
    np.put_along_axis(inside, best, True, axis=1)
    return _entered(inside & ~np.isnan(s), lag)


def group_turnover(group: npt.ArrayLike, groups: int, lag: int = 1) -> Floats:
    """Share of each group's stocks that were not in the group `lag` days before.

    Parameters
    ----------
    group
        Groups 0 ... Q - 1 ``[D, S]`` (days x stocks), NaN where there is none; see
        `qlib_ext.metrics.quantiles.quantile_groups`.
    groups
        Number of groups Q, at least 1.
    lag
        Days between, in rows of `group`, at least 1.

    Returns
    -------
    ``[D, Q]``, in [0, 1]; NaN on the first `lag` days and where the group is empty on one of the two days.

    Raises
    ------
    UserError
        If an argument is out of its range.
    """
    g = matrix("group", group)
    integer("groups", groups, 1)
    return np.stack([_entered(g == k, lag) for k in range(groups)], axis=1)


def _entered(inside: npt.NDArray[np.bool_], lag: int) -> Floats:
    """Share of the members ``[D, S]`` of each day that were none `lag` days before."""
    integer("lag", lag, 1)
    found = np.full(len(inside), np.nan)
    now, before = inside[lag:], inside[:-lag]
    size = now.sum(axis=1)
    entered = (now & ~before).sum(axis=1)
    known = (size > 0) & before.any(axis=1)
    found[lag:] = np.divide(entered, size, out=np.full(len(now), np.nan), where=known)
    return found
