"""What the exchange allows and charges, said once more in the plainest way."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tests.strategy.reference.market import Market


@dataclass(frozen=True)
class PlainRules:
    """One limit for all stocks on the field `change`, lots of one size, and rates that never change."""

    limit: float = 0.095
    lot: int | None = 100  # shares; None: any amount
    buying: float = 0.0005
    selling: float = 0.0015
    least: float = 5.0

    def trades(self, market: Market, code: str, day: int) -> bool:
        """Whether there is any trade: a close, and a volume that is not known to be nothing."""
        bar = market.bar(code, day)
        return bar.priced and not bar.volume <= 0

    def may_buy(self, market: Market, code: str, day: int) -> bool:
        return self.trades(market, code, day) and not market.bar(code, day).change >= self.limit

    def may_sell(self, market: Market, code: str, day: int) -> bool:
        return self.trades(market, code, day) and not market.bar(code, day).change <= -self.limit

    def lots(self, market: Market, code: str, day: int, amount: float) -> float:
        """Adjusted shares in whole lots of real ones; a tenth of a share may be missing for the last lot."""
        if self.lot is None or incomplete(market, day):
            return amount
        factor = market.bar(code, day).factor
        real = math.floor((amount * factor + 0.1) / self.lot) * self.lot
        return real / factor

    def fee(self, side: str, value: float) -> float:
        return max((self.buying if side == "buy" else self.selling) * value, self.least)

    def payable(self, cash: float) -> float:
        """The greatest value of a purchase that cash pays together with its fee."""
        return max(0.0, min(cash / (1 + self.buying), cash - self.least))


def incomplete(market: Market, _: int) -> bool:
    """Whether any close of the days of trading has no factor: then nobody knows what a real share is."""
    return any(bar.priced and math.isnan(bar.factor) for row in market.bars.values() for bar in row[1:-1])
