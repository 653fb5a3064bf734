"""Trade the target weights of a portfolio."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.config import C
from qlib.contrib.strategy.signal_strategy import BaseSignalStrategy

from qlib_ext.backtest.exchange import IntendedOrder
from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.market.store import QlibStore
from qlib_ext.portfolio.allocation import Allocation, Decision
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance
from qlib_ext.portfolio.calendars.weekly import Weekly
from qlib_ext.portfolio.diary import Diary
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.market_history import MarketHistory
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.problem import TOLERANCE

MORE_DAYS = 300  # of the market, for side data that reach back further than returns


class TargetWeights(BaseSignalStrategy):
    """Rebalance to the target weights of a portfolio, on the days of a calendar.

    The weights are made of what was known at the close of day t, and of whom the exchange lets trade on day t + 1, on which they
    are traded: who cannot be sold keeps its weight, who cannot be bought gets no more. A weight is turned into shares by the
    account's value at the prices of the trade. Sales come first; where the cash after them does not pay for all purchases,
    each becomes smaller by the same share.

    Parameters
    ----------
    signal
        What Qlib makes a signal of: scores indexed by (datetime, instrument), or a model and its dataset.
    portfolio
        The arguments of `qlib_ext.portfolio.portfolio.Portfolio`, or `{class, kwargs}` of another allocation.
    calendar
        `{class, kwargs}` of when to rebalance; weekly by default.
    trade_exchange, level_infra, common_infra
        Given by Qlib's backtest.

    Attributes
    ----------
    diary
        What was decided on each day.

    Raises
    ------
    UserError
        If an argument does not fit, or the store lacks what the portfolio needs.

    Notes
    -----
    Bars are read from the store that Qlib reads, once, on the first day. An account that begins with holdings is rebalanced when
    the calendar says so of the days alone; where the calendar asks what the last rebalance aimed at, on the first day.
    """

    def __init__(
        self,
        *,
        signal: Any,
        portfolio: Mapping[str, Any] | Allocation,
        calendar: Mapping[str, Any] | Calendar | None = None,
        trade_exchange: Any = None,
        level_infra: Any = None,
        common_infra: Any = None,
    ) -> None:
        self.portfolio = make_allocation(portfolio)
        self.calendar = Weekly() if calendar is None else build(calendar, Calendar, name="calendar")
        self.diary = Diary()
        self._history: MarketHistory | None = None
        self._last: pd.Timestamp | None = None
        self._targets: dict[str, float] = {}
        self._score: dict[str, float] = {}
        super().__init__(
            signal=signal,
            trade_exchange=trade_exchange,
            level_infra=level_infra,
            common_infra=common_infra,
        )

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """Orders of the current step: sales first, then purchases; none on a day that is not due."""
        step = self.trade_calendar.get_trade_step()
        start, end = self.trade_calendar.get_step_time(step)
        before = self.trade_calendar.get_step_time(step, shift=1)
        if self.signal.get_signal(*before) is None:  # no signal was formed the day before
            return TradeDecisionWO([], self)
        known = self._known(before[0].normalize(), start, end)
        if not self._due(start.normalize(), known):
            return TradeDecisionWO([], self)
        decision = self.portfolio.decide(known)
        self.diary.add(start.normalize(), decision)
        self._last = start.normalize()
        self._targets = dict(zip(known.codes, decision.weights.tolist(), strict=True))
        self._score = dict(zip(known.codes, known.score.tolist(), strict=True))
        return TradeDecisionWO([] if decision.kept else self._orders(decision, start, end), self)

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know, as sentences."""
        return [] if self._history is None else [*self._history.notes]

    # -- what is known -----------------------------------------------------------------------------------------

    def _known(self, day: pd.Timestamp, start: pd.Timestamp, end: pd.Timestamp) -> KnownDay:
        position, exchange = self.trade_position, self.trade_exchange
        held_codes = position.get_stock_list()
        history = self._market(held_codes)
        value = position.calculate_value()
        held = {
            code: position.get_stock_amount(code) * position.get_stock_price(code) / value
            for code in held_codes
        }
        scored = history.codes_on(day)
        codes = {*scored, *held_codes}

        def can(direction: OrderDir) -> dict[str, bool]:
            return {code: exchange.is_stock_tradable(code, start, end, direction) for code in codes}

        return history.known(
            day,
            length=self.portfolio.days_back,
            benchmark=self.portfolio.benchmark,
            held=held,
            account=value,
            buyable=can(OrderDir.BUY),
            sellable=can(OrderDir.SELL),
        )

    def _market(self, held: list[str]) -> MarketHistory:
        if self._history is None or not {*held} <= {*self._history.codes}:
            scores = self.signal.signal_cache
            self._history = MarketHistory.load(
                QlibStore(C.dpm.get_data_uri("day")),
                scores.iloc[:, 0] if isinstance(scores, pd.DataFrame) else scores,
                days_back=self.portfolio.days_back + MORE_DAYS,
                index=self.portfolio.index,
                others=held,
                horizon=self.portfolio.horizon,
            )
        lost = {*held} - {*self._history.codes}
        if lost:
            raise UserError(f"the account holds stocks without bars in the store: {', '.join(sorted(lost))}")
        return self._history

    def _due(self, day: pd.Timestamp, known: KnownDay) -> bool:
        days = QlibStore(C.dpm.get_data_uri("day")).calendar
        days = days[days < day].append(pd.DatetimeIndex([day]))
        last = self._last
        if last is None and not self.calendar.remembers and (known.held != 0).any():
            last = days[-2]  # an account taken up again, as the daily list does: by the calendar alone
        since = SinceRebalance(
            held=known.held,
            targets=np.array([self._targets.get(code, 0.0) for code in known.codes]),
            score=known.score,
            score_then=np.array([self._score.get(code, math.nan) for code in known.codes]),
        )
        return self.calendar.due(day, last, days, since)

    # -- from weights to orders --------------------------------------------------------------------------------

    def _orders(self, decision: Decision, start: pd.Timestamp, end: pd.Timestamp) -> list[Order]:
        exchange = self.trade_exchange
        position = copy.deepcopy(self.trade_position)
        codes, weights = decision.known.codes, decision.weights

        def price(code: str, direction: OrderDir) -> float:
            found = exchange.get_deal_price(code, start, end, direction=direction)
            if found is None or not found > 0:
                return position.get_stock_price(code) if code in position.position else math.nan
            return float(found)

        value = position.get_cash() + sum(
            position.get_stock_amount(code) * price(code, OrderDir.SELL) for code in position.get_stock_list()
        )
        sales, purchases = [], []
        for k, code in enumerate(codes):
            change = weights[k] - decision.known.held[k]
            amount = position.get_stock_amount(code)
            if abs(weights[k]) <= TOLERANCE:
                if amount > 0 and decision.known.sellable[k]:
                    sales.append(Order(code, amount, OrderDir.SELL, start, end))
                continue
            if abs(change) <= max(TOLERANCE, self.portfolio.min_trade):
                continue
            direction = OrderDir.BUY if change > 0 else OrderDir.SELL
            wanted = weights[k] * value / price(code, direction) - amount
            if wanted < 0 and direction == OrderDir.SELL:
                whole = exchange.round_amount_by_trade_unit(
                    -wanted, exchange.get_factor(code, start, end), code, start, end
                )
                if whole > 0:
                    sales.append(IntendedOrder(code, whole, direction, start, end, intended=-wanted))
            elif wanted > 0 and direction == OrderDir.BUY:
                purchases.append((code, wanted))
        for order in sales:  # on the copy: what the sales bring in
            exchange.deal_order(copy.copy(order), position=position)
        return sales + self._purchases(purchases, position.get_cash(), start, end)

    def _purchases(
        self, wanted: list[tuple[str, float]], cash: float, start: pd.Timestamp, end: pd.Timestamp
    ) -> list[Order]:
        """Orders in whole lots, all smaller by one share where the cash does not pay for all."""
        exchange = self.trade_exchange
        money = [
            amount * float(exchange.get_deal_price(code, start, end, direction=OrderDir.BUY))
            for code, amount in wanted
        ]
        cost = [self._cost(code, value, start) for (code, _), value in zip(wanted, money, strict=True)]
        share = min(1.0, max(0.0, cash / (sum(money) + sum(cost)))) if money else 1.0
        orders = []
        for code, amount in wanted:
            whole = exchange.round_amount_by_trade_unit(
                amount * share, exchange.get_factor(code, start, end), code, start, end
            )
            orders.append(IntendedOrder(code, whole, OrderDir.BUY, start, end, intended=amount))
        return orders

    def _cost(self, code: str, value: float, day: pd.Timestamp) -> float:
        exchange = self.trade_exchange
        if getattr(exchange, "rules", None) is not None:
            return exchange.fees(code, day, "buy").cost(value, "buy")
        return max(exchange.min_cost, value * exchange.open_cost)


def make_allocation(given: Mapping[str, Any] | Allocation) -> Allocation:
    """The allocation that a configuration describes: `{class, kwargs}`, or the arguments of a `Portfolio`."""
    if isinstance(given, Mapping) and "class" not in given:
        given = {"class": f"{Portfolio.__module__}.{Portfolio.__name__}", "kwargs": given}
    return build(given, Allocation, name="portfolio")
