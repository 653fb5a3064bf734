"""Hold the best k stocks and replace the worst few of them each day."""

from __future__ import annotations

import copy
import functools
import itertools
import math
from collections.abc import Callable, Collection, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO

from qlib_ext.backtest.exchange import IntendedOrder, Reason, RecordingExchange
from qlib_ext.checks import UserError, between, instance, integer
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.strategy.daily_signal import daily
from qlib_ext.terminal import quiet_imports

with quiet_imports():  # Qlib's strategies bring gym, which has something to say
    from qlib.contrib.strategy.signal_strategy import TopkDropoutStrategy


class TopkDropout(Rebuildable, TopkDropoutStrategy):
    """Hold `topk` stocks and replace up to `n_drop` of them a day.

    A signal of day t is traded on day t + 1. The order of a day is by score, high first, then by instrument
    code; a held stock without a score is last, and a stock without a score is never bought. `choose` says who
    goes and who comes. What is sold is sold whole; the cash then at hand, times `risk_degree`, is shared
    equally among the stocks to buy, in whole lots. What cannot be traded that day is not sent; an
    `RecordingExchange` is told of it.

    There are `topk` places. A stock that cannot be sold today keeps its place, whatever its score, and the others
    are looked at as if there were so many places less; tomorrow it is looked at again. Nothing is bought before a
    place is free: as many stocks come as places are empty after the sales that fill. So an account never grows
    beyond `topk` stocks.

    Parameters
    ----------
    signal
        What Qlib makes a signal of: scores indexed by (datetime, instrument), or a model and its dataset; a backtest gives its
        scores.
    topk
        Stocks to hold.
    n_drop
        Stocks to replace a day, 0 to `topk`. 0 keeps what is held and only fills free places.
    hold_thresh
        Trading days that a stock is held at least.
    only_tradable
        Choose what to buy among the stocks that can be bought that day. Off, as in Qlib: a stock that is suspended
        or at its limit takes its place among the best, and its part of the cash is kept.
    forbid_all_trade_at_limit
        No trade in either direction at a price limit.
    risk_degree
        Share of the cash that is invested, in (0, 1]. A subclass that overrides `get_risk_degree(trade_step)` says it
        anew each day, 0 included.
    trade_exchange, level_infra, common_infra
        Given by Qlib's backtest.

    Raises
    ------
    UserError
        If an argument is out of its range.

    Departures
    ----------
    Qlib's `TopkDropoutStrategy`, except that

    - a purchase waits for a free place, where Qlib buys for a sale that did not fill, and holds up to
      `topk + n_drop` stocks;
    - who cannot be sold takes none of the `n_drop` sales of a day, where in Qlib stocks that are suspended for
      months, or no longer listed, hold them all in the end, and nothing is traded any more;
    - `only_tradable` asks for the direction of the order where `forbid_all_trade_at_limit` is off;
    - `n_drop=0` holds, where Qlib sells every stock (`list[-0:]` is the whole list);
    - equal scores have an order, where Qlib leaves it to an unstable sort, and sales go from the worst, where
      Qlib takes them in the order of a set, which changes from process to process;
    - `get_risk_degree` takes effect, which Qlib documents and its own class does not ask;
    - a stock without a score (NaN) is never bought;
    - on a day with fewer than `topk + n_drop` candidates only what is beyond `topk` goes, where Qlib sells
      `n_drop`, even the best, for nothing;
    - an account that begins with more than `topk` stocks sells `n_drop` a day and buys nothing until it is down
      to that, where Qlib's negative slice buys nearly the whole market;
    - the random methods of Qlib are left out: two backtests of one signal give one result.
    """

    def __init__(
        self,
        *,
        signal: Any = None,
        topk: int,
        n_drop: int,
        hold_thresh: int = 1,
        only_tradable: bool = False,
        forbid_all_trade_at_limit: bool = True,
        risk_degree: float = 0.95,
        trade_exchange: Any = None,
        level_infra: Any = None,
        common_infra: Any = None,
    ):
        check_places(topk, n_drop)
        super().__init__(
            signal=daily(signal),
            topk=topk,
            n_drop=n_drop,
            hold_thresh=integer("hold_thresh", hold_thresh, 1),
            only_tradable=instance("only_tradable", only_tradable, bool),
            forbid_all_trade_at_limit=instance("forbid_all_trade_at_limit", forbid_all_trade_at_limit, bool),
            risk_degree=between("risk_degree", risk_degree, 0, 1, open_low=True),
            trade_exchange=trade_exchange,
            level_infra=level_infra,
            common_infra=common_infra,
        )

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        """Orders of the current step: sales first, then purchases."""
        step = self.trade_calendar.get_trade_step()
        start, end = self.trade_calendar.get_step_time(step)
        scores = self.signal.get_signal(*self.trade_calendar.get_step_time(step, shift=1))
        if scores is None:  # no signal was formed the day before
            return TradeDecisionWO([], self)
        if isinstance(scores, pd.DataFrame):
            scores = scores.iloc[:, 0]

        def tradable(code: str, direction: OrderDir | None = None) -> bool:
            return self.trade_exchange.is_stock_tradable(code, start, end, direction)

        def sellable(code: str) -> bool:
            return tradable(code, None if self.forbid_all_trade_at_limit else OrderDir.SELL)

        def buyable(code: str) -> bool:
            return tradable(code, None if self.forbid_all_trade_at_limit else OrderDir.BUY)

        position = copy.deepcopy(self.trade_position)
        held = position.get_stock_list()
        frequency = self.trade_calendar.get_freq()
        young = {code for code in held if position.get_stock_count(code, bar=frequency) < self.hold_thresh}
        locked = {code for code in held if not sellable(code)}
        select = functools.partial(choose, ranking(scores), held, topk=self.topk, n_drop=self.n_drop)

        for code in select()[0]:  # what would go, could it be sold
            order = Order(code, position.get_stock_amount(code), OrderDir.SELL, start, end)
            if code in locked:
                self._withhold(order, value=order.amount * position.get_stock_price(code))
            elif code in young:
                self._withhold(order, reason=Reason.HOLDING)

        sell, buy = select(stay=young | locked, eligible=buyable if self.only_tradable else _anyone)
        sales = [Order(code, position.get_stock_amount(code), OrderDir.SELL, start, end) for code in sell]
        for order in sales:  # on the copy: what the sale brings in, and whether it empties the place
            self.trade_exchange.deal_order(order, position=position)

        purchases = []
        buy = buy[: max(0, self.topk - len(position.get_stock_list()))]
        degree = between("get_risk_degree()", self.get_risk_degree(step), 0, 1)
        part = position.get_cash() * degree / max(1, len(buy))
        for code in buy:
            if not buyable(code):
                self._withhold(self._purchase(code, part, start, end), value=part)
                continue
            purchases.append(self._purchase(code, part, start, end))
        return TradeDecisionWO(sales + purchases, self)

    def _purchase(self, code: str, money: float, start: pd.Timestamp, end: pd.Timestamp) -> IntendedOrder:
        """An order for as many whole lots as `money` pays for; of NaN shares where there is no price."""
        price = self.trade_exchange.get_deal_price(code, start, end, direction=OrderDir.BUY)
        factor = self.trade_exchange.get_factor(code, start, end)
        if price is None or np.isnan(price):
            return IntendedOrder(code, math.nan, OrderDir.BUY, start, end)
        amount = self.trade_exchange.round_amount_by_trade_unit(money / price, factor, code, start, end)
        return IntendedOrder(code, amount, OrderDir.BUY, start, end, intended=money / price)

    def _withhold(self, order: Order, *, value: float = math.nan, reason: Reason | None = None) -> None:
        """Tell an exchange that keeps a book of an order that is not sent."""
        if isinstance(self.trade_exchange, RecordingExchange):
            self.trade_exchange.withhold(
                order, value=value, reason=reason, either=self.forbid_all_trade_at_limit
            )


def check_places(topk: int, n_drop: int) -> None:
    """Raise a UserError unless 1 <= topk and 0 <= n_drop <= topk."""
    integer("topk", topk, 1)
    integer("n_drop", n_drop, 0)
    if n_drop > topk:
        raise UserError(f"`n_drop` must be at most `topk`, which is {topk}; found {n_drop}")


def ranking(scores: pd.Series) -> list[str]:
    """Instrument codes from the best to the worst score; equal scores by code, no code without a score."""
    known = scores.dropna().sort_index()
    return [*known.index[np.argsort(-known.to_numpy(np.float64), kind="stable")]]


def choose(
    ranked: Sequence[str],
    held: Sequence[str],
    *,
    topk: int,
    n_drop: int,
    stay: Collection[str] = (),
    eligible: Callable[[str], bool] = lambda code: True,
) -> tuple[list[str], list[str]]:
    """Who goes and who comes.

    Take the best `n_drop` stocks that are not held, and as many more as places are free. Put them in one order
    with the held stocks, but for those that stay in any case: they, and their places, are left out. The held stocks
    among those beyond the places that are left go, `n_drop` at most; the best of those taken come, as many as go
    and as many as places are free. So nothing is sold for something worse.

    Parameters
    ----------
    ranked
        Codes from best to worst.
    held
        Codes that are held; those not in `ranked` count as last, by code.
    topk, n_drop
        As in `TopkDropout`.
    stay
        Held codes that cannot be sold today.
    eligible
        Whether a code may be bought at all.

    Returns
    -------
    sell, buy : lists of codes
        What is sold from the worst, what is bought from the best where all sales fill.
    """
    holding = set(held)
    free = topk - len(held)
    outside = (code for code in ranked if code not in holding and eligible(code))
    candidates = [*itertools.islice(outside, max(0, n_drop + free))]
    going = holding.difference(stay)
    either = {*going, *candidates}
    combined = [code for code in ranked if code in either] + sorted(going.difference(ranked))
    places = max(0, topk - (len(held) - len(going)))
    surplus = min(n_drop, max(0, len(combined) - places))
    sell = [code for code in itertools.islice(reversed(combined), surplus) if code in going]
    return sell, candidates[: max(0, len(sell) + free)]


def _anyone(code: str) -> bool:
    return True
