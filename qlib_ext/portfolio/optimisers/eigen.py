"""Principal components of the correlation as portfolios."""

from __future__ import annotations

import numpy as np
from scipy.linalg import eigh

from qlib_ext.checks import integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.shares import candidates, in_shares
from qlib_ext.portfolio.problem import Infeasible, Problem

LEAST_NET = 0.05  # of the gross weight: what is as good as neutral has no sum to scale by


class EigenPortfolio(Optimiser):
    r"""A principal component of the stocks' correlation, held as a portfolio.

    Source: Avellaneda and Lee (2010), "Statistical arbitrage in the US equities market", Quantitative Finance 10.

    .. math:: w_i \propto v_i^{(j)} / \sigma_i

    with :math:`v^{(j)}` the eigenvector of the j-th largest eigenvalue of the correlation and :math:`\sigma_i` the volatility of
    stock i, both of the risk model. The sign is the one at which the sum of the weights is above 0.

    Parameters
    ----------
    component
        j; 1 is the market, later ones are what else moves many stocks together.
    long_only
        Whether weights below 0 are left out, and the others scaled up. Without it, later components hold stocks short.

    Notes
    -----
    A component that is as much short as long has no sum that could be scaled to what is invested, and is told as infeasible
    (a net weight of less than 5% of the gross weight).
    """

    def __init__(self, component: int = 1, long_only: bool = True) -> None:
        self.component = integer("component", component, 1)
        self.long_only = bool(long_only)

    def solve(self, problem: Problem) -> Floats:
        """The component, in the sum that is invested."""
        places = candidates(problem)
        if self.component > len(places):
            raise Infeasible(f"component {self.component} needs as many stocks, found {len(places)}")
        risk = problem.risk.take(places)
        volatility = np.sqrt(risk.variances())
        if not np.all(volatility > 0):
            raise Infeasible("a stock without any risk has no correlation")
        at = len(places) - self.component
        _, vectors = eigh(risk.covariance() / np.outer(volatility, volatility), subset_by_index=(at, at))
        own = vectors[:, 0] / volatility
        own *= np.sign(own.sum()) or 1.0
        shares = np.zeros(problem.count)
        if self.long_only:
            shares[places] = np.maximum(own, 0.0)
            return in_shares(problem, shares, of=f"the stocks of component {self.component}")
        if own.sum() < LEAST_NET * np.abs(own).sum():
            raise Infeasible(
                f"component {self.component} is as much short as long: take `long_only: true`, or another one"
            )
        shares[places] = own * problem.invested / own.sum()
        return shares
