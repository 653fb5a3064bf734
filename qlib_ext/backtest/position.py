"""An account's holdings, listed in one order, that know what was bought today."""

from __future__ import annotations

import copy
from typing import Any

import pandas as pd
from qlib.backtest.decision import Order, OrderDir
from qlib.backtest.position import Position

ROUNDING = 1e-9  # relative; an amount is a value divided by a price


class OrderedPosition(Position):
    """Qlib's position, whose stocks come sorted by code, and which loses no shares.

    To be named as `pos_type` of `qlib.backtest.backtest`. An exchange whose rules keep from selling on the day of the
    purchase asks it for what was bought.

    Departures
    ----------
    Qlib's `Position`, except that

    - stocks have an order. Qlib lists them in that of a set of text, which Python changes from process to process; the
      account's value is then summed in another order, and its last digits, now and then a lot, differ between two
      runs of one backtest;
    - what is left after a sale is kept, where Qlib drops it below a hundred thousandth of the amount sold: of ten
      million shares, a lot.
    """

    def __init__(self, cash: float = 0, position_dict: dict[str, Any] | None = None) -> None:
        super().__init__(cash, {} if position_dict is None else position_dict)
        self.bought: dict[str, tuple[pd.Timestamp, float]] = {}  # the last day of a purchase, and how much

    def get_stock_list(self) -> list[str]:
        """Codes of the stocks that are held, sorted."""
        return sorted(super().get_stock_list())

    def bought_on(self, code: str, day: pd.Timestamp) -> float:
        """Adjusted shares that were bought on a day, the newest of the account's."""
        last, amount = self.bought.get(code, (None, 0.0))
        return amount if last == day.normalize() else 0.0

    def update_order(self, order: Order, trade_val: float, cost: float, trade_price: float) -> None:
        """Book a trade, and the day of a purchase."""
        super().update_order(order, trade_val, cost, trade_price)
        if order.direction == OrderDir.BUY:
            day = order.start_time.normalize()
            before = self.bought_on(order.stock_id, day)
            self.bought[order.stock_id] = day, before + trade_val / trade_price

    def _sell_stock(self, stock_id: str, trade_val: float, cost: float, trade_price: float) -> None:
        held = self.position.get(stock_id)
        super()._sell_stock(stock_id, trade_val, cost, trade_price)
        if held is not None and stock_id not in self.position:
            rest = held["amount"] - trade_val / trade_price
            if rest > ROUNDING * held["amount"]:
                self.position[stock_id] = {**held, "amount": rest}

    def __deepcopy__(self, memo: dict[int, Any]) -> OrderedPosition:
        """A copy of its own, made without a look into every number: Qlib makes two a day.

        A position holds numbers and, for each stock, a dictionary of numbers.
        """
        twin = copy.copy(self)
        twin.position = {
            key: dict(held) if isinstance(held, dict) else held for key, held in self.position.items()
        }
        twin.bought = dict(self.bought)
        return twin
