"""The small market with days on which nobody could trade, and a naive answer to which they are."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

PRICES = ("close", "open", "high", "low", "vwap")
SUSPENDED, UP, UP_LOCKED, DOWN, DOWN_LOCKED = range(1, 6)


def untradable(tiny: Any, seed: int = 3) -> Any:
    """Of `tiny` a market in which stocks are suspended with a close that is carried on, or stand at their limits."""
    draw = np.random.default_rng(seed)
    bars = {name: values.copy() for name, values in tiny.bars.items()}
    close = bars["close"]
    days, stocks = close.shape[0], close.shape[1] - 1  # the last is the index
    kinds = np.where(draw.random((days, stocks)) < 0.08, draw.integers(1, 6, (days, stocks)), 0)
    for day in range(1, days):
        for stock in range(stocks):
            kind, before, now = kinds[day, stock], close[day - 1, stock], close[day, stock]
            if not kind or np.isnan(before) or np.isnan(now):
                continue
            move = {SUSPENDED: 1.0, UP: 1.1, UP_LOCKED: 1.1, DOWN: 0.9, DOWN_LOCKED: 0.9}[kind]
            for name in PRICES:
                bars[name][day:, stock] *= before * move / now
            if kind in (SUSPENDED, UP_LOCKED, DOWN_LOCKED):
                for name in PRICES:
                    bars[name][day, stock] = close[day, stock]
            if kind == SUSPENDED:
                bars["volume"][day, stock] = 0.0
    return replace(tiny, bars=bars)


class Naive:
    """Whether a stock of the main board could be traded on a day, told by a loop over days."""

    def __init__(self, tiny: Any) -> None:
        planes = {name: values.astype(np.float32).astype(np.float64) for name, values in tiny.bars.items()}
        self.close, self.volume = planes["close"], planes["volume"]
        self.one_price = planes["high"] == planes["low"]
        self.days = len(self.close)

    def traded(self, day: int, stock: int) -> bool:
        return not np.isnan(self.close[day, stock]) and self.volume[day, stock] > 0

    def at(self, day: int, stock: int) -> str | None:
        """At which limit the close stands."""
        earlier = [x for x in self.close[:day, stock] if not np.isnan(x)]
        if not earlier:
            return "up"  # a new share
        move = self.close[day, stock] / earlier[-1] - 1
        return "up" if move >= 0.095 else "down" if move <= -0.095 else None

    def buys(self, day: int, stock: int) -> bool:
        return self.traded(day, stock) and self.at(day, stock) != "up"

    def sells(self, day: int, stock: int) -> bool:
        return self.traded(day, stock) and self.at(day, stock) != "down"

    def tradable(self, day: int, stock: int) -> bool:
        locked = self.at(day, stock) is not None and bool(self.one_price[day, stock])
        return self.traded(day, stock) and not locked


def industries(tiny: Any, seed: int = 5) -> pd.DataFrame:
    """Spells of industries: each stock changes once, and the last has none."""
    draw = np.random.default_rng(seed)
    rows = []
    for code in tiny.codes[:-2]:
        cut = int(draw.integers(20, 180))
        first, second = draw.integers(0, 3, 2)
        rows.append((code, tiny.calendar[0], tiny.calendar[cut - 1], f"industry {first}"))
        rows.append((code, tiny.calendar[cut], tiny.calendar[-1], f"industry {second}"))
    return pd.DataFrame(rows, columns=["instrument", "start", "end", "industry"])
