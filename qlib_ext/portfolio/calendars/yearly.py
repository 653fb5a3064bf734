"""Every year."""

from __future__ import annotations

from qlib_ext.portfolio.calendars.periodic import Periodic


class Yearly(Periodic):
    """Rebalances on the first trading day of each year."""

    period = "Y"
