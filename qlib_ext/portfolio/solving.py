"""Weights at which something is least, within all that a problem allows: by CVXPY and Clarabel."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import cvxpy as cp
import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Linear, Weights, percent
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem

NOUGHT = 1e-7  # a weight below is the solver's rounding
TINY = 1e-300


def least(problem: Problem, objective: Callable[[Any], Any]) -> Floats:
    """The allowed weights `[N]` at which a convex expression of them is least.

    Parameters
    ----------
    problem
        What is allowed.
    objective
        From the unknown `Weights` to CVXPY's expression.

    Raises
    ------
    Infeasible
        If no weights are allowed, or the solver gave up.
    """
    weights = Weights(problem.count)
    minimise(objective(weights), allowed(problem, weights), weights)
    return tidy(problem, weights.value)


def allowed(problem: Problem, weights: Weights) -> list[Any]:
    """CVXPY's constraints: bounds, the sum, and every limit."""
    limits = [each for limit in (share(problem), *problem.limits) for each in limit.expressions(weights)]
    return within_bounds(problem, weights) + limits


def share(problem: Problem) -> Linear:
    """What is to be invested, as a limit."""
    high = problem.invested
    low = high if problem.least_invested is None else problem.least_invested
    words = percent(high) if low == high else f"between {percent(low)} and {percent(high)}"
    every = np.ones((1, problem.count))
    return Linear("cash", f"{words} invested", every, np.array([low]), np.array([high]))


def within_bounds(problem: Problem, weights: Weights) -> list[Any]:
    """CVXPY's constraints of each weight; one that cannot move is an equation, which a method of inner points needs."""
    fixed = problem.upper - problem.lower < TOLERANCE / 10
    over, under = np.isfinite(problem.lower) & ~fixed, np.isfinite(problem.upper) & ~fixed
    found = [weights[fixed] == problem.lower[fixed]] if fixed.any() else []
    found += [weights[over] >= problem.lower[over]] if over.any() else []
    return found + ([weights[under] <= problem.upper[under]] if under.any() else [])


def minimise(objective: Any, constraints: list[Any], weights: Weights) -> float:
    """Solve; the variables hold the answer.

    Parameters
    ----------
    objective
        CVXPY's expression.
    constraints
        CVXPY's constraints.
    weights
        The variable, whose exposures are said here.

    Raises
    ------
    Infeasible
        If there is no answer, or the solver gave up.
    """
    asked = cp.Problem(cp.Minimize(objective), constraints + weights.definitions)
    try:
        with not_quite():
            asked.solve(solver=cp.CLARABEL)
    except cp.SolverError as error:
        raise Infeasible(f"the solver gave up: {error}") from error
    if asked.status in (cp.INFEASIBLE, cp.INFEASIBLE_INACCURATE):
        raise Infeasible("no weights keep within all limits")
    if asked.status not in (cp.OPTIMAL, cp.OPTIMAL_INACCURATE):
        raise Infeasible(f"the solver found no weights: {asked.status}")
    return float(asked.value)


@contextmanager
def not_quite() -> Iterator[None]:
    """Keep CVXPY from warning of an answer that is not quite exact: a portfolio tells what its weights do not keep to."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Solution may be inaccurate")
        yield


def tidy(problem: Problem, weights: Floats) -> Floats:
    """A solver's weights without its rounding: nought where they are nearly so, within bounds, and of the exact sum."""
    found = np.where(np.abs(weights) < NOUGHT, 0.0, weights)
    found = np.clip(found, problem.lower, problem.upper)
    least = problem.invested if problem.least_invested is None else problem.least_invested
    missing = np.clip(found.sum(), least, problem.invested) - found.sum()
    room = problem.upper - found if missing > 0 else found - problem.lower
    movable = np.minimum(room, np.abs(found))
    return found + np.sign(missing) * min(1.0, abs(missing) / max(movable.sum(), TINY)) * movable
