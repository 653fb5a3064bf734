"""Every month."""

from __future__ import annotations

from qlib_ext.portfolio.calendars.periodic import Periodic


class Monthly(Periodic):
    """Rebalances on the first trading day of each month."""

    period = "M"
