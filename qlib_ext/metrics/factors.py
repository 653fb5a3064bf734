"""What many factors say of the stocks of one day: how they go together, with groups, and what is left without them.

Each function takes the N stocks of one day, and many rows of values of them at once.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import Floats, matrix, pearson, rank

TINY = 1e-10  # a spread below this share of the size of the values is rounding, and none
LEAST_LEFT = (
    0.01  # of a row's variance; less is what ties and rounding leave of something that is an exposure itself
)


def correlations(x: npt.ArrayLike, y: npt.ArrayLike) -> Floats:
    """Pearson correlation of each row of `x` with each row of `y`, over the stocks that both have.

    Parameters
    ----------
    x
        Values ``[A, N]`` (rows x stocks), NaN where there is none.
    y
        Values ``[B, N]`` of the same stocks.

    Returns
    -------
    ``[A, B]``; NaN with fewer than two pairs, or where a side is constant over the pairs.

    Raises
    ------
    UserError
        If the two are not matrices over the same stocks.

    Examples
    --------
    >>> correlations([[1.0, 2.0, 3.0]], [[3.0, 2.0, 1.0], [1.0, np.nan, 2.0]])
    array([[-1.,  1.]])
    """
    a, b = matrix("x", x), matrix("y", y)
    if a.shape[1] != b.shape[1]:
        raise UserError(f"`x` and `y` must be of the same stocks, found {a.shape[1]} and {b.shape[1]}")
    (a, there_a), (b, there_b) = _centred(a), _centred(b)
    pairs = np.maximum(there_a @ there_b.T, 1)
    sum_a, sum_b = a @ there_b.T, there_a @ b.T
    square_a, square_b = a**2 @ there_b.T, there_a @ (b**2).T
    spread_a, spread_b = square_a - sum_a**2 / pairs, square_b - sum_b**2 / pairs
    known = (pairs > 1) & (spread_a > TINY * square_a) & (spread_b > TINY * square_b)
    size = np.sqrt(np.where(known, spread_a * spread_b, 1.0))
    return np.where(known, np.clip((a @ b.T - sum_a * sum_b / pairs) / size, -1, 1), np.nan)


def rank_correlations(values: npt.ArrayLike, target: npt.ArrayLike) -> Floats:
    """Spearman correlation of each row with one target: `cross_section.spearman` of many factors on one day.

    Parameters
    ----------
    values
        ``[F, N]`` (factors x stocks), NaN where there is none.
    target
        ``[N]``, such as the return of each stock.

    Returns
    -------
    ``[F]``; NaN with fewer than two pairs or with a constant side.
    """
    v, t = matrix("values", values), matrix("target", np.asarray(target)[None])
    pairs = ~np.isnan(v) & ~np.isnan(t)
    whole = np.where(np.isnan(v).any(axis=0), np.nan, t)
    ranked = np.repeat(rank(whole), len(v), axis=0)  # right for the factors that miss no stock but those
    others = (pairs != ~np.isnan(whole)).any(axis=1)
    ranked[others] = rank(np.where(pairs[others], t, np.nan))
    return pearson(rank(np.where(pairs, v, np.nan)), ranked)


def group_share(values: npt.ArrayLike, group: npt.ArrayLike) -> Floats:
    r"""How much of the spread of each row lies between groups: R squared of one dummy a group, adjusted.

    .. math:: 1 - (1 - R^2) \frac{n - 1}{n - G}

    for n stocks in G groups, so that a factor that has nothing to do with the groups has 0 on average.

    Parameters
    ----------
    values
        ``[F, N]`` (factors x stocks), NaN where there is none.
    group
        ``[N]`` whole numbers, below 0 for a stock without a group, which does not count.

    Returns
    -------
    ``[F]``; NaN where the values are constant, or there are no more stocks than groups.
    """
    v, group = matrix("values", values), np.asarray(group)
    v = np.where(group >= 0, v, np.nan)
    v, there = _centred(v)
    belongs = (group[:, None] == np.unique(group[group >= 0])).astype(np.float64)  # [N, G]
    count, total = there @ belongs, v @ belongs  # [F, G]
    stocks, groups = there.sum(axis=1), (count > 0).sum(axis=1)
    whole = (v**2).sum(axis=1) - v.sum(axis=1) ** 2 / np.maximum(stocks, 1)
    between = (total**2 / np.maximum(count, 1)).sum(axis=1) - v.sum(axis=1) ** 2 / np.maximum(stocks, 1)
    known = (whole > TINY * (v**2).sum(axis=1)) & (stocks > groups)
    left = 1 - between / np.where(known, whole, 1.0)
    return np.where(known, 1 - left * (stocks - 1) / np.maximum(stocks - groups, 1), np.nan)


def residuals(values: npt.ArrayLike, exposures: npt.ArrayLike, group: npt.ArrayLike | None = None) -> Floats:
    """What is left of each row once it was explained by exposures and groups, by least squares.

    Parameters
    ----------
    values
        ``[F, N]`` (factors x stocks), NaN where there is none.
    exposures
        ``[P, N]``; a stock without one is given the mean of the others.
    group
        ``[N]`` whole numbers: a dummy is fitted to each, and one to all that are below 0. None: a constant.

    Returns
    -------
    ``[F, N]``, NaN where `values` is, and for a row of whose variance less than 1% is left.
    """
    v, e = matrix("values", values), matrix("exposures", exposures)
    e, _ = _centred(e)
    kinds = np.zeros(e.shape[1], dtype=np.int64) if group is None else np.asarray(group)
    dummies = (np.unique(kinds)[:, None] == kinds).astype(np.float64)
    design = np.concatenate([e, dummies]).T  # [N, P + G]
    left = np.full(v.shape, np.nan)
    there = ~np.isnan(v)
    alike: dict[bytes, list[int]] = {}  # factors of one history lack the same stocks
    for row in np.flatnonzero(there.any(axis=1)).tolist():
        alike.setdefault(there[row].tobytes(), []).append(row)
    for rows in alike.values():
        mask = there[rows[0]]
        given = v[rows][:, mask]
        basis = _basis(design[mask])
        rest = given - (given @ basis) @ basis.T
        size = ((given - given.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
        rest[(rest**2).sum(axis=1) <= LEAST_LEFT * size + TINY * (given**2).sum(axis=1)] = np.nan
        left[np.ix_(rows, mask)] = rest
    return left


def _basis(design: Floats) -> Floats:
    """Orthonormal columns ``[N, R]`` that span those of `design` ``[N, P]``."""
    length = np.sqrt((design**2).sum(axis=0))
    scaled = design[:, length > 0] / length[length > 0]
    values, vectors = np.linalg.eigh(scaled.T @ scaled)
    kept = values > 1e-9 * values.max()
    return (scaled @ vectors[:, kept]) / np.sqrt(values[kept])


def _centred(values: Floats) -> tuple[Floats, Floats]:
    """Rows less their mean, over their largest, with 0 for what is missing; and 1 where there is a value."""
    there = ~np.isnan(values)
    filled = np.where(there, values, 0.0)
    mean = filled.sum(axis=1, keepdims=True) / np.maximum(there.sum(axis=1, keepdims=True), 1)
    centred = np.where(there, filled - mean, 0.0)
    largest = np.abs(centred).max(axis=1, keepdims=True, initial=0.0)
    rounding = largest <= 1e-13 * np.abs(mean)
    return np.where(rounding, 0.0, centred / np.where(largest == 0, 1.0, largest)), there.astype(np.float64)
