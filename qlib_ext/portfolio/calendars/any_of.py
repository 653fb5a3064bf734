"""When one of several calendars says so."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance


class AnyOf(Calendar):
    """Rebalances when any of several calendars does: every month, and in between when the weights have drifted.

    Parameters
    ----------
    calendars
        List of `{class, kwargs}`.
    """

    def __init__(self, calendars: Sequence[Mapping[str, Any] | Calendar]) -> None:
        if not isinstance(calendars, (list, tuple)) or not calendars:
            raise UserError(f"`calendars` must be a list of at least one, found {brief(calendars)}")
        self.calendars = [build(each, Calendar, name="calendars") for each in calendars]
        self.remembers = any(each.remembers for each in self.calendars)

    def _again(
        self, day: pd.Timestamp, last: pd.Timestamp, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        return any(each.due(day, last, days, since) for each in self.calendars)
