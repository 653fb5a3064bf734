from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.portfolio.optimisers.hierarchical_risk_parity import HierarchicalRiskParity
from qlib_ext.portfolio.optimisers.skfolio import Skfolio
from qlib_ext.portfolio.problem import Infeasible
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import problem_of


def of_skfolio(linkage: str) -> Skfolio:
    """Theirs, with distances from the same covariance."""
    clusters = {"class": "skfolio.cluster.HierarchicalClustering", "kwargs": {"linkage_method": linkage}}
    return Skfolio(
        method={
            "class": "skfolio.optimization.HierarchicalRiskParity",
            "kwargs": {
                "distance_estimator": {
                    "class": "skfolio.distance.CovarianceDistance",
                    "kwargs": {"covariance_estimator": "precomputed"},
                },
                "seriation_estimator": {
                    "class": "skfolio.seriation.HierarchicalSeriation",
                    "kwargs": {"hierarchical_clustering_estimator": clusters},
                },
            },
        }
    )


@pytest.mark.parametrize("linkage", ["ward", "single", "average"])
@pytest.mark.parametrize(("least", "most"), [(0.0, 1.0), (0.0, 0.05), (0.02, 0.04)])
def test_it_equals_skfolio(linkage: str, least: float, most: float) -> None:
    asked = problem_of(41, lower=np.full(41, least), most=most, seed=4)
    found = HierarchicalRiskParity(linkage=linkage, optimal_order=True).solve(asked)
    np.testing.assert_allclose(found, of_skfolio(linkage).solve(asked), atol=1e-12)


def test_without_correlation_it_is_inverse_variance() -> None:
    variance = np.array([1.0, 2, 3, 4, 5]) * 1e-4
    found = HierarchicalRiskParity().solve(problem_of(5, risk=Risk.of_covariance(np.diag(variance))))
    np.testing.assert_allclose(found, 1 / variance / (1 / variance).sum(), rtol=1e-12)


def test_two_blocks_share_by_their_variance() -> None:
    """Two twins move as one: each pair of twins has half of the account, its own variance being the other's."""
    block = np.array([[1.0, 0.99], [0.99, 1.0]])
    covariance = 1e-4 * np.block([[block, np.zeros((2, 2))], [np.zeros((2, 2)), 4 * block]])
    found = HierarchicalRiskParity().solve(problem_of(4, risk=Risk.of_covariance(covariance)))
    np.testing.assert_allclose(found, [0.4, 0.4, 0.1, 0.1], rtol=1e-9)


def test_no_room_is_said() -> None:
    with pytest.raises(Infeasible, match=r"must have 0.0% and may have 50.0% of the account, and 100.0% are"):
        HierarchicalRiskParity().solve(problem_of(5, most=0.1))
