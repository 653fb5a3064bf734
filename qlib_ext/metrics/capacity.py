"""How much money a strategy could manage before its orders are large beside what the market trades.

Orders grow with the account: an order of a share w of the account (its value over the account's value) is an order of
A w in an account of A. Its participation is that over the money m that the stock was traded for that day.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, above, between
from qlib_ext.metrics.cross_section import Floats


def participation(value: npt.ArrayLike, traded: npt.ArrayLike) -> Floats:
    """Value of orders as a share of what their stocks were traded for: ``value / traded``.

    Parameters
    ----------
    value
        Value of each order ``[M]``, in currency.
    traded
        Money that the stock was traded for on the day of the order ``[M]``.

    Returns
    -------
    ``[M]``; NaN where either is missing or nothing was traded.

    Raises
    ------
    UserError
        If the lengths differ.
    """
    value, traded = _pair("value", value, "traded", traded)
    known = np.isfinite(value) & (traded > 0) & np.isfinite(traded)
    return np.divide(value, traded, out=np.full(len(value), np.nan), where=known)


def share_above(
    weight: npt.ArrayLike, traded: npt.ArrayLike, limit: float, accounts: npt.ArrayLike
) -> Floats:
    r"""Share of the orders' value with a participation above a limit, for accounts of several sizes.

    .. math:: \sum_i w_i \, [A w_i / m_i > L] \; / \; \sum_i w_i

    Parameters
    ----------
    weight
        Value of each order as a share of the account ``[M]``, at least 0.
    traded
        Money that the stock was traded for on the day of the order ``[M]``.
    limit
        Participation L, such as 0.05.
    accounts
        Sizes A of the account ``[K]``, in the currency of `traded`.

    Returns
    -------
    ``[K]``; orders of which either number is missing, or whose stock was not traded, are left out; NaN without any.

    Raises
    ------
    UserError
        If the lengths differ, a weight is negative or the limit not above 0.
    """
    weight, bound = _bounds(weight, traded, limit)
    sizes = np.atleast_1d(np.asarray(accounts, dtype=np.float64))
    total = weight.sum()
    if total == 0:
        return np.full(len(sizes), np.nan)
    return np.array([weight[size > bound].sum() / total for size in sizes])


def capacity(weight: npt.ArrayLike, traded: npt.ArrayLike, limit: float, share: float) -> float:
    r"""The account size beyond which more than a share of the orders' value has a participation above a limit.

    An order reaches the limit L in an account of :math:`A_i = L m_i / w_i`. The answer is the smallest :math:`A_i` up to
    which more than the share of the value lies:

    .. math:: \min \{ A_i : \sum_{j: A_j \le A_i} w_j > s \sum_j w_j \}

    Parameters
    ----------
    weight, traded, limit
        As in `share_above`.
    share
        s in [0, 1): the share of the orders' value that may exceed the limit.

    Returns
    -------
    In the currency of `traded`; NaN without an order that has both numbers.

    Raises
    ------
    UserError
        As in `share_above`, and if the share lies outside [0, 1).
    """
    between("share", share, 0, 1, open_high=True)
    weight, bound = _bounds(weight, traded, limit)
    weight, bound = weight[weight > 0], bound[weight > 0]
    if not len(weight):
        return math.nan
    order = np.argsort(bound, kind="stable")
    sizes, places = np.unique(bound[order], return_index=True)  # orders with one bound pass it together
    upto = np.add.reduceat(weight[order], places).cumsum()
    return float(sizes[np.searchsorted(upto, share * upto[-1], side="right")])


def _bounds(weight: npt.ArrayLike, traded: npt.ArrayLike, limit: float) -> tuple[Floats, Floats]:
    """Weights of the orders that can be judged, and the account size at which each reaches the limit."""
    above("limit", limit, 0)
    weight, traded = _pair("weight", weight, "traded", traded)
    if (weight < 0).any():
        raise UserError(f"`weight` must be at least 0, found {np.nanmin(weight):g}")
    known = np.isfinite(weight) & np.isfinite(traded) & (traded > 0)
    weight, traded = weight[known], traded[known]
    return weight, np.divide(limit * traded, weight, out=np.full(len(weight), np.inf), where=weight > 0)


def _pair(name: str, first: npt.ArrayLike, other: str, second: npt.ArrayLike) -> tuple[Floats, Floats]:
    one, two = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if one.ndim != 1 or one.shape != two.shape:
        raise UserError(
            f"`{name}` and `{other}` must be two lists of one length, found {one.shape} and {two.shape}"
        )
    return one, two
