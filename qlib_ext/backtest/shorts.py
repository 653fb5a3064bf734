"""Holdings below 0: stocks that are borrowed and sold."""

from __future__ import annotations

from typing import Any

from qlib_ext.backtest.position import ROUNDING, OrderedPosition

YEAR_DAYS = 252  # trading days over which the yearly cost of borrowing is spread


class ShortPosition(OrderedPosition):
    """Qlib's position, which may hold a negative amount of a stock.

    What a short sale brings in is cash of the account. At each close the lender's fee is taken from the cash: of what the stocks
    that are held short are worth at that close.

    Attributes
    ----------
    borrowing
        Yearly fee, as a fraction of the value.

    Notes
    -----
    No margin is asked for, no stock is recalled by its lender, and short proceeds earn nothing. Who is short of dividends pays
    them where the store's prices are adjusted for them. The fee lowers the account's return, and is no part of the `cost` of trades.

    Departures
    ----------
    Qlib's `Position` fails at the sale of what is not held. Its `get_stock_price` fails for a stock that is not held; this one
    says 0, which an account asks for at a short sale.
    """

    borrowing: float = 0.0

    def get_stock_price(self, code: str) -> float:
        """The last price; 0 of a stock that is not held."""
        return super().get_stock_price(code) if code in self.position else 0.0

    def add_count_all(self, bar: str) -> None:
        """A day more of each holding, and its fee: an account calls this at each close, once prices are those of the close."""
        super().add_count_all(bar)
        self.position["cash"] -= self.fee()

    def fee(self) -> float:
        """What a day costs, in currency."""
        held = (self.position[code] for code in self.get_stock_list())
        short = sum(-each["amount"] * each["price"] for each in held if each["amount"] < 0)
        return short * self.borrowing / YEAR_DAYS

    def _buy_stock(self, stock_id: str, trade_val: float, cost: float, trade_price: float) -> None:
        self._trade(stock_id, trade_val / trade_price, trade_price)
        self.position["cash"] -= trade_val + cost

    def _sell_stock(self, stock_id: str, trade_val: float, cost: float, trade_price: float) -> None:
        self._trade(stock_id, -trade_val / trade_price, trade_price)
        self.position["cash"] += trade_val - cost

    def _trade(self, code: str, amount: float, price: float) -> None:
        before: dict[str, Any] | None = self.position.get(code)
        if before is None:
            self._init_stock(stock_id=code, amount=amount, price=price)
            return
        rest = before["amount"] + amount
        if abs(rest) <= ROUNDING * abs(amount):
            self._del_stock(code)
        else:
            before["amount"] = rest
