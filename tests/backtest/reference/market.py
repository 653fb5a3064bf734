"""A made market as plain lists: nothing of Qlib, of pandas or of the package in it."""

from __future__ import annotations

import datetime as dt
import math
from dataclasses import dataclass, field

MISSING = math.nan


@dataclass(frozen=True)
class Bar:
    """A stock's bar of a day, adjusted, as a store holds it; NaN is missing."""

    close: float = MISSING
    change: float = MISSING
    factor: float = MISSING
    volume: float = MISSING

    @property
    def priced(self) -> bool:
        return not math.isnan(self.close)


@dataclass(frozen=True)
class Market:
    """Trading days, and for each stock a bar and a score a day.

    A score is None where the signal has no row, NaN where it has one without a number. `special` has, by stock, the
    first and the last day on which it is ST.
    """

    days: list[dt.date]
    bars: dict[str, list[Bar]]
    scores: dict[str, list[float | None]]
    special: dict[str, tuple[int, int]] = field(default_factory=dict)

    def bar(self, code: str, day: int) -> Bar:
        return self.bars[code][day]

    def scores_of(self, day: int) -> dict[str, float]:
        """Code to score of a day, of the stocks that have a row."""
        return {code: row[day] for code, row in self.scores.items() if row[day] is not None}

    def last_close_before(self, code: str, day: int) -> float | None:
        for bar in reversed(self.bars[code][:day]):
            if bar.priced:
                return bar.close
        return None

    def first_priced(self, code: str) -> int | None:
        for day, bar in enumerate(self.bars[code]):
            if bar.priced:
                return day
        return None

    def lots_known(self) -> bool:
        """Whether every close of the days of trading has a factor: without it nobody knows what a real share is."""
        for row in self.bars.values():
            for bar in row[1:-1]:
                if bar.priced and math.isnan(bar.factor):
                    return False
        return True

    def volumes_known(self) -> bool:
        """Whether any stock has a volume on the days of trading: without one nobody knows who was suspended."""
        return any(bar.volume > 0 for row in self.bars.values() for bar in row[1:-1])
