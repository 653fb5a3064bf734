"""On which days a stock stood at its price limit, by the rules of its exchange."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.market.rules.exchange_rules import ISSUE_PRICE, ExchangeRules
from qlib_ext.market.side_data.rows import FAR
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore

STATUS = "status"  # the table of side data with what the exchange says of a stock, such as ST
MARGIN = 0.005  # by how much a close may miss the limit where limit prices cannot be told
NEAR_A_TICK = 0.1  # of a tick, from a price in single precision to the price that it was
MOST = 0.95  # share of a stock's closes near a tick from which on its factor is taken at its word
LONG = 1_000_000  # days: past any first days


@dataclass(frozen=True)
class AtLimit:
    """Where a price limit forbids to trade.

    Attributes
    ----------
    up, down
        bool, a value for each row of the quotes: a purchase would have been at the upper limit, a sale at the lower.
    notes
        What a reader of the results should know, as sentences.
    """

    up: np.ndarray
    down: np.ndarray
    notes: list[str]


def at_limit(
    quotes: pd.DataFrame, rules: ExchangeRules, store: QlibStore, *, buy: str, sell: str, factors: bool
) -> AtLimit:
    """Compare the prices of trades with the limits of their days.

    The limit price is the reference price times one plus or minus the limit, rounded to the tick, half up, and at least
    a tick from the reference price. The reference is the last adjusted close before the day over the day's factor: the
    close as it was traded, less the dividend of a day that has one, rounded to the tick too. A stock whose closes
    over factors, up to the day, are no multiples of the tick has a factor that does not lead to prices as they were traded: its moves
    are compared instead, and a move within `MARGIN` of the limit counts: more than
    rounding can take off a price of one unit of currency or more.

    A limit that is relative to the issue price cannot be told from bars; nor can one of a stock without an earlier
    close. A purchase then counts as at the limit, where new shares nearly always stood on such days.

    Parameters
    ----------
    quotes
        Indexed by `instrument` and `datetime`, with `$close`, `$factor`, `buy` and `sell`.
    rules
        The exchange's.
    store
        Off which earlier closes, first days and the side data `status` are read.
    buy, sell
        The columns with the prices of purchases and sales. Where one is missing or 0, the trade is at the close.
    factors
        Whether the store has complete factors.

    Returns
    -------
    AtLimit
        False for a row without a price.
    """
    codes = [*quotes.index.get_level_values("instrument").unique()]
    stocks = pd.Index(codes).get_indexer(quotes.index.get_level_values("instrument"))
    dates = quotes.index.get_level_values("datetime")
    days = store.calendar.get_indexer(dates)
    closes, ratios = store.read(["close", "factor"], codes)[:, : days.max(initial=0) + 1].astype(np.float64)
    last, first = last_and_first(closes)
    previous = last[days, stocks]
    reference = np.where(previous >= 0, closes[previous, stocks], np.nan)
    statuses, notes = _statuses(rules, store, codes, dates, stocks)
    limit, of_issue = _limits(rules, store, codes, stocks, days, first, statuses)

    close = quotes["$close"].to_numpy(dtype=np.float64)
    factor = quotes["$factor"].to_numpy(dtype=np.float64)
    on_tick = np.zeros(closes.shape, dtype=bool)
    if factors:
        on_tick = _on_tick(closes / ratios / rules.tick)
        limited = np.zeros(len(codes), dtype=bool)
        limited[stocks[~np.isnan(limit).all(axis=0)]] = True
        off = int((limited & ~on_tick[-1]).sum())
        if off:
            notes.append(
                f"of {off} of {len(codes)} stocks close over factor is no multiple of {rules.tick:g}: a move within "
                f"{100 * MARGIN:g} points of their price limit counts as at it"
            )
    unknown = of_issue | np.isnan(reference)
    by_tick = on_tick[days, stocks] & ~np.isnan(factor)
    found = []
    for way, column, size in ((1, buy, limit[1]), (-1, sell, limit[0])):
        price = quotes[column].to_numpy(dtype=np.float64)
        price = np.where(np.isnan(price) | (price <= 1e-8), close, price)
        exact = _beyond(price, reference, factor, size, way, rules.tick)
        by_move = way * (price / reference - 1) >= size - MARGIN
        found.append(~np.isnan(size) & np.where(by_tick, exact, by_move))
    up = (found[0] & ~unknown) | (unknown & ~np.isnan(limit[1]) & ~np.isnan(close))
    return AtLimit(up, found[1] & ~unknown, notes)


def _beyond(
    price: np.ndarray,
    reference: np.ndarray,
    factor: np.ndarray,
    size: np.ndarray,
    way: int,
    tick: float,
) -> np.ndarray:
    """Whether prices lie at their limit price or beyond, all in ticks; see `at_limit`."""
    base = _half_up(reference / factor / tick)
    bound = _half_up(base * (1 + way * size))
    bound = np.maximum(bound, base + 1) if way > 0 else np.maximum(np.minimum(bound, base - 1), 1)
    # Half a tick: prices come in single precision, and a mean price so near hardly left the limit all day.
    return way * (price / factor / tick - bound) >= -0.5


def _half_up(ticks: np.ndarray) -> np.ndarray:
    return np.floor(ticks + 0.5 + 1e-6)


def _on_tick(ticks: np.ndarray) -> np.ndarray:
    """By day and stock `[D, S]`, whether nearly all of its prices up to that day are multiples of the tick."""
    near = np.cumsum(np.abs(ticks - np.round(ticks)) < NEAR_A_TICK, axis=0, dtype=np.int32)
    there = np.cumsum(~np.isnan(ticks), axis=0, dtype=np.int32)
    return near >= np.maximum(MOST * there, 1)


def last_and_first(close: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Of closes `[D, S]` the day of the last one before each day, -1 for none, `[D, S]`; and that of the first, `[S]`."""
    there = ~np.isnan(close)
    day = np.where(there, np.arange(len(close))[:, None], -1)
    last = np.maximum.accumulate(day, axis=0)
    before = np.vstack([np.full((1, close.shape[1]), -1), last[:-1]])
    return before, np.where(there.any(axis=0), there.argmax(axis=0), LONG)


def _statuses(
    rules: ExchangeRules, store: QlibStore, codes: list[str], dates: pd.DatetimeIndex, stocks: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Of each row the number of its status in `rules.statuses`, -1 for none; and notes."""
    found = np.full(len(stocks), -1)
    if not rules.statuses:
        return found, []
    side = SideData(store)
    if STATUS not in side:
        note = (
            f"the store has no side data `{STATUS}`, so that no stock is known to be {', '.join(rules.statuses)}: each "
            "has the price limit of its board"
        )
        return found, [note]
    table = side.read(STATUS, "spells")
    place = {code: number for number, code in enumerate(codes)}
    names, unknown = [*rules.statuses], set()
    order = np.argsort(stocks, kind="stable")
    begins = np.searchsorted(stocks[order], np.arange(len(codes) + 1))
    for code, start, end, word in table.frame[["instrument", "start", "end", table.column]].itertuples(
        index=False
    ):
        status = rules.status(str(word))
        if status is None:
            unknown.add(str(word))
            continue
        number = place.get(str(code).upper())
        if number is None:
            continue
        rows = order[begins[number] : begins[number + 1]]
        inside = (dates[rows] >= start) & (dates[rows] <= (FAR if pd.isna(end) else end))
        found[rows[inside]] = names.index(status)
    notes = []
    if unknown:
        notes.append(
            f"the side data `{STATUS}` has words without rules of their own: {', '.join(sorted(unknown)[:5])}"
        )
    return found, notes


def _limits(
    rules: ExchangeRules,
    store: QlibStore,
    codes: list[str],
    stocks: np.ndarray,
    days: np.ndarray,
    first: np.ndarray,
    statuses: np.ndarray,
) -> tuple[np.ndarray, np.ndarray]:
    """Limits down and up `[2, rows]`, NaN for none, and whether they are relative to the issue price."""
    boards = [*rules.boards]
    board = np.array([boards.index(rules.board(code)) for code in codes], dtype=np.int64)[stocks]
    # A stock that is there on the store's first day may be of any age.
    age = np.where((first[stocks] > 0) & (first[stocks] < LONG), days - first[stocks], LONG)
    age = np.minimum(age, rules.first_days)
    listed = np.where(age < rules.first_days, first[stocks], -1)
    keys = np.stack([board, days, statuses, age, listed])
    above = keys - keys.min(axis=1, keepdims=True, initial=0)
    # as one number each: numpy sorts those far quicker than columns
    numbers = np.ravel_multi_index(tuple(above), above.max(axis=1, initial=0) + 1)
    _, places, rows = np.unique(numbers, return_index=True, return_inverse=True)
    keys = keys[:, places]
    names = [*rules.statuses]
    sizes, of_issue = np.full((2, keys.shape[1]), np.nan), np.zeros(keys.shape[1], dtype=bool)
    for k, (b, d, s, a, begin) in enumerate(keys.T):
        limit = rules.price_limit(
            boards[b],
            store.calendar[d],
            status=None if s < 0 else names[s],
            listed=None if begin < 0 else store.calendar[begin],
            age=None if begin < 0 else int(a),
        )
        sizes[:, k] = [np.nan if size is None else size for size in (limit.down, limit.up)]
        of_issue[k] = limit.reference == ISSUE_PRICE
    return sizes[:, rows], of_issue[rows]
