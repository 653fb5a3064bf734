"""Target weights traded: against a slow and obvious backtest on made markets, and the rules of the exchange one by one.

`BACKTEST_CASES` says how many markets are drawn; docs/portfolio.md has the command for all of them.
"""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.calendars.every_n_days import EveryNDays
from qlib_ext.portfolio.expected_returns.no_forecast import NoForecast
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.strategy.target_weights import TargetWeights
from qlib_ext.workflow.scored import read_portfolio
from tests.backtest.reference.made import INDEX, close_to, installed, markets, signal, timestamps
from tests.backtest.reference.market import Market
from tests.backtest.reference.rules import China, OneForAll, Rules

NO_LOTS = {"trade_unit": None, "deal_price": "close"}
ONE_FOR_ALL = {**NO_LOTS, "limit_threshold": 0.095, "open_cost": 0.0005, "close_cost": 0.0015, "min_cost": 5}
TABLE = {**NO_LOTS, "rules": "cn"}
CASES = int(os.environ.get("BACKTEST_CASES", "25"))


class Alike(RiskModel):
    """Every stock has the same risk, and none has to do with another."""

    days_back = 1

    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        count = len(known.codes)
        return Risk(np.zeros((count, 1)), np.full(count, 1e-4)), []


class ByScore(Optimiser):
    """What is left beside what cannot be sold goes to the best: a fifth more than an equal part each, and then all of it."""

    def __init__(self, k: int) -> None:
        self.k = k

    def solve(self, problem: Problem) -> Floats:
        score = problem.known.score
        weights, left = problem.lower.copy(), problem.invested - problem.lower.sum()
        for most in (1.2 / self.k, 1.0):
            for place in sorted(np.flatnonzero(np.isfinite(score)), key=lambda at: (-score[at], at)):
                more = max(0.0, min(left, most - weights[place], problem.upper[place] - weights[place]))
                weights[place] += more
                left -= more
        return weights


@dataclass(frozen=True)
class Plan:
    k: int
    every: int
    invested: float
    account: float


plans = st.builds(
    Plan,
    k=st.sampled_from([1, 2, 3, 5]),
    every=st.sampled_from([1, 1, 2, 3]),
    invested=st.sampled_from([0.95, 1.0, 0.5]),
    account=st.sampled_from([1e6, 1e8]),
)


def run(market: Market, plan: Plan, exchange_kwargs: Mapping[str, Any]) -> BacktestResult:
    """The package's own."""
    days = timestamps(market)
    others = [] if "rules" in exchange_kwargs else [INDEX]
    exchange, _ = make_exchange([*market.bars, *others], days[1], days[-2], exchange_kwargs)
    portfolio = Portfolio(ByScore(plan.k), Alike(), NoForecast(), invested=plan.invested, constraints=[])
    strategy = TargetWeights(signal=signal(market), portfolio=portfolio, calendar=EveryNDays(plan.every))
    return simulate(strategy, exchange, days[1], days[-2], account=plan.account, benchmark=INDEX)


# -- the slow one --------------------------------------------------------------------------------------------------------


@dataclass
class Account:
    cash: float
    shares: dict[str, float]
    price: dict[str, float]  # the last that is known

    @property
    def value(self) -> float:
        return self.cash + sum(self.shares[code] * self.price[code] for code in sorted(self.shares))


def plain(market: Market, rules: Rules, plan: Plan) -> list[tuple[int, float, dict[str, float], float]]:
    """By day: the cash, the shares, and the account's value at the close."""
    account, last, closes = Account(plan.account, {}, {}), None, []
    for day in range(1, len(market.days) - 1):
        scores = {c: score for c, score in market.scores_of(day - 1).items() if not math.isnan(score)}
        if scores and (last is None or day // plan.every > last // plan.every):
            rebalance(account, market, rules, plan, day, scores)
            last = day
        for code in account.shares:
            if market.bar(code, day).priced:
                account.price[code] = market.bar(code, day).close
        closes.append((day, account.cash, dict(account.shares), account.value))
    return closes


def rebalance(
    account: Account, market: Market, rules: Rules, plan: Plan, day: int, scores: dict[str, float]
) -> None:
    """Weights by what was known at the close before, and who can be traded today."""
    before = account.value
    held = {code: account.shares[code] * account.price[code] / before for code in account.shares}
    stuck = {code: weight for code, weight in held.items() if not rules.may_sell(market, code, day)}
    targets = {code: stuck.get(code, 0.0) for code in {*scores, *held}}
    room = {code: math.inf if rules.may_buy(market, code, day) else held.get(code, 0.0) for code in scores}
    most = sum(room.values()) + sum(weight for code, weight in stuck.items() if code not in scores)
    left = max(min(plan.invested, most), sum(stuck.values())) - sum(stuck.values())
    for top in (1.2 / plan.k, 1.0):
        for code in sorted(scores, key=lambda code: (-scores[code], code)):
            more = max(0.0, min(left, top - targets[code], room[code] - targets[code]))
            targets[code] += more
            left -= more

    prices = {code: market.bar(code, day).close for code in targets if market.bar(code, day).priced}
    worth = {code: account.shares[code] * prices.get(code, account.price[code]) for code in account.shares}
    value = account.cash + sum(worth.values())
    sales, purchases = {}, {}
    for code in sorted(prices):
        now, then = targets[code], held.get(code, 0.0)
        out = now <= 1e-6 and then > 0  # a trifle is none: the holding is sold whole
        if abs(now - then) <= 1e-6 and not out:
            continue
        money = (0.0 if out else now) * value - worth.get(code, 0.0)
        if money > 0 and rules.may_buy(market, code, day):
            purchases[code] = money
        elif money < 0 and rules.may_sell(market, code, day):
            sales[code] = -money
    # What the trades cost is set aside: each at its rate, and the least fee of each on top.
    buying, selling = (rules.fee(market, side, day, 1e12) / 1e12 for side in ("buy", "sell"))
    spare = account.cash + sum(sales.values()) * (1 - selling) - 5 * (len(sales) + len(purchases))
    share = min(1.0, max(0.0, spare / (sum(purchases.values()) * (1 + buying)))) if purchases else 1.0
    for code, money in sales.items():
        fee = rules.fee(market, "sell", day, money)
        if account.cash + money < fee:  # nothing is there to pay it by
            continue
        account.cash += money - fee
        account.shares[code] -= money / prices[code]
        if targets[code] <= 1e-6:
            del account.shares[code]
    for code, money in purchases.items():
        if money * share <= 1e-5:  # no trade of no more is a trade
            continue
        account.cash -= money * share + rules.fee(market, "buy", day, money * share)
        account.shares[code] = account.shares.get(code, 0.0) + money * share / prices[code]
        account.price.setdefault(code, prices[code])


def scored_with_bars(market: Market) -> bool:
    """Whether a stock with a score has a bar at all; a market without one is refused. No scores at all are no orders."""
    scored = {
        code for code, row in market.scores.items() if not all(one is None or math.isnan(one) for one in row)
    }
    return not scored or any(
        market.bar(code, day).priced for code in scored for day in range(len(market.days))
    )


def differences(market: Market, plan: Plan, ours: BacktestResult, rules: Rules) -> list[str]:
    """In words; empty where the two agree."""
    found = []
    for day, cash, shares, value in plain(market, rules, plan):
        date = timestamps(market)[day]
        held = ours.held[date]
        if held.get_stock_list() != sorted(shares):
            return [*found, f"day {day}: holds {held.get_stock_list()}, by the reference {sorted(shares)}"]
        pairs = {code: (held.get_stock_amount(code), amount) for code, amount in shares.items()}
        pairs |= {"cash": (ours.daily["cash"][date], cash), "account": (ours.daily["account"][date], value)}
        found += [
            f"day {day}: {what} {one!r}, by the reference {other!r}"
            for what, (one, other) in pairs.items()
            if not close_to(one, other, plan.account)
        ]
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

    @settings(max_examples=CASES, suppress_health_check=[*HealthCheck], deadline=None)
    @given(market=markets(), plan=plans)
    def agree(market: Market, plan: Plan) -> None:
        with installed(market, tmp_path):
            if not scored_with_bars(market):
                with pytest.raises(UserError, match="stocks with a score has bars"):
                    run(market, plan, exchange)
                return
            ours = run(market, plan, exchange)
        assert differences(market, plan, ours, rules) == []
        assert (ours.daily["cash"] >= -1e-14 * plan.account).all()
        seen.update(ours.orders["direction"].unique())

    agree()
    assert {"buy", "sell"} <= {*seen}


PORTFOLIOS = sorted((Path(__file__).parents[2] / "workflows" / "portfolios").glob("*.yaml"))


@pytest.mark.parametrize("path", PORTFOLIOS, ids=lambda path: path.stem)
def test_the_portfolios_that_come_with_it_can_be_built(path: Path) -> None:
    config = read_portfolio(path)["strategy"]
    days = pd.DatetimeIndex(["2020-01-02"])
    index = pd.MultiIndex.from_product([days, ["SH600000"]], names=["datetime", "instrument"])
    built = build(config, BaseStrategy, name="strategy", signal=pd.Series([1.0], index))
    assert isinstance(built, TargetWeights)
    assert isinstance(built.portfolio, Portfolio)
