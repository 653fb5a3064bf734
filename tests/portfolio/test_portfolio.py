"""A portfolio puts its parts together, and the exchange's word comes first."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.capacity import Capacity
from qlib_ext.portfolio.constraints.cash_band import CashBand
from qlib_ext.portfolio.constraints.industry_band import IndustryBand
from qlib_ext.portfolio.constraints.limits import Box, Limit, Linear, Turnover
from qlib_ext.portfolio.constraints.long_short import LongShort
from qlib_ext.portfolio.constraints.max_turnover import MaxTurnover
from qlib_ext.portfolio.constraints.number_of_names import NumberOfNames
from qlib_ext.portfolio.constraints.weight_bounds import WeightBounds
from qlib_ext.portfolio.diary import Diary
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.known_day import Bools, KnownDay
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.portfolio import Costs, Portfolio, reachable
from qlib_ext.portfolio.problem import Infeasible, Problem
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from tests.portfolio.problems import day_of


class Alike(RiskModel):
    """Every stock with a whole history has the same risk, and none has to do with another."""

    days_back = 20

    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        variances = np.where(np.isfinite(known.returns).all(axis=0), 1e-4, np.nan)
        return Risk(np.where(np.isnan(variances), np.nan, 0.0)[:, None], variances), []


class Scores(ExpectedReturns):
    """The score is the expected return."""

    def estimate(self, known: KnownDay, risk: Risk) -> Floats | None:
        return known.score


class Greedy(Optimiser):
    """As much as bounds allow of the best, then of the next."""

    def solve(self, problem: Problem) -> Floats:
        weights, left = problem.lower.copy(), problem.invested - problem.lower.sum()
        assert problem.expected is not None
        for k in np.argsort(-problem.expected, kind="stable"):
            more = min(left, problem.upper[k] - weights[k])
            weights[k], left = weights[k] + more, left - more
        return weights


class Helpless(Optimiser):
    """Finds nothing, for a reason of its own."""

    def solve(self, problem: Problem) -> Floats:
        raise Infeasible("no ratio above 0 can be made")


class Cap(Constraint):
    name = "cap"

    def __init__(self, most: float = 1.0, names: int | None = None, least: float = 0.0) -> None:
        self.most, self.names, self.least = most, names, least

    def box(self, known: KnownDay) -> Box:
        count = len(known.codes)
        return Box("cap", f"weights of at most {self.most:.0%}", np.zeros(count), np.full(count, self.most))

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        return []

    def kept(self, weights: Floats, known: KnownDay) -> Bools:
        order = np.argsort(-np.where(known.sellable | (known.held == 0), weights, np.inf), kind="stable")
        some = np.zeros(len(weights), dtype=bool)
        some[order[: self.names]] = True
        return some & (weights >= self.least)


class Slow(Constraint):
    name = "turnover"

    def __init__(self, most: float) -> None:
        self.most = most

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        return [Turnover(self.name, f"turnover of at most {self.most:.1%}", known.held, self.most)]


class Half(Constraint):
    """The first two stocks hold half of the account."""

    name = "half"

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        row = np.zeros((1, len(known.codes)))
        row[0, :2] = 1
        return [Linear(self.name, "the first two hold 50%", row, np.array([0.5]), np.array([0.5]))]


def portfolio(*constraints: Constraint, **changes: Any) -> Portfolio:
    parts: dict[str, Any] = {"optimiser": Greedy(), "risk_model": Alike(), "expected_returns": Scores()}
    return Portfolio(**(parts | {"constraints": constraints, "invested": 1.0} | changes))


def day(scores: list[float], **changes: Any) -> KnownDay:
    return day_of(len(scores), scores=np.tile(scores, (60, 1)), **changes)


BEST_FIRST = [4.0, 3.0, 2.0, 1.0]


class TestDecide:
    def test_the_best_within_the_bounds(self) -> None:
        decision = portfolio(Cap(0.4)).decide(day(BEST_FIRST))
        assert decision.weights == pytest.approx([0.4, 0.4, 0.2, 0.0])
        assert decision.told == decision.relaxed == ()

    def test_who_cannot_be_sold_keeps_its_weight(self) -> None:
        known = day(BEST_FIRST, held=[0, 0, 0, 0.7], sellable=np.array([True, True, True, False]))
        decision = portfolio(Cap(0.4)).decide(known)
        assert decision.weights == pytest.approx([0.3, 0, 0, 0.7])
        assert decision.told == ("1 holding that cannot be sold: 70.00% of the account",)

    def test_who_cannot_be_bought_gets_no_more(self) -> None:
        known = day(BEST_FIRST, held=[0.1, 0, 0, 0], buyable=np.array([False, True, True, True]))
        assert portfolio(Cap(0.4)).decide(known).weights == pytest.approx([0.1, 0.4, 0.4, 0.1])

    def test_who_left_the_universe_is_sold(self) -> None:
        known = day([4.0, np.nan, 2.0, 1.0], held=[0, 0.5, 0, 0])
        assert portfolio(Cap(0.6)).decide(known).weights == pytest.approx([0.6, 0, 0.4, 0])

    def test_who_left_and_cannot_be_sold_stays(self) -> None:
        sellable = np.array([True, False, True, True])
        known = day([4.0, np.nan, 2.0, 1.0], held=[0, 0.5, 0, 0], sellable=sellable)
        assert portfolio(Cap(0.6)).decide(known).weights == pytest.approx([0.5, 0.5, 0, 0])

    def test_who_has_no_estimate_is_not_bought_and_what_is_held_of_it_stays(self) -> None:
        known = day(BEST_FIRST, held=[0, 0.2, 0, 0])
        known.returns[3, :2] = np.nan
        assert portfolio(Cap(0.5)).decide(known).weights == pytest.approx([0, 0.2, 0.5, 0.3])

    def test_nothing_is_bought_of_what_nothing_is_expected_of(self) -> None:
        known = day([np.nan, 3.0, 2.0, 1.0])
        assert portfolio(Cap(0.5)).decide(known).weights == pytest.approx([0, 0.5, 0.5, 0])

    def test_what_cannot_be_invested_stays_in_cash(self) -> None:
        decision = portfolio(Cap(0.2)).decide(day(BEST_FIRST))
        assert decision.weights == pytest.approx([0.2] * 4)
        assert decision.told == ("only 80.00% of the account could be invested",)

    def test_without_any_estimate_the_account_stays(self) -> None:
        known = day(BEST_FIRST, held=[0, 0.2, 0, 0])
        known.returns[3] = np.nan
        decision = portfolio().decide(known)
        assert decision.kept
        assert decision.weights.tolist() == [0, 0.2, 0, 0]
        assert "the risk of no stock is known" in decision.told[0]

    def test_weights_that_break_a_limit_move_to_the_nearest_allowed(self) -> None:
        decision = portfolio(Cap(0.4), Half()).decide(day(BEST_FIRST))
        assert decision.weights == pytest.approx([0.25, 0.25, 0.35, 0.15], abs=1e-4)
        assert decision.moved == pytest.approx(0.01 * np.linalg.norm([0.15, 0.15, 0.15, 0.15]), rel=1e-3)
        diary = Diary()
        diary.add(decision.known.day, decision)
        limits = diary.tables()["limits"]
        assert limits.loc[limits["name"] == "half", "words"].tolist() == ["the first two hold 50%"]


class TestWithoutWeightsOfTheOptimiser:
    def test_the_allowed_weights_nearest_to_what_is_held_are_taken(self) -> None:
        known = day(BEST_FIRST, held=[0.5, 0.3, 0.1, 0.1])
        decision = portfolio(Cap(0.4), optimiser=Helpless()).decide(known)
        assert decision.weights == pytest.approx([0.4, 1 / 3, 0.4 / 3, 0.4 / 3], abs=1e-4)
        assert decision.told == (
            "no ratio above 0 can be made: of the weights that keep to all limits, those nearest to what is held are taken",
        )
        assert not decision.kept
        assert decision.moved == 0

    def test_limits_give_way_first_where_they_must(self) -> None:
        known = day(BEST_FIRST, held=[0, 0, 0.5, 0.5])
        decision = portfolio(Slow(0.2), Half(), optimiser=Helpless(), relax=["turnover"]).decide(known)
        assert decision.weights == pytest.approx([0.25] * 4, abs=2e-3)
        assert [one.name for one in decision.relaxed] == ["turnover"]
        assert decision.told[-1].startswith("no ratio above 0 can be made")


def test_weights_that_miss_a_limit_after_all_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("qlib_ext.portfolio.portfolio.nearest_allowed", lambda problem, weights: weights)
    decision = portfolio(Cap(0.4), Half()).decide(day(BEST_FIRST))
    assert decision.told == ("the solver's weights miss by more than its rounding: the first two hold 50%",)


class TestShorts:
    def test_what_left_the_universe_is_sold_or_bought_back(self) -> None:
        known = day([np.nan, np.nan, 2.0, 1.0], held=[0.3, -0.2, 0.0, -0.1])
        decision = portfolio(LongShort(net=0.2, most_short=0.4), WeightBounds(0.5)).decide(known)
        assert decision.weights == pytest.approx([0, 0, 0.5, -0.3], abs=1e-5)
        assert not decision.relaxed

    def test_what_cannot_be_traded_stays(self) -> None:
        known = day(
            [np.nan, np.nan, 2.0, 1.0],
            held=[0.3, -0.2, 0, 0],
            sellable=np.array([False, True, True, True]),
            buyable=np.array([True, False, True, True]),
        )
        decision = portfolio(LongShort(net=0.2, most_short=0.4), WeightBounds(0.5)).decide(known)
        assert decision.weights == pytest.approx([0.3, -0.2, 0.5, -0.4], abs=1e-5)

    def test_one_of_no_risk_that_left_is_bought_back_where_it_can_be(self) -> None:
        known = day([np.nan, 3.0, 2.0, 1.0], held=[-0.2, 0, 0, 0])
        known.returns[3, 0] = np.nan
        made = portfolio(LongShort(net=0.2, most_short=0.4), WeightBounds(0.5))
        assert made.decide(known).weights[0] == 0
        shut = replace(known, buyable=np.array([False, True, True, True]))
        assert made.decide(shut).weights[0] == -0.2

    def test_nothing_is_sold_short_of_what_nothing_is_expected_of(self) -> None:
        class Unsure(Scores):
            def estimate(self, known: KnownDay, risk: Risk) -> Floats | None:
                return np.where(np.arange(len(known.codes)) < 2, np.nan, known.score)

        made = portfolio(LongShort(net=0.2, most_short=0.4), WeightBounds(0.5), expected_returns=Unsure())
        known = day([9.0, 9.0, 2.0, 1.0], held=[0, -0.2, 0, 0])
        assert made.decide(known).weights == pytest.approx([0, 0, 0.5, -0.3], abs=1e-5)


class TestRelaxing:
    def test_a_limit_that_gives_way_twice_is_told_once(self) -> None:
        """A fifth is to be bought; then one of four is to be left out, and its fifth to go to the others."""
        known = day(BEST_FIRST, held=[0.2, 0.2, 0.2, 0.2])
        decision = portfolio(MaxTurnover(0.1), NumberOfNames(most=3), relax=["turnover"]).decide(known)
        (relaxed,) = decision.relaxed
        assert (relaxed.before, relaxed.after) == (0.1, pytest.approx(0.6, abs=1e-3))
        assert relaxed.words.startswith("turnover of at most 10% gave way to turnover of at most 60")
        assert decision.told == (relaxed.words,)

    def test_limits_give_way_in_the_stated_order(self) -> None:
        known = day(BEST_FIRST, held=[0, 0, 0.5, 0.5])
        decision = portfolio(Slow(0.2), Half(), relax=["turnover"]).decide(known)
        assert decision.weights[:2].sum() == pytest.approx(0.5, abs=1e-4)
        assert np.abs(decision.weights - known.held).sum() == pytest.approx(1.0, abs=1e-3)
        (relaxed,) = decision.relaxed
        assert relaxed.name == "turnover"
        assert "turnover of at most 20.0%" in relaxed.words
        assert relaxed.words in decision.told

    def test_without_an_order_the_account_stays_and_the_day_says_why(self) -> None:
        known = day(BEST_FIRST, held=[0, 0, 0.5, 0.5])
        decision = portfolio(Slow(0.2), Half()).decide(known)
        assert decision.kept
        assert decision.weights.tolist() == known.held.tolist()
        assert "no weights were found, and the account stays as it is" in decision.told[-1]
        assert "turnover of at most 20.0%" in decision.told[-1]
        assert "the first two hold 50%" in decision.told[-1]

    def test_a_leaver_stays_longer_rather_than_break_the_turnover(self) -> None:
        known = day([np.nan, 3.0, 2.0, 1.0], held=[0.5, 0.5, 0, 0])
        decision = portfolio(Slow(0.2)).decide(known)
        assert decision.weights[0] == pytest.approx(0.4, abs=1e-4)
        assert [one.name for one in decision.relaxed] == ["leavers"]


class TestConstraints:
    def test_room_for_sales_is_no_leave_to_sell_short(self) -> None:
        known = day(BEST_FIRST, held=[0.1, 0, 0, 0], planes={"traded_value": np.full((60, 4), 5e7)})
        decision = portfolio(Capacity(traded=1.0)).decide(known)
        assert decision.problem is not None
        assert decision.problem.lower.min() == 0
        assert decision.weights == pytest.approx([0.6, 0.4, 0, 0])

    def test_short_weights_are_allowed_where_a_constraint_says_so(self) -> None:
        decision = portfolio(LongShort(net=0.2, most_short=0.1), WeightBounds(0.2)).decide(day(BEST_FIRST))
        assert decision.weights == pytest.approx([0.2, 0.2, -0.1, -0.1])

    def test_what_the_number_of_names_makes_infeasible_gives_way_too(self) -> None:
        """The two largest are of one industry, and the third is left without a stock."""
        bands = IndustryBand(0.2)
        known = day([4.0, 1.0, 3.0, 2.0], industry=np.array([0, 1, 0, 1]))
        decision = portfolio(NumberOfNames(most=1), bands, relax=["industry"]).decide(known)
        assert np.sum(decision.weights > 0) == 1
        assert [one.name for one in decision.relaxed] == ["industry", "industry"]
        assert portfolio(NumberOfNames(most=1), bands).decide(known).kept


class TestNames:
    def test_the_largest_are_kept_and_solved_again(self) -> None:
        assert portfolio(Cap(0.3, names=3), invested=0.9).decide(
            day([4.0, 3.0, 2.0, 1.0, 0.5])
        ).weights == pytest.approx([0.3, 0.3, 0.3, 0, 0])

    def test_one_that_cannot_be_sold_counts(self) -> None:
        sellable = np.array([True, True, True, False])
        known = day(BEST_FIRST, held=[0, 0, 0, 0.1], sellable=sellable)
        weights = portfolio(Cap(0.5, names=2)).decide(known).weights
        assert weights == pytest.approx([0.5, 0, 0, 0.5])

    def test_small_weights_are_dropped(self) -> None:
        weights = portfolio(Cap(0.45, least=0.15)).decide(day(BEST_FIRST)).weights
        assert weights == pytest.approx([0.45, 0.45, 0, 0])


class TestArguments:
    def test_it_looks_back_as_far_as_its_parts_and_the_horizon(self) -> None:
        assert portfolio().days_back == 22
        assert portfolio(horizon=[1, 5]).days_back == 26

    def test_costs_are_spread_over_the_days_held(self) -> None:
        costs = Costs.of({"buy": 0.001, "sell": 0.002, "holding_days": 10})
        assert (costs.buy, costs.sell, costs.holding_days) == (0.001, 0.002, 10)
        assert Costs.of(None) == Costs(0.0, 0.0, 1.0)

    @pytest.mark.parametrize(
        ("changes", "said"),
        [
            ({"constraints": [Cap(), Cap()]}, "must have names of their own, found cap twice"),
            ({"relax": ["turnovr"]}, "`relax` must name constraints of the portfolio, cash; found 'turnovr'"),
            ({"costs": {"buy": 0.001}}, "`costs` must be a mapping of buy, sell and holding_days"),
            ({"costs": {"buy": 1.0, "sell": 0, "holding_days": 5}}, "`costs.buy` must lie in [0, 1)"),
            ({"invested": 0}, "`invested` must lie in (0, 1]"),
            ({"benchmark": "cap"}, "`benchmark` must be one of"),
            ({"horizon": [1]}, "`horizon` must be"),
            (
                {"constraints": [CashBand(0, 0.05), LongShort(net=0.1)]},
                "one asks for at least 95.0% of the account, and another for at most 10.0%",
            ),
            ({"constraints": {"class": "x"}}, "`constraints` must be a list"),
        ],
    )
    def test_what_does_not_fit_is_said(self, changes: dict[str, Any], said: str) -> None:
        with pytest.raises(UserError) as error:
            portfolio(**changes)
        assert said in str(error.value)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0, 0.3), st.floats(0.3, 1), st.floats(0, 1), st.booleans(), st.booleans()),
        min_size=1,
        max_size=5,
    )
)
def test_bounds_are_within_reach(rows: list[tuple[float, float, float, bool, bool]]) -> None:
    lower, upper, held, buyable, sellable = map(np.array, zip(*rows, strict=True))
    low, high = reachable(lower, upper, held, buyable, sellable)
    assert (low <= high).all()
    assert (low[~sellable] >= held[~sellable]).all()
    assert (high[~buyable] <= held[~buyable]).all()
    free = buyable & sellable
    assert np.array_equal(low[free], lower[free])
    assert np.array_equal(high[free], upper[free])


def test_a_decision_shows_the_whole_day() -> None:
    decision = portfolio(Cap(0.4)).decide(replace(day(BEST_FIRST), account=5.0))
    assert decision.known.account == 5.0
    assert decision.risk.known.all()
