"""What every constraint is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Limit
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class Constraint(Rebuildable, ABC):
    """What a portfolio must keep to; on each day it comes to bounds and limits.

    Attributes
    ----------
    name
        What it is called in messages and reports, such as "turnover".
    most_names
        Most stocks to hold; None for any number. The portfolio keeps the largest weights and solves again.
    least_weight
        Smallest weight to hold; the portfolio drops what is smaller and solves again.
    shorts
        Whether its lower bounds, below 0, take the place of 0.
    """

    name: str
    most_names: int | None = None
    least_weight: float = 0.0
    shorts: bool = False

    def bounds(self, known: KnownDay) -> tuple[Floats, Floats]:
        """Lowest and highest weight of each stock, `[N]` each; infinite where it sets none."""
        unbound = np.full(len(known.codes), np.inf)
        return -unbound, unbound

    @abstractmethod
    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """What it comes to beside bounds; empty where there is nothing more."""
