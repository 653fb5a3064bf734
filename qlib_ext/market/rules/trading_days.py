"""On which days a stock could be traded at all, and at which of its closes nobody would have bought or sold."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.market.rules.exchange_rules import ExchangeRules
from qlib_ext.market.rules.price_limits import MARGIN, STATUS, at_limit, last_and_first
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore

FIELDS = ("close", "volume", "high", "low")


@dataclass(frozen=True)
class TradingDays:
    """Days and stocks, each `[D, S]` bool; what is said of a day follows from it and the days before.

    Attributes
    ----------
    traded
        There are a close and a volume above 0: the stock was not suspended.
    upper, lower
        It traded, and its close stands at the upper or the lower price limit: nobody buys at the one, nobody sells at
        the other.
    locked
        So it was all day long: its high is its low.
    notes
        What a reader of the results should know, as sentences.
    """

    traded: np.ndarray
    upper: np.ndarray
    lower: np.ndarray
    locked: np.ndarray
    notes: tuple[str, ...] = ()

    @property
    def tradable(self) -> np.ndarray:
        """Neither suspended nor locked at a limit all day."""
        return self.traded & ~self.locked


def trading_days(
    store: QlibStore, codes: Sequence[str], rules: ExchangeRules, days: pd.DatetimeIndex | None = None
) -> TradingDays:
    """Look at the days of some stocks.

    Parameters
    ----------
    store
        It has `close` and `volume`; without `high` and `low` nothing counts as locked all day.
    codes
        Of the S stocks.
    rules
        The exchange's: their price limits by board, date and status, see `at_limit`. A stock of none of their boards has
        no limit, which a note says.
    days
        D days of the store; all by default. What is said of one follows from those before it, whether they are among these
        or not.

    Raises
    ------
    UserError
        If no stock is of any of their boards.
    """
    close, volume, high, low = store.read(FIELDS, codes)
    traded = ~np.isnan(close) & (volume > 0)
    upper, lower = np.zeros_like(traded), np.zeros_like(traded)
    limited, notes = _limited(codes, rules)
    rows, stocks = np.nonzero(traded & limited & _far(close, rules.smallest_limit - 2 * MARGIN))
    if len(rows):
        (factor,) = store.read(["factor"], codes)
        index = pd.MultiIndex(
            levels=[[*codes], store.calendar], codes=[stocks, rows], names=["instrument", "datetime"]
        )
        columns = {"$close": close[rows, stocks], "$factor": factor[rows, stocks]}
        quotes = pd.DataFrame(columns, index=index, dtype=np.float64)
        with np.errstate(divide="ignore", invalid="ignore"):
            there = not np.isnan(factor).all()
            found = at_limit(quotes, rules, store, buy="$close", sell="$close", factors=there)
        upper[rows, stocks], lower[rows, stocks] = found.up, found.down
        notes += found.notes
    locked = (high == low) & (upper | lower)
    wanted = slice(None) if days is None else store.calendar.get_indexer(days)
    return TradingDays(traded[wanted], upper[wanted], lower[wanted], locked[wanted], tuple(notes))


def identity(store: QlibStore, rules: ExchangeRules) -> dict[str, str | None]:
    """What decides which days are found beside the bars, ready for JSON."""
    side = SideData(store)
    return {"rules": rules.digest, "status": side.fingerprint([STATUS]) if STATUS in side else None}


def _limited(codes: Sequence[str], rules: ExchangeRules) -> tuple[np.ndarray, list[str]]:
    """Which stocks are of a board, `[S]` bool, and what there is to say of the others."""
    limited = np.array([rules.has_board(code) for code in codes], dtype=bool)
    others = [code for code, known in zip(codes, limited, strict=True) if not known]
    if not others:
        return limited, []
    if not limited.any():
        rules.board(others[0])  # says what the rules know
    note = (
        f"the exchange rules {rules.name} name no board for {len(others)} of {len(codes)} stocks, such as {others[0]}: "
        "they count as without price limits"
    )
    return limited, [note]


def _far(close: np.ndarray, least: float) -> np.ndarray:
    """Closes that moved by at least so much from the last one before; those without one too, unless no move is enough."""
    if not np.isfinite(least):
        return np.zeros(close.shape, dtype=bool)
    last, _ = last_and_first(close)
    before = np.where(last >= 0, np.take_along_axis(close, np.maximum(last, 0), axis=0), np.nan)
    with np.errstate(divide="ignore", invalid="ignore"):
        return ~(np.abs(close / before - 1) < least)
