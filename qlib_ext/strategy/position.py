"""An account's holdings, listed in one order."""

from __future__ import annotations

import copy
from typing import Any

from qlib.backtest.position import Position


class OrderedPosition(Position):
    """Qlib's position, whose stocks come sorted by code.

    Qlib lists them in the order of a set of text, which Python changes from process to process; the account's
    value is then summed in another order, and its last digits, now and then a lot, differ between two runs of
    one backtest. To be named as `pos_type` of `qlib.backtest.backtest`.
    """

    def get_stock_list(self) -> list[str]:
        """Codes of the stocks that are held, sorted."""
        return sorted(super().get_stock_list())

    def __deepcopy__(self, memo: dict[int, Any]) -> OrderedPosition:
        """A copy of its own, made without a look into every number: Qlib makes two a day.

        A position holds numbers and, for each stock, a dictionary of numbers.
        """
        twin = copy.copy(self)
        twin.position = {
            key: dict(held) if isinstance(held, dict) else held for key, held in self.position.items()
        }
        return twin
