from __future__ import annotations

from itertools import product

import cvxpy as cp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skfolio.optimization import MeanRisk
from skfolio.prior import BasePrior, ReturnDistribution

from qlib_ext.portfolio.optimisers.frontier import Frontier, frontier
from qlib_ext.portfolio.problem import Infeasible
from tests.portfolio.problems import risk_of


def example(count: int, seed: int, low: float = 0.0, high: float = 1.0) -> Frontier:
    rng = np.random.default_rng(seed)
    return frontier(
        rng.normal(0, 1e-3, count),
        risk_of(count, seed).covariance(),
        np.full(count, low),
        np.full(count, high),
    )


def least_variance(found: Frontier, low: float, high: float, least: float) -> float:
    """By a quadratic programme."""
    weights = cp.Variable(len(found.expected))
    cp.Problem(
        cp.Minimize(cp.quad_form(weights, cp.psd_wrap(found.covariance * 1e4))),
        [
            weights >= low,
            weights <= high,
            cp.sum(weights) == 1,
            1e3 * found.expected @ weights >= 1e3 * least,
        ],
    ).solve(solver=cp.CLARABEL)
    return float(weights.value @ found.covariance @ weights.value)


@pytest.mark.parametrize(
    ("count", "low", "high"), [(5, 0.0, 1.0), (8, 0.0, 0.3), (10, -0.2, 0.4), (20, 0.01, 0.1)]
)
def test_it_equals_a_quadratic_programme(count: int, low: float, high: float) -> None:
    found = example(count, count, low, high)
    for least in np.linspace(found.returns[-1], found.returns[0], 6):
        weights = found.of_return(least)
        assert weights @ found.expected >= least - 1e-12
        assert weights @ found.covariance @ weights == pytest.approx(
            least_variance(found, low, high, least), rel=1e-5
        )


def test_it_equals_the_frontier_of_skfolio() -> None:
    found = example(12, 1)

    class Known(BasePrior):
        def __init__(self) -> None: ...

        def fit(self, X, y=None, **params):
            self.return_distribution_ = ReturnDistribution(found.expected, found.covariance, X)
            return self

    theirs = (
        MeanRisk(efficient_frontier_size=5, prior_estimator=Known()).fit(np.zeros((3, 12)) + 0.01).weights_
    )
    for weights in theirs:
        own = found.of_return(float(weights @ found.expected))
        np.testing.assert_allclose(own, weights, atol=2e-4)


@settings(max_examples=80, deadline=None)
@given(st.integers(0, 100_000))
def test_its_turning_points_are_allowed_and_in_order(seed: int) -> None:
    """Ties of returns, bounds that are met at once, stocks that cannot move, stocks that move alike."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(1, 9))
    expected = rng.choice([0.0, 1e-3, 2e-3, -1e-3], count)
    covariance = risk_of(count, seed % 7).covariance()
    lower = rng.choice([0.0, 0.0, 0.05, -0.2], count)
    upper = np.where(rng.random(count) < 0.2, lower, lower + rng.choice([0.1, 0.3, 1.0, np.inf], count))
    invested = float(rng.choice([1.0, 0.5, lower.sum(), min(upper.sum(), 1.5)]))
    try:
        found = frontier(expected, covariance, lower, upper, invested)
    except Infeasible:
        assert lower.sum() > invested or upper.sum() < invested
        return
    np.testing.assert_allclose(found.weights.sum(axis=1), invested, atol=1e-9)
    assert (found.weights >= lower - 1e-9).all()
    assert (found.weights <= upper + 1e-9).all()
    assert (np.diff(found.returns) <= 1e-8).all()  # a millionth of their spread, which tells ties apart
    assert (np.diff(found.variances) <= 1e-10).all()
    last = found.weights[-1]
    slope = covariance @ last
    for giver, taker in product(range(count), repeat=2):  # nothing is left to gain by moving weight
        if last[giver] > lower[giver] + 1e-7 and last[taker] < upper[taker] - 1e-7:
            assert slope[giver] <= slope[taker] + 1e-9


def test_without_bounds_that_bind_the_lowest_variance_has_a_closed_form() -> None:
    found = example(6, 3, low=-50.0, high=50.0)
    inverse = np.linalg.solve(found.covariance, np.ones(6))
    np.testing.assert_allclose(found.lowest_variance(), inverse / inverse.sum(), rtol=1e-9)


def test_without_bounds_that_bind_the_highest_ratio_has_a_closed_form() -> None:
    found = example(6, 4, low=-50.0, high=50.0)
    tangent = np.linalg.solve(found.covariance, found.expected)
    assert tangent.sum() > 0
    np.testing.assert_allclose(found.highest_ratio(), tangent / tangent.sum(), rtol=1e-7)


@pytest.mark.parametrize("seed", range(4))
def test_no_point_has_a_higher_ratio(seed: int) -> None:
    found = example(7, seed + 20, high=0.5)
    best = found.highest_ratio()
    levels = np.linspace(found.returns[-1], found.returns[0], 500)
    ratios = [found._ratio(found.of_return(level)) for level in levels]
    assert found._ratio(best) >= max(ratios) - 1e-12
    assert found._ratio(best) <= max(ratios) * 1.001


def test_a_volatility_is_met() -> None:
    found = example(9, 6, high=0.4)
    for variance in np.linspace(found.variances[-1], found.variances[0], 7):
        weights = found.of_volatility(float(np.sqrt(variance)))
        assert weights @ found.covariance @ weights == pytest.approx(variance, rel=1e-9)
        np.testing.assert_allclose(weights, found.of_return(float(weights @ found.expected)), atol=1e-7)


def test_more_than_enough_is_the_end_of_the_frontier() -> None:
    found = example(9, 6)
    assert np.array_equal(found.of_volatility(1.0), found.weights[0])
    assert np.array_equal(found.of_return(-1.0), found.weights[-1])


def test_what_cannot_be_is_said() -> None:
    found = example(9, 6)
    with pytest.raises(Infeasible, match=r"at least 100.0000% a day is asked for, and the highest is"):
        found.of_return(1.0)
    with pytest.raises(Infeasible, match=r"at most 0.0100% a day is asked for, and the lowest is"):
        found.of_volatility(1e-4)
    with pytest.raises(Infeasible, match=r"the highest expected return of a day is -"):
        frontier(-np.arange(1.0, 4), np.eye(3), np.zeros(3), np.ones(3)).highest_ratio()
    with pytest.raises(Infeasible, match=r"may have 60.0% of the account, and 100.0% are to be invested"):
        example(6, 1, high=0.1)
    with pytest.raises(Infeasible, match="positive definite"):
        frontier(np.array([2.0, 1.0, 0.0]), np.outer([3.0, 2, 1], [3, 2, 1]), -np.ones(3), np.ones(3))
