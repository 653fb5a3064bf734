"""How a portfolio is spread over stocks, and what each of them added to its return."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, checked_returns, matrix
from qlib_ext.metrics.risk import daily_series


def herfindahl(weights: npt.ArrayLike) -> Floats:
    r"""Herfindahl's index of concentration of each day: :math:`\sum_i (w_i / \sum_j |w_j|)^2`.

    Parameters
    ----------
    weights
        Weights ``[D, S]`` (days x stocks), below 0 where a stock is held short; they need not add up to 1, so that cash does not
        count.

    Returns
    -------
    ``[D]``: 1 / n with n equal weights, 1 with a single stock; NaN on a day without a stock.

    Raises
    ------
    UserError
        If a weight is missing.
    """
    return (_shares(weights) ** 2).sum(axis=1)


def effective_number(weights: npt.ArrayLike) -> Floats:
    """Number of equal weights that would be as concentrated: 1 over `herfindahl`, ``[D]``; NaN where that is."""
    return 1 / herfindahl(weights)


def top_weight(weights: npt.ArrayLike, n: int) -> Floats:
    """Share of the n largest weights in all of a day, without signs, ``[D]``; 1 with n stocks or fewer, NaN without any.

    Arguments and errors as in `herfindahl`.
    """
    shares = _shares(weights)
    integer("n", n, 1)
    if shares.shape[1] <= n:
        return shares.sum(axis=1)
    largest = np.partition(shares, shares.shape[1] - n, axis=1)[:, -n:]
    return largest.sum(axis=1)


def contributions(
    weights: npt.ArrayLike, returns: npt.ArrayLike, portfolio: npt.ArrayLike
) -> tuple[Floats, Floats]:
    r"""What each stock added to the return over all days, so that the parts add up to the whole.

    A stock adds its weight at the close before times its return, :math:`w_{i,d-1} r_{i,d}`, to the return of a day.
    Daily parts do not add up to a compounded return, so each is carried by the wealth that had been made before it
    (of 1 at the start):

    .. math:: c_i = \sum_d W_{d-1} \, w_{i,d-1} \, r_{i,d}, \qquad W_d = \prod_{e \le d} (1 + R_e)

    With :math:`R_d = \sum_i w_{i,d-1} r_{i,d} + x_d` and :math:`x = \sum_d W_{d-1} x_d`

    .. math:: \sum_i c_i + x = W_D - 1

    exactly. The rest :math:`x_d` is what the day's return has beside that of the stocks held overnight: nothing on a
    day without trades, and nothing where trades fill at the close at which the day is valued; otherwise what was won
    or lost between the price of a trade and the close.

    Parameters
    ----------
    weights
        Weights ``[D, S]`` in the account at the close of the day before each day.
    returns
        Returns ``[D, S]`` of the stocks on the day; where the weight is 0 they may be NaN.
    portfolio
        Returns R ``[D]`` of the account before cost.

    Returns
    -------
    stocks : ``[D, S]``
        :math:`W_{d-1} w_{i,d-1} r_{i,d}`; sums over any days and stocks are their contributions.
    rest : ``[D]``
        :math:`W_{d-1} x_d`.

    Raises
    ------
    UserError
        If the shapes do not fit, a weight is missing, or a stock with a weight has no return.
    """
    held, moves = matrix("weights", weights), matrix("returns", returns)
    whole = daily_series("portfolio", portfolio)
    if held.shape != moves.shape or len(held) != len(whole):
        raise UserError(
            "`weights` and `returns` must have one shape [days, stocks], and `portfolio` as many days, "
            f"found {held.shape}, {moves.shape} and {whole.shape}"
        )
    parts = np.where(held != 0, held * checked_returns(moves, held, called="`weights`"), 0.0)
    before = np.concatenate([[1.0], np.cumprod(1 + whole)[:-1]])[: len(whole)]
    return before[:, None] * parts, before * (whole - parts.sum(axis=1))


def _shares(weights: npt.ArrayLike) -> Floats:
    """Weights over their sum, day by day, both without signs; NaN on a day without any."""
    given = np.abs(matrix("weights", weights))
    if np.isnan(given).any():
        raise UserError("`weights` must be there for each day and stock, found one that is missing")
    if given.shape[1] == 0:
        return np.full((len(given), 1), np.nan)
    total = given.sum(axis=1, keepdims=True)
    return given / np.where(total == 0, np.nan, total)
