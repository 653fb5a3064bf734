"""Exact NDCG at the top of each day's ranking."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, between, brief
from qlib_ext.metrics.cross_section import Floats, matrix, same_shape


def ndcg_at(score: npt.ArrayLike, relevance: npt.ArrayLike, k: int | npt.ArrayLike) -> Floats:
    r"""Normalised discounted cumulative gain of the k highest scored stocks of each day.

    Source: MiM-StocR, Eq. 3-5, with the gain :math:`2^y - 1`.

    .. math::

        \mathrm{NDCG@}k = \sum_{r \le k} \frac{2^{y_{(r)}} - 1}{\log_2(1 + r)} \Big/
                          \sum_{r \le k} \frac{2^{y^*_r} - 1}{\log_2(1 + r)}

    where :math:`y_{(r)}` is the relevance of the stock with the r-th highest score and :math:`y^*_r` the r-th
    highest relevance. A stock counts on a day when it has both values; equal scores are taken in the order of
    the columns.

    Parameters
    ----------
    score, relevance
        ``[D, S]`` (days x stocks), NaN where there is none; relevance at least 0, the momentum class for
        example.
    k
        How many stocks count, at least 1: one number, or one a day ``[D]`` (see `adaptive_k`); all of them on
        a day that has fewer.

    Returns
    -------
    ``[D]``, in [0, 1]. NaN on a day without a stock of positive relevance, or with a `k` of 0.

    Raises
    ------
    UserError
        If the shapes do not fit, a relevance is negative, or `k` is negative or, as one number, 0.
    """
    s, y = same_shape("score", score, "relevance", relevance)
    there = ~np.isnan(s) & ~np.isnan(y)
    gain, discount = _gain(y, there), _discount(s.shape, k)
    by_score = np.argsort(np.where(there, -s, np.nan), axis=1, kind="stable")  # NaN last
    dcg = (np.take_along_axis(gain, by_score, axis=1) * discount).sum(axis=1)
    return _normalised(dcg, gain, discount)


def ndcg_by_chance(relevance: npt.ArrayLike, k: int | npt.ArrayLike) -> Floats:
    r"""NDCG@k of each day that a random order has on average: what a score must beat.

    Every stock is equally likely at every place, so the mean over all orders of the n stocks is

    .. math::

        \bar G \sum_{r \le \min(k, n)} \frac{1}{\log_2(1 + r)} \Big/
        \sum_{r \le k} \frac{2^{y^*_r} - 1}{\log_2(1 + r)}

    with the mean gain :math:`\bar G` of the day's stocks; see `ndcg_at` for the rest.

    Parameters
    ----------
    relevance
        ``[D, S]`` (days x stocks), at least 0, NaN where there is none, also where a stock has no score.
    k
        How many stocks count, at least 1: one number, or one a day ``[D]``.

    Returns
    -------
    ``[D]``, in [0, 1]. NaN on a day without a stock of positive relevance, or with a `k` of 0.

    Raises
    ------
    UserError
        As `ndcg_at`.
    """
    y = matrix("relevance", relevance)
    there = ~np.isnan(y)
    gain, discount = _gain(y, there), _discount(y.shape, k)
    count = there.sum(axis=1, keepdims=True)
    mean = gain.sum(axis=1) / np.maximum(count[:, 0], 1)
    places = np.arange(1, y.shape[1] + 1) <= count
    return _normalised(mean * (discount * places).sum(axis=1), gain, discount)


def _gain(relevance: Floats, there: npt.NDArray[np.bool_]) -> Floats:
    """Gain ``[D, S]`` of each stock, 0 where it does not count."""
    if (relevance < 0).any():
        raise UserError(f"`relevance` must be at least 0, found {relevance[relevance < 0][0]:g}")
    return np.where(there, np.exp2(np.where(there, relevance, 0.0)) - 1, 0.0)


def _discount(shape: tuple[int, ...], k: int | npt.ArrayLike) -> Floats:
    """Weight of each place: ``[D, S]``, or ``[1, N]`` where `k` is one number; 0 beyond k."""
    days, stocks = shape
    cut = np.asarray(k)
    if cut.ndim == 0 and not cut >= 1:
        raise UserError(f"`k` must be at least 1, found {brief(k)}")
    if cut.shape not in {(), (days,)} or (cut < 0).any():
        raise UserError(
            f"`k` must be one number or one a day [{days}], none negative; found the shape {cut.shape}"
        )
    place = np.arange(1, stocks + 1)
    return (place <= cut.reshape(-1, 1)) / np.log2(1 + place)


def _normalised(dcg: Floats, gain: Floats, discount: Floats) -> Floats:
    """Over the highest that the day's gains allow."""
    ideal = (np.sort(gain, axis=1)[:, ::-1] * discount).sum(axis=1)
    return np.divide(dcg, ideal, out=np.full(len(gain), np.nan), where=ideal > 0)


def adaptive_k(relevance: npt.ArrayLike, share: float = 0.2) -> npt.NDArray[np.int64]:
    r"""Return how many stocks the whole classes from the top hold that first reach `share` of each day.

    Source: MiM-StocR, Eq. 7: the smallest :math:`n_4 + n_3 + \dots` of at least ``ceil(share N)``, with N the
    stocks of the day that have a class.

    Parameters
    ----------
    relevance
        Class of each stock ``[D, S]`` (days x stocks), NaN where there is none.
    share
        Share of the day's stocks, in (0, 1].

    Returns
    -------
    ``[D]``, 0 on a day without a class.

    Raises
    ------
    UserError
        If `relevance` is no matrix or `share` lies outside (0, 1].
    """
    y = matrix("relevance", relevance)
    between("share", share, 0, 1, open_low=True)
    count = (~np.isnan(y)).sum(axis=1)
    # A product such as 0.2 * 35 lies a rounding above the whole number that it stands for.
    least = np.maximum(np.ceil(share * count - 1e-9), 1)
    k = np.zeros(len(y), dtype=np.int64)
    for level in np.unique(y[~np.isnan(y)])[::-1]:  # from the top class down, until a day has enough
        k += np.where(k < least, (y == level).sum(axis=1), 0)
    return k
