"""How many of the best scored stocks rose."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, matrix, same_shape


def precision_at(score: npt.ArrayLike, ret: npt.ArrayLike, n: int) -> Floats:
    """Share of the n highest scored stocks of each day whose return is positive (MiM-StocR's Precision@N).

    The stocks of a day are those with both a score and a return; with fewer than n of them all count. Equal
    scores are taken in the order of the columns. A return of 0 is no rise.

    Parameters
    ----------
    score
        ``[D, S]`` (days x stocks), NaN where there is none.
    ret
        Raw returns ``[D, S]``, NaN where there is none.
    n
        How many stocks, at least 1.

    Returns
    -------
    ``[D]``, in [0, 1]; NaN on a day without stocks.

    Raises
    ------
    UserError
        If the shapes differ or `n` is not an integer of at least 1.

    Examples
    --------
    >>> precision_at([[0.3, 0.2, 0.1]], [[0.01, -0.02, 0.05]], n=2)
    array([0.5])
    """
    integer("n", n, 1)
    s, r = same_shape("score", score, "ret", ret)
    there = ~np.isnan(s) & ~np.isnan(r)
    best = np.argsort(np.where(there, -s, np.nan), axis=1, kind="stable")[:, :n]  # NaN last
    counts = np.take_along_axis(there, best, axis=1)
    rose = np.take_along_axis(there & (r > 0), best, axis=1)
    return _share(rose.sum(axis=1), counts.sum(axis=1))


def base_rate(ret: npt.ArrayLike) -> Floats:
    """Share of a day's stocks whose return is positive: the precision of a choice by chance.

    Parameters
    ----------
    ret
        Raw returns ``[D, S]`` (days x stocks), NaN where there is none, also where a stock was not to choose
        from.

    Returns
    -------
    ``[D]``, in [0, 1]; NaN on a day without stocks.
    """
    r = matrix("ret", ret)
    return _share((r > 0).sum(axis=1), (~np.isnan(r)).sum(axis=1))


def lift(precision: npt.ArrayLike, base: npt.ArrayLike) -> float:
    """Mean precision over mean base rate: 1.05 says that the top of the list rose 5% more often than all stocks.

    Parameters
    ----------
    precision, base
        Daily series ``[D]``; a day counts when it has both.

    Returns
    -------
    At least 0; NaN without a day, or when no stock rose on any.

    Raises
    ------
    UserError
        If the two are not series of one length.
    """
    p, b = np.asarray(precision, dtype=np.float64), np.asarray(base, dtype=np.float64)
    if p.ndim != 1 or p.shape != b.shape:
        raise UserError(
            f"`precision` and `base` must be series [days] of one length, found {p.shape} and {b.shape}"
        )
    both = ~np.isnan(p) & ~np.isnan(b)
    total = b[both].sum()
    return float(p[both].sum() / total) if total > 0 else math.nan


def _share(part: npt.NDArray[np.int64], whole: npt.NDArray[np.int64]) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)
