"""A point of the efficient frontier within bounds."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, above, one_of
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.optimisers.base import Optimiser, forecast
from qlib_ext.portfolio.optimisers.frontier import Frontier, frontier
from qlib_ext.portfolio.optimisers.shares import candidates, to_invest
from qlib_ext.portfolio.problem import Problem

POINTS = ("minimum_variance", "maximum_sharpe", "target_return", "target_volatility")


class CriticalLine(Optimiser):
    """A point of the efficient frontier, exact to rounding and without a solver, by Markowitz' critical line.

    Source: Bailey and López de Prado (2013), "An open-source implementation of the critical-line algorithm for portfolio
    optimization", Algorithms 6.

    Parameters
    ----------
    point
        `minimum_variance`; `maximum_sharpe`, the highest expected return for its volatility; `target_return`, the lowest
        variance with an expected return of at least `target`; `target_volatility`, the highest expected return with a
        volatility of at most `target`.
    target
        Of a day, as a fraction.

    Notes
    -----
    It keeps to bounds and the sum; other limits are left to the projection on the nearest allowed weights. The lower bounds must
    be finite, and the covariance positive definite.

    Examples
    --------
    ::

        optimiser:
          class: qlib_ext.portfolio.optimisers.critical_line.CriticalLine
          kwargs: {point: target_volatility, target: 0.01}
    """

    def __init__(self, point: str = "minimum_variance", target: float | None = None) -> None:
        self.point = one_of("point", point, POINTS)
        if point.startswith("target") != (target is not None):
            raise UserError(
                f"`target` goes with `point: target_return` or `target_volatility`, found {target} with {point}"
            )
        self.target = (
            None if target is None else float(above("target", target, -1.0 if "return" in point else 0.0))
        )

    @property
    def needs_forecast(self) -> str | None:
        """All points but that of the lowest variance do."""
        return None if self.point == "minimum_variance" else f"CriticalLine with {self.point}"

    def solve(self, problem: Problem) -> Floats:
        """The point of the frontier of the stocks that may be held."""
        places = candidates(problem)
        weights = np.zeros(problem.count)
        found = self.frontier(problem, places)
        weights[places] = found.lowest_variance() if self._calm(forecast(problem)) else self._chosen(found)
        return weights

    def frontier(self, problem: Problem, places: np.ndarray) -> Frontier:
        """The whole frontier of some stocks."""
        risk, expected = problem.risk.take(places), forecast(problem)
        # At the lowest variance the line ends whatever the returns are.
        mean = -risk.variances() if self._calm(expected) else np.asarray(expected)[places]
        lower, upper = problem.lower[places], problem.upper[places]
        if not np.isfinite(lower).all():
            raise UserError(
                "the critical line needs a lowest weight of each stock, found none: bound short weights"
            )
        return frontier(mean, risk.covariance(), lower, upper, to_invest(problem))

    def _calm(self, expected: Floats | None) -> bool:
        """Whether risk alone decides."""
        return self.point == "minimum_variance" or expected is None

    def _chosen(self, found: Frontier) -> Floats:
        if self.target is None:
            return found.highest_ratio()
        return (
            found.of_return(self.target)
            if self.point == "target_return"
            else found.of_volatility(self.target)
        )
