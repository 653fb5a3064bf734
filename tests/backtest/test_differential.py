"""The package's backtest against a slow and obvious one, on made markets.

`BACKTEST_CASES` says how many markets are drawn; docs/backtest-checks.md has the command for all of them.
"""

from __future__ import annotations

import datetime as dt
import math
import os
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings

from qlib_ext.backtest.exchange import Reason
from qlib_ext.backtest.simulation import BacktestResult
from tests.backtest.reference.backtest import Close, Plan, backtest
from tests.backtest.reference.made import close_to, install, installed, markets, plans, run, timestamps
from tests.backtest.reference.market import Bar, Market
from tests.backtest.reference.rules import China, OneForAll, Rules

# What a workflow gives the exchange, and the same said once more.
ONE_FOR_ALL = {
    "deal_price": "close",
    "limit_threshold": 0.095,
    "open_cost": 0.0005,
    "close_cost": 0.0015,
    "min_cost": 5,
}
TABLE = {"deal_price": "close", "rules": "cn"}
CASES = int(os.environ.get("BACKTEST_CASES", "80"))


def differences(market: Market, plan: Plan, ours: BacktestResult, theirs: list[Close]) -> list[str]:
    """Every figure in which two backtests of a market differ, in words; empty where they agree."""
    found = []
    days = timestamps(market)

    def same(day: int, what: str, one: float, other: float) -> None:
        if not close_to(one, other, plan.account):
            found.append(f"day {day}: {what} {one!r}, by the reference {other!r}")

    assert [*ours.daily.index] == [*days[1:-1]]
    before = plan.account
    for close in theirs:
        row, held = ours.daily.loc[days[close.day]], ours.held[days[close.day]]
        day = close.day
        if held.get_stock_list() != sorted(close.shares):
            found.append(f"day {day}: holds {held.get_stock_list()}, by the reference {sorted(close.shares)}")
            return found
        for code, shares in close.shares.items():
            same(day, f"shares of {code}", held.get_stock_amount(code), shares)
            same(day, f"price of {code}", held.get_stock_price(code), close.prices[code])
        same(day, "cash", row["cash"], close.cash)
        same(day, "value", row["value"], close.value)
        same(day, "account", row["account"], close.cash + close.value)
        same(day, "turnover", row["turnover"] * before, close.traded)
        same(day, "cost", row["cost"] * before, close.paid)
        before = close.cash + close.value
    return found


def broken(ours: BacktestResult, plan: Plan) -> list[str]:
    """What no account may ever do, whatever the reference says."""
    found = [
        f"{day:%Y-%m-%d}: cash {cash!r}"
        for day, cash in ours.daily["cash"].items()
        if cash < -1e-14 * plan.account
    ]
    for day, position in ours.held.items():
        if len(position.get_stock_list()) > plan.topk:
            found.append(f"{day:%Y-%m-%d}: holds {position.get_stock_list()}, more than {plan.topk}")
    return found


@pytest.mark.parametrize(
    ("exchange", "rules"),
    [(ONE_FOR_ALL, OneForAll()), (TABLE, China())],
    ids=["one rule for all", "the table of rules"],
)
def test_every_day_agrees_with_the_reference(
    tmp_path: Path, exchange: Mapping[str, Any], rules: Rules
) -> None:
    seen: Counter[str] = Counter()

    @settings(max_examples=CASES, suppress_health_check=[*HealthCheck])
    @given(market=markets(), plan=plans())
    def agree(market: Market, plan: Plan) -> None:
        with installed(market, tmp_path):
            ours = run(market, plan, exchange)
        assert differences(market, plan, ours, backtest(market, rules, plan)) == []
        assert broken(ours, plan) == []
        seen.update(situations(market, plan, ours))

    agree()
    rare = {what: seen[what] for what in SITUATIONS if seen[what] < CASES // 50}
    assert not rare, f"too few of {CASES} markets have them: {rare}"


# What a market must bring about in one case of fifty, so that agreement means something.
SITUATIONS = [
    *("limit up", "limit down", "no price", "no volume", "no cash", "lot size", "holding"),
    *("unsold", "ties", "fewer than k", "k = 1", "n_drop = 0", "n_drop = k", "listed later", "delisted"),
    *("split", "delisted while held", "no orders", "sales and purchases"),
]


def situations(market: Market, plan: Plan, ours: BacktestResult) -> set[str]:
    """Names of what happened in a market; a set, so that each counts once a case."""
    orders = ours.orders.reset_index()
    names = {
        Reason.LIMIT_UP: "limit up",
        Reason.LIMIT_DOWN: "limit down",
        Reason.NO_PRICE: "no price",
        Reason.NO_VOLUME: "no volume",
        Reason.NO_CASH: "no cash",
        Reason.LOT_SIZE: "lot size",
        Reason.HOLDING: "holding",
    }
    found = {names[reason] for reason in orders["reason"].dropna()}
    filled = orders[orders["filled"] > 0]
    if (orders["direction"].eq("sell") & ~orders["sent"]).any():
        found.add("unsold")
    if filled["direction"].nunique() == 2:
        found.add("sales and purchases")
    if filled.empty:
        found.add("no orders")
    found |= {"k = 1"} if plan.topk == 1 else set()
    found |= {"n_drop = 0"} if plan.n_drop == 0 else set()
    found |= {"n_drop = k"} if plan.n_drop == plan.topk else set()
    found |= {"fewer than k"} if len(market.bars) < plan.topk else set()
    for day in range(len(market.days)):
        scores = [score for score in market.scores_of(day).values() if not math.isnan(score)]
        found |= {"ties"} if len(set(scores)) < len(scores) else set()
    last = ours.held[ours.daily.index[-1]].get_stock_list()
    for code, row in market.bars.items():
        priced = [day for day, bar in enumerate(row) if bar.priced]
        factors = {row[day].factor for day in priced}
        found |= {"split"} if len(factors) > 1 and not any(math.isnan(f) for f in factors) else set()
        if priced and priced[0] > 0:
            found.add("listed later")
        if priced and priced[-1] < len(row) - 2:
            found |= {"delisted", "delisted while held"} if code in last else {"delisted"}
    return found


def test_a_market_without_a_single_bar(tmp_path: Path) -> None:
    days = [dt.date(2020, 1, day) for day in (6, 7, 8, 9)]
    market = Market(days, {"SH600000": [Bar()] * 4}, {"SH600000": [1.0] * 4})
    install(market, tmp_path / "store")
    plan = Plan(topk=1, n_drop=1)
    for exchange, rules in ((ONE_FOR_ALL, OneForAll()), (TABLE, China())):
        ours = run(market, plan, exchange)
        assert differences(market, plan, ours, backtest(market, rules, plan)) == []
        assert (ours.daily["account"] == plan.account).all()
