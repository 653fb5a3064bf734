"""Every day."""

from __future__ import annotations

from qlib_ext.portfolio.calendars.periodic import Periodic


class Daily(Periodic):
    """Rebalances on every trading day."""

    period = "D"
