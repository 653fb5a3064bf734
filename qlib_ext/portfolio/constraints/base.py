"""What every constraint is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Box, Limit
from qlib_ext.portfolio.known_day import Bools, KnownDay
from qlib_ext.portfolio.risk import Risk


class Constraint(Rebuildable, ABC):
    """What a portfolio must keep to; on each day it comes to bounds and limits.

    Attributes
    ----------
    name
        What it is called in messages, reports and the order of relaxing, such as "turnover".
    days_back
        Days that it looks back, today's included.
    shorts
        Whether it lets weights be below 0.
    asks
        Names of the side data that it cannot do without, such as `industry`.
    """

    name: str
    shorts: bool = False
    days_back: int = 1
    asks: tuple[str, ...] = ()

    def check_store(self, store: QlibStore, factors: set[str] | None) -> None:
        """Raise a UserError where it names what neither the store nor the risk model's `factors` can have.

        Parameters
        ----------
        store
            That the portfolio will be of.
        factors
            As `RiskModel.factors` has them.
        """

    def box(self, known: KnownDay) -> Box | None:
        """Bounds of single weights; None where it sets none."""
        return None

    @abstractmethod
    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """What it comes to beside bounds; empty where there is nothing more."""

    def kept(self, weights: Floats, known: KnownDay) -> Bools | None:
        """The stocks `[N]` that may keep a weight after a first solution; None where all may.

        What no convex limit can say, such as a number of names, is kept to in steps: the problem is solved, stocks are left
        out, and it is solved again with the rest.
        """
        return None

    def invested(self) -> tuple[float, float] | None:
        """Least and most that may be invested, as shares of the account; None where it says nothing of it."""
        return None

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """What a reader should know of the day, as sentences: of which stocks it knew too little, and what it did with them."""
        return []
