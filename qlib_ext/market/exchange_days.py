"""Trading days of exchanges, and until when on a day something is known at its close."""

from __future__ import annotations

import functools

import exchange_calendars
import numpy as np
import pandas as pd
from exchange_calendars.errors import InvalidCalendarName

from qlib_ext.checks import UserError, brief, nearest

EXCHANGES = {"cn": "XSHG", "us": "XNYS"}  # of a region, by default
LONGEST_BREAK = 20  # days without trading, and more
_SOME = ("2020-01-01", "2020-03-31")  # a short calendar is quickly made, and knows its bounds and time zone


def exchange_timezone(exchange: str) -> str:
    """Name of the time zone of an exchange such as XSHG; an unknown exchange is a UserError."""
    return str(_known(exchange).tz)


def exchange_days(exchange: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
    """Days on which an exchange traded, from `first` to `last`, both included.

    Parameters
    ----------
    exchange
        Name in `exchange_calendars`, such as XSHG or XNYS.
    first, last
        Days without a time zone.

    Raises
    ------
    UserError
        If the exchange is unknown, or the library does not know its days so early or so late.
    """
    known = _known(exchange)
    low, high = known.bound_min(), known.bound_max()
    if (low is not None and first < low) or (high is not None and last > high):
        span = f"{'' if low is None else f'from {low.date()} '}{'' if high is None else f'to {high.date()}'}".strip()
        raise UserError(
            f"the days of {exchange} are known {span}, and the data are of {first.date()} to {last.date()}: take "
            "the days of the data with `--calendar data`, or install a newer exchange_calendars"
        )
    days = pd.DatetimeIndex(_sessions(exchange, first.year, last.year).sessions, freq=None)
    return days[(days >= first) & (days <= last)]


def next_day(region: str, day: pd.Timestamp) -> pd.Timestamp:
    """The trading day after one, by the calendar of a region's exchange; the next weekday where that does not know it.

    Parameters
    ----------
    region
        Such as `cn`; of one that is none of `EXCHANGES`, weekdays are taken.
    day
        Without a time zone.
    """
    weekday = day + pd.offsets.BDay(1)
    if region not in EXCHANGES:
        return weekday
    try:
        later = exchange_days(
            EXCHANGES[region], day + pd.Timedelta(days=1), day + pd.Timedelta(days=LONGEST_BREAK)
        )
    except UserError:  # a year ahead, exchanges have not said yet
        return weekday
    return weekday if later.empty else later[0]


def day_of_knowing(moments: pd.DatetimeIndex, exchange: str) -> pd.DatetimeIndex:
    """The day at whose close something is known: that of its time stamp, the next one where it came after the close.

    Parameters
    ----------
    moments
        In the exchange's local time; one at midnight is a day without a time. NaT stays so.
    exchange
        Such as XSHG, which closes at 15:00; on days of an early close, that counts.

    Notes
    -----
    What comes on a day without trading has its own date, and is known at the next close like all that is dated so. A
    stamp of the very second of the close is of the day.
    """
    days = moments.normalize()
    timed = moments[moments != days].dropna()
    if timed.empty:
        return days
    known = _known(exchange)
    low, high = (
        each.year if bound is None else bound.year
        for bound, each in ((known.bound_min(), timed.min()), (known.bound_max(), timed.max()))
    )
    calendar = _sessions(exchange, *(min(max(day.year, low), high) for day in (timed.min(), timed.max())))
    usual = pd.Timedelta(f"{calendar.close_times[-1][1]}")
    closes = pd.DatetimeIndex(calendar.closes.to_numpy(), tz="UTC").tz_convert(calendar.tz).tz_localize(None)
    own = pd.Series(closes - closes.normalize(), calendar.sessions).reindex(days).fillna(usual).to_numpy()
    late = (moments - days).to_numpy() > own
    return days + pd.to_timedelta(late.astype(np.int64), unit="D")


@functools.lru_cache(maxsize=32)
def _known(exchange: str) -> exchange_calendars.ExchangeCalendar:
    try:
        return exchange_calendars.get_calendar(exchange, start=_SOME[0], end=_SOME[1])
    except InvalidCalendarName as error:
        names = exchange_calendars.get_calendar_names()
        raise UserError(
            f"`exchange` must be a name in exchange_calendars such as XSHG or XNYS, found {brief(exchange)}"
            f"{nearest(exchange, names)}"
        ) from error


@functools.lru_cache(maxsize=32)  # making one takes half a second
def _sessions(exchange: str, first_year: int, last_year: int) -> exchange_calendars.ExchangeCalendar:
    """The calendar of whole years, as far as they are known."""
    known = _known(exchange)
    start, end = pd.Timestamp(first_year, 1, 1), pd.Timestamp(last_year, 12, 31)
    low, high = known.bound_min(), known.bound_max()
    return exchange_calendars.get_calendar(
        exchange,
        start=start if low is None else max(start, low),
        end=end if high is None else min(end, high),
    )
