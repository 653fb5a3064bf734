"""How many stocks a portfolio has."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Box, Limit, percent
from qlib_ext.portfolio.known_day import Bools, KnownDay
from qlib_ext.portfolio.risk import Risk


class NumberOfNames(Constraint):
    """At most so many stocks, and at least so many.

    Parameters
    ----------
    most
        Largest number of stocks; None for any.
    least
        Smallest number of stocks; None for any.

    Raises
    ------
    UserError
        If neither is set, one is below 1, or the smallest is above the largest.

    Notes
    -----
    At most: the problem is solved with all stocks, those with the largest weights are kept, and it is solved again with these
    alone. That keeps to the number; it is not the best choice of so many stocks, which no solver finds in useful time. Stocks that
    cannot be sold are kept and counted first, so more are held only where more cannot be sold.

    At least: no weight is larger than one over the number, which with all of the account invested takes so many stocks or more.
    """

    name = "names"

    def __init__(self, most: int | None = None, least: int | None = None) -> None:
        if most is None and least is None:
            raise UserError("`most` or `least` must be set, found neither")
        self.least = None if least is None else integer("least", least, 1)
        self.most = None if most is None else integer("most", most, self.least or 1)

    def box(self, known: KnownDay) -> Box | None:
        """A largest weight, for the smallest number."""
        if self.least is None:
            return None
        count, most = len(known.codes), 1 / self.least
        words = f"weights of at most {percent(most)} (at least {self.least} stocks)"
        return Box(self.name, words, np.full(count, -np.inf), np.full(count, most))

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """None."""
        return []

    def kept(self, weights: Floats, known: KnownDay) -> Bools | None:
        """Those of the largest weights; of equal ones the first by code."""
        if self.most is None:
            return None
        stuck = ~known.sellable & (known.held != 0)
        size = np.where(stuck, np.inf, np.abs(weights))
        first = np.argsort(-size, kind="stable")[: max(self.most, int(stuck.sum()))]
        return np.isin(np.arange(len(weights)), first) & (size > 0)
