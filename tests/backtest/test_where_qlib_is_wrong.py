"""Where Qlib's own strategy or exchange does what no account should: each difference has its name and its market here.

Every test trades one made market twice, as a workflow of this package does and as Qlib does.
"""

from __future__ import annotations

import datetime as dt
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from qlib.backtest import backtest
from qlib.backtest.executor import SimulatorExecutor
from qlib.contrib.strategy import TopkDropoutStrategy

from qlib_ext.records.backtest import EXCHANGE
from qlib_ext.terminal import quiet_qlib
from tests.backtest.reference.backtest import Plan
from tests.backtest.reference.made import INDEX, install, run, strategy, timestamps
from tests.backtest.reference.market import MISSING, Bar, Market

A, B, C, D, E = MAIN = [f"SH60000{number}" for number in range(5)]
F = "SH688006"  # of the STAR market
CODES = [*MAIN, F]
RULES = {"rules": "cn"}
DAYS = 8
ORDINARY, GONE = Bar(10.0, 0.0, 1.0, 1e6), Bar()
# Suspended, with the close of the day before: vendors write a volume of 0, or none.
CARRIED, CARRIED_EMPTY = Bar(10.0, 0.0, 1.0, 0.0), Bar(10.0, 0.0, 1.0)

Holdings = list[set[str]]


class Twice:
    """A market of six stocks that never move, but for the days that a test plants."""

    def __init__(self, root: Path):
        self.root, self.unit = root, 1.0
        self.bars = {code: [ORDINARY] * DAYS for code in CODES}
        self.scores: dict[str, list[float | None]] = {}
        self.special: dict[str, tuple[int, int]] = {}
        self.rank(range(DAYS), A, B, C, D, E)

    def rank(self, days: Any, *codes: str) -> None:
        """Scores of some days, best first; the codes that are left out have none."""
        for code in CODES:
            row = self.scores.setdefault(code, [None] * DAYS)
            for day in days:
                row[day] = float(len(codes) - codes.index(code)) if code in codes else None

    def plant(self, code: str, days: Any, bar: Bar) -> None:
        for day in days:
            self.bars[code][day] = bar

    def market(self) -> Market:
        days = [day.date() for day in pd.bdate_range(dt.date(2020, 1, 1), periods=DAYS)]
        market = Market(days, self.bars, self.scores, self.special)
        if not self.root.exists():
            install(market, self.root, self.unit)
        return market

    def ours(self, plan: Plan, **changed: Any) -> tuple[pd.DataFrame, Holdings]:
        """As a workflow does it, by one rule for all stocks or by a table of rules."""
        settings = {"deal_price": "close", **changed} if "rules" in changed else {**EXCHANGE, **changed}
        done = run(self.market(), plan, settings)
        return done.daily, [set(position.get_stock_list()) for position in done.held.values()]

    def theirs(self, plan: Plan, **changed: Any) -> tuple[pd.DataFrame, Holdings]:
        """By Qlib alone: its strategy, its exchange, its position."""
        market = self.market()
        days = timestamps(market)
        with quiet_qlib():
            metrics, _ = backtest(
                start_time=days[1],
                end_time=days[-2],
                strategy=strategy(market, plan, TopkDropoutStrategy),
                executor=SimulatorExecutor("day", generate_portfolio_metrics=True),
                benchmark=INDEX,
                account=plan.account,
                exchange_kwargs={"codes": CODES, **EXCHANGE, **changed},
            )
        report, held = metrics["1day"]
        return report, [set(position.get_stock_list()) for position in held.values()]


@pytest.fixture
def twice(tmp_path: Path) -> Twice:
    return Twice(tmp_path / "store")


class TestSalesThatDoNotFill:
    """B is held and should go, and is suspended from day 3 on."""

    @pytest.fixture
    def stuck(self, twice: Twice) -> Twice:
        twice.rank(range(2, DAYS), D, C, A, E, B)
        twice.plant(B, range(3, DAYS), GONE)
        return twice

    def test_holdings_above_k(self, stuck: Twice) -> None:
        plan = Plan(topk=2, n_drop=1)
        assert max(map(len, stuck.theirs(plan)[1])) == 3
        assert max(map(len, stuck.ours(plan)[1])) == 2

    def test_a_stock_that_never_trades_again_stops_all_trade(self, stuck: Twice) -> None:
        plan = Plan(topk=2, n_drop=1)
        stuck.rank(range(4, DAYS), E, C, D, A, B)
        theirs, held = stuck.theirs(plan)
        assert theirs["turnover"].iloc[3:].sum() == 0
        assert held[-1] == {A, B, D}
        ours, held = stuck.ours(plan)
        assert held[2:] == [{B, D}, {B, D}, {B, E}, {B, E}]
        assert (ours["cash"] > 0).all()

    def test_it_is_tried_again_and_goes_when_it_trades(self, twice: Twice) -> None:
        twice.rank(range(2, DAYS), D, A, C, E, B)
        twice.plant(B, [3, 4], GONE)
        plan = Plan(topk=2, n_drop=1)
        _, held = twice.ours(plan)
        assert held == [{A, B}, {A, B}, {B, D}, {B, D}, {A, D}, {A, D}]

    def test_a_stock_too_young_to_be_sold(self, twice: Twice) -> None:
        twice.rank(range(1, DAYS), D, E, C, A, B)
        plan = Plan(topk=2, n_drop=2, hold_thresh=4)
        assert max(map(len, twice.theirs(plan)[1])) == 4
        _, held = twice.ours(plan)
        assert held == [{A, B}] * 4 + [{D, E}] * 2


class TestNoReplacement:
    def test_n_drop_of_zero_sells_everything(self, twice: Twice) -> None:
        plan = Plan(topk=2, n_drop=0)
        assert twice.theirs(plan)[1][:4] == [{A, B}, set(), {A, B}, set()]
        assert twice.ours(plan)[1] == [{A, B}] * 6


class TestFewStocks:
    def test_the_best_is_sold_for_nothing(self, twice: Twice) -> None:
        twice.rank(range(DAYS), A, B)
        plan = Plan(topk=3, n_drop=1)
        assert twice.theirs(plan)[1][:4] == [{A, B}, {A}, {A, B}, {A}]
        assert twice.ours(plan)[1] == [{A, B}] * 6

    def test_a_stock_without_a_score_is_bought(self, twice: Twice) -> None:
        twice.scores[C] = [MISSING] * DAYS
        twice.rank(range(0), A)
        plan = Plan(topk=5, n_drop=0)
        assert C in twice.theirs(plan)[1][0]
        assert C not in set.union(*twice.ours(plan)[1])


class TestSuspensionsWithoutAGap:
    """Some vendors carry the close over a suspension; only the volume tells."""

    @pytest.mark.parametrize("bar", [CARRIED, CARRIED_EMPTY])
    def test_a_suspended_stock_is_bought(self, twice: Twice, bar: Bar) -> None:
        twice.plant(A, range(1, 5), bar)
        plan = Plan(topk=1, n_drop=1)
        assert twice.theirs(plan)[1][0] == {A}
        assert twice.ours(plan)[1] == [set()] * 4 + [{A}] * 2

    @pytest.mark.parametrize("bar", [CARRIED, CARRIED_EMPTY])
    def test_a_suspended_stock_is_sold(self, twice: Twice, bar: Bar) -> None:
        twice.rank(range(1, DAYS), B, A, C, D, E)
        twice.plant(A, range(2, 5), bar)
        plan = Plan(topk=1, n_drop=1)
        assert twice.theirs(plan)[1][1] == {B}
        assert twice.ours(plan)[1] == [{A}] * 4 + [{B}] * 2


class TestLimits:
    def test_in_a_store_of_percent_nothing_is_traded(self, twice: Twice) -> None:
        twice.unit = 100.0
        twice.plant(A, range(1, DAYS), Bar(10.1, 0.01, 1.0, 1e6))
        plan = Plan(topk=1, n_drop=1)
        assert twice.theirs(plan)[1] == [set()] * 6
        assert twice.ours(plan)[1] == [{A}] * 6

    def test_a_sale_at_the_upper_limit_is_no_purchase(self, twice: Twice) -> None:
        """Qlib's `only_tradable` passes over what stands at either limit, where only one of them binds."""
        twice.rank(range(2, DAYS), B, A)
        twice.plant(A, range(3, DAYS), Bar(11.0, 0.1, 1.0, 1e6))
        plan = Plan(topk=1, n_drop=1, only_tradable=True, forbid_all_trade_at_limit=False)
        assert twice.theirs(plan)[1] == [{A}] * 6
        assert twice.ours(plan)[1] == [{A}] * 2 + [{B}] * 4

    def test_a_special_stock_is_bought_at_its_limit(self, twice: Twice) -> None:
        """ST stocks have a limit of 5 %, where Qlib has one for all."""
        twice.special[A] = (0, DAYS - 1)
        twice.plant(A, range(1, DAYS), Bar(10.5, 0.0, 1.0, 1e6))
        twice.plant(A, [1], Bar(10.5, 0.05, 1.0, 1e6))
        plan = Plan(topk=1, n_drop=1)
        assert twice.theirs(plan)[1][0] == {A}
        assert twice.ours(plan, **RULES)[1] == [set()] + [{A}] * 5

    def test_a_stock_is_not_bought_though_its_limit_is_far(self, twice: Twice) -> None:
        """On the STAR market 12 % is no limit."""
        twice.plant(F, range(2, DAYS), Bar(11.2, 0.0, 1.0, 1e6))
        twice.plant(F, [2], Bar(11.2, 0.12, 1.0, 1e6))
        twice.rank(range(DAYS), F)
        twice.scores[F][0] = None
        plan = Plan(topk=1, n_drop=1)
        assert twice.theirs(plan)[1][:3] == [set(), set(), {F}]
        assert twice.ours(plan, **RULES)[1] == [set()] + [{F}] * 5

    def test_the_limit_is_a_price_and_no_percentage(self, twice: Twice) -> None:
        """10 % of 0.96 is 0.096, so that the price may rise to 1.06: by 10.4 %, and 9.4 % is the limit downwards."""
        twice.plant(A, [0], Bar(0.96, 0.0, 1.0, 1e6))
        twice.plant(A, [1], Bar(1.05, 1.05 / 0.96 - 1, 1.0, 1e6))
        twice.plant(A, range(2, DAYS), Bar(1.05, 0.0, 1.0, 1e6))
        plan = Plan(topk=1, n_drop=1)
        assert 1.05 / 0.96 - 1 < 0.095
        assert twice.ours(plan, **RULES)[1][0] == twice.theirs(plan)[1][0] == {A}


class TestCash:
    """Where a tenth of a share is missing for a lot, Qlib rounds up."""

    PLAN = Plan(topk=1, n_drop=1, risk_degree=1.0, account=10004.5 + 5.0)

    def test_more_is_spent_than_there_is(self, twice: Twice) -> None:
        twice.plant(A, range(DAYS), Bar(100.05, 0.0, 1.0, 1e6))
        theirs, held = twice.theirs(self.PLAN)
        assert held[0] == {A}
        assert theirs["cash"].min() < -0.4
        for exchange in ({}, RULES):
            ours, held = twice.ours(self.PLAN, **exchange)
            assert held[0] == set()
            assert ours["cash"].min() == self.PLAN.account
