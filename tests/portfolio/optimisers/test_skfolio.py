from __future__ import annotations

from dataclasses import replace
from typing import Any

import cvxpy as cp
import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.limits import Deviation, Linear, Turnover
from qlib_ext.portfolio.optimisers.skfolio import Skfolio
from qlib_ext.portfolio.optimisers.skfolio_prior import GivenPrior
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.problem import Infeasible, Problem
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.solving import least
from tests.portfolio.problems import problem_of

EXPECTED = np.random.default_rng(1).normal(5e-4, 1e-3, 8)


def skfolio(name: str = "MeanRisk", relative: bool = False, **kwargs: Any) -> Skfolio:
    return Skfolio(method={"class": f"skfolio.optimization.{name}", "kwargs": kwargs}, relative=relative)


def variance(asked: Problem, weights: Any) -> float:
    return float(weights @ asked.risk.times(weights))


class TestObjectives:
    def test_minimum_variance_has_a_closed_form(self) -> None:
        asked = problem_of(8, lower=np.full(8, -np.inf), upper=np.full(8, np.inf))
        inverse = np.linalg.solve(asked.risk.covariance(), np.ones(8))
        np.testing.assert_allclose(skfolio().solve(asked), inverse / inverse.sum(), atol=2e-4)

    def test_factors_and_the_whole_covariance_come_to_the_same(self) -> None:
        asked = problem_of(8, most=0.3)
        whole = replace(asked, risk=Risk.of_covariance(asked.risk.covariance()))
        np.testing.assert_allclose(skfolio().solve(asked), skfolio().solve(whole), atol=2e-4)

    def test_utility_has_a_closed_form(self) -> None:
        """Where bounds do not bind: mu - 2 a Sigma w is the same of all stocks."""
        asked = problem_of(8, expected=EXPECTED, lower=np.full(8, -np.inf), upper=np.full(8, np.inf))
        found = skfolio(objective_function="MAXIMIZE_UTILITY", risk_aversion=5).solve(asked)
        slope = EXPECTED - 10 * asked.risk.times(found)
        np.testing.assert_allclose(slope, slope.mean(), atol=1e-6)

    def test_risk_budgets_are_equal(self) -> None:
        asked = problem_of(8)
        found = skfolio("RiskBudgeting").solve(asked)
        part = found * asked.risk.times(found) / variance(asked, found)
        np.testing.assert_allclose(part, 1 / 8, atol=1e-4)

    def test_maximum_diversification_evens_out_correlations(self) -> None:
        asked = problem_of(8, lower=np.full(8, -5.0), upper=np.full(8, 5.0))
        found = skfolio("MaximumDiversification").solve(asked)
        volatility = np.sqrt(asked.risk.variances())
        correlations = asked.risk.times(found) / volatility
        np.testing.assert_allclose(correlations / correlations.mean(), 1.0, atol=1e-3)

    def test_inverse_volatility_is_of_the_risk_model(self) -> None:
        asked = problem_of(8)
        own = 1 / np.sqrt(asked.risk.variances())
        np.testing.assert_allclose(skfolio("InverseVolatility").solve(asked), own / own.sum(), rtol=1e-9)

    def test_relative_risk_has_the_benchmark_for_its_least(self) -> None:
        asked = problem_of(8, most=0.5)
        benchmark = np.array([0.3, 0.2, 0.1, 0.1, 0.1, 0.1, 0.05, 0.05])
        known = replace(asked.known, benchmark=benchmark)
        found = skfolio(relative=True).solve(replace(asked, known=known))
        np.testing.assert_allclose(found, benchmark, atol=2e-4)

    def test_the_relative_ratio_is_the_information_ratio(self) -> None:
        asked = problem_of(8, most=0.5, expected=EXPECTED)
        benchmark = asked.known.benchmark
        best = skfolio(objective_function="MAXIMIZE_RATIO", relative=True).solve(asked)

        def ratio(weights: Any) -> float:
            active = weights - benchmark
            return float(EXPECTED @ active / np.sqrt(variance(asked, active)))

        rng = np.random.default_rng(0)
        for _ in range(200):
            other = 0.7 * best + 0.3 * rng.dirichlet(np.ones(8))
            assert other.max() > 0.5 or ratio(other) <= ratio(best) * (1 + 1e-6)

    def test_scenarios_are_past_returns(self) -> None:
        asked = problem_of(8)
        found = skfolio(risk_measure="WORST_REALIZATION").solve(asked)
        worst = (asked.known.returns @ found).min()
        others = np.random.default_rng(0).dirichlet(np.ones(8), 500)
        assert worst >= (asked.known.returns @ others.T).min(axis=0).max() - 1e-9

    def test_it_looks_back_over_its_days_alone(self) -> None:
        asked = problem_of(8)
        asked.known.returns[:-20] = np.nan
        method = {"class": "skfolio.optimization.MeanRisk", "kwargs": {"risk_measure": "CVAR"}}
        found = Skfolio(method=method, days=20).solve(asked)
        asked.known.returns[:-20] = 0.5
        np.testing.assert_array_equal(found, Skfolio(method=method, days=20).solve(asked))

    def test_the_tracker_follows_the_market(self) -> None:
        """Which is made of three stocks."""
        asked = problem_of(8)
        market = asked.known.returns[:, :3] @ np.array([0.5, 0.3, 0.2])
        market += np.random.default_rng(0).normal(0, 1e-5, len(market))
        found = skfolio("BenchmarkTracker").solve(replace(asked, known=replace(asked.known, market=market)))
        np.testing.assert_allclose(found, [0.5, 0.3, 0.2, 0, 0, 0, 0, 0], atol=1e-3)


class TestCosts:
    def test_costs_hold_back(self) -> None:
        held = np.full(8, 1 / 8)
        dear = problem_of(8, expected=EXPECTED, buy_cost=0.05, sell_cost=0.05)
        dear = replace(dear, known=replace(dear.known, held=held))
        utility = skfolio(objective_function="MAXIMIZE_UTILITY", risk_aversion=5)
        np.testing.assert_allclose(utility.solve(dear), held, atol=1e-5)

    def test_a_dear_sale_costs_what_a_dear_purchase_does(self) -> None:
        """Since what is bought has to be sold, only the sum of both rates matters."""
        held = np.random.default_rng(3).dirichlet(np.ones(8))
        asked = problem_of(8, expected=EXPECTED, buy_cost=1e-4, sell_cost=7e-4)
        asked = replace(asked, known=replace(asked.known, held=held))

        def loss(weights: Any) -> Any:
            bought = cp.sum(cp.pos(weights - held))
            sold = cp.sum(cp.neg(weights - held))
            risk = cp.quad_form(weights, cp.psd_wrap(asked.risk.covariance()))
            return 1e3 * (5 * risk - EXPECTED @ weights + 1e-4 * bought + 7e-4 * sold)

        found = skfolio(objective_function="MAXIMIZE_UTILITY", risk_aversion=5).solve(asked)
        np.testing.assert_allclose(found, least(asked, loss), atol=2e-4)


class TestLimits:
    def test_all_kinds_hold_inside(self) -> None:
        asked = problem_of(8, expected=EXPECTED)
        held = np.full(8, 1 / 8)
        first = np.eye(8)[:1] + np.eye(8)[1:2]
        limits = (
            Linear("pair", "the first two between 10.0% and 15.0%", first, np.array([0.1]), np.array([0.15])),
            Turnover("turnover", "turnover of at most 70.0%", held, 0.7),
            Deviation("tracking error", "at most 0.6% a day", asked.risk, held, 0.006),
        )
        utility = skfolio(objective_function="MAXIMIZE_UTILITY", risk_aversion=1)
        free, bound = utility.solve(asked), utility.solve(replace(asked, limits=limits))
        assert len(replace(asked, limits=limits).broken(free)) == 3
        assert replace(asked, limits=limits).broken(bound) == []

    def test_they_see_stocks_that_have_to_be_sold(self) -> None:
        """A stock that may not be held any more is none of the solver's, and its sale is turnover."""
        upper = np.full(8, 1.0)
        upper[7] = 0.0
        held = np.full(8, 1 / 8)
        turnover = Turnover("turnover", "turnover of at most 30.0%", held, 0.3)
        asked = problem_of(8, upper=upper, limits=[turnover])
        assert asked.broken(skfolio().solve(asked)) == []
        with pytest.raises(Infeasible, match="skfolio's MeanRisk found no weights"):
            skfolio().solve(replace(asked, limits=[replace(turnover, most=0.2)]))


class TestErrors:
    @pytest.mark.parametrize("objective", ["MAXIMIZE_RETURN", "MAXIMIZE_UTILITY", "MAXIMIZE_RATIO"])
    def test_a_return_asks_for_a_forecast(self, objective: str) -> None:
        """Without one on a day the least risk is taken; a portfolio that never has one is refused."""
        optimiser = skfolio(objective_function=objective)
        assert optimiser.needs_forecast == f"MeanRisk with {objective}"
        with pytest.raises(
            UserError, match=f"MeanRisk with {objective} needs expected returns, and the portfolio has"
        ):
            Portfolio(optimiser)
        for expected in (None, np.zeros(4)):
            asked = problem_of(4, expected=expected)
            np.testing.assert_array_equal(optimiser.solve(asked), skfolio().solve(asked))

    def test_so_does_a_return_within(self) -> None:
        inner = {"class": "skfolio.optimization.MeanRisk", "kwargs": {"objective_function": "MAXIMIZE_RATIO"}}
        nested = skfolio("NestedClustersOptimization", cv="ignore", inner_estimator=inner)
        assert nested.needs_forecast == "MeanRisk with MAXIMIZE_RATIO"
        assert nested.solve(problem_of(6)).sum() == pytest.approx(1.0)

    @pytest.mark.parametrize(
        "name", ["MeanRisk", "MaximumDiversification", "RiskBudgeting", "HierarchicalRiskParity"]
    )
    def test_risk_alone_does_not(self, name: str) -> None:
        assert skfolio(name).needs_forecast is None

    def test_a_prior_of_ones_own_forecasts(self) -> None:
        prior = {"class": "skfolio.prior.EmpiricalPrior"}
        own = skfolio(objective_function="MAXIMIZE_RETURN", prior_estimator=prior)
        assert own.needs_forecast is None
        found = own.solve(problem_of(4))
        assert found.max() == pytest.approx(1.0, abs=1e-6)

    def test_no_return_above_nought_is_said(self) -> None:
        with pytest.raises(Infeasible, match=r"the best expected return of a day is -0.1000%"):
            skfolio(objective_function="MAXIMIZE_RATIO").solve(problem_of(4, expected=np.full(4, -1e-3)))

    @pytest.mark.parametrize(
        "name", ["MeanRisk", "RiskBudgeting", "HierarchicalRiskParity", "SchurComplementary"]
    )
    def test_no_room_is_said(self, name: str) -> None:
        with pytest.raises(Infeasible):
            skfolio(name).solve(problem_of(4, most=0.2))

    @pytest.mark.parametrize(
        ("key", "place"), [("max_weights", "`constraints`"), ("transaction_costs", "the portfolio's costs")]
    )
    def test_what_the_portfolio_fills_in_is_not_set(self, key: str, place: str) -> None:
        with pytest.raises(UserError, match=f"`method.kwargs` must not set `{key}`: that is said by {place}"):
            skfolio(**{key: 0.1})

    @pytest.mark.parametrize(
        ("kwargs", "said"),
        [
            (
                {"cardinality": 3},
                "`cardinality` needs a solver of mixed integers, found CLARABEL: take NumberOfNames",
            ),
            ({"threshold_long": 0.1}, "`threshold_long` needs .* take SmallestWeight"),
            (
                {"solver": "CLARABELL"},
                r"`solver` must be one of .*; found 'CLARABELL' \(did you mean CLARABEL",
            ),
            (
                {"fallback": {"class": "skfolio.optimization.MeanRisk", "kwargs": {"cardinality": 3}}},
                "`cardinality` needs a solver of mixed integers",
            ),
        ],
    )
    def test_a_solver_that_cannot_is_refused_at_once(self, kwargs: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError, match=said):
            skfolio(**kwargs)

    def test_relative_is_of_mean_risk(self) -> None:
        with pytest.raises(UserError, match="`relative` is for skfolio's MeanRisk, found RiskBudgeting"):
            skfolio("RiskBudgeting", relative=True)

    def test_relative_needs_a_benchmark(self) -> None:
        asked = problem_of(4)
        asked.known.benchmark[:] = np.nan
        with pytest.raises(UserError, match="`relative` needs a benchmark, and the portfolio has none"):
            skfolio(relative=True).solve(asked)

    def test_it_is_an_optimiser_of_skfolio(self) -> None:
        with pytest.raises(
            UserError, match=r"`method.class` must be a BaseOptimization, found skfolio.moments.OAS"
        ):
            Skfolio(method={"class": "skfolio.moments.OAS"})

    def test_what_skfolio_refuses_is_said(self) -> None:
        with pytest.raises(
            UserError, match="skfolio's MeanRisk does not work with its arguments on 2024-03-01"
        ):
            skfolio(groups=[["a", "b"]], linear_constraints=["c >= 0.5"]).solve(problem_of(4))

    def test_many_portfolios_are_refused(self) -> None:
        with pytest.raises(UserError, match="must give one portfolio, found 2"):
            skfolio(min_return=[-1.0, -2.0]).solve(problem_of(4, expected=np.zeros(4)))


class TestPrior:
    def test_a_solver_sees_factors(self) -> None:
        asked = problem_of(8)
        prior = GivenPrior(EXPECTED, asked.risk, asked.known.codes)
        found = prior.fit(
            pd.DataFrame(asked.known.returns[:, [5, 2]], columns=[asked.known.codes[5], asked.known.codes[2]])
        )
        distribution = found.return_distribution_
        np.testing.assert_array_equal(distribution.mu, EXPECTED[[5, 2]])
        root = distribution.covariance_sqrt
        assert root.components[0].shape == (2, 3)
        np.testing.assert_allclose(
            root.components[0] @ root.components[0].T + np.diag(root.diagonal**2),
            asked.risk.covariance()[np.ix_([5, 2], [5, 2])],
            rtol=1e-9,
        )
