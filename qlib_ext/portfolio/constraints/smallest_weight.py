"""The smallest weight that is worth holding."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import between
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Limit
from qlib_ext.portfolio.known_day import Bools, KnownDay
from qlib_ext.portfolio.problem import TOLERANCE
from qlib_ext.portfolio.risk import Risk


class SmallestWeight(Constraint):
    """A stock has no weight, or at least this one.

    Parameters
    ----------
    least
        Smallest weight that is held, as a share of the account.

    Raises
    ------
    UserError
        If it does not lie between 0 and 1.

    Notes
    -----
    No convex limit says so. The problem is solved with all stocks, those below are left out, and it is solved again with the rest,
    until none is below. Stocks that cannot be sold are kept, whatever their weight.
    """

    name = "smallest_weight"

    def __init__(self, least: float) -> None:
        self.least = between("least", least, 0, 1, open_low=True)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """None."""
        return []

    def kept(self, weights: Floats, known: KnownDay) -> Bools:
        """Those that reach it."""
        return (np.abs(weights) >= self.least - TOLERANCE) | (~known.sellable & (known.held != 0))
