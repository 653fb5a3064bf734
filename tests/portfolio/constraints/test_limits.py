from __future__ import annotations

import cvxpy as cp
import numpy as np
import pytest

from qlib_ext.portfolio.constraints.limits import Box, Linear, Weights, deviation, percent, within
from tests.portfolio.problems import risk_of


class TestLinear:
    def test_a_band_of_no_width_is_an_equation(self) -> None:
        band = Linear("industry", "", np.ones((1, 3)), np.array([0.5]), np.array([0.5]))
        assert len(band.expressions(Weights(3))) == 1
        assert len(band.expressions(Weights(3), 0.1)) == 2

    def test_the_bound_is_the_one_that_binds(self) -> None:
        band = Linear(
            "x", "", np.eye(2), np.array([0.1, 0.2]), np.array([0.3, 0.4]), ("a", "b"), np.array([1.0, 2.0])
        )
        assert band.bound(np.array([0.2, 0.5])) == 2.4
        assert band.bound(np.array([0.05, 0.3])) == 1.1

    def test_rows_are_parts(self) -> None:
        band = Linear("x", "both", np.eye(2), np.array([0.1, -np.inf]), np.array([np.inf, 0.4]), ("a", "b"))
        assert [part.words for part in band.parts()] == ["a of at least 10%", "b of at most 40%"]
        wider = band.widened(np.array([0.0, 0.1]))
        assert [part.words for part in wider.parts()] == ["a of at least 10%", "b of at most 50%"]
        assert wider.words == "both, wider by up to 10%"
        assert wider.widened(np.array([0.05, 0.02])).words == "both, wider by up to 15%"


class TestBox:
    def test_a_bound_of_0_stays(self) -> None:
        wider = Box("weight", "weights", np.array([0.0, 0.1, -0.2]), np.array([0.0, 0.2, 0.3])).widened(
            np.array([0.05])
        )
        np.testing.assert_allclose(wider.low, [0, 0.05, -0.2])
        np.testing.assert_allclose(wider.high, [0, 0.25, 0.35])
        assert wider.widened(np.array([0.02])).words == "weights, wider by 7%"

    @pytest.mark.parametrize("slack", [0.0, 0.05])
    def test_the_solver_is_told_the_same(self, slack: float) -> None:
        box = Box("weight", "weights", np.array([0.0, 0.1, -0.2]), np.array([0.0, 0.2, 0.3]))
        wider = box.widened(np.array([slack]))
        weights = cp.Variable(3)
        said = box.expressions(weights, slack)
        for bound, sign in ((wider.high, -1), (wider.low, 1)):
            cp.Problem(cp.Minimize(sign * cp.sum(weights)), said).solve(solver=cp.CLARABEL)
            np.testing.assert_allclose(weights.value, bound, atol=1e-6)

    def test_the_bound_is_the_one_that_binds(self) -> None:
        box = Box("weight", "weights", np.array([0.1, 0.1]), np.array([0.2, 0.3]))
        assert box.bound(np.array([0.25, 0.2])) == 0.2
        assert box.bound(np.array([0.15, 0.0])) == 0.1


class TestWeights:
    def test_one_model_has_one_set_of_exposures(self) -> None:
        weights, risk = Weights(4), risk_of(4)
        for _ in range(2):
            deviation(risk, weights, np.zeros(4))
        assert len(weights.definitions) == 1
        deviation(risk_of(4, 1), weights, np.zeros(4))
        assert len(weights.definitions) == 2

    def test_the_deviation_is_that_of_the_covariance(self) -> None:
        risk, centre, rng = risk_of(4), np.full(4, 0.25), np.random.default_rng(0)
        weights, plain = Weights(4), cp.Variable(4)
        fixed = rng.dirichlet(np.ones(4))
        asked = deviation(risk, weights, centre)
        cp.Problem(cp.Minimize(0), [weights == fixed, *weights.definitions]).solve(solver=cp.CLARABEL)
        plain.value = fixed
        active = fixed - centre
        expected = np.sqrt(active @ risk.covariance() @ active)
        assert asked.value == pytest.approx(expected)
        assert deviation(risk, plain, centre).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("value", "said"), [(0.05, "5%"), (0.09137, "9.137%"), (1, "100%"), (-1e-9, "0%"), (0.12345678, "12.35%")]
)
def test_percent(value: float, said: str) -> None:
    assert percent(value) == said


def test_within() -> None:
    assert within(0.08, 0.12) == "between 8% and 12%"
    assert within(0.5, 0.5, in_percent=False) == "of exactly 0.5"
    assert within(-np.inf, 1.0) == "of at most 100%"
    assert within(0.1, np.inf) == "of at least 10%"
