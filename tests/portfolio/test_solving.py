from __future__ import annotations

import warnings

import cvxpy as cp
import numpy as np
import pytest

from qlib_ext.portfolio.constraints.limits import Turnover
from qlib_ext.portfolio.problem import Infeasible
from qlib_ext.portfolio.solving import least, not_quite, tidy
from tests.portfolio.problems import problem_of


class TestLeast:
    def test_minimum_variance_has_a_closed_form(self) -> None:
        problem = problem_of(5, lower=np.full(5, -np.inf), upper=np.full(5, np.inf))
        covariance = problem.risk.covariance()
        found = least(problem, lambda weights: cp.quad_form(weights, cp.psd_wrap(covariance)) * 1e4)
        inverse = np.linalg.solve(covariance, np.ones(5))
        np.testing.assert_allclose(found, inverse / inverse.sum(), atol=1e-5)

    def test_a_stock_that_cannot_move_stays(self) -> None:
        lower, upper = np.zeros(4), np.ones(4)
        lower[2] = upper[2] = 0.123
        found = least(problem_of(4, lower=lower, upper=upper), cp.sum_squares)
        np.testing.assert_allclose(found, [(1 - 0.123) / 3] * 2 + [0.123, (1 - 0.123) / 3], atol=1e-6)

    def test_a_stock_without_weight_has_none_at_all(self) -> None:
        found = least(problem_of(4), lambda weights: weights @ np.array([0.0, 1, 2, 3]))
        assert found.tolist() == [1, 0, 0, 0]

    def test_nothing_allowed_is_said(self) -> None:
        with pytest.raises(Infeasible, match="no weights keep within all limits"):
            least(problem_of(4, most=0.2), cp.sum)

    def test_nothing_least_is_said(self) -> None:
        free = problem_of(2, lower=np.full(2, -np.inf), upper=np.full(2, np.inf))
        with pytest.raises(Infeasible, match="the solver found no weights: unbounded"):
            least(free, lambda weights: weights[0])

    def test_limits_are_kept(self) -> None:
        limit = Turnover("turnover", "turnover of at most 10.0%", np.full(4, 0.25), 0.1)
        found = least(problem_of(4, [limit]), lambda weights: weights @ np.array([0.0, 1, 2, 3]))
        np.testing.assert_allclose(found, [0.3, 0.25, 0.25, 0.2], atol=1e-6)


class TestTidy:
    def test_the_sum_is_exact_and_the_bounds_hold(self) -> None:
        found = tidy(problem_of(4, most=0.5), np.array([0.5 + 1e-8, 0.3 - 1e-6, 0.2 - 1e-6, -1e-9]))
        assert found[0] == 0.5
        assert found[3] == 0
        assert abs(found.sum() - 1) < 1e-15


def test_an_answer_that_is_not_quite_exact_is_no_warning_of_cvxpy() -> None:
    with warnings.catch_warnings(record=True) as heard:
        warnings.simplefilter("always")
        with not_quite():
            warnings.warn("Solution may be inaccurate. Try another solver", stacklevel=1)
            warnings.warn("another", stacklevel=1)
    assert [str(one.message) for one in heard] == ["another"]
