"""Qlib's exchange, with a book of what became of every order."""

from __future__ import annotations

import functools
import math
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from qlib.backtest.decision import Order, OrderDir
from qlib.backtest.exchange import Exchange
from qlib.config import C

from qlib_ext.backtest.quotes import DailyQuote, read_quotes
from qlib_ext.market.store import QlibStore

TINY = 1e-9  # relative; amounts are divided by factors and multiplied again
NOTHING = 1e-5  # Qlib books no trade of a lower value
FORGIVEN = 0.1  # real shares that may be missing for Qlib to round up to a whole lot


class Reason(StrEnum):
    """Why an order did not fill in full."""

    LIMIT_UP = "price limit up"
    LIMIT_DOWN = "price limit down"
    NO_PRICE = "suspended, no price"
    NO_VOLUME = "suspended, no volume"
    VOLUME_LIMIT = "volume limit"
    NO_CASH = "no cash"
    LOT_SIZE = "lot size"
    HOLDING = "holding threshold"
    NOT_HELD = "not held"
    BOUGHT_TODAY = "bought today"


class Status(StrEnum):
    """How far an order filled; rounded down to whole lots counts as filled."""

    FILLED = "filled"
    PARTLY = "partly"
    NOT = "not filled"


@dataclass
class IntendedOrder(Order):
    """An order that remembers what was wanted before it was rounded to whole lots.

    Attributes
    ----------
    intended
        Adjusted shares before rounding; NaN where it is what the order says.
    """

    intended: float = math.nan


class Booked(NamedTuple):
    """A row of `RecordingExchange.orders`, whose docstring says what the columns are."""

    datetime: pd.Timestamp
    instrument: str
    direction: str
    sent: bool
    status: str
    reason: str | None
    amount: float
    filled: float
    lots: float
    lots_filled: float
    factor: float
    price: float
    wanted_value: float
    value: float
    cost: float


class RecordingExchange(Exchange):
    """Fill orders as Qlib's `Exchange` does, and write down what became of each.

    The reason why an order did not fill in full is read off the exchange's own steps while it deals the order: its
    check of suspension and limits, its cut by volume, by cash and to whole lots. What a strategy tries out on a copy
    of its position is no order and is not booked.

    A strategy that knows that an order cannot fill and does not send it can say so by `withhold`; what Qlib's own
    `generate_order_for_target_amount_position` leaves out is booked as well.

    A purchase that the cash cuts is never more than the cash pays for: Qlib rounds up to a whole lot where a tenth of
    a share is missing, and so spends cash that is not there. A `volume_threshold` of purchases or of sales alone leaves
    the others without a limit, where Qlib fails at the first of them.

    Parameters
    ----------
    **kwargs
        As Qlib's `Exchange` takes them.
    """

    borrowing: float | None = None  # the yearly fee of what is sold short; None: only what is held is sold
    buy_vol_limit: list[tuple[str, str]] | None
    sell_vol_limit: list[tuple[str, str]] | None

    def __init__(self, **kwargs: Any) -> None:
        super().__init__(**{"quote_cls": DailyQuote} | kwargs)
        # Qlib takes the least of a list that is empty where only the other direction has a limit.
        self.buy_vol_limit, self.sell_vol_limit = self.buy_vol_limit or None, self.sell_vol_limit or None
        self.book: list[Booked] = []
        self.dealing: Order  # the order that is being dealt
        self.cuts: list[Reason] = []  # what cut it, in this order

    def orders(self) -> pd.DataFrame:
        """Every order since the book was opened, in the order of the trades.

        Returns
        -------
        A row an order, indexed by `datetime` and `instrument`:

        - `direction`: `buy` or `sell`;
        - `sent`: False where the strategy held it back, since it could not fill;
        - `status`: `filled`, `partly` or `not filled`. An order rounded down to whole lots counts as filled;
        - `reason`: what kept it from filling in full, one of `Reason`; missing where it filled. Of several, the one
          that left least;
        - `amount`, `filled`: adjusted shares that were wanted, before rounding where the strategy says so, and that
          were traded;
        - `lots`, `lots_filled`: the same in real lots; NaN where the store has no complete factor or lots do not count;
        - `factor`: adjusted over raw price;
        - `price`: at which it was traded, or would have been; adjusted; NaN without any price that day;
        - `wanted_value`: amount times price; of a stock without a price, a purchase's share of the cash and a sale's
          value at the last price;
        - `value`, `cost`: filled amount times price, and what the trade cost, in currency.
        """
        table = pd.DataFrame(self.book, columns=Booked._fields)
        kinds = {
            "datetime": "datetime64[ns]",
            "instrument": "str",
            "direction": "str",
            "sent": "bool",
            "status": "str",
        }
        floats = {name: "float64" for name in Booked._fields if name not in {*kinds, "reason"}}
        table = table.astype(kinds | floats).astype({"reason": "object"})
        return table.set_index(["datetime", "instrument"])

    def withhold(
        self,
        order: Order,
        *,
        value: float = math.nan,
        reason: Reason | None = None,
        either: bool = False,
    ) -> None:
        """Book an order that the strategy would have sent, had it not seen that it could not fill.

        Parameters
        ----------
        order
            With its amount, NaN where there is no price to size it by.
        value
            What it was worth, where there is no price.
        reason
            Why it was not sent; None asks the exchange.
        either
            Whether the strategy keeps from trading at a limit in both directions.
        """
        if reason is None:
            reason = self.obstacle(
                order.stock_id, order.start_time, order.end_time, None if either else order.direction
            )
        order.factor = self.get_factor(order.stock_id, order.start_time, order.end_time)
        self._book(order, sent=False, reason=reason, wanted_value=value)

    def obstacle(
        self, stock_id: str, start: pd.Timestamp, end: pd.Timestamp, direction: OrderDir | None = None
    ) -> Reason | None:
        """What forbids to trade a stock in a direction, None for either; None where nothing does."""
        if self.check_stock_suspended(stock_id, start, end):
            return Reason.NO_PRICE
        if not self.check_stock_limit(stock_id, start, end, direction):
            return None
        if self.has_volumes and not number(self.get_volume(stock_id, start, end)) > 0:
            return Reason.NO_VOLUME
        up, down = (
            self.check_stock_limit(stock_id, start, end, way) for way in (OrderDir.BUY, OrderDir.SELL)
        )
        if up and down:  # an expression of the user's that forbids both: the move of the day tells
            change = number(self.get_quote_info(stock_id, start, end, "$change"))
            up = change > 0 if not math.isnan(change) else direction != OrderDir.SELL
        return Reason.LIMIT_UP if up else Reason.LIMIT_DOWN

    @functools.cached_property
    def has_volumes(self) -> bool:
        """Whether any stock has a volume: then a day of a stock without one is a day without trade."""
        return bool((self.quote_df["$volume"] > 0).any())

    # -- what Qlib calls -------------------------------------------------------------------------------------

    def get_quote_from_qlib(self) -> None:
        """Read the quotes: as Qlib does, but all stocks at once."""
        if (
            self.freq != "day"
            or self.extra_quote is not None
            or not (self.codes and isinstance(self.codes, list))
        ):
            super().get_quote_from_qlib()
            return
        store = QlibStore(C.dpm.get_data_uri("day"))
        self.quote_df = read_quotes(store, self.codes, self.all_fields, self.start_time, self.end_time)
        unadjusted = self.quote_df["$factor"].isna() & self.quote_df["$close"].notna()
        self.trade_w_adj_price = bool(unadjusted.any())
        self._update_limit(self.limit_threshold)

    def deal_order(
        self,
        order: Order,
        trade_account: Any = None,
        position: Any = None,
        dealt_order_amount: Mapping[str, float] | None = None,
    ) -> tuple[float, float, float]:
        dealt = defaultdict(float) if dealt_order_amount is None else dealt_order_amount
        self.dealing = order
        if trade_account is None:
            return super().deal_order(order, None, position, dealt)
        before = trade_account.current_position
        cash, held = before.get_cash(), before.get_stock_amount(order.stock_id)
        known = order.amount * before.get_stock_price(order.stock_id) if held else math.nan
        self.cuts = []
        value, cost, price = super().deal_order(order, trade_account, position, dealt)
        reason = self._reason(order, value, cash, held)
        self._book(order, reason=reason, value=value, cost=cost, wanted_value=known)
        return value, cost, price

    def _clip_amount_by_volume(self, order: Order, dealt_order_amount: Any) -> float | None:
        before = order.deal_amount
        answer = super()._clip_amount_by_volume(order, dealt_order_amount)
        if order.deal_amount < before:
            self.cuts.append(Reason.VOLUME_LIMIT)
        return answer

    def _get_buy_amount_by_cash_limit(self, trade_price: float, cash: float, cost_ratio: float) -> float:
        self.cuts.append(Reason.NO_CASH)  # Qlib asks only where the cash does not suffice
        most = max(0.0, min(cash / (1 + cost_ratio), cash - self.min_cost)) / trade_price
        if self.trade_w_adj_price or not self.trade_unit:
            return most
        return max(0.0, most - FORGIVEN / self.dealing.factor)  # which no cash is there for

    def generate_order_for_target_amount_position(
        self,
        target_position: dict[str, float],
        current_position: dict[str, float],
        start_time: pd.Timestamp,
        end_time: pd.Timestamp,
    ) -> list[Order]:
        orders = super().generate_order_for_target_amount_position(
            target_position, current_position, start_time, end_time
        )
        sent = {order.stock_id for order in orders}
        for code in sorted({*target_position, *current_position} - sent):
            missing = target_position.get(code, 0) - current_position.get(code, 0)
            if missing == 0:
                continue
            direction = OrderDir.BUY if missing > 0 else OrderDir.SELL
            reason = self.obstacle(code, start_time, end_time) or Reason.LOT_SIZE
            self.withhold(Order(code, abs(missing), direction, start_time, end_time), reason=reason)
        return orders

    # -- the book --------------------------------------------------------------------------------------------

    def _reason(self, order: Order, value: float, cash: float, held: float) -> Reason | None:
        """What kept an order from filling in full."""
        if not self.check_order(order):
            return self.obstacle(order.stock_id, order.start_time, order.end_time, order.direction)
        wanted = self._in_lots(order, order.amount)
        done = order.deal_amount if value > NOTHING else 0.0
        if done > 0 and done >= wanted * (1 - TINY):
            return None
        if self.cuts:
            return self.cuts[-1]
        if order.direction == OrderDir.SELL and held < order.amount * (1 - TINY):
            if done > 0 or held == 0:
                return Reason.NOT_HELD
            wanted = self._in_lots(order, held)
        # Nothing cut it, and it is no part of a lot: there was no cash for the fee.
        if done == 0 and wanted > 0:
            return Reason.NO_CASH
        return Reason.NO_CASH if self._too_poor(order, cash) else Reason.LOT_SIZE

    def _in_lots(self, order: Order, amount: float) -> float:
        """Whole lots of an amount; never more of it, as Qlib's rounding gives when a tenth of a share is missing."""
        code, start, end = order.stock_id, order.start_time, order.end_time
        return min(amount, self.round_amount_by_trade_unit(amount, order.factor, code, start, end))

    def _too_poor(self, order: Order, cash: float) -> bool:
        """Whether the cash of the account does not buy a single lot."""
        unit = self.get_amount_of_trade_unit(order.factor)
        if order.direction == OrderDir.SELL or unit is None:
            return False
        price = self.get_deal_price(order.stock_id, order.start_time, order.end_time, order.direction)
        lot = unit * number(price)
        return cash < lot + max(lot * self.open_cost, self.min_cost)

    def _unit(self, order: Order) -> float | None:
        """Real shares of a lot; None where lots do not count."""
        return self.trade_unit

    def _book(
        self,
        order: Order,
        *,
        reason: Reason | None,
        sent: bool = True,
        value: float = 0.0,
        cost: float = 0.0,
        wanted_value: float = math.nan,
    ) -> None:
        intended = getattr(order, "intended", math.nan)
        amount = order.amount if math.isnan(intended) else intended
        filled = order.deal_amount if value > NOTHING else 0.0
        code, start, end = order.stock_id, order.start_time, order.end_time
        price = math.nan
        if not self.check_stock_suspended(code, start, end):
            price = number(self.get_deal_price(code, start, end, order.direction))
        factor = number(order.factor)
        if math.isnan(factor):
            factor = number(self.get_factor(code, start, end))
        unit = self._unit(order)
        in_lots = factor / unit if unit and not self.trade_w_adj_price else math.nan
        status = Status.NOT if filled == 0 else Status.FILLED if reason is None else Status.PARTLY
        self.book.append(
            Booked(
                datetime=start,
                instrument=code,
                direction="buy" if order.direction == OrderDir.BUY else "sell",
                sent=sent,
                status=status.value,
                reason=None if reason is None else reason.value,
                amount=float(amount),
                filled=float(filled),
                lots=amount * in_lots,
                lots_filled=filled * in_lots,
                factor=factor,
                price=price,
                wanted_value=float(wanted_value if math.isnan(price) else amount * price),
                value=float(value) if filled else 0.0,
                cost=float(cost),
            )
        )


def number(value: Any) -> float:
    """A quote as a number; Qlib has None, NaN or nothing at all for what is not there."""
    return math.nan if value is None or np.size(value) == 0 else float(value)
