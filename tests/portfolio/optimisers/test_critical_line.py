from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.optimisers.critical_line import CriticalLine
from qlib_ext.portfolio.optimisers.skfolio import Skfolio
from tests.portfolio.problems import problem_of

EXPECTED = np.random.default_rng(1).normal(5e-4, 1e-3, 10)


def mean_risk(**kwargs) -> Skfolio:
    return Skfolio(method={"class": "skfolio.optimization.MeanRisk", "kwargs": kwargs})


@pytest.mark.parametrize(
    ("ours", "theirs"),
    [
        (CriticalLine(), mean_risk()),
        (
            CriticalLine(point="maximum_sharpe"),
            mean_risk(objective_function="MAXIMIZE_RATIO", risk_measure="STANDARD_DEVIATION"),
        ),
        (CriticalLine(point="target_return", target=1e-3), mean_risk(min_return=1e-3)),
        (
            CriticalLine(point="target_volatility", target=0.012),
            mean_risk(objective_function="MAXIMIZE_RETURN", max_standard_deviation=0.012),
        ),
    ],
    ids=["variance", "sharpe", "return", "volatility"],
)
def test_it_equals_skfolio(ours: CriticalLine, theirs: Skfolio) -> None:
    asked = problem_of(10, most=0.3, expected=EXPECTED, invested=0.9)
    np.testing.assert_allclose(ours.solve(asked), theirs.solve(asked), atol=2e-4)


def test_the_lowest_variance_needs_no_forecast() -> None:
    with_one = CriticalLine().solve(problem_of(10, most=0.3, expected=EXPECTED))
    np.testing.assert_array_equal(CriticalLine().solve(problem_of(10, most=0.3)), with_one)


def test_without_a_forecast_the_others_take_it_too() -> None:
    """On a day on which a model of expected returns has nothing to say; a portfolio without one is refused."""
    assert CriticalLine().needs_forecast is None
    for optimiser in (CriticalLine(point="maximum_sharpe"), CriticalLine(point="target_return", target=0.1)):
        assert optimiser.needs_forecast == f"CriticalLine with {optimiser.point}"
        for expected in (None, np.zeros(10)):
            asked = problem_of(10, most=0.3, expected=expected)
            np.testing.assert_array_equal(optimiser.solve(asked), CriticalLine().solve(asked))


def test_it_needs_lower_bounds() -> None:
    with pytest.raises(UserError, match="needs a lowest weight of each stock"):
        CriticalLine().solve(problem_of(4, lower=np.full(4, -np.inf)))


@pytest.mark.parametrize(("point", "target"), [("maximum_sharpe", 0.1), ("target_return", None)])
def test_a_target_goes_with_its_point(point: str, target: float | None) -> None:
    with pytest.raises(UserError, match="`target` goes with"):
        CriticalLine(point=point, target=target)
