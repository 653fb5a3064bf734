from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.portfolio.constraints.limits import Turnover
from qlib_ext.portfolio.efficient_frontier import FREE, LIMITED, efficient_frontier, frontier_table
from tests.portfolio.problems import day_of, problem_of

STOCKS = 8
EXPECTED = np.linspace(-2e-4, 9e-4, STOCKS)


class TestFrontier:
    def test_it_runs_from_the_least_risk_to_the_highest_return(self) -> None:
        problem = problem_of(STOCKS, expected=EXPECTED)
        found = efficient_frontier(problem, 6)
        returns = [EXPECTED @ weights for weights in found]
        risks = [problem.risk.volatility(weights) for weights in found]
        np.testing.assert_allclose(np.diff(returns), np.diff(returns).mean(), rtol=1e-2)
        assert (np.diff(risks) > 0).all()
        assert found[-1].argmax() == STOCKS - 1
        assert found[-1].max() == pytest.approx(1, abs=1e-3)

    def test_no_weights_drawn_by_chance_lie_beyond_it(self) -> None:
        problem = problem_of(STOCKS, expected=EXPECTED)
        found = efficient_frontier(problem, 8)
        returns = np.array([EXPECTED @ weights for weights in found])
        risks = np.array([problem.risk.volatility(weights) for weights in found])
        drawn = np.random.default_rng(1).dirichlet(np.full(STOCKS, 0.4), 3000)
        for weights in drawn:
            lower = max(0, np.searchsorted(returns, EXPECTED @ weights) - 1)
            assert problem.risk.volatility(weights) > risks[lower] - 1e-6

    def test_two_funds_make_it_where_no_bound_is_met(self) -> None:
        """Merton: without bounds the weights are linear in the expected return."""
        wide = problem_of(STOCKS, expected=EXPECTED, lower=np.full(STOCKS, -9.0), upper=np.full(STOCKS, 9.0))
        found = np.array(efficient_frontier(wide, 40)[:4])
        np.testing.assert_allclose(found[1] - found[0], found[2] - found[1], atol=2e-3)
        covariance, ones = wide.risk.covariance(), np.ones(STOCKS)
        calmest = np.linalg.solve(covariance, ones)
        np.testing.assert_allclose(found[0], calmest / calmest.sum(), atol=1e-3)

    def test_without_a_forecast_it_is_the_least_risk(self) -> None:
        assert len(efficient_frontier(problem_of(STOCKS))) == 1


class TestTable:
    def test_limits_cost_and_the_chosen_lies_beside_them(self) -> None:
        held = np.r_[0.5, 0.5, np.zeros(STOCKS - 2)]
        known = day_of(STOCKS, held=held)
        problem = problem_of(
            STOCKS, [Turnover("turnover", "turnover", held, 0.6)], known=known, expected=EXPECTED
        )
        table = frontier_table(problem, dict(zip(known.codes, held, strict=True)))
        assert [*dict.fromkeys(table["kind"])] == [FREE, LIMITED, "chosen", "equal weight", "benchmark"]
        free, limited = (table[table["kind"] == kind] for kind in (FREE, LIMITED))
        assert free["expected"].max() > limited["expected"].max()
        assert free["volatility"].min() < limited["volatility"].min()
        rest = table.set_index("kind")
        assert rest.loc["chosen", "volatility"] == pytest.approx(problem.risk.volatility(held))
        assert rest.loc["chosen", "names"] == 2
        assert rest.loc["benchmark", "deviation"] == 0
        assert rest.loc["equal weight", "expected"] == pytest.approx(EXPECTED.mean())

    def test_limits_that_none_can_keep_leave_that_frontier_out(self) -> None:
        problem = problem_of(STOCKS, [Turnover("turnover", "turnover", np.zeros(STOCKS), 0.1)])
        table = frontier_table(problem, {})
        assert [*table["kind"]] == [FREE, "chosen", "equal weight", "benchmark"]
        assert table["expected"].isna().all()
