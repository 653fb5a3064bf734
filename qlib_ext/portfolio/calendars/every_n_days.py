"""Every n trading days."""

from __future__ import annotations

import pandas as pd

from qlib_ext.checks import UserError, integer
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance


class EveryNDays(Calendar):
    """Rebalances on every n-th trading day, counted from the first of those that the account knows.

    Where such a day passes without a rebalance, the next day stands in for it.

    Parameters
    ----------
    days
        n.
    phase
        The first of the days, from 0 to n - 1. What a result owes to it shows itself when all are taken.
    """

    def __init__(self, days: int, phase: int = 0) -> None:
        self.days = integer("days", days, 1)
        self.phase = integer("phase", phase, 0)
        if phase >= days:
            raise UserError(f"`phase` must be below `days`, which is {days}; found {phase}")

    def _again(
        self, day: pd.Timestamp, last: pd.Timestamp, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        turn, turn_then = ((days.searchsorted(one) - self.phase) // self.days for one in (day, last))
        return bool(turn > turn_then)
