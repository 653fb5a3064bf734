"""Who may have weight, and weights in given shares within bounds."""

from __future__ import annotations

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Ints
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem


def holdable(problem: Problem) -> Ints:
    """Places of the stocks that may have a weight.

    Raises
    ------
    Infeasible
        If there is none.
    """
    places = np.flatnonzero((problem.lower != 0) | (problem.upper != 0))
    if not places.size:
        raise Infeasible("no stock may be held")
    return places


def candidates(problem: Problem) -> Ints:
    """Places of the stocks that may have a weight and are in the universe, or cannot be sold.

    For a method that knows nothing of limits: that what left the universe is sold is one.

    Raises
    ------
    Infeasible
        If there is none.
    """
    places = holdable(problem)
    found = places[np.isfinite(problem.known.score[places]) | (problem.lower[places] > 0)]
    if not found.size:
        raise Infeasible("no stock of the universe may be held")
    return found


def to_invest(problem: Problem) -> float:
    """Sum of weights to aim at: what shall be invested, or, where it may be less, as much of it as bounds let."""
    if problem.least_invested is None:
        return problem.invested
    return max(problem.least_invested, min(problem.invested, float(problem.upper.sum())))


def in_shares(problem: Problem, shares: Floats, of: str = "the stocks") -> Floats:
    r"""Weights in the ratio of given shares, but for stocks that are at a bound.

    .. math:: w_i = \min(u_i, \max(l_i, c\,s_i)),\quad \sum_i w_i = \text{invested}

    Parameters
    ----------
    problem
        The bounds, and what is invested.
    shares
        `[N]`, of at least 0; their sum does not matter.
    of
        Whose shares they are, for messages.

    Raises
    ------
    Infeasible
        If the bounds leave no such weights.
    """
    lower, upper, some = problem.lower, problem.upper, shares > 0
    bounds = np.concatenate([lower[some] / shares[some], upper[some] / shares[some]])
    steps = np.unique(np.concatenate([[0.0], bounds[np.isfinite(bounds) & (bounds > 0)]]))
    totals = np.clip(steps[:, None] * shares, lower, upper).sum(axis=1)
    if totals[0] > problem.invested + TOLERANCE:
        raise Infeasible(
            f"{of} must have {totals[0]:.1%} of the account at least, and {problem.invested:.1%} are invested"
        )
    slope = shares[some & np.isinf(upper)].sum()  # beyond the last step
    missing = problem.invested - totals[-1]
    if missing > 0 and slope > 0:
        factor = steps[-1] + missing / slope
    elif missing > TOLERANCE and (
        problem.least_invested is None or totals[-1] < problem.least_invested - TOLERANCE
    ):
        raise Infeasible(
            f"{of} may have {totals[-1]:.1%} of the account at most, and {problem.invested:.1%} are to be invested"
        )
    else:
        factor = np.interp(problem.invested, totals, steps)
    return np.clip(factor * shares, lower, upper)
