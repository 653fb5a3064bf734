"""What the exchange allows and charges, said once more in the plainest way."""

from __future__ import annotations

import datetime as dt
import math
from abc import ABC, abstractmethod

import numpy as np

from tests.backtest.reference.market import Market


def single(number: float) -> float:
    """As a store keeps it: in single precision."""
    return float(np.float32(number))


def half_up(ticks: float) -> int:
    """Rounded to whole ticks; what single precision takes off a half is given back."""
    return math.floor(ticks + 0.5 + 1e-6)


class Rules(ABC):
    """What a strategy asks an exchange."""

    def trades(self, market: Market, code: str, day: int) -> bool:
        """Whether there is any trade: a close and a volume; one that is missing is none."""
        bar = market.bar(code, day)
        return bar.priced and bar.volume > 0

    def may_buy(self, market: Market, code: str, day: int) -> bool:
        return self.trades(market, code, day) and not self.at_upper_limit(market, code, day)

    def may_sell(self, market: Market, code: str, day: int) -> bool:
        return self.trades(market, code, day) and not self.at_lower_limit(market, code, day)

    @abstractmethod
    def at_upper_limit(self, market: Market, code: str, day: int) -> bool: ...

    @abstractmethod
    def at_lower_limit(self, market: Market, code: str, day: int) -> bool: ...

    @abstractmethod
    def lots(self, market: Market, code: str, day: int, amount: float, forgiven: bool = True) -> float:
        """What of some adjusted shares can be bought; a trifle that is missing for a lot may be forgiven."""

    @abstractmethod
    def fee(self, market: Market, side: str, day: int, value: float) -> float:
        """What a trade costs."""

    @abstractmethod
    def payable(self, market: Market, day: int, cash: float) -> float:
        """The greatest value of a purchase that cash pays together with its fee."""


class OneForAll(Rules):
    """Qlib's: one limit on the field `change`, lots of 100, and two rates that never change."""

    limit = 0.095
    buying, selling, least = 0.0005, 0.0015, 5.0

    def at_upper_limit(self, market: Market, code: str, day: int) -> bool:
        return market.bar(code, day).change >= single(self.limit)

    def at_lower_limit(self, market: Market, code: str, day: int) -> bool:
        return market.bar(code, day).change <= -single(self.limit)

    def lots(self, market: Market, code: str, day: int, amount: float, forgiven: bool = True) -> float:
        if not market.lots_known():
            return amount
        factor = market.bar(code, day).factor
        return math.floor((amount * factor + (0.1 if forgiven else 0.0)) / 100) * 100 / factor

    def fee(self, market: Market, side: str, day: int, value: float) -> float:
        return max((self.buying if side == "buy" else self.selling) * value, self.least)

    def payable(self, market: Market, day: int, cash: float) -> float:
        return max(0.0, min(cash / (1 + self.buying), cash - self.least))


class China(Rules):
    """The mainland's exchanges since the end of 2019, from their rule books and not from the package's table."""

    commission, least = 0.0005, 5.0

    def trades(self, market: Market, code: str, day: int) -> bool:
        """In a market of which no volume is known, a close is enough; the index beside the stocks of the other rules has one."""
        return (
            market.bar(code, day).priced if not market.volumes_known() else super().trades(market, code, day)
        )

    def board(self, code: str) -> str:
        if code.startswith("SH688"):
            return "star"
        if code.startswith("SZ300"):
            return "chinext"
        return "main"

    def limit(self, market: Market, code: str, day: int) -> float | str | None:
        """The limit of a day as a share, None for none, `unknown` where it hangs on the price of the issue."""
        today, board, first = market.days[day], self.board(code), market.first_priced(code)
        registered = {
            "star": dt.date(2019, 7, 22),
            "chinext": dt.date(2020, 8, 24),
            "main": dt.date(2023, 4, 10),
        }[board]
        if first is not None and first > 0:  # listed within the store's days
            if market.days[first] >= registered:
                if day - first < 5:
                    return None
            elif day == first:
                return "unknown"
        if board == "star":
            return 0.2
        if board == "chinext" and today >= dt.date(2020, 8, 24):
            return 0.2
        begin, end = market.special.get(code, (0, -1))
        if board == "main" and today >= dt.date(2026, 7, 6):
            return 0.1
        return 0.05 if begin <= day <= end else 0.1

    def at_upper_limit(self, market: Market, code: str, day: int) -> bool:
        return self.at_limit(market, code, day, 1)

    def at_lower_limit(self, market: Market, code: str, day: int) -> bool:
        return self.at_limit(market, code, day, -1)

    def at_limit(self, market: Market, code: str, day: int, way: int) -> bool:
        limit = self.limit(market, code, day)
        before = market.last_close_before(code, day)
        if limit is None:
            return False
        if limit == "unknown" or before is None:
            return way > 0  # new shares stand at their upper limit
        bar = market.bar(code, day)
        if not market.lots_known():  # nor real prices: half a point is forgiven
            return way * (bar.close / before - 1) >= limit - 0.005
        price = round(100 * bar.close / bar.factor)
        reference = half_up(before / bar.factor / 0.01)
        if way > 0:
            return price >= max(half_up(reference * (1 + limit)), reference + 1)
        return price <= max(min(half_up(reference * (1 - limit)), reference - 1), 1)

    def lots(self, market: Market, code: str, day: int, amount: float, forgiven: bool = True) -> float:
        if not market.lots_known():
            return amount
        factor = market.bar(code, day).factor
        shares = math.floor(amount * factor + (1e-6 if forgiven else 0.0))  # real ones
        if self.board(code) == "star":
            return shares / factor if shares >= 200 else 0.0
        return shares // 100 * 100 / factor

    def levies(self, market: Market, side: str, day: int) -> float:
        """Stamp duty on sales, and the transfer fee."""
        today = market.days[day]
        transfer = 0.00001 if today >= dt.date(2022, 4, 29) else 0.00002
        if side == "buy":
            return transfer
        return transfer + (0.0005 if today >= dt.date(2023, 8, 28) else 0.001)

    def fee(self, market: Market, side: str, day: int, value: float) -> float:
        return max(self.commission * value, self.least) + self.levies(market, side, day) * value

    def payable(self, market: Market, day: int, cash: float) -> float:
        levies = self.levies(market, "buy", day)
        return max(0.0, min(cash / (1 + self.commission + levies), (cash - self.least) / (1 + levies)))
