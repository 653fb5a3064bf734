"""Calendars of periods: what the weekly, monthly, quarterly and yearly one share."""

from __future__ import annotations

from abc import ABC, abstractmethod

import pandas as pd

from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance


class Periodic(Calendar, ABC):
    """Rebalances on the first day of each period that is traded, be it the exchange's first or a later one."""

    @property
    @abstractmethod
    def period(self) -> str:
        """Pandas' name of the period."""

    def _again(
        self, day: pd.Timestamp, last: pd.Timestamp, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        return bool(day.to_period(self.period) != last.to_period(self.period))
