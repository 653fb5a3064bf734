"""Returns over a horizon of days that somebody could have earned, alone or less those of others."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np

from qlib_ext.checks import UserError, instance, integer
from qlib_ext.data.labels.label import Label, LabelValues
from qlib_ext.data.store_check import require
from qlib_ext.features.engine.cross_section import neutralize
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.concepts import SideConcepts
from qlib_ext.market.rules.exchange_rules import read_rules
from qlib_ext.market.rules.trading_days import identity, trading_days
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.side_data.table import INDUSTRY
from qlib_ext.market.store import QlibStore

INDEX, UNIVERSE = "index", "universe"


class HorizonReturn(Label):
    r"""The return of a stock that is bought at the close of t + 1 and sold at the close h trading days later.

    With c the adjusted close and b = t + 1 the day of the purchase, the sale is on the first day s from b + h on, and at
    most w days after it, on which the stock can be sold:

    .. math:: y_t = \frac{c_s}{c_b} - 1

    less the return of the index over the same days, b to s, or the mean of :math:`y_t` over other members of the universe on
    day t.

    Parameters
    ----------
    days
        h, in trading days, at least 1.
    less
        `index`: the benchmark of the dataset. `universe`: the mean of the members of day t that have a label.
        `industry`: the mean of those of the stock's industry, as the side data `industry` has them on day t. Anything else
        is the code of an instrument of the store, such as SH000905. None subtracts nothing.
    wait_days
        w: for how many trading days a sale that cannot be made is waited for.
    rules
        The exchange's, by which a close stands at a price limit: `cn`, `us`, or a file (docs/exchange-rules.md).

    Raises
    ------
    UserError
        If an argument is out of range, there are no such rules, or the store lacks the instrument or the industries.

    Notes
    -----
    A purchase is possible where the stock trades (there is a volume) and its close is not at the upper limit, a sale where
    it trades and its close is not at the lower one, as in the backtest by the exchange's rules at `deal_price: close`. There
    is no label where it could not be bought, and none where it could not be sold within `wait_days`: what a stock loses that
    never trades again is not in the labels. The last 1 + h + w days of a store have none, so that a longer store changes none.

    The label reaches 1 + h + w days ahead, and segments are purged by that. Labels of neighbouring days share h - 1 of their
    h days, which intervals and t of the records take into account.

    A stock without an industry has no excess over it; one that is alone in it has 0.
    """

    def __init__(
        self, days: int = 1, less: str | None = None, wait_days: int = 5, rules: str | Path = "cn"
    ) -> None:
        self.days = self.span_days = integer("days", days, 1)
        self.less = None if less is None else instance("less", less, str)
        self.wait_days = integer("wait_days", wait_days, 0)
        self.rules = read_rules(rules)
        self.horizon_days = 1 + self.days + self.wait_days

    def __str__(self) -> str:
        less = "" if self.less is None else f", less {self._name}"
        return f"bought at the close of t + 1, sold at that of t + {1 + self.days}{less}"

    @property
    def _name(self) -> str:
        means = {UNIVERSE: "the mean of the universe", INDUSTRY: "the mean of the industry"}
        return means.get(str(self.less), f"{self.less}")

    @property
    def _instrument(self) -> str | None:
        return self.less if self.less not in (UNIVERSE, INDUSTRY) else None

    def against(self, benchmark: str | None) -> Label:
        if self.less != INDEX:
            return self
        if benchmark is None:
            raise UserError(
                "`less: index` of a label must find the `benchmark` of the dataset, found none: name one there, or an "
                "instrument here, such as `less: SH000300`"
            )
        bound = copy.copy(self)
        bound.less = benchmark
        return bound

    def check_store(self, store: QlibStore) -> None:
        require(store, fields=["volume"])
        if self.less == INDUSTRY:
            reason = SideConcepts(INDUSTRY).lacks(store)
            if reason is not None:
                raise UserError(
                    f"`less: industry` of a label does not fit the store {store.root}: {reason}; bring a table in "
                    f"(`qlib-ext data side-data DIR {INDUSTRY} FILE`), or take `less: universe`"
                )
        elif self._instrument is not None and self._instrument.upper() not in store.instruments():
            raise UserError(
                f"`less` of a label must be index, industry, universe, or an instrument of the store {store.root}, found "
                f"{self._instrument!r}"
            )

    def identity(self, store: QlibStore) -> dict[str, Any]:
        industries = SideData(store).fingerprint([INDUSTRY]) if self.less == INDUSTRY else None
        return {
            "class": type(self).__name__,
            "days": self.days,
            "less": self.less,
            "wait_days": self.wait_days,
            "industries": industries,
            **identity(store, self.rules),
        }

    def values(self, market: MarketPanel, store: QlibStore) -> LabelValues:
        trading = trading_days(store, market.instruments, self.rules, market.calendar)
        buys, sells = trading.traded & ~trading.upper, trading.traded & ~trading.lower
        sale = self._sales(sells)
        made = buys & (sale >= 0)
        gained = np.where(made, _gain(market.field("close"), sale), np.nan)
        if self._instrument is not None:
            (index,) = store.read(["close"], [self._instrument])
            index = index[store.calendar.get_indexer(market.calendar)]
            gained -= _gain(np.broadcast_to(index, sale.shape), sale)
        label = np.full(gained.shape, np.nan)
        known = max(0, len(label) - self.horizon_days)
        label[:known] = gained[1 : known + 1]
        if self.less in (UNIVERSE, INDUSTRY):
            label[~market.present] = np.nan
            label = neutralize(label, self._groups(market, store))
        label = label.astype(np.float32)
        return LabelValues(lambda days: label[days], (*trading.notes, *self._notes(market, buys, made)))

    def _sales(self, sells: np.ndarray) -> np.ndarray:
        """Of a purchase on each day the day of its sale, `[D, S]`; -1 where there is none in time."""
        days = len(sells)
        place = np.arange(days, dtype=np.int32)[:, None]
        following = np.minimum.accumulate(np.where(sells, place, np.int32(days))[::-1], axis=0)[::-1]
        sale = np.full(sells.shape, -1, np.int32)
        kept = max(0, days - self.days)
        due = following[self.days :]
        in_time = (due < days) & (due - place[:kept] <= self.days + self.wait_days)
        sale[:kept] = np.where(in_time, due, np.int32(-1))
        return sale

    def _groups(self, market: MarketPanel, store: QlibStore) -> np.ndarray:
        if self.less == UNIVERSE:
            return np.zeros(market.members.shape, np.int32)
        return SideConcepts(INDUSTRY).load(store, market).numbers(*market.members.shape)

    def _notes(self, market: MarketPanel, buys: np.ndarray, made: np.ndarray) -> list[str]:
        """How many returns nobody could have earned, of those that lie within the store."""
        rows = market.present[: max(0, len(made) - self.horizon_days)]
        if not rows.any():
            return []
        bought, sold = (float(plane[1 : len(rows) + 1][rows].mean()) for plane in (buys, made))
        note = (
            f"a return over {self.days} days: {1 - bought:.1%} of the rows have none, since the stock could not be bought at the "
            f"close of the next day, and {bought - sold:.1%}, since it could not be sold within {self.wait_days} days of its time"
        )
        return [note]


def _gain(close: np.ndarray, sale: np.ndarray) -> np.ndarray:
    """Return of a purchase at each close `[D, S]`, sold at that of the day `sale`."""
    values = close.astype(np.float64)
    with np.errstate(divide="ignore", invalid="ignore"):
        return np.take_along_axis(values, np.maximum(sale, 0), axis=0) / values - 1
