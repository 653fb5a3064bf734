"""How much of a stock's trading a portfolio may be."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, above, integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import missing
from qlib_ext.portfolio.constraints.limits import Box, Limit, percent
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class Capacity(Constraint):
    """What is traded of a stock in a rebalance, and what is held of it, are at most some share of its traded value of a day.

    The traded value of a day is the mean of the last days; a day without trading counts as 0. A stock without any traded value
    is not bought, and may be sold; it is told.

    Parameters
    ----------
    traded
        Most of a day's traded value that one rebalance may trade, as a fraction; None for any.
    held
        Most that may be held, in days of traded value: 2.0 is what is traded in two days; None for any.
    days
        Days of the mean.

    Raises
    ------
    UserError
        If neither is set, or one is not above 0.

    Notes
    -----
    A holding that is too large to be sold at once has a smallest weight on this day. A holding above `held` need not be sold
    faster than `traded` allows.
    """

    name = "capacity"

    def __init__(self, traded: float | None = None, held: float | None = None, days: int = 20) -> None:
        if traded is None and held is None:
            raise UserError("`traded` or `held` must be set, found neither")
        self.traded = None if traded is None else above("traded", traded, 0)
        self.held = None if held is None else above("held", held, 0)
        self.days_back = integer("days", days, 1)

    def box(self, known: KnownDay) -> Box:
        """In shares of the account."""
        usual = self._traded_value(known) / known.account
        low, high, said = np.full(len(usual), -np.inf), np.full(len(usual), np.inf), []
        if self.held is not None:
            low, high = -self.held * usual, self.held * usual
            said.append(f"holdings of at most {self.held:g} days of traded value")
        if self.traded is not None:
            least, most = known.held - self.traded * usual, known.held + self.traded * usual
            low, high = np.clip(low, least, most), np.clip(high, least, most)
            said.append(f"trades of at most {percent(self.traded)} of a day's traded value")
        none = usual <= 0
        low, high = (
            np.where(none, np.minimum(known.held, 0), low),
            np.where(none, np.maximum(known.held, 0), high),
        )
        return Box(self.name, " and ".join(said), low, high)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """None."""
        return []

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """How many are not bought."""
        return missing("the traded value", ~(self._traded_value(known) > 0), "none of them is bought")

    def _traded_value(self, known: KnownDay) -> Floats:
        """`[N]` mean of a day, in currency."""
        return np.nan_to_num(known.plane("traded_value")[-self.days_back :]).mean(axis=0)
