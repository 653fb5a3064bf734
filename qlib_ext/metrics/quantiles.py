"""Equal groups of a day's stocks by score, and what each group earned."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, matrix, rank, same_shape, spearman


def quantile_groups(score: npt.ArrayLike, groups: int) -> Floats:
    r"""Split the stocks of each day into groups of equal size by score: 0 is the lowest, Q - 1 the highest.

    Of n stocks the one at place i, counted from 0 for the lowest score, is in the group

    .. math:: g(i) = \max(\lceil i \, Q / (n - 1) \rceil - 1, \; 0)

    which is where `pandas.qcut`, and so alphalens, puts it: group g ends at the quantile (g + 1) / Q of the
    scores. Without ties, sizes differ by at most one.

    Parameters
    ----------
    score
        Values ``[D, S]`` (days x stocks), NaN where there is none.
    groups
        Number of groups Q, at least 2.

    Returns
    -------
    ``[D, S]``, whole numbers 0 ... Q - 1; NaN where `score` is, and on a day with fewer than two different
    scores, which has no order to split. Of fewer stocks than groups the lowest is in group 0, the highest in
    group Q - 1 and the rest between; some groups are then empty.

    Raises
    ------
    UserError
        If `score` is no matrix or `groups` is not an integer of at least 2.

    Departures
    ----------
    Equal scores have the mean of their places, and so stay together. `pandas.qcut` puts them where the lowest
    of them belongs, which fills low groups from above, and refuses a day on which two groups end at one score.
    A stock whose place is exactly the end of a group is decided in whole numbers here, by rounding there.

    Examples
    --------
    >>> quantile_groups([[0.1, 0.4, 0.2, 0.3, np.nan]], 2)
    array([[ 0.,  1.,  0.,  1., nan]])
    """
    integer("groups", groups, 2)
    ranks = rank(score)
    there = ~np.isnan(ranks)
    last = there.sum(axis=1, keepdims=True) - 1  # place of the highest score
    twice = np.where(there, 2 * (ranks - 1), 0).astype(np.int64)  # ties have places with a half
    found = np.maximum(-(-twice * groups // np.maximum(2 * last, 1)) - 1, 0)
    low = np.where(there, ranks, np.inf).min(axis=1, initial=np.inf)
    high = np.where(there, ranks, -np.inf).max(axis=1, initial=-np.inf)
    return np.where(there & (high > low)[:, None], found, np.nan)


def group_means(group: npt.ArrayLike, ret: npt.ArrayLike, groups: int) -> Floats:
    """Mean return of the stocks of each group on each day, all weighted equally.

    Parameters
    ----------
    group
        Groups 0 ... Q - 1 ``[D, S]`` (days x stocks), NaN where there is none; see `quantile_groups`.
    ret
        Raw returns ``[D, S]``, NaN where there is none; such a stock does not count.
    groups
        Number of groups Q, at least 1.

    Returns
    -------
    ``[D, Q]``; NaN for a group without a stock that has a return.

    Raises
    ------
    UserError
        If the two are not matrices of one shape, or a group is none of 0 ... Q - 1.
    """
    integer("groups", groups, 1)
    g, r = same_shape("group", group, "ret", ret)
    wrong = ~np.isnan(g) & ~np.isin(g, np.arange(groups))
    if wrong.any():
        raise UserError(f"`group` must hold the groups 0 to {groups - 1}, or NaN, found {g[wrong][0]:g}")
    there = ~np.isnan(g) & ~np.isnan(r)
    cell = np.arange(len(g))[:, None] * groups + np.where(there, g, 0).astype(np.int64)
    count = np.bincount(cell[there], minlength=len(g) * groups)
    total = np.bincount(cell[there], weights=r[there], minlength=len(g) * groups)
    means = np.divide(total, count, out=np.full(len(g) * groups, np.nan), where=count > 0)
    return means.reshape(len(g), groups)


def spread(means: npt.ArrayLike) -> Floats:
    """Mean return of the highest group less that of the lowest, day by day: one unit bought and one sold.

    Parameters
    ----------
    means
        ``[D, Q]``, as `group_means` gives them.

    Returns
    -------
    ``[D]``; NaN where one of the two groups is empty.

    Raises
    ------
    UserError
        If `means` is no matrix of at least two groups.

    Departures
    ----------
    alphalens 0.5 and later gives half of it: half a unit bought and half a unit sold.
    """
    table = matrix("means", means)
    if table.shape[1] < 2:
        raise UserError(f"`means` must have at least two groups [days, groups], found {table.shape}")
    return table[:, -1] - table[:, 0]


def monotonicity(means: npt.ArrayLike) -> float:
    """Spearman rank correlation of the groups' numbers with their mean returns: 1 if each group beats the one below.

    Parameters
    ----------
    means
        Mean return of each group ``[Q]``, from the lowest to the highest score; NaN where there is none.

    Returns
    -------
    In [-1, 1]; NaN with fewer than two groups or when all earn the same.
    """
    values = np.asarray(means, dtype=np.float64)
    if values.ndim != 1:
        raise UserError(f"`means` must be a series [groups], found the shape {values.shape}")
    if len(values) == 0:
        return math.nan
    return float(spearman(np.arange(len(values))[None], values[None])[0])
