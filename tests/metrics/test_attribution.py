"""Attribution against a published example, plain loops, skfolio, and the sum of the whole."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from skfolio.attribution import realized_factor_attribution

from qlib_ext.checks import UserError
from qlib_ext.metrics.attribution import (
    FactorParts,
    FactorReturns,
    brinson_fachler,
    carino,
    factor_parts,
    factor_returns,
    linked,
)

DAYS, STOCKS, STYLES, GROUPS = 60, 40, 3, 5


@pytest.fixture(scope="module")
def given() -> dict[str, Any]:
    draw = np.random.default_rng(0)
    portfolio = draw.random((DAYS, STOCKS)) * (draw.random((DAYS, STOCKS)) < 0.3)
    portfolio *= draw.uniform(0.5, 1.0, (DAYS, 1)) / portfolio.sum(axis=1, keepdims=True)
    values = np.exp(draw.normal(0, 1, (DAYS, STOCKS)))
    values[draw.random((DAYS, STOCKS)) < 0.1] = 0
    returns = draw.normal(0.001, 0.03, (DAYS, STOCKS))
    returns[(values == 0) & (portfolio == 0)] = np.nan
    return {
        "portfolio": portfolio,
        "benchmark": values / values.sum(axis=1, keepdims=True),
        "values": values,
        "returns": returns,
        "styles": draw.normal(size=(STYLES, DAYS, STOCKS)),
        "group": draw.integers(0, GROUPS, (DAYS, STOCKS)),
    }


class TestBrinson:
    def test_the_example_of_a_textbook(self) -> None:
        """Bacon, "Practical Portfolio Performance Measurement and Attribution" (2008): three markets."""
        weights, index = np.array([[0.4, 0.3, 0.3]]), np.array([[0.4, 0.2, 0.4]])
        # Each market has a stock of the portfolio and one of the benchmark.
        returns = np.array([[0.20, -0.05, 0.06, 0.10, -0.04, 0.08]])
        none = np.zeros_like(weights)
        found = brinson_fachler(
            np.hstack([weights, none]), np.hstack([none, index]), returns, [[0, 1, 2, 0, 1, 2]], 3
        )
        np.testing.assert_allclose(found.allocation[0], [0, -0.0104, -0.0016, 0], atol=1e-12)
        np.testing.assert_allclose(found.selection[0], [0.04, -0.002, -0.008, 0], atol=1e-12)
        np.testing.assert_allclose(found.interaction[0], [0, -0.001, 0.002, 0], atol=1e-12)

    def test_parts_are_those_of_a_loop_and_add_up(self, given: dict[str, Any]) -> None:
        portfolio, benchmark, group = given["portfolio"], given["benchmark"], given["group"]
        moves = np.nan_to_num(given["returns"])
        found = brinson_fachler(portfolio, benchmark, given["returns"], group, GROUPS)
        for day in (0, 17):
            whole = benchmark[day] @ moves[day]
            for g in range(GROUPS):
                here = group[day] == g
                w, v = portfolio[day, here].sum(), benchmark[day, here].sum()
                b = benchmark[day, here] @ moves[day, here] / v
                r = portfolio[day, here] @ moves[day, here] / w if w else b
                assert found.allocation[day, g] == pytest.approx((w - v) * (b - whole))
                assert found.selection[day, g] == pytest.approx(v * (r - b))
                assert found.interaction[day, g] == pytest.approx((w - v) * (r - b))
            cash = 1 - portfolio[day].sum()
            assert found.allocation[day, -1] == pytest.approx(-cash * whole)
        total = sum(part.sum(axis=1) for part in (found.allocation, found.selection, found.interaction))
        np.testing.assert_allclose(total, ((portfolio - benchmark) * moves).sum(axis=1), atol=1e-14)

    def test_what_the_benchmark_does_not_hold_is_allocation(self) -> None:
        found = brinson_fachler([[0.5, 0.5]], [[1.0, 0.0]], [[0.02, 0.10]], [[0, 1]], 2)
        np.testing.assert_allclose(found.allocation, [[0, 0.5 * 0.08, 0]])
        np.testing.assert_allclose(found.selection + found.interaction, 0, atol=1e-16)

    def test_long_and_short_in_one_group_lose_nothing(self) -> None:
        found = brinson_fachler([[0.5, -0.5]], [[0.5, 0.5]], [[0.02, 0.10]], [[0, 0]], 1)
        total = found.allocation + found.selection + found.interaction
        assert total.sum() == pytest.approx(0.5 * 0.02 - 0.5 * 0.10 - 0.06)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"returns": [[np.nan, 0.1]]}, "a stock with a weight needs a return, found 1 without"),
            ({"portfolio": [[np.nan, 0.1]]}, "weights must be there for each day and stock, found 1 missing"),
            (
                {"group": [[-1, 0]]},
                "`group` must be from 0 to 0, found -1 to 0: give stocks without a group one",
            ),
            ({"group": [[0]]}, r"`group` must be \(1, 2\) as the weights"),
            ({"benchmark": [[1.0]]}, r"weights must be \(1, 2\) as `returns`"),
            ({"groups": 0}, "`groups` must be at least 1, found 0"),
        ],
    )
    def test_what_cannot_be(self, change: dict[str, Any], message: str) -> None:
        good = {
            "portfolio": [[0.5, 0.5]], "benchmark": [[0.5, 0.5]], "returns": [[0.1, 0.1]], "group": [[0, 0]], "groups": 1
        }  # fmt: skip
        with pytest.raises(UserError, match=message):
            brinson_fachler(**(good | change))


class TestLinked:
    def test_two_days_by_hand(self) -> None:
        r, b = np.array([0.10, -0.05]), np.array([0.04, 0.01])
        k = np.log((1 + r) / (1 + b)) / (r - b)
        whole, index = 1.10 * 0.95 - 1, 1.04 * 1.01 - 1
        expected = k / (np.log((1 + whole) / (1 + index)) / (whole - index))
        np.testing.assert_allclose(carino(r, b), expected)

    def test_parts_add_up_to_the_compounded_difference(self) -> None:
        draw = np.random.default_rng(2)
        own, beside = draw.normal(0, 0.02, (2, 500))
        own[7] = beside[7]
        share = draw.dirichlet(np.ones(4), 500)
        found = linked((own - beside)[:, None] * share, own, beside)
        assert found.sum() == pytest.approx(np.prod(1 + own) - np.prod(1 + beside), abs=1e-12)
        assert found[7].sum() == 0

    def test_equal_returns_all_along(self) -> None:
        same = np.array([0.1, -0.2])
        np.testing.assert_allclose(carino(same, same), 0.88 / (1 + same))

    def test_what_cannot_be(self) -> None:
        with pytest.raises(UserError, match="must be above -1 to be linked over time"):
            carino([0.1, -1.0], [0.0, 0.0])
        with pytest.raises(UserError, match="`parts` must be of 2 days"):
            linked(np.ones((3, 1)), [0.1, 0.1], [0.0, 0.0])


@pytest.fixture(scope="module")
def earned(given: dict[str, Any]) -> FactorReturns:
    return factor_returns(given["returns"], given["styles"], given["group"], GROUPS, given["values"])


@pytest.fixture(scope="module")
def parts(given: dict[str, Any], earned: FactorReturns) -> FactorParts:
    active = given["portfolio"] - given["benchmark"]
    return factor_parts(active, given["returns"], given["styles"], given["group"], GROUPS, earned.returns)


class TestFactors:
    def test_returns_solve_the_constrained_least_squares(
        self, given: dict[str, Any], earned: FactorReturns
    ) -> None:
        """Against the equations of Lagrange, in which the constraint stands as it is written."""
        for day in (0, 31):
            used = given["values"][day] > 0
            value, move = given["values"][day, used], given["returns"][day, used]
            dummies = (given["group"][day, used][:, None] == np.arange(GROUPS)).astype(float)
            x = np.column_stack([np.ones(used.sum()), given["styles"][:, day, used].T, dummies])
            w = np.sqrt(value)[:, None]
            bound = np.concatenate([np.zeros(1 + STYLES), value @ dummies])
            left = np.block([[x.T @ (w * x), bound[:, None]], [bound[None], np.zeros((1, 1))]])
            right = np.append(x.T @ (w[:, 0] * move), 0)
            np.testing.assert_allclose(earned.returns[day], np.linalg.solve(left, right)[:-1], atol=1e-12)
            rest = move - x @ earned.returns[day]
            mean = np.average(move, weights=w[:, 0])
            expected = 1 - (w[:, 0] @ rest**2) / (w[:, 0] @ (move - mean) ** 2)
            assert earned.explained[day] == pytest.approx(expected)

    def test_what_was_planted_is_found(self, given: dict[str, Any]) -> None:
        planted = np.array([0.01, 0.002, -0.003, 0.0])
        returns = planted[0] + np.einsum("p,pds->ds", planted[1:], given["styles"])
        found = factor_returns(returns, given["styles"], given["group"], GROUPS, np.ones_like(returns))
        np.testing.assert_allclose(found.returns[:, :4], np.broadcast_to(planted, (DAYS, 4)), atol=1e-12)
        np.testing.assert_allclose(found.returns[:, 4:], 0, atol=1e-12)
        np.testing.assert_allclose(found.explained, 1)

    def test_parts_are_those_of_skfolio(
        self, given: dict[str, Any], earned: FactorReturns, parts: FactorParts
    ) -> None:
        active = given["portfolio"] - given["benchmark"]
        moves = np.nan_to_num(given["returns"])
        dummies = (given["group"][..., None] == np.arange(GROUPS)).astype(float)
        x = np.concatenate([np.ones((DAYS, STOCKS, 1)), given["styles"].transpose(1, 2, 0), dummies], axis=2)
        oracle = realized_factor_attribution(
            asset_names=[f"S{k}" for k in range(STOCKS)],
            factor_names=[f"F{k}" for k in range(x.shape[2])],
            weights=active,
            factor_returns=earned.returns,
            portfolio_returns=(active * moves).sum(axis=1),
            exposures=x,
            exposure_lag=0,
            idio_returns=moves - np.einsum("dsf,df->ds", x, earned.returns),
        )
        np.testing.assert_allclose(parts.parts.mean(axis=0) * 252, oracle.factors.mu_contrib, atol=1e-12)
        np.testing.assert_allclose(parts.exposure.mean(axis=0), oracle.factors.exposure, atol=1e-12)
        assert parts.specific.mean() * 252 == pytest.approx(oracle.idio.mu_contrib)
        assert oracle.unattributed.mu_contrib == pytest.approx(0, abs=1e-12)

    def test_factors_and_selection_add_up(self, given: dict[str, Any], parts: FactorParts) -> None:
        active = given["portfolio"] - given["benchmark"]
        total = parts.parts.sum(axis=1) + parts.specific
        np.testing.assert_allclose(total, (active * np.nan_to_num(given["returns"])).sum(axis=1), atol=1e-14)

    def test_a_day_without_stocks_and_a_style_without_spread_earn_nothing(
        self, given: dict[str, Any]
    ) -> None:
        values, styles = given["values"].copy(), given["styles"].copy()
        values[3], styles[1] = 0, 0
        found = factor_returns(given["returns"], styles, given["group"], GROUPS, values)
        assert (found.returns[3] == 0).all()
        assert np.isnan(found.explained[3])
        np.testing.assert_allclose(found.returns[:, 2], 0, atol=1e-15)
        none = factor_returns(given["returns"], np.empty((0, DAYS, STOCKS)), given["group"], GROUPS, values)
        assert none.returns.shape == (DAYS, 1 + GROUPS)

    def test_what_cannot_be(self, given: dict[str, Any]) -> None:
        holed = given["styles"].copy()
        holed[0, 0, 0] = np.nan
        with pytest.raises(
            UserError, match="`styles` must all be there, found 1 missing; 0 is as the market"
        ):
            factor_returns(given["returns"], holed, given["group"], GROUPS, given["values"])
        with pytest.raises(UserError, match="`earned` must be"):
            factor_parts(
                given["portfolio"], np.nan_to_num(given["returns"]), given["styles"], given["group"], GROUPS, np.ones((DAYS, 2))
            )  # fmt: skip
