"""What the stocks at the top of a list earn beside all of them, and what it costs to keep up with the list."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import at_least, integer
from qlib_ext.metrics.costs import POINT
from qlib_ext.metrics.cross_section import Floats, same_shape


def top_excess(score: npt.ArrayLike, ret: npt.ArrayLike, topk: int, cost_bps: float = 0.0) -> Floats:
    r"""Return by day of the highest scored stocks less that of all stocks, both at equal weights, after cost.

    .. math:: e_d = \frac{1}{k} \sum_{i \in T_d} r_{d,i} - \frac{1}{n} \sum_i r_{d,i} - c \sum_i |w_{d,i} - w_{d-1,i}|

    with weights w of 1 / k in the list T and 0 elsewhere, and nothing held before the first day.

    Parameters
    ----------
    score, ret
        Values ``[D, S]`` (days x stocks), NaN where there is none. `ret` is what is earned from the close at which a list can
        be bought on.
    topk
        How many stocks k, at least 1; all of a day that has fewer. Equal scores are taken in the order of the columns.
    cost_bps
        Cost c of a trade one way in basis points (0.01%) of its value.

    Returns
    -------
    ``[D]``; NaN on a day without a stock that has both. Such a day keeps the list of the day before.

    Raises
    ------
    UserError
        If the shapes differ, `topk` is no integer of at least 1 or `cost_bps` is negative.

    Notes
    -----
    Weights are restored every day at no cost; limits, lots and suspensions are left out. So it compares lists, and is no
    backtest.

    Examples
    --------
    >>> top_excess([[0.2, 0.1], [0.1, 0.2]], [[0.03, 0.01], [0.0, 0.02]], topk=1, cost_bps=10)
    array([0.009, 0.008])
    """
    integer("topk", topk, 1)
    at_least("cost_bps", cost_bps, 0)
    s, r = same_shape("score", score, "ret", ret)
    there = ~np.isnan(s) & ~np.isnan(r)
    place = np.argsort(np.argsort(np.where(there, -s, np.nan), axis=1, kind="stable"), axis=1, kind="stable")
    top = there & (place < topk)
    number, known = there.sum(axis=1), np.nan_to_num(r)
    some = number > 0
    weights = top / np.maximum(1, top.sum(axis=1))[:, None]
    market = (known * there).sum(axis=1) / np.maximum(1, number)
    held = np.concatenate([np.zeros((1, s.shape[1])), weights[some]])
    excess = np.full(len(s), np.nan)
    traded = np.abs(np.diff(held, axis=0)).sum(axis=1)
    excess[some] = ((weights * known).sum(axis=1) - market)[some] - POINT * cost_bps * traded
    return excess
