"""An exchange that trades by a table of rules: price limits, T+1, lots and fees of the board and the day."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, OrderDir
from qlib.config import C

from qlib_ext.backtest.exchange import NOTHING, TINY, Reason, RecordingExchange, number
from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.checks import UserError, at_least, between
from qlib_ext.market.rules.exchange_rules import ExchangeRules, Fees, Lot, Side, read_rules
from qlib_ext.market.rules.price_limits import at_limit
from qlib_ext.market.store import QlibStore

ARGUMENTS = ("rules", "commission", "borrowing")  # besides those of Qlib's `Exchange`
COSTS: Mapping[Side, str] = {"buy": "open_cost", "sell": "close_cost"}


class RuleBasedExchange(RecordingExchange):
    """Qlib's exchange, observed, by the rules of a dated table.

    Without rules it is a `RecordingExchange`, with one set of costs, limit and lots for all stocks and days. With them:

    - no purchase at the upper price limit of the board, the status and the day, no sale at the lower one; the price of
      the trade counts, be it the close or another. No trade on a day without a price or without volume;
    - what was bought on a day is not sold on it, where the rule is T+1;
    - purchases are of whole lots of real shares, which the factor tells from adjusted ones; sales too, but that a
      holding may be sold whole, whatever is left over in it;
    - a trade costs the greater of the commission and its minimum, and stamp duty and other levies on top;
    - no purchase takes more cash than there is, nor does the cost of a sale.

    Parameters
    ----------
    rules
        The name of a table that comes with the package, a YAML file or the rules themselves; None: no rules.
    commission
        The broker's rate in the place of the table's, as a fraction; with rules only.
    borrowing
        Yearly fee of a stock that is borrowed to sell it short, as a fraction of its value; None: nothing is sold that is not
        held. With rules only, and a `ShortPosition`.
    **kwargs
        As Qlib's `Exchange` takes them. Beside rules, each of these takes the place of a part of them where it is given:
        `open_cost` and `close_cost` of the commission and all levies of a purchase and of a sale, `min_cost` of the least
        commission, `limit_threshold` of all price limits and suspensions, `trade_unit` of all lots (None: none).

    Attributes
    ----------
    rules : ExchangeRules or None
    notes : list of str
        What a reader of the results should know of how the rules met the store.

    Raises
    ------
    UserError
        If there is no such table, an argument lies out of its range, or a stock is of no board of the table.

    Departures
    ----------
    A `limit_threshold` of None is no limit, where Qlib takes that of the region.

    With rules, beside what `RecordingExchange` does: Qlib compares the close with one limit for all; rounds an amount up
    to a whole lot where a tenth of a share is missing, which may cost more than the cash there is; and knows no levies
    on top of the least commission, no T+1, no lots by board.
    """

    def __init__(
        self,
        *,
        rules: str | Path | ExchangeRules | None = None,
        commission: float | None = None,
        borrowing: float | None = None,
        **kwargs: Any,
    ) -> None:
        self.rules = read_rules(rules) if isinstance(rules, str | Path) else rules
        self.notes: list[str] = []
        check_costs(self.rules is not None, {"commission": commission, "borrowing": borrowing, **kwargs})
        self.borrowing = borrowing
        self.own_limit = self.rules is None or "limit_threshold" in kwargs
        self.own_lots = self.rules is None or "trade_unit" in kwargs
        self.commission = commission
        self.own_costs = {side: kwargs.get(name) for side, name in COSTS.items()}
        self.own_minimum = kwargs.get("min_cost")
        self.own_none = "limit_threshold" in kwargs and kwargs["limit_threshold"] is None
        self.known_fees: dict[tuple[str, pd.Timestamp, Side], Fees] = {}
        self.known_lots: dict[tuple[str, pd.Timestamp], Lot] = {}
        super().__init__(**kwargs)
        if self.own_none or not self.own_limit:
            self.limit_threshold, self.limit_type = None, self.LT_NONE
        if self.rules is not None and not self.own_lots:
            boards = {self.rules.board(code) for code in self.quote.get_all_stock()}
            self.trade_unit = self.rules.largest_step(boards)  # where nobody says of which stock

    # -- the rules of a stock on a day -------------------------------------------------------------------------

    def fees(self, code: str, day: pd.Timestamp, side: Side) -> Fees:
        """What a trade of a stock costs on a day."""
        assert self.rules is not None
        board = self.rules.board(code)
        key = board, day, side
        if key not in self.known_fees:
            fees = self.rules.fees(board, day)
            if self.commission is not None:
                fees = replace(fees, commission=self.commission)
            if self.own_minimum is not None:
                fees = replace(fees, minimum=self.own_minimum)
            flat = self.own_costs[side]
            if flat is not None:
                fees = replace(fees, commission=flat, **{side: 0.0})
            self.known_fees[key] = fees
        return self.known_fees[key]

    def lot(self, code: str, day: pd.Timestamp) -> Lot | None:
        """Real shares of which a purchase is; None where lots do not count."""
        if self.trade_w_adj_price or self.trade_unit is None:
            return None
        if self.own_lots or self.rules is None:
            return Lot(self.trade_unit, self.trade_unit)
        key = self.rules.board(code), day
        if key not in self.known_lots:
            self.known_lots[key] = self.rules.lot(*key)
        return self.known_lots[key]

    def most_costs(self, codes: Iterable[str], day: pd.Timestamp) -> tuple[float, float, float]:
        """The most that a purchase and a sale of any of some stocks cost, as shares of their value, and the least cost of a trade."""
        if self.rules is None:
            return self.open_cost, self.close_cost, self.min_cost
        boards = {self.rules.board(code): code for code in codes}.values()
        fees = {side: [self.fees(code, day, side) for code in boards] for side in COSTS}
        buy, sell = (
            max((one.commission + one.levy(side) for one in fees[side]), default=0.0) for side in COSTS
        )
        return buy, sell, max((one.minimum for each in fees.values() for one in each), default=0.0)

    def frozen(self, code: str, day: pd.Timestamp, position: Any) -> float:
        """Adjusted shares of a holding that may not be sold on a day, since they were bought on it."""
        if self.rules is None or not self.rules.resale_days(self.rules.board(code), day):
            return 0.0
        if not isinstance(position, OrderedPosition):
            raise UserError(
                f"an exchange with T+1 needs a position that knows what was bought today: `pos_type` must be "
                f"{OrderedPosition.__module__}.{OrderedPosition.__name__}, found {type(position).__name__}"
            )
        return position.bought_on(code, day)

    def describe(self) -> dict[str, Any] | None:
        """The rules that hold for the stocks and days of the exchange, for a record; None without rules.

        Returns
        -------
        Mapping with `name`, `market`, `digest` of the table, and `in_force`, as `ExchangeRules.in_force` has it.
        """
        if self.rules is None:
            return None
        boards = {self.rules.board(code) for code in self.quote.get_all_stock()}
        first, last = pd.Timestamp(self.start_time), pd.Timestamp(self.end_time)
        return {
            "name": self.rules.name,
            "market": self.rules.market,
            "digest": self.rules.digest,
            "in_force": self.rules.in_force(first, last, boards),
        }

    # -- what Qlib calls ---------------------------------------------------------------------------------------

    def _update_limit(self, limit_threshold: Any) -> None:
        if self.own_limit or self.rules is None:
            super()._update_limit(None if self.own_none else limit_threshold)
            return
        quotes = self.quote_df
        with np.errstate(divide="ignore", invalid="ignore"):
            found = at_limit(
                quotes,
                self.rules,
                QlibStore(C.dpm.get_data_uri("day")),
                buy=self.buy_price,
                sell=self.sell_price,
                factors=not self.trade_w_adj_price,
            )
        untraded = ~(quotes["$volume"] > 0) if self.has_volumes else False
        still = (quotes["$close"].isna() | untraded).to_numpy()
        quotes["limit_buy"] = found.up | still
        quotes["limit_sell"] = found.down | still
        self.notes += found.notes

    def get_amount_of_trade_unit(
        self,
        factor: float | None = None,
        stock_id: str | None = None,
        start_time: pd.Timestamp = None,
        end_time: pd.Timestamp = None,
    ) -> float | None:
        """The least purchase of a stock in adjusted shares; None where lots do not count."""
        lot = self._lot_of(stock_id, start_time)
        if lot is None:
            return super().get_amount_of_trade_unit(factor, stock_id, start_time, end_time)
        return lot.minimum / self._get_factor_or_raise_error(factor, stock_id, start_time, end_time)

    def round_amount_by_trade_unit(
        self,
        deal_amount: float,
        factor: float | None = None,
        stock_id: str | None = None,
        start_time: pd.Timestamp = None,
        end_time: pd.Timestamp = None,
    ) -> float:
        """Whole lots of an amount, in adjusted shares; where no stock is named, of the largest lot of any board."""
        if self.rules is None:
            return super().round_amount_by_trade_unit(deal_amount, factor, stock_id, start_time, end_time)
        lot = self._lot_of(stock_id, start_time)
        if lot is None:
            if self.trade_w_adj_price or self.trade_unit is None:
                return deal_amount
            lot = Lot(self.trade_unit, self.trade_unit)
        factor = self._get_factor_or_raise_error(factor, stock_id, start_time, end_time)
        return lot.whole(deal_amount * factor) / factor

    def _lot_of(self, code: str | None, start: pd.Timestamp | None) -> Lot | None:
        if self.rules is None or code is None or start is None:
            return None
        return self.lot(code, start)

    def _calc_trade_info_by_order(
        self, order: Order, position: Any, dealt_order_amount: Any
    ) -> tuple[float, float, float]:
        if self.rules is None:
            return super()._calc_trade_info_by_order(order, position, dealt_order_amount)
        code, start, end = order.stock_id, order.start_time, order.end_time
        price = number(self.get_deal_price(code, start, end, direction=order.direction))
        order.factor = self.get_factor(code, start, end)
        order.deal_amount = order.amount
        self._clip_amount_by_volume(order, dealt_order_amount)
        side: Side = "buy" if order.direction == OrderDir.BUY else "sell"
        fees, impact = self.fees(code, start, side), self._impact(order, price)

        def cost(amount: float) -> float:
            value = amount * price
            return fees.cost(value, side) + impact * value if value > NOTHING else 0.0

        if side == "sell":
            if position is not None:
                order.deal_amount = self._sellable(order, position)
                if position.get_cash() + order.deal_amount * price < cost(order.deal_amount):
                    order.deal_amount = 0.0
        elif position is None:
            order.deal_amount = self._whole(order, order.deal_amount)
        else:
            cash = position.get_cash()
            rates = 1 + fees.levy(side) + impact
            most = max(0.0, min((cash - fees.minimum) / rates, cash / (rates + fees.commission))) / price
            if order.deal_amount > most:
                self.cuts.append(Reason.NO_CASH)
            amount = self._whole(order, min(order.deal_amount, most))
            while amount > 0 and amount * price + cost(amount) > cash:  # by a rounding, at most
                lot = self.lot(code, start)
                less = amount * (1 - 1e-12) if lot is None else amount - 0.5 * lot.step / order.factor
                amount = self._whole(order, less)
            order.deal_amount = amount
        value = order.deal_amount * price
        return price, value, cost(order.deal_amount)

    def _impact(self, order: Order, price: float) -> float:
        """What the order moves its price by, as a share of it: Qlib's square of its part of the day's trading."""
        traded = number(self.get_volume(order.stock_id, order.start_time, order.end_time)) * price
        if not traded > 0:
            return self.impact_cost
        return self.impact_cost * (order.deal_amount * price / traded) ** 2

    def _sellable(self, order: Order, position: Any) -> float:
        """What of an order the holding allows to sell: all of it, or whole lots."""
        held = position.get_stock_amount(order.stock_id)
        if self.borrowing is not None and not self.frozen(order.stock_id, order.start_time, position):
            whole = held > 0 and abs(order.deal_amount - held) <= TINY * held
            return held if whole else self._whole(order, order.deal_amount)
        free = max(0.0, held - self.frozen(order.stock_id, order.start_time, position))
        if free < held and order.deal_amount > free * (1 + TINY):
            self.cuts.append(Reason.BOUGHT_TODAY)
        amount = min(order.deal_amount, free)
        return held if amount >= held * (1 - TINY) else self._whole(order, amount)

    def _whole(self, order: Order, amount: float) -> float:
        """Whole lots of an amount."""
        return self.round_amount_by_trade_unit(
            amount, order.factor, order.stock_id, order.start_time, order.end_time
        )

    # -- the book ----------------------------------------------------------------------------------------------

    def _too_poor(self, order: Order, cash: float) -> bool:
        if self.rules is None:
            return super()._too_poor(order, cash)
        lot = self.lot(order.stock_id, order.start_time)
        if order.direction == OrderDir.SELL or lot is None:
            return False
        price = number(self.get_deal_price(order.stock_id, order.start_time, order.end_time, order.direction))
        value = lot.minimum / order.factor * price
        return cash < value + self.fees(order.stock_id, order.start_time, "buy").cost(value, "buy")

    def _unit(self, order: Order) -> float | None:
        if self.rules is None:
            return super()._unit(order)
        lot = self.lot(order.stock_id, order.start_time)
        return None if lot is None else lot.step


def check_costs(ruled: bool, given: Mapping[str, Any]) -> None:
    """Check what is given beside rules; without rules they are Qlib's own to take, but for `commission`.

    Raises
    ------
    UserError
        If a cost lies out of its range, there is a commission or a fee of borrowing without rules, or both a commission and what takes its
        place.
    """
    if not ruled:
        if given.get("commission") is not None:
            raise UserError(
                "`commission` takes the place of that of a table of rules: set `rules` too, or `open_cost` and `close_cost`"
            )
        if given.get("borrowing") is not None:
            raise UserError("`borrowing` goes with a table of rules: set `rules` too, or leave it out")
        return
    for name in ("commission", *COSTS.values()):
        if given.get(name) is not None:
            between(name, given[name], 0, 1, open_high=True)
    if given.get("borrowing") is not None:
        between("borrowing", given["borrowing"], 0, 10)
    if given.get("min_cost") is not None:
        at_least("min_cost", given["min_cost"], 0)
    flat = [name for name in COSTS.values() if given.get(name) is not None]
    if flat and given.get("commission") is not None:
        raise UserError(f"set `commission` or `{flat[0]}`, not both: `{flat[0]}` is all that a trade costs")
