from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.allocation import Allocation, Decision
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.online.buy_and_hold import BuyAndHold
from qlib_ext.portfolio.online.combination import OnlineCombination, tradable
from qlib_ext.portfolio.online.exponentiated_gradient import ExponentiatedGradient
from tests.portfolio.problems import day_of, risk_of

COUNT, DAYS = 4, pd.bdate_range("2023-01-02", periods=40)
RETURNS = np.random.default_rng(7).normal(0, 0.02, (40, COUNT)) + np.array([0.01, 0, 0, -0.01])


class Holds(Allocation):
    """Always the same weights; it remembers what it was shown."""

    def __init__(self, weights: list[float], benchmark: str = "equal") -> None:
        self.weights = np.array(weights)
        self.benchmark, self.index, self.horizon, self.min_trade = benchmark, None, (1, 1), 0.001
        self.seen: list[KnownDay] = []

    @property
    def days_back(self) -> int:
        return 5

    def decide(self, known: KnownDay) -> Decision:
        self.seen.append(known)
        return Decision(known, self.weights, risk_of(COUNT), None, told=("it holds",))


def day(place: int, returns: np.ndarray = RETURNS, length: int = 30, **changes: Any) -> KnownDay:
    span = slice(max(0, place + 1 - length), place + 1)
    return day_of(
        COUNT, day=DAYS[place], days=DAYS[span], returns=returns[span], scores=returns[span], market=returns[span, 0],
        **changes,
    )  # fmt: skip


def combination(**changes: Any) -> OnlineCombination:
    members = {
        "best": Holds([1.0, 0, 0, 0]),
        "middle": Holds([0, 0.5, 0.5, 0]),
        "worst": Holds([0, 0, 0, 1.0]),
    }
    return OnlineCombination(members=members, buy_cost=0.0, sell_cost=0.0, **changes)


def run(combined: OnlineCombination, places: range, **changes: Any) -> list[Decision]:
    return [combined.decide(day(place, **changes)) for place in places]


class TestShares:
    def test_they_are_the_rule_s_of_what_members_earned(self) -> None:
        """A decision of day t is traded at the close of t + 1, and earns from t + 2 on."""
        rule = ExponentiatedGradient(rate=2.0)
        decisions = run(combination(rule=rule), range(40))
        earned = np.ones((39, 3))
        earned[1:] += np.column_stack([RETURNS[2:, 0], RETURNS[2:, 1:3].mean(axis=1), RETURNS[2:, 3]])
        shares = rule.shares(earned)
        for found, (best, middle, worst) in zip(decisions, shares, strict=True):
            np.testing.assert_allclose(found.weights, [best, middle / 2, middle / 2, worst], rtol=1e-9)

    def test_rare_rebalances_see_all_days_between(self) -> None:
        often, seldom = combination(), combination()
        run(often, range(40))
        run(seldom, range(0, 40, 13))
        columns = ["relative/best", "relative/worst"]  # of one stock each, which does not drift
        pd.testing.assert_frame_equal(often.history[columns], seldom.history[columns])

    def test_nothing_follows_from_a_later_day(self) -> None:
        scrambled = RETURNS.copy()
        scrambled[21:] = 0.5
        for found, other in zip(
            run(combination(), range(21)), run(combination(), range(21), returns=scrambled), strict=True
        ):
            np.testing.assert_array_equal(found.weights, other.weights)

    def test_a_second_backtest_begins_anew(self) -> None:
        combined = combination()
        first, second = run(combined, range(3, 30)), run(combined, range(3, 30))
        for one, other in zip(first, second, strict=True):
            np.testing.assert_array_equal(one.weights, other.weights)

    def test_costs_are_the_members_own(self) -> None:
        combined = OnlineCombination(
            members={"still": Holds([1.0, 0, 0, 0]), "busy": Holds([0.25] * 4)}, buy_cost=0.01, sell_cost=0.01
        )
        run(combined, range(40))
        free = OnlineCombination(
            members={"still": Holds([1.0, 0, 0, 0]), "busy": Holds([0.25] * 4)}, buy_cost=0.0, sell_cost=0.0
        )
        run(free, range(40))
        paid = np.log(free.history.iloc[:, :2] / combined.history.iloc[:, :2].to_numpy()).sum()
        assert paid["relative/still"] == pytest.approx(-np.log(0.99))  # one purchase of everything
        assert paid["relative/busy"] > 0.01


class TestMembers:
    def test_they_are_shown_what_they_would_hold(self) -> None:
        combined = combination()
        run(combined, range(0, 4, 3), held=[0.3, 0.3, 0.3, 0.1])
        middle = combined.members["middle"]
        assert isinstance(middle, Holds)
        np.testing.assert_array_equal(middle.seen[0].held, np.zeros(4))
        grown = np.array([0, 0.5, 0.5, 0]) * np.prod(1 + RETURNS[2:4], axis=0)  # bought at the close of day 1
        np.testing.assert_allclose(middle.seen[1].held, grown / grown.sum())

    def test_what_they_tell_comes_with_their_names(self) -> None:
        told = run(combination(), range(12))[-1].told
        assert told[0].startswith("the combination is best ")
        assert "of log wealth ahead of the combination's rule, which bounds it by" in told[1]
        assert told[2:] == ("best: it holds", "middle: it holds", "worst: it holds")

    def test_they_look_at_one_market(self) -> None:
        with pytest.raises(
            UserError, match="`members` must have one `benchmark`, found equal and, of other, value"
        ):
            OnlineCombination(members={"one": Holds([1.0] * 4), "other": Holds([1.0] * 4, benchmark="value")})

    @pytest.mark.parametrize("members", [None, [], {"one": Holds([1.0] * 4)}])
    def test_two_are_the_least(self, members: Any) -> None:
        with pytest.raises(UserError, match="`members` must name two portfolios at least"):
            OnlineCombination(members=members)


class TestRegret:
    @pytest.mark.parametrize("rule", [ExponentiatedGradient(), BuyAndHold()], ids=repr)
    def test_it_keeps_to_its_bound(self, rule: Any) -> None:
        combined = combination(rule=rule)
        run(combined, range(40))
        regret, bound = combined.regret
        assert 0 < regret <= bound

    def test_history_has_the_days(self) -> None:
        combined = combination(rule=BuyAndHold())
        run(combined, range(2, 40, 5))
        history = combined.history
        assert history.index.equals(DAYS[3:38])
        wealth = history.filter(like="relative/").cumprod()
        share = (wealth.div(wealth.sum(axis=1), axis=0)).shift(1).dropna().to_numpy()
        np.testing.assert_allclose(history.filter(like="share/").to_numpy()[1:], share, rtol=1e-12)

    def test_days_that_are_not_known_are_told(self) -> None:
        combined = combination()
        combined.decide(day(0))
        told = combined.decide(day(39, length=10)).told
        assert any("raise `longest`" in each for each in told)


class TestTradable:
    def test_what_cannot_be_traded_is_left_and_the_rest_scaled(self) -> None:
        known = replace(
            day_of(4, held=[0.4, 0.0, 0.3, 0.3]),
            sellable=np.array([False, True, True, True]),
            buyable=np.array([True, False, True, True]),
        )
        found = tradable(known, np.array([0.1, 0.2, 0.3, 0.4]))
        np.testing.assert_allclose(found, [0.4, 0.0, 0.3 * 0.6 / 0.7, 0.4 * 0.6 / 0.7])

    def test_what_may_be_traded_is_left_as_it_is(self) -> None:
        wanted = np.array([0.1, 0.2, -0.1, 0.4])
        np.testing.assert_array_equal(tradable(day_of(4), wanted), wanted)
