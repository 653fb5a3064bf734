from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.portfolio.constraints.limits import Deviation, Turnover, Weights, deviation
from qlib_ext.portfolio.nearest import nearest
from qlib_ext.portfolio.problem import Infeasible
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import problem_of


def turnover(most: float, held: np.ndarray) -> Turnover:
    return Turnover("turnover", f"turnover of at most {most:.1%}", held, most)


class TestNearest:
    def test_allowed_weights_come_back_as_they_are(self) -> None:
        weights = np.array([0.5, 0.3, 0.2])
        assert nearest(problem_of(3), weights) is weights

    def test_is_that_of_a_grid_of_all_weights(self) -> None:
        problem = problem_of(3, [turnover(0.5, np.array([0.2, 0.2, 0.6]))], most=0.6)
        wanted = np.array([0.9, 0.1, 0.0])
        found = nearest(problem, wanted)
        steps = np.linspace(0, 0.6, 121)
        grid = [np.array([a, b, 1 - a - b]) for a, b in itertools.product(steps, steps)]
        best = min(problem.risk.volatility(each - wanted) for each in grid if not problem.broken(each, 1e-9))
        assert problem.broken(found, 1e-6) == []
        assert problem.risk.volatility(found - wanted) <= best * (1 + 1e-3)
        assert problem.risk.volatility(found - wanted) >= best * 0.98  # the grid is 0.5% wide

    def test_stocks_that_move_alike_share_what_has_to_move(self) -> None:
        risk = Risk.of_covariance(np.full((3, 3), 1e-4))
        found = nearest(problem_of(3, risk=risk, most=0.5), np.array([1.0, 0.0, 0.0]))
        np.testing.assert_allclose(found, [0.5, 0.25, 0.25], atol=5e-5)

    def test_the_order_of_stocks_does_not_matter(self) -> None:
        count, order = 12, np.random.default_rng(1).permutation(12)
        problem = problem_of(count, [turnover(0.4, np.full(count, 1 / count))], most=0.2)
        wanted = np.random.default_rng(2).dirichlet(np.ones(count) * 0.3)
        other = problem_of(
            count,
            [turnover(0.4, np.full(count, 1 / count))],
            most=0.2,
            risk=problem.risk.take(order),
        )
        np.testing.assert_allclose(nearest(other, wanted[order]), nearest(problem, wanted)[order], atol=1e-5)

    def test_nothing_allowed_is_said(self) -> None:
        with pytest.raises(Infeasible):
            nearest(problem_of(3, most=0.3), np.array([1.0, 0, 0]))

    @settings(max_examples=8, deadline=None)
    @given(st.integers(2, 15), st.integers(0, 10_000))
    def test_a_wider_limit_is_never_further(self, count: int, seed: int) -> None:
        rng = np.random.default_rng(seed)
        held, wanted = rng.dirichlet(np.ones(count)), rng.dirichlet(np.ones(count) * 0.2)
        away = []
        for most in (0.1, 0.4, 2.0):
            problem = problem_of(count, [turnover(most, held)], seed=seed)
            found = nearest(problem, wanted)
            assert problem.broken(found) == []
            away.append(problem.risk.volatility(found - wanted))
        assert away[0] >= away[1] - 2e-5 >= away[2] - 4e-5

    def test_a_deviation_limit_and_the_objective_share_the_factors(self) -> None:
        problem = problem_of(8)
        limit = Deviation("tracking error", "", problem.risk, problem.known.benchmark, 0.002)
        weights = Weights(8)
        limit.expressions(weights)
        deviation(problem.risk, weights, problem.known.benchmark)
        assert len(weights.definitions) == 1
        found = nearest(problem_of(8, [limit]), np.eye(8)[0])
        assert abs(limit.excess(found)) < 1e-6  # it binds
