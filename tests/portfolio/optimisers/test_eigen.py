from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.portfolio.optimisers.eigen import EigenPortfolio
from qlib_ext.portfolio.problem import Infeasible
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import problem_of

FREE = {"lower": np.full(6, -10.0), "upper": np.full(6, 10.0)}


def by_power(matrix: np.ndarray, components: int) -> np.ndarray:
    """Eigenvectors of the largest eigenvalues by repeated products, in plain loops: `[N, K]`."""
    found = []
    for _ in range(components):
        vector = np.linspace(1, 2, len(matrix))
        for _ in range(20_000):
            vector = matrix @ vector
            vector /= np.linalg.norm(vector)
        found.append(vector)
        matrix = matrix - (vector @ matrix @ vector) * np.outer(vector, vector)
    return np.array(found).T


@pytest.mark.parametrize("component", [1, 2, 3])
def test_it_is_a_component_over_volatility(component: int) -> None:
    asked = problem_of(6, **FREE)
    covariance = asked.risk.covariance()
    volatility = np.sqrt(np.diag(covariance))
    own = by_power(covariance / np.outer(volatility, volatility), component)[:, -1] / volatility
    found = EigenPortfolio(component=component, long_only=False).solve(asked)
    np.testing.assert_allclose(found, own / own.sum(), rtol=1e-6)


def test_two_blocks_are_two_components() -> None:
    """Stocks 1 to 4 move together, 5 and 6 do so more; the first four have the larger eigenvalue, of 1 + 3 x 0.8."""
    correlation = np.eye(6)
    correlation[:4, :4] += 0.8 * (1 - np.eye(4))
    correlation[4:, 4:] += 0.9 * (1 - np.eye(2))
    volatility = np.array([1, 1, 2, 2, 1, 3]) * 0.01
    asked = problem_of(6, risk=Risk.of_covariance(correlation * np.outer(volatility, volatility)), **FREE)
    np.testing.assert_allclose(EigenPortfolio().solve(asked), [1 / 3, 1 / 3, 1 / 6, 1 / 6, 0, 0], atol=1e-12)
    np.testing.assert_allclose(EigenPortfolio(component=2).solve(asked), [0, 0, 0, 0, 0.75, 0.25], atol=1e-12)


def test_components_do_not_move_together() -> None:
    asked = problem_of(6, **FREE)
    first, second = (EigenPortfolio(component=j, long_only=False).solve(asked) for j in (1, 2))
    assert abs(first @ asked.risk.times(second)) < 1e-12


def test_who_would_be_short_has_no_weight() -> None:
    asked = problem_of(6, **FREE)
    short = EigenPortfolio(component=2, long_only=False).solve(asked)
    found = EigenPortfolio(component=2).solve(asked)
    assert (short < 0).any()
    np.testing.assert_allclose(found, np.maximum(short, 0) / np.maximum(short, 0).sum())


def test_a_neutral_component_is_said() -> None:
    risk = Risk.of_covariance(1e-4 * np.array([[1, 0.5], [0.5, 1]]))  # whose second is one against the other
    asked = problem_of(2, risk=risk, lower=np.full(2, -1.0))
    with pytest.raises(Infeasible, match="component 2 is as much short as long"):
        EigenPortfolio(component=2, long_only=False).solve(asked)


def test_more_components_than_stocks_are_said() -> None:
    with pytest.raises(Infeasible, match="component 7 needs as many stocks, found 6"):
        EigenPortfolio(component=7).solve(problem_of(6))
