from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from qlib_ext.portfolio.lots import Lots
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import risk_of


def account(count: int, **changes: Any) -> Lots:
    everything: dict[str, Any] = {
        "price": np.full(count, 10.0),
        "held": np.zeros(count),
        "value": np.zeros(count),
        "step": np.full(count, 100.0),
        "smallest": np.full(count, 100.0),
        "buyable": np.ones(count, bool),
        "sellable": np.ones(count, bool),
        "cash": 1e5,
    }
    made = everything | changes
    if "value" not in changes:
        made["value"] = made["held"] * np.nan_to_num(made["price"])
    return Lots(**made)


def made(seed: int, count: int = 4) -> tuple[Lots, np.ndarray, Risk]:
    """An account of a few lots a stock, some of them held, and targets that its cash does not quite pay for."""
    rng = np.random.default_rng(seed)
    lots = account(
        count,
        price=rng.uniform(30, 80, count),
        held=rng.integers(0, 4, count) * 100.0 + rng.integers(0, 2, count) * 37.0,
        smallest=rng.choice([100.0, 200.0], count),
        cash=rng.uniform(1_000, 50_000),
        buy_cost=0.001,
        sell_cost=0.002,
        min_cost=5.0,
        min_value=rng.choice([0.0, 2_000.0]),
    )
    return lots, rng.dirichlet(np.ones(count)), risk_of(count, seed)


def loss(lots: Lots, shares: np.ndarray, targets: np.ndarray, risk: Risk) -> float:
    return risk.volatility(shares * lots.price / lots.account - targets)


def left(lots: Lots, shares: np.ndarray) -> Any:
    """Cash after trades to so many shares `[..., N]`."""
    value = (shares - lots.held) * lots.price
    rate = np.where(value > 0, lots.buy_cost, lots.sell_cost)
    cost = np.where(value == 0, 0.0, np.maximum(rate * np.abs(value), lots.min_cost))
    return lots.cash - value.sum(axis=-1) - cost.sum(axis=-1)


def allowed(lots: Lots, at: int, shares: float) -> bool:
    """Whether the exchange and the smallest trade let a stock come to so many shares."""
    trade = shares - lots.held[at]
    if trade == 0 or shares == 0:
        return True
    whole = abs(trade) / lots.step[at]
    large = abs(trade) * lots.price[at] >= lots.min_value and (trade < 0 or trade >= lots.smallest[at])
    return bool(abs(whole - round(whole)) < 1e-9 and large)


def best(lots: Lots, targets: np.ndarray, risk: Risk) -> float:
    """The least loss of all positions, tried one by one."""
    choices = []
    for at, target in enumerate(targets):
        most = target * lots.account / lots.price[at] + 250
        trades = 100 * np.arange(-np.floor(lots.held[at] / 100), np.ceil(most / 100))
        around = {0.0, lots.held[at], *(lots.held[at] + trades)}
        choices.append([shares for shares in sorted(around) if allowed(lots, at, shares)])
    every = np.array([*itertools.product(*choices)])
    every = every[left(lots, every) >= 0]
    active = every * lots.price / lots.account - targets
    return float(np.sqrt(np.einsum("mi,ij,mj->m", active, risk.covariance(), active).min()))


class TestShares:
    def test_is_near_the_best_of_all(self) -> None:
        """The figures of the docstring: measured 1.43 at the most, 1.027 on average, and the best itself in 52 of 60."""
        ratios = []
        for seed in range(60):
            lots, targets, risk = made(seed)
            found = lots.shares(targets, risk)
            ratios.append(loss(lots, found, targets, risk) / best(lots, targets, risk))
        assert min(ratios) > 1 - 1e-9
        assert max(ratios) < 1.5
        assert np.mean(ratios) < 1.05

    @pytest.mark.parametrize("seed", range(30))
    def test_the_cash_pays_and_the_exchange_allows(self, seed: int) -> None:
        lots, targets, risk = made(seed, 8)
        found = lots.shares(targets, risk)
        assert left(lots, found) >= -1e-6
        assert all(allowed(lots, at, shares) for at, shares in enumerate(found))

    @pytest.mark.parametrize("seed", range(30))
    def test_is_never_worse_than_rounded_down(self, seed: int) -> None:
        lots, targets, risk = made(seed, 8)
        lots = replace(lots, cash=lots.cash + 1e5, min_value=0.0)
        wanted = targets * lots.account / lots.price
        down = lots.held + np.trunc((wanted - lots.held) / 100) * 100
        down = np.where((down > lots.held) & (down < lots.held + lots.smallest), lots.held, down)
        if left(lots, down) >= 0:
            assert (
                loss(lots, lots.shares(targets, risk), targets, risk)
                <= loss(lots, down, targets, risk) + 1e-12
            )

    def test_all_of_what_fits_in_lots_is_traded(self) -> None:
        lots = account(3, held=np.array([300.0, 0, 100]), cash=6_000.0)
        found = lots.shares(np.array([0.0, 0.5, 0.5]), risk_of(3))
        assert found.tolist() == [0, 500, 500]

    def test_a_holding_is_sold_whole_whatever_is_left_over_in_it(self) -> None:
        lots = account(2, held=np.array([137.0, 250.0]), min_value=5_000.0)
        assert lots.shares(np.array([0.0, 0.0]), risk_of(2)).tolist() == [0, 0]

    def test_a_small_trade_is_left_out(self) -> None:
        lots = account(2, held=np.array([5_000.0, 5_000.0]), cash=0.0, min_value=3_000.0)
        assert lots.shares(np.array([0.52, 0.48]), risk_of(2)).tolist() == [5_000, 5_000]
        assert lots.shares(np.array([0.54, 0.46]), risk_of(2)).tolist() == [5_400, 4_600]

    def test_a_stock_that_cannot_be_traded_stays(self) -> None:
        lots = account(
            4,
            held=np.array([500.0, 0, 0, 200]),
            price=np.array([10.0, 10, 10, np.nan]),
            value=np.array([5_000.0, 0, 0, 2_000]),
            cash=3_000.0,
            sellable=np.array([False, True, True, True]),
            buyable=np.array([True, True, False, True]),
        )
        found = lots.shares(np.array([0.0, 0.3, 0.4, 0.3]), risk_of(4))
        assert found.tolist() == [500, 300, 0, 200]

    def test_two_that_move_alike_make_up_for_each_other(self) -> None:
        """Rounded each by itself, both go up; together one up and one down cost nothing."""
        risk = Risk.of_covariance(np.array([[1.0, 0.999], [0.999, 1.0]]) * 1e-4)
        lots = account(2, cash=100_000.0)
        found = lots.shares(np.array([0.2460, 0.2540]), risk)
        assert found.sum() == 5_000
        found = lots.shares(np.array([0.2550, 0.2450]), risk)
        assert found.sum() == 5_000

    def test_a_stock_of_unknown_risk_is_rounded_to_the_nearest(self) -> None:
        risk = Risk(np.array([[0.01], [np.nan]]), np.array([1e-4, np.nan]))
        found = account(2).shares(np.array([0.5, 0.296]), risk)
        assert found.tolist() == [5_000, 3_000]

    def test_where_lots_do_not_count_the_targets_are_met(self) -> None:
        lots = account(3, step=np.zeros(3), smallest=np.zeros(3))
        targets = np.array([0.123, 0.456, 0.3])
        np.testing.assert_allclose(lots.shares(targets, risk_of(3)) * 10 / 1e5, targets)

    def test_short_positions_are_rounded_too(self) -> None:
        lots = account(2, cash=100_000.0)
        found = lots.shares(np.array([0.5, -0.203]), Risk.of_covariance(np.eye(2) * 1e-4))
        assert found.tolist() == [5_000, -2_000]

    def test_an_account_without_stocks(self) -> None:
        assert account(0).shares(np.zeros(0), Risk(np.zeros((0, 1)), np.zeros(0))).tolist() == []

    def test_the_order_of_stocks_does_not_matter(self) -> None:
        lots, targets, risk = made(5, 8)
        order = np.random.default_rng(0).permutation(8)
        names = ("price", "held", "value", "step", "smallest", "buyable", "sellable")
        other = replace(lots, **{name: getattr(lots, name)[order] for name in names})
        np.testing.assert_array_equal(
            other.shares(targets[order], risk.take(order)), lots.shares(targets, risk)[order]
        )
