"""Hierarchical risk parity by variance, without an object for each cluster."""

from __future__ import annotations

import numpy as np
from scipy.cluster import hierarchy
from scipy.spatial.distance import squareform

from qlib_ext.checks import one_of
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Ints
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.shares import candidates, to_invest
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem

LINKAGES = ("single", "complete", "average", "ward")


class HierarchicalRiskParity(Optimiser):
    r"""Weights that halve a tree of stocks again and again, each half by the inverse of its variance.

    Source: López de Prado (2016), "Building diversified portfolios that outperform out of sample", Journal of Portfolio
    Management 42.

    .. math:: d_{ij} = \sqrt{(1 - \rho_{ij}) / 2},\qquad
              w_{left} = w\,\Bigl(1 - \frac{V_{left}}{V_{left} + V_{right}}\Bigr)

    with V the variance of a half at weights of inverse variance.

    Parameters
    ----------
    linkage
        How clusters are joined: `ward`, `single` (the paper's), `complete` or `average`.
    optimal_order
        Whether the leaves of the tree are put in the order in which neighbours are nearest; at 300 stocks it costs ten times
        the rest. Without it, of two branches the one with the least volatile stock comes first.

    Notes
    -----
    Correlation and variances are the risk model's. skfolio's class of the same name takes other measures of risk, and a second
    where this takes a hundredth; with `optimal_order`, and its distances from the same covariance, the weights are the same.

    Departures
    ----------
    Bounds are kept at each halving; Ward's linkage is the default, as in skfolio, since single linkage makes chains.
    """

    def __init__(self, linkage: str = "ward", optimal_order: bool = False) -> None:
        self.linkage = one_of("linkage", linkage, LINKAGES)
        self.optimal_order = bool(optimal_order)

    def solve(self, problem: Problem) -> Floats:
        """The weights, within bounds; stocks are not held short."""
        places = candidates(problem)
        places = places[problem.upper[places] > 0]
        low, high, total = np.maximum(problem.lower, 0.0), problem.upper, to_invest(problem)
        if low.sum() > total + TOLERANCE or high[places].sum() < total - TOLERANCE:
            raise Infeasible(
                f"the stocks must have {low.sum():.1%} and may have {high[places].sum():.1%} of the account, and "
                f"{total:.1%} are to be invested"
            )
        covariance = problem.risk.take(places).covariance()
        if not np.all(np.diag(covariance) > 0):
            raise Infeasible("a stock without any risk has no place in the tree")
        own = np.zeros(len(places))
        self._halve(self._order(covariance), total, covariance, low[places], high[places], own)
        weights = np.zeros(problem.count)
        weights[places] = own
        return weights

    def _order(self, covariance: Floats) -> Ints:
        """The stocks as they stand at the foot of the tree."""
        variance = np.diag(covariance)
        if len(variance) == 1:
            return np.zeros(1, dtype=np.int64)
        correlation = covariance / np.sqrt(np.outer(variance, variance))
        distance = np.sqrt(np.clip((1.0 - correlation) / 2, 0.0, 1.0))
        condensed = squareform(distance, checks=False)
        tree = hierarchy.linkage(condensed, method=self.linkage)
        if self.optimal_order:
            return hierarchy.leaves_list(hierarchy.optimal_leaf_ordering(tree, condensed)).astype(np.int64)
        leaves = [([stock], variance[stock]) for stock in range(len(variance))]
        for left, right in tree[:, :2].astype(int):
            (first, least), (second, _) = sorted((leaves[left], leaves[right]), key=lambda leaf: leaf[1])
            leaves.append((first + second, least))
        return np.array(leaves[-1][0])

    def _halve(
        self, stocks: Ints, total: float, covariance: Floats, low: Floats, high: Floats, weights: Floats
    ) -> None:
        """Fill in the weights of some stocks, whose sum is `total`."""
        if len(stocks) == 1:
            weights[stocks] = total
            return
        left, right = stocks[: len(stocks) // 2], stocks[len(stocks) // 2 :]
        variances = [_variance(covariance[np.ix_(half, half)]) for half in (left, right)]
        part = total * (1.0 - variances[0] / sum(variances))
        part = min(
            max(part, low[left].sum(), total - high[right].sum()), high[left].sum(), total - low[right].sum()
        )
        self._halve(left, part, covariance, low, high, weights)
        self._halve(right, total - part, covariance, low, high, weights)


def _variance(covariance: Floats) -> float:
    """Of stocks at weights of inverse variance."""
    weights = 1.0 / np.diag(covariance)
    weights /= weights.sum()
    return float(weights @ covariance @ weights)
