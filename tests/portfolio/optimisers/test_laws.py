"""What every optimiser keeps to; a new one is tested by being in the list, and has to be there."""

from __future__ import annotations

import inspect
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skfolio.optimization import ConvexOptimization

from qlib_ext.config.build import build, classes_in
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio import optimisers
from qlib_ext.portfolio.constraints.limits import Linear, Turnover
from qlib_ext.portfolio.optimisers.autoencoder import AutoencoderPortfolio
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.critical_line import CriticalLine
from qlib_ext.portfolio.optimisers.eigen import EigenPortfolio
from qlib_ext.portfolio.optimisers.equal_weight import EqualWeight
from qlib_ext.portfolio.optimisers.hierarchical_risk_parity import HierarchicalRiskParity
from qlib_ext.portfolio.optimisers.skfolio import Skfolio
from qlib_ext.portfolio.optimisers.top_k import TopK
from qlib_ext.portfolio.problem import Infeasible, Problem
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import problem_of

COUNT = 9


def skfolio(name: str, relative: bool = False, days: int = 60, **kwargs: Any) -> Skfolio:
    method = {"class": f"skfolio.optimization.{name}", "kwargs": kwargs}
    return Skfolio(method=method, relative=relative, days=days)


EVERY = [
    EqualWeight(),
    TopK(k=4),
    EigenPortfolio(),
    EigenPortfolio(component=2),
    HierarchicalRiskParity(),
    HierarchicalRiskParity(linkage="single", optimal_order=True),
    CriticalLine(),
    CriticalLine(point="maximum_sharpe"),
    CriticalLine(point="target_volatility", target=0.02),
    CriticalLine(point="target_return", target=1e-4),
    AutoencoderPortfolio(most=2, least=3, epochs=20),
    AutoencoderPortfolio(by="factors", factors=2, epochs=20),
    skfolio("MeanRisk"),
    skfolio("MeanRisk", relative=True),
    skfolio("MeanRisk", objective_function="MAXIMIZE_UTILITY", risk_aversion=20),
    skfolio("MeanRisk", objective_function="MAXIMIZE_RATIO"),
    skfolio("MeanRisk", objective_function="MAXIMIZE_RETURN"),
    skfolio("MeanRisk", risk_measure="CVAR"),
    skfolio("MeanRisk", risk_measure="SEMI_DEVIATION"),
    skfolio("RiskBudgeting"),
    skfolio("MaximumDiversification"),
    skfolio("HierarchicalRiskParity"),
    skfolio("HierarchicalEqualRiskContribution"),
    skfolio("SchurComplementary"),
    skfolio("DistributionallyRobustCVaR", days=15),
    skfolio("BenchmarkTracker"),
    skfolio("EqualWeighted"),
    skfolio("InverseVolatility"),
    skfolio("NestedClustersOptimization", cv="ignore"),
    skfolio(
        "StackingOptimization",
        cv="ignore",
        estimators=[
            ["equal", {"class": "skfolio.optimization.EqualWeighted"}],
            ["least", {"class": "skfolio.optimization.MeanRisk"}],
        ],
    ),
]
# Meta-optimisers and naive ones of skfolio take no bounds, the autoencoder's first weights go by place, ...
NO_BOUNDS = ("EqualWeighted", "InverseVolatility", "NestedClustersOptimization", "StackingOptimization")
GO_BY_PLACE = (AutoencoderPortfolio,)
# ... and these weigh a return against something that is not of its size.
HAS_UNITS = ("MAXIMIZE_UTILITY", "DistributionallyRobustCVaR", "target_volatility", "target_return")

every = pytest.mark.parametrize("optimiser", EVERY, ids=repr)


def problem(**changes: Any) -> Problem:
    rng = np.random.default_rng(5)
    return problem_of(COUNT, most=0.4, **({"expected": rng.normal(3e-4, 1e-3, COUNT)} | changes))


def only(problem: Problem, some: Floats) -> Problem:
    """The problem of some stocks, by their places."""
    known = problem.known
    stocks = {
        "codes": tuple(known.codes[place] for place in some),
        "scores": known.scores[:, some],
        "returns": known.returns[:, some],
        **{
            key: getattr(known, key)[some] for key in ("held", "buyable", "sellable", "benchmark", "industry")
        },
    }
    assert problem.expected is not None
    return replace(
        problem,
        known=replace(known, **stocks),
        expected=problem.expected[some],
        risk=problem.risk.take(some),
        lower=problem.lower[some],
        upper=problem.upper[some],
    )


def solved(optimiser: Optimiser, asked: Problem) -> Floats:
    """The weights; a test of one that takes no bounds looks at nothing but their sum."""
    try:
        return optimiser.solve(asked)
    except Infeasible as error:
        pytest.fail(f"{optimiser}: {error}")


@every
def test_the_sum_is_what_is_invested_and_bounds_are_kept(optimiser: Optimiser) -> None:
    asked = problem(invested=0.93)
    weights = solved(optimiser, asked)
    assert weights.shape == (COUNT,)
    assert weights.sum() == pytest.approx(0.93, abs=1e-6)
    if not any(name in repr(optimiser) for name in NO_BOUNDS):
        assert asked.broken(weights) == []


@every
def test_less_may_be_invested_where_the_problem_says_so(optimiser: Optimiser) -> None:
    """All that bounds let where shares are given; what a solver likes within the two."""
    asked = problem(invested=0.93, least_invested=0.1)
    asked.upper[:] = 0.05
    if not any(name in repr(optimiser) for name in NO_BOUNDS) and "target" not in repr(optimiser):
        assert asked.broken(solved(optimiser, asked)) == []


@every
def test_who_may_have_no_weight_has_none(optimiser: Optimiser) -> None:
    asked = problem()
    asked.upper[[1, 6]] = 0.0
    assert np.abs(solved(optimiser, asked)[[1, 6]]).max() < 1e-7


@every
def test_what_left_the_universe_is_sold(optimiser: Optimiser) -> None:
    """By the limit that says so, or by no look at it; but what cannot be sold stays."""
    asked = problem()
    left = np.arange(COUNT) == 4
    scores = asked.known.scores.copy()
    scores[-1, 4] = np.nan
    sold = Linear("leavers", "what left is sold", 1.0 * left[None], np.array([-np.inf]), np.array([0.0]))
    asked = replace(
        asked, known=replace(asked.known, scores=scores), upper=np.where(left, 0.1, 0.4), limits=(sold,)
    )
    assert abs(solved(optimiser, asked)[4]) < 1e-5


@every
def test_the_same_problem_has_the_same_weights(optimiser: Optimiser) -> None:
    torch.manual_seed(1)
    first, state = solved(optimiser, problem()), torch.get_rng_state()
    torch.manual_seed(2)
    assert np.array_equal(first, solved(optimiser, problem()))
    torch.manual_seed(1)
    assert torch.equal(state, torch.get_rng_state())  # it draws from no generator of others


@pytest.mark.parametrize("optimiser", [each for each in EVERY if not isinstance(each, GO_BY_PLACE)], ids=repr)
def test_the_order_of_stocks_does_not_matter(optimiser: Optimiser) -> None:
    order = np.random.default_rng(2).permutation(COUNT)
    turned = solved(optimiser, only(problem(), order))
    np.testing.assert_allclose(turned, solved(optimiser, problem())[order], atol=3e-4)


@pytest.mark.parametrize(
    "optimiser", [each for each in EVERY if not any(word in repr(each) for word in HAS_UNITS)], ids=repr
)
def test_the_size_of_returns_does_not_matter(optimiser: Optimiser) -> None:
    asked = problem()
    assert asked.expected is not None
    assert asked.risk.factor_covariance is not None
    risk = Risk.of_factors(
        asked.risk.loadings, 9 * asked.risk.factor_covariance, 9 * asked.risk.specific, asked.risk.factors
    )
    known = replace(asked.known, returns=3 * asked.known.returns, market=3 * asked.known.market)
    larger = replace(asked, known=known, risk=risk, expected=3 * asked.expected)
    np.testing.assert_allclose(solved(optimiser, larger), solved(optimiser, asked), atol=1e-3)


@every
def test_it_is_built_from_yaml(optimiser: Optimiser) -> None:
    kind = type(optimiser)
    config = {"class": f"{kind.__module__}.{kind.__name__}", "kwargs": dict(optimiser._given[1])}
    assert repr(build(config, Optimiser, name="optimiser")) == repr(optimiser)


@pytest.mark.parametrize(
    "optimiser",
    [each for each in EVERY if isinstance(each, Skfolio) and isinstance(each.method, ConvexOptimization)],
    ids=repr,
)
def test_convex_methods_of_skfolio_keep_to_limits(optimiser: Skfolio) -> None:
    """What is linear holds in all of them, the rest where the solver's unknown is the weights."""
    first = np.zeros((1, COUNT))
    first[0, :3] = 1.0
    band = Linear(
        "industry", "the first three between 20.0% and 25.0%", first, np.array([0.2]), np.array([0.25])
    )
    turnover = Turnover("turnover", "turnover of at most 40.0%", np.full(COUNT, 1 / COUNT), 0.4)
    scaled = any(word in repr(optimiser) for word in ("MAXIMIZE_RATIO", "MaximumDiv", "RiskBudgeting"))
    asked = problem(limits=[band] if scaled else [band, turnover])
    assert asked.broken(solved(optimiser, asked)) == []


def test_every_optimiser_is_here() -> None:
    found = {each for each in classes_in(optimisers, Optimiser) if not inspect.isabstract(each)}
    assert {type(each) for each in EVERY} == found
