"""The allowed weights nearest to given ones."""

from __future__ import annotations

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import variance
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.solving import least

RIDGE = 1e-4  # of the mean variance of a stock


def nearest(problem: Problem, weights: Floats) -> Floats:
    r"""The allowed weights whose return is forecast to deviate least from that of given ones.

    .. math:: \min_x\; (x - w)^\top (\Sigma + \rho I)(x - w) \quad\text{within the limits,}\quad
              \rho = 10^{-4}\,\mathrm{tr}(\Sigma) / N

    The ridge makes the answer one only, where stocks move alike.

    Parameters
    ----------
    problem
        What is allowed, and the risk.
    weights
        `[N]`; they come back as they are where they are allowed.

    Raises
    ------
    Infeasible
        If no weights are allowed.
    """
    if not problem.broken(weights):
        return weights
    return least(problem, lambda found: variance(problem.risk, found, weights, RIDGE))
