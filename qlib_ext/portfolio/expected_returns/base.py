"""What every model of expected returns is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class ExpectedReturns(Rebuildable, ABC):
    """From what is known on a day to the expected return of each stock.

    Attributes
    ----------
    days_back
        Days of scores and returns that it looks back, today's included.
    asks
        Names of the side data that it cannot do without.
    """

    days_back: int = 1
    asks: tuple[str, ...] = ()

    @abstractmethod
    def estimate(self, known: KnownDay, risk: Risk) -> Floats | None:
        """Expected return of a day `[N]`, as a fraction; NaN where it has nothing to say of a stock.

        None where it says nothing of any, and risk alone decides.
        """
