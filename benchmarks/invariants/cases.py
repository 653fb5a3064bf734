"""Backtests of made markets: exchanges by rules, and strategies that send anything."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import qlib
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.strategy.base import BaseStrategy

from benchmarks.invariants.markets import INDEX, NO_PRICES, Made, make_market
from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.portfolio.calendars.every_n_days import EveryNDays
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.optimisers.top_k import TopK
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.strategy.target_weights import TargetWeights
from qlib_ext.strategy.topk_dropout import TopkDropout

EXCHANGES, CASES = 5, 20  # of a market, and of an exchange
BLOCK = EXCHANGES * CASES


@dataclass(frozen=True)
class Case:
    """A backtest, and what it was made with.

    Attributes
    ----------
    name
        The seed of the market and the numbers of exchange and case.
    market
        The market.
    settings
        `exchange_kwargs`.
    account
        Cash at the start.
    first, last
        Days to trade from and to, counted from 0.
    done
        What came of it.
    """

    name: str
    market: Made
    settings: dict[str, Any]
    account: float
    first: int
    last: int
    done: BacktestResult


class Anything(BaseStrategy):
    """Orders at random: of what is held and what is not, of any size, the same stock bought and sold on a day."""

    def __init__(self, draw: np.random.Generator, market: Made, codes: list[str]):
        super().__init__()
        self.draw, self.market, self.codes = draw, market, codes

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """Up to a dozen orders."""
        start, end = self.trade_calendar.get_step_time()
        day = self.market.calendar.get_loc(start)
        orders = []
        for _ in range(self.draw.integers(0, 12)):
            code = str(self.draw.choice(self.codes))
            held = self.trade_position.get_stock_amount(code)
            selling = self.draw.random() < (0.7 if held else 0.2)
            shares = float(self.draw.choice([1, 99.5, 100, 137, 199, 200, 251, 1000, 12_345, 10.0**6]))
            amount = shares / self.market.factor[day, self.market.codes.index(code)]
            if selling and held and self.draw.random() < 0.6:
                amount = held * float(self.draw.choice([1.0, 1.0, 0.5, 1.5]))
            orders.append(Order(code, amount, OrderDir.SELL if selling else OrderDir.BUY, start, end))
        return TradeDecisionWO(orders, self)


class Alike(RiskModel):
    """Every stock has the same risk, and none has to do with another: made markets are too short for more."""

    days_back = 1

    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        """Two percent a day."""
        count = len(known.codes)
        return Risk(np.zeros((count, 1)), np.full(count, 4e-4)), []


def cases(root: Path, seed: int, exchanges: int = EXCHANGES, each: int = CASES) -> Iterator[Case]:
    """Make the market of a seed under `root`, which must be new, and trade in it."""
    market = make_market(root, seed)
    qlib.init(provider_uri=str(root), region="cn", kernels=1, logging_level=40)
    stocks = [code for code in market.codes if code != INDEX]
    draw = np.random.default_rng([seed, 2])
    for number in range(exchanges):
        settings = _settings(draw)
        codes = sorted(
            draw.choice(stocks, min(len(stocks), int(draw.integers(4, 16))), replace=False).tolist()
        )
        codes = sorted({*codes, NO_PRICES})
        first = int(draw.integers(1, len(market.calendar) - 10))
        last = min(first + int(draw.integers(4, 16)), len(market.calendar) - 2)
        begin, end = market.calendar[first], market.calendar[last]
        exchange, _ = make_exchange(codes, begin, end, settings)
        for case in range(each):
            account = float(draw.choice([3e2, 5e3, 1e5, 1e7]) * draw.uniform(0.5, 2))
            strategy = _strategy(draw, market, codes)
            done = simulate(strategy, exchange, begin, end, account=account, benchmark=INDEX)
            yield Case(f"{seed}/{number}/{case}", market, settings, account, first, last, done)


def _settings(draw: np.random.Generator) -> dict[str, Any]:
    price = ["close", "open", ["$open", "$close"]][draw.choice(3, p=[0.6, 0.2, 0.2])]
    settings: dict[str, Any] = {"rules": "us" if draw.random() < 0.15 else "cn", "deal_price": price}
    if draw.random() < 0.25:
        settings["volume_threshold"] = {"all": ["current", "0.1 * $volume"]}
    if draw.random() < 0.2:
        settings["commission"] = float(draw.choice([0.0, 0.0002, 0.003]))
    if draw.random() < 0.2:
        settings["min_cost"] = float(draw.choice([0.0, 50.0]))
    return settings


def _strategy(draw: np.random.Generator, market: Made, codes: list[str]) -> BaseStrategy:
    if draw.random() < 0.6:
        return Anything(draw, market, codes)
    index = pd.MultiIndex.from_product([market.calendar, codes], names=["datetime", "instrument"])
    scores = np.round(draw.normal(size=len(index)), int(draw.integers(0, 3)))  # ties, too
    scores[draw.random(len(index)) < 0.1] = np.nan
    topk = int(draw.integers(1, 8))
    if draw.random() < 0.5:
        invested, smallest = float(draw.choice([0.5, 0.95, 1.0])), float(draw.choice([0.0, 0.02]))
        portfolio = Portfolio(TopK(topk), Alike(), invested=invested, min_trade=smallest)
        calendar = EveryNDays(int(draw.integers(1, 4)))
        return TargetWeights(signal=pd.Series(scores, index), portfolio=portfolio, calendar=calendar)
    return TopkDropout(
        signal=pd.Series(scores, index),
        topk=topk,
        n_drop=int(draw.integers(0, topk + 1)),
        hold_thresh=int(draw.integers(1, 4)),
        only_tradable=bool(draw.random() < 0.3),
        forbid_all_trade_at_limit=bool(draw.random() < 0.5),
        risk_degree=float(draw.choice([0.5, 0.95, 1.0])),
    )
