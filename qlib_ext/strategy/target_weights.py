"""Trade the target weights of a portfolio."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.config import C

from qlib_ext.backtest.exchange import IntendedOrder
from qlib_ext.checks import UserError, counted
from qlib_ext.config.build import build
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.allocation import Allocation, Decision
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance
from qlib_ext.portfolio.calendars.weekly import Weekly
from qlib_ext.portfolio.diary import Diary
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.lots import Lots
from qlib_ext.portfolio.market_history import MarketHistory, check_index
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.problem import TOLERANCE
from qlib_ext.strategy.daily_signal import daily
from qlib_ext.terminal import quiet_imports

with quiet_imports():  # Qlib's strategies bring gym, which has something to say
    from qlib.contrib.strategy.signal_strategy import BaseSignalStrategy

MUCH = 0.01  # of the account, that comes to no lot
FORGOTTEN = (
    "the calendar {} goes by the last rebalance, of which the holdings tell nothing: the day is taken as one on which it "
    "rebalances. `--memory FILE` keeps it from day to day"
)
MORE_DAYS = 300  # of the market, for side data that reach back further than returns


class TargetWeights(Rebuildable, BaseSignalStrategy):
    """Rebalance to the target weights of a portfolio, on the days of a calendar.

    The weights are made of what was known at the close of day t, and of whom the exchange lets trade on day t + 1, on which they
    are traded: who cannot be sold keeps its weight, who cannot be bought gets no more. A weight is turned into shares by the
    account's value at the prices of the trade, in whole lots with the least loss of tracking (`qlib_ext.portfolio.lots`). Sales come
    first; where the cash after them does not pay for all purchases, each becomes smaller by the same share.

    Parameters
    ----------
    signal
        What Qlib makes a signal of: scores indexed by (datetime, instrument), or a model and its dataset; a backtest gives its
        scores.
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
    told
        What a reader of the orders of the last step should know, as sentences.

    Raises
    ------
    UserError
        If an argument does not fit, or the store lacks what the portfolio needs.

    Notes
    -----
    Bars are read from the store that Qlib reads, once, on the first day. An account that begins with holdings is rebalanced when
    the calendar says so of the days alone; where the calendar asks what the last rebalance aimed at, on the first day. `memory` and
    `recall` carry what it goes by from one process to the next.
    """

    looks_back = True  # at the scores of earlier days

    def __init__(
        self,
        *,
        signal: Any = None,
        portfolio: Mapping[str, Any] | Allocation,
        calendar: Mapping[str, Any] | Calendar | None = None,
        trade_exchange: Any = None,
        level_infra: Any = None,
        common_infra: Any = None,
    ) -> None:
        self.portfolio = make_allocation(portfolio)
        self.calendar = Weekly() if calendar is None else build(calendar, Calendar, name="calendar")
        self.diary = Diary()
        self.told: list[str] = []
        self._decision: Decision | None = None
        self._short_of_lots: list[float] = []
        self._reach: int | None = None
        self._history: MarketHistory | None = None
        self._calendar = pd.DatetimeIndex([])
        self._last: pd.Timestamp | None = None
        self._targets: dict[str, float] = {}
        self._score: dict[str, float] = {}
        super().__init__(
            signal=daily(signal),
            trade_exchange=trade_exchange,
            level_infra=level_infra,
            common_infra=common_infra,
        )

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """Orders of the current step: sales first, then purchases; none on a day that is not due."""
        step = self.trade_calendar.get_trade_step()
        start, end = self.trade_calendar.get_step_time(step)
        day = self.trade_calendar.get_step_time(step, shift=1)[0].normalize()
        history, self.told, self._decision = self._market(), [], None
        if history is None or not history.has_scores(day):
            return TradeDecisionWO([], self)  # no signal was formed the day before
        held = self._held()
        if not self._due(start.normalize(), day, history, held):
            self.told = [f"the calendar does not rebalance on {start:%Y-%m-%d}: nothing is traded"]
            return TradeDecisionWO([], self)
        if self._last is None and self.calendar.remembers and held:
            self.told = [FORGOTTEN.format(type(self.calendar).__name__)]
        known = self._known(day, start, end, history, held)
        decision = self.portfolio.decide(known)
        orders, told = ([], []) if decision.kept else self._orders(decision, start, end)
        self._decision = decision = replace(decision, told=(*decision.told, *told))
        self.told += decision.told
        self.diary.add(start.normalize(), decision)
        self._last = start.normalize()
        self._targets = dict(zip(known.codes, decision.weights.tolist(), strict=True))
        self._score = dict(zip(known.codes, known.score.tolist(), strict=True))
        return TradeDecisionWO(orders, self)

    def reason(self, code: str) -> str:
        """Why a stock is traded, or stays, by the last step."""
        if self._decision is None:
            return "not rebalanced on this day"
        if self._decision.kept:
            return "the account stays as it is"
        known, weights = self._decision.known, self._decision.weights
        if code not in known.codes:
            return "not known to the portfolio"
        k = known.codes.index(code)
        return f"target {weights[k]:.2%} of the account, held {known.held[k]:.2%}"

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError where a store lacks what the portfolio cannot do without."""
        check_index(store, self.portfolio.index)
        side = SideData(store)
        for name in sorted(self.portfolio.asks):
            if name not in side:
                raise UserError(
                    f"the portfolio needs the side data `{name}`, found none in the store {store.root}: bring a table in with "
                    f"`qlib-ext data side-data {store.root} {name} FILE`, or leave out what asks for it"
                )
        self.portfolio.check_store(store)

    def memory(self) -> dict[str, Any]:
        """What later days go by and holdings do not tell, ready for JSON; empty before the first rebalance."""
        if self._last is None:
            return {}
        return {
            "last": f"{self._last:%Y-%m-%d}",
            "targets": {code: weight for code, weight in self._targets.items() if weight != 0},
            "score": {code: score for code, score in self._score.items() if not math.isnan(score)},
            "portfolio": self.portfolio.memory(),
        }

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
        if not kept:
            return
        self._last = pd.Timestamp(kept["last"])
        self._targets = {str(code): float(weight) for code, weight in kept["targets"].items()}
        self._score = {str(code): float(score) for code, score in kept["score"].items()}
        self.portfolio.recall(kept["portfolio"])

    @property
    def shorts(self) -> bool:
        """Whether it may sell what is not held."""
        return self.portfolio.shorts

    @property
    def notes(self) -> list[str]:
        """What a reader of the results should know, as sentences."""
        found = [] if self._history is None else [*self._history.notes]
        if self._reach is not None and self._reach < self.portfolio.days_back:
            found.append(
                f"the portfolio looks back over {counted(self.portfolio.days_back, 'day')}, and at the first scores the store has "
                f"{self._reach:,}: what it estimates rests on fewer days until there are more"
            )
        if self._short_of_lots:
            found.append(
                f"target weights that come to no whole lot were left in cash on {counted(len(self._short_of_lots), 'rebalance')}, "
                f"{np.mean(self._short_of_lots):.1%} of the account on average: take a larger account, or fewer stocks"
            )
        return found

    # -- what is known -----------------------------------------------------------------------------------------

    def _market(self) -> MarketHistory | None:
        """The market of the scores and of what is held; None where there is no score at all."""
        held = {*self.trade_position.get_stock_list()}
        if self._history is None or not held <= {*self._history.codes}:
            store = QlibStore(C.dpm.get_data_uri("day"))
            signal = self.signal.signal_cache
            scores = (signal.iloc[:, 0] if isinstance(signal, pd.DataFrame) else signal).dropna()
            if scores.empty:
                return None
            self._history = MarketHistory.load(
                store,
                scores,
                days_back=self.portfolio.days_back + MORE_DAYS,
                index=self.portfolio.index,
                others=sorted(held),
                horizon=self.portfolio.horizon,
            )
            self._calendar = store.calendar
            there = int(
                store.calendar.searchsorted(scores.index.get_level_values("datetime").min(), side="right")
            )
            self._reach = min(there, self.portfolio.days_back)
            lost = held - {*self._history.codes}
            if lost:
                raise UserError(
                    f"the account holds stocks without bars in the store: {', '.join(sorted(lost))}"
                )
        return self._history

    def _held(self) -> dict[str, float]:
        """Weights at the last closes."""
        position = self.trade_position
        value, codes = position.calculate_value(), position.get_stock_list()
        if codes and not value > 0:
            raise UserError(
                f"the account has lost everything, with holdings left: its value is {value:,.0f}. Sell less short, by "
                "`gross` or `most_short` of `LongShort`"
            )
        return {
            code: position.get_stock_amount(code) * position.get_stock_price(code) / value for code in codes
        }

    def _due(
        self, day: pd.Timestamp, before: pd.Timestamp, history: MarketHistory, held: Mapping[str, float]
    ) -> bool:
        last = self._last
        days = self._calendar[self._calendar < day].append(pd.DatetimeIndex([day]))
        if last is None and not self.calendar.remembers and held:
            last = before  # an account taken up again, as the daily list does: by the calendar alone
        score = history.scores_on(before)
        codes = sorted({*held, *self._targets, *score})
        since = SinceRebalance(
            *(
                np.array([given.get(code, missing) for code in codes], dtype=np.float64)
                for given, missing in (
                    (held, 0.0),
                    (self._targets, 0.0),
                    (score, math.nan),
                    (self._score, math.nan),
                )
            )
        )
        return self.calendar.due(day, last, days, since)

    def _known(
        self,
        day: pd.Timestamp,
        start: pd.Timestamp,
        end: pd.Timestamp,
        history: MarketHistory,
        held: Mapping[str, float],
    ) -> KnownDay:
        codes = {*history.codes_on(day), *held}

        def can(direction: OrderDir) -> dict[str, bool]:
            return {
                code: self.trade_exchange.is_stock_tradable(code, start, end, direction) for code in codes
            }

        return history.known(
            day,
            length=self.portfolio.days_back,
            benchmark=self.portfolio.benchmark,
            held=held,
            account=float(self.trade_position.calculate_value()),
            buyable=can(OrderDir.BUY),
            sellable=can(OrderDir.SELL),
        )

    # -- from weights to orders --------------------------------------------------------------------------------

    def _orders(
        self, decision: Decision, start: pd.Timestamp, end: pd.Timestamp
    ) -> tuple[list[Order], list[str]]:
        """Sales, then purchases, each by code; and what came to no lot, as a sentence."""
        known = decision.known
        lots = self._lots(decision, start, end)
        wanted = targets_to_trade(decision.weights, known, lots, self.portfolio.min_trade)
        shares = lots.shares(within_cash(wanted, lots), decision.risk)
        orders: list[Order] = []
        for k in np.flatnonzero(shares != lots.held):
            change, meant = (
                each - lots.held[k] for each in (shares[k], wanted[k] * lots.account / lots.price[k])
            )
            direction = OrderDir.BUY if change > 0 else OrderDir.SELL
            orders.append(
                IntendedOrder(known.codes[k], abs(change), direction, start, end, intended=abs(meant))
            )
        told, none = [], (wanted > TOLERANCE) & (shares == 0) & (lots.step > 0)
        if (share := float(wanted[none].sum())) > MUCH:
            self._short_of_lots.append(share)
            told.append(
                f"{counted(int(none.sum()), 'target')} came to no whole lot: {share:.2%} of the account stays in cash"
            )
        return sorted(orders, key=lambda order: order.direction == OrderDir.BUY), told

    def _lots(self, decision: Decision, start: pd.Timestamp, end: pd.Timestamp) -> Lots:
        """What can be traded on the day of the trade, and what it takes."""
        exchange, position, known = self.trade_exchange, self.trade_position, decision.known
        rows = []
        for code, weight, before in zip(known.codes, decision.weights, known.held, strict=True):
            direction = OrderDir.BUY if weight > before else OrderDir.SELL
            price = exchange.get_deal_price(code, start, end, direction=direction)
            price = float(price) if price is not None and price > 0 else math.nan
            held = position.get_stock_amount(code)
            known_price = position.get_stock_price(code) if held and math.isnan(price) else price
            lot, factor = exchange.lot(code, start), exchange.get_factor(code, start, end)
            step, smallest = (
                (lot.step / factor, lot.minimum / factor) if lot is not None and price > 0 else (0, 0)
            )
            rows.append((price, held, held * known_price if held else 0.0, step, smallest))
        price, held, value, step, smallest = np.array(rows, dtype=np.float64).T
        buy, sell, least = exchange.most_costs(known.codes, start)
        return Lots(
            price=price,
            held=held,
            value=value,
            step=step,
            smallest=smallest,
            buyable=known.buyable,
            sellable=known.sellable,
            cash=float(position.get_cash()),
            buy_cost=buy,
            sell_cost=sell,
            min_cost=least,
        )


def targets_to_trade(weights: Floats, known: KnownDay, lots: Lots, least: float) -> Floats:
    """Shares of the account `[N]` to hold: the weights where they are to be traded, and elsewhere what is held.

    Parameters
    ----------
    weights
        `[N]` targets.
    known
        The day.
    lots
        At the prices of the trade.
    least
        Smallest change of a weight that is traded, unless a holding is sold whole.
    """
    out = (np.abs(weights) <= TOLERANCE) & (known.held != 0)
    traded = out | (np.abs(weights - known.held) > max(TOLERANCE, least))
    return np.where(traded & (lots.price > 0), np.where(out, 0.0, weights), lots.value / lots.account)


def within_cash(targets: Floats, lots: Lots) -> Floats:
    """Targets `[N]` whose purchases the cash pays for after the sales: each becomes smaller by the same share, where it must.

    The least cost of each purchase is set aside.
    """
    change = targets - lots.value / lots.account
    bought, sold = np.maximum(change, 0.0), np.maximum(-change, 0.0)
    cash = lots.cash / lots.account + float(sold.sum()) * (1 - lots.sell_cost)
    cash -= lots.min_cost / lots.account * int((change != 0).sum())
    asked = float(bought.sum()) * (1 + lots.buy_cost)
    share = min(1.0, max(0.0, cash / asked)) if asked > 0 else 1.0
    return np.where(change > 0, lots.value / lots.account + change * share, targets)


def make_allocation(given: Mapping[str, Any] | Allocation) -> Allocation:
    """The allocation that a configuration describes: `{class, kwargs}`, or the arguments of a `Portfolio`."""
    if isinstance(given, Mapping) and "class" not in given:
        given = {"class": f"{Portfolio.__module__}.{Portfolio.__name__}", "kwargs": given}
    return build(given, Allocation, name="portfolio")
