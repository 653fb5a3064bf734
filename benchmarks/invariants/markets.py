"""Made markets of whole fen, with all that an exchange has rules for."""

from __future__ import annotations

import datetime as dt
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd

from benchmarks.invariants import plain_rules
from qlib_ext.market.store import write_store

INDEX, NO_PRICES = "SH000300", "SH600999"  # the second has a factor that does not lead to prices in fen
DAYS, STOCKS = 40, 48
# So that changes of the rules lie inside: duties, price limits, new boards. As many as share no factor with 8, so that
# every eighth market, whose store has no factor, is of each.
ERAS = (
    "2004-12-27",
    "2007-05-09",
    "2008-04-07",
    "2008-08-28",
    "2010-06-01",
    "2013-12-09",
    "2015-07-10",
    "2019-07-22",
    "2020-08-03",
    "2022-04-11",
    "2023-03-20",
    "2023-08-07",
    "2026-06-12",
)


@dataclass(frozen=True)
class Made:
    """A market as its maker knows it.

    Attributes
    ----------
    calendar
        D days.
    codes
        S codes; the last but one has a factor that does not lead to prices in fen.
    prices
        Name (`open`, `close`) -> prices as traded in fen, int `[D, S]`; 0 where there is no price.
    reference
        The last close, less a dividend, in fen, int `[D, S]`.
    down, up
        Limit prices in fen, int `[D, S]`; 0 where there is no limit.
    closed_to_buyers
        bool `[D, S]`: first days with a limit relative to the issue price.
    still
        bool `[D, S]`: without a price or without volume.
    factor
        float `[D, S]`, as the store has it.
    has_factor
        Whether the store has it.
    """

    calendar: pd.DatetimeIndex
    codes: list[str]
    prices: dict[str, np.ndarray]
    reference: np.ndarray
    down: np.ndarray
    up: np.ndarray
    closed_to_buyers: np.ndarray
    still: np.ndarray
    factor: np.ndarray
    has_factor: bool


def make_market(root: Path, seed: int) -> Made:
    """Make a market and write its store, with a side data `status`, to `root`."""
    draw = np.random.default_rng([seed, 1])
    calendar = pd.bdate_range(ERAS[seed % len(ERAS)], periods=DAYS)
    codes = _codes(draw, calendar[0].date())
    shape = DAYS, len(codes)
    start = np.where(draw.random(len(codes)) < 0.3, draw.integers(1, DAYS - 8, len(codes)), 0)
    special = _spells(draw, shape, 0.2)
    halted = _spells(draw, shape, 0.5)
    bogus = len(codes) - 2
    start[[bogus, -1]] = 0
    halted[:, bogus] = False
    silent = halted & (draw.random(len(codes)) < 0.7)  # the store carries their close; the others have none
    ends = np.where(draw.random(len(codes)) < 0.1, draw.integers(DAYS // 2, DAYS, len(codes)), DAYS)
    ends[[bogus, -1]] = DAYS

    close, opening = np.zeros(shape, dtype=np.int64), np.zeros(shape, dtype=np.int64)
    down, up, references = (np.zeros(shape, dtype=np.int64) for _ in range(3))
    closed = np.zeros(shape, dtype=bool)
    factor = np.ones(shape)
    days: list[dt.date] = [day.date() for day in calendar]
    for s, code in enumerate(codes):
        last = int(np.exp(draw.uniform(np.log(110), np.log(20_000))))
        ratio = float(draw.choice([1.0, 3.7, 0.0213, 40.0]))
        for d in range(start[s], ends[s]):
            if halted[d, s] and d > start[s]:
                factor[d, s] = ratio
                if silent[d, s]:
                    close[d, s] = opening[d, s] = last
                continue
            reference = last
            if d > start[s] and draw.random() < 0.04:  # a dividend or new shares for nothing
                reference = max(20, round(last * draw.uniform(0.5, 0.995)))
                ratio *= last / reference
            references[d, s] = reference
            listed = (days[start[s]], d - start[s]) if start[s] else (None, None)
            percent = plain_rules.limit_percent(code, days[d], bool(special[d, s]), *listed)
            if percent is None or percent == plain_rules.ISSUE:
                closed[d, s] = percent == plain_rules.ISSUE
                bounds = (10, 100 * reference)
            else:
                bounds = plain_rules.limit_prices(reference, percent)
                down[d, s], up[d, s] = bounds
            opening[d, s], close[d, s] = (_price(draw, reference, bounds) for _ in range(2))
            factor[d, s], last = ratio, int(close[d, s])
    there = close > 0
    still = ~there | halted & (np.arange(DAYS)[:, None] > start)
    made = np.array([1.2345 if s == bogus else 1.0 for s in range(len(codes))])
    has_factor = seed % 8 != 7
    bars = {
        "close": np.where(there, close / 100 * factor, np.nan),
        "open": np.where(there, opening / 100 * factor, np.nan),
        "volume": np.where(
            there, np.where(still, 0.0, np.round(10 ** draw.uniform(3, 8, shape)) / factor), np.nan
        ),
        "change": np.full(shape, np.nan),
    }
    if has_factor:
        bars["factor"] = np.where(there, factor * made, np.nan)
    spells = pd.DataFrame({"instrument": codes, "start": calendar[0], "end": calendar[-1]})
    write_store(root, calendar, codes, bars, {"csi300": spells})
    _write_status(root, calendar, codes, special)
    stored = (factor * made).astype(np.float32).astype(np.float64)
    return Made(
        calendar=calendar,
        codes=codes,
        prices={"open": opening, "close": close},
        reference=references,
        down=down,
        up=up,
        closed_to_buyers=closed,
        still=still,
        factor=stored,
        has_factor=has_factor,
    )


def _codes(draw: np.random.Generator, first: dt.date) -> list[str]:
    """Codes of the boards that there are, one whose factor is wrong, and the index."""
    begins = ["SH60", "SZ00"]
    begins += ["SZ30"] * (first >= dt.date(2009, 10, 30)) + ["SH68"] * (first >= plain_rules.STAR_OPENS)
    found = []
    for begin in draw.choice(begins, STOCKS):
        number = draw.integers(0, 1000)
        found.append(f"{begin}{'8' if begin == 'SH68' else '0'}{number:03d}")
    return [*sorted({*found} - {NO_PRICES}), NO_PRICES, INDEX]


def _spells(draw: np.random.Generator, shape: tuple[int, int], share: float) -> np.ndarray:
    """One spell each for a share of the stocks, never of the index."""
    found = np.zeros(shape, dtype=bool)
    for s in range(shape[1] - 1):
        if draw.random() < share:
            begin = draw.integers(0, shape[0])
            found[begin : begin + draw.integers(1, 12), s] = True
    return found


def _price(draw: np.random.Generator, reference: int, bounds: tuple[int, int]) -> int:
    """A price inside the bounds, often at one of them or a fen away."""
    low, high = bounds
    kind = draw.random()
    if high < 50 * reference and kind < 0.3:
        return int([high, low, max(low, high - 1), min(high, low + 1)][int(kind / 0.3 * 4)])
    return int(np.clip(round(reference * np.exp(draw.normal(0, 0.03))), low, high))


def _write_status(root: Path, calendar: pd.DatetimeIndex, codes: list[str], special: np.ndarray) -> None:
    """The table of side data of stocks under special treatment."""
    rows = [
        (code, calendar[held[0]], calendar[held[-1]], word)
        for code, column, word in zip(codes, special.T, ["ST", "*ST"] * len(codes), strict=False)
        if len(held := np.flatnonzero(column))
    ]
    (root / "side").mkdir()
    table = pd.DataFrame(rows, columns=["instrument", "start", "end", "status"])
    table.to_parquet(root / "side" / "status.parquet")
