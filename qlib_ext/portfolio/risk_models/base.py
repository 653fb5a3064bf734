"""What every risk model is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.market.store import QlibStore
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class RiskModel(Rebuildable, ABC):
    """From what is known on a day to the forecast covariance of the stocks' daily returns.

    Attributes
    ----------
    days_back
        Days that it looks back, today's included.
    """

    days_back: int = 250

    def factors(self, store: QlibStore) -> set[str] | None:
        """Names that its factors may have on a store; None where only a day tells."""
        return None

    @abstractmethod
    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        """The risk of the N stocks, and what a reader should know of it, as sentences.

        Stocks that it cannot estimate (listed too lately) have NaN: they are not bought, and what is held of them stays.
        """
