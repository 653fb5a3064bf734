"""Every quarter."""

from __future__ import annotations

from qlib_ext.portfolio.calendars.periodic import Periodic


class Quarterly(Periodic):
    """Rebalances on the first trading day of each quarter."""

    period = "Q"
