"""Every week."""

from __future__ import annotations

from qlib_ext.checks import one_of
from qlib_ext.portfolio.calendars.periodic import Periodic

# The day that a week begins with, and pandas' name of that week, which is by its last day.
WEEKS = {
    "monday": "W-SUN",
    "tuesday": "W-MON",
    "wednesday": "W-TUE",
    "thursday": "W-WED",
    "friday": "W-THU",
}


class Weekly(Periodic):
    """Rebalances on the first trading day of each week.

    Parameters
    ----------
    begins
        Day of the week that a week begins with, in small letters. What a result owes to the day shows itself when another is
        taken.
    """

    period = "W-SUN"

    def __init__(self, begins: str = "monday") -> None:
        self.period = WEEKS[one_of("begins", begins, tuple(WEEKS))]
