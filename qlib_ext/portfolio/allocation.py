"""What decides on target weights, and its decision of a day."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.market.side_data.table import MARKET_VALUE
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.relaxing import Relaxed
from qlib_ext.portfolio.risk import Risk


@dataclass(frozen=True)
class Decision:
    """The weights of a day, and how they came about.

    Attributes
    ----------
    known
        The day.
    weights
        `[N]` of all stocks of the day; the rest is cash.
    risk
        Of all of them; NaN where it is not known.
    expected
        `[N]` expected returns of a day; None where there are none.
    relaxed
        The limits that had to give way.
    moved
        How far the optimiser's own weights were from what is allowed, as the forecast standard deviation of a day's return
        between the two; 0 where they were allowed, or it found none.
    told
        What a reader should know, as sentences.
    kept
        Whether nothing could be found, and the account stays as it is.
    problem
        What was asked in the end, after limits gave way: of the stocks whose risk is known. None where there was no one problem.
    """

    known: KnownDay
    weights: Floats
    risk: Risk
    expected: Floats | None
    relaxed: tuple[Relaxed, ...] = ()
    moved: float = 0.0
    told: tuple[str, ...] = ()
    kept: bool = False
    problem: Problem | None = None


class Allocation(Rebuildable, ABC):
    """Decides on target weights day by day: one portfolio, or several that are combined.

    Attributes
    ----------
    days_back
        Days of the market that a decision looks back over.
    benchmark
        What deviations are measured from: `equal`, the universe at equal weight, or `value`, by market value.
    index
        Code of the index that betas are to; None for the mean of the stocks.
    horizon
        As `KnownDay.horizon`.
    min_trade
        Smallest change of a weight that is traded, unless a holding is sold whole.
    shorts
        Whether weights may be below 0.
    """

    shorts: bool = False
    benchmark: str
    index: str | None
    horizon: tuple[int, int]
    min_trade: float

    @property
    @abstractmethod
    def days_back(self) -> int:
        """Days of the market that a decision looks back over."""

    @property
    def asks(self) -> set[str]:
        """Names of the side data that no decision can do without."""
        return {MARKET_VALUE} if self.benchmark == "value" else set()

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError where a part names what the store cannot have."""

    @abstractmethod
    def decide(self, known: KnownDay) -> Decision:
        """Weights of a day."""

    def memory(self) -> dict[str, Any]:
        """What later days go by, ready for JSON; empty where each day stands alone."""
        return {}

    def recall(self, kept: Mapping[str, Any]) -> None:
        """Go on from what `memory` gave."""
