"""A day that a configuration names."""

from __future__ import annotations

from datetime import date
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief


def as_day(name: str, value: Any) -> pd.Timestamp:
    """The day that a date, or a text such as `2014-12-31`, stands for.

    Parameters
    ----------
    name
        Of the argument, for messages.
    value
        What the configuration has. A number is no day: pandas would count nanoseconds since 1970.

    Raises
    ------
    UserError
        If it is neither, or there is no such day.
    """
    if isinstance(value, (str, date)):  # a Timestamp and a datetime are dates too
        try:
            day = pd.Timestamp(value)
        except ValueError as error:
            raise UserError(
                f"`{name}` must be a day such as 2014-12-31, found {brief(value)}: {error}"
            ) from error
        if day is not pd.NaT:
            return day
    raise UserError(f"`{name}` must be a day such as 2014-12-31, found {brief(value)}")


def check_range(start: Any, end: Any) -> None:
    """Check a handler's `start_time` and `end_time`, either of which may be None: they are days, and in order."""
    first = None if start is None else as_day("start_time", start)
    last = None if end is None else as_day("end_time", end)
    if first is not None and last is not None and first > last:
        raise UserError(f"`start_time` must not lie after `end_time`, found {start} and {end}")
