"""A market without the prices at which nobody could trade."""

from __future__ import annotations

import numpy as np

from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.rules.exchange_rules import ExchangeRules
from qlib_ext.market.rules.trading_days import trading_days
from qlib_ext.market.store import QlibStore

PRICES = ("open", "high", "low", "close", "vwap")
MARK = "tradable"  # the field that is made


def with_tradable_prices(
    market: MarketPanel, store: QlibStore, rules: ExchangeRules
) -> tuple[MarketPanel, list[str]]:
    """The market as features may see it: a price at which nobody could trade is that of the last day that had one.

    A stock cannot be traded on a day without a bar or a volume (suspended), and on one that it spends at its price limit
    from the first trade to the last (locked: its high is its low).

    Parameters
    ----------
    market
        The bars.
    store
        That they were read from.
    rules
        The exchange's: their price limits by board, date and status.

    Returns
    -------
    market : MarketPanel
        With one more field, `tradable`: 1 where the stock could be traded, else 0. Volume and other fields stay as they
        are. The rows are those of the bars, and statistics of a day are of its rows.
    notes : list of str
        What a reader of the results should know, as sentences.

    Notes
    -----
    A day follows from itself and the days before. A stock that could never be traded yet has no price.
    """
    trading = trading_days(store, market.instruments, rules, market.calendar)
    tradable = trading.tradable
    days, stocks = market.members.shape
    empty = 0 if market.padded is None else len(market.padded) - days
    padded = np.full((empty + days, stocks, len(market.fields) + 1), np.nan, np.float32)
    values = padded[empty:].transpose(2, 0, 1)
    last = np.maximum.accumulate(np.where(tradable, np.arange(days, dtype=np.int32)[:, None], -1), axis=0)
    for plane, field in zip(values, market.fields, strict=False):
        plane[...] = market.field(field)
        if field in PRICES:
            filled = np.take_along_axis(plane, np.maximum(last, 0), axis=0)
            plane[...] = np.where(last >= 0, filled, np.float32(np.nan))
    values[-1] = np.where(market.listed, tradable, np.float32(np.nan))
    seen = MarketPanel(
        fields=(*market.fields, MARK),
        calendar=market.calendar,
        instruments=market.instruments,
        values=values,
        members=market.present,
        missing_fields=market.missing_fields,
        padded=padded,
        known_present=market.present,
    )
    seen.__dict__["listed"] = market.listed  # by the bars: a price that is carried on makes no day of a stock
    rows = int(market.present.sum())
    share = float((market.present & ~tradable).sum()) / max(rows, 1)
    locked = float((market.present & trading.locked).sum()) / max(rows, 1)
    note = (
        f"windows hold no price at which nobody could trade: on {share:.1%} of the rows ({locked:.1%} locked at a price limit all "
        f"day, the rest suspended) prices are those of the last day before that could be traded, by the exchange rules {rules.name}"
    )
    return seen, [*trading.notes, note]
