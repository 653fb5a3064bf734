"""Weights below 0: stocks that are sold without being held."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, above, between
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Box, Gross, Limit, gross_words, percent
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class LongShort(Constraint):
    """A portfolio may be short: its weights together, without their signs, and with them, stay within these.

    A stock that cannot be sold on a day is not sold short on it. The exchange of the backtest must lend stocks, for a yearly fee
    that is its `borrowing` and is taken by the day; the optimiser does not know of it.

    Parameters
    ----------
    gross
        Most of long and short weights together, without signs: 2.0 is as much short as the account's whole value, and as much
        long.
    net
        Long less short weights: 0 is as much short as long.
    most_short
        Largest short weight of a stock.

    Raises
    ------
    UserError
        If one is out of its range, or the net is above the gross.
    """

    name = "long_short"
    shorts = True

    def __init__(self, gross: float = 2.0, net: float = 0.0, most_short: float = 0.05) -> None:
        self.gross = above("gross", gross, 0)
        self.net = between("net", net, -10, 10)
        if abs(net) > gross:
            raise UserError(f"`net` must lie between -gross and gross, found {net} with a gross of {gross}")
        self.most_short = above("most_short", most_short, 0)

    def box(self, known: KnownDay) -> Box:
        """Down to the largest short weight."""
        count = len(known.codes)
        words = f"short weights of at most {percent(self.most_short)}"
        return Box(self.name, words, np.full(count, -self.most_short), np.full(count, np.inf))

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """The gross weight."""
        return [Gross(self.name, gross_words(self.gross), self.gross)]

    def invested(self) -> tuple[float, float]:
        """The net weight."""
        return self.net, self.net
