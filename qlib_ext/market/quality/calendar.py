"""The calendar: its lines, and its days against those on which the exchange was open."""

from __future__ import annotations

import functools
from dataclasses import dataclass
from datetime import date

import exchange_calendars
import numpy as np
import pandas as pd

from qlib_ext.market.finding import Findings, Kind, listed
from qlib_ext.market.quality.source import Source

FILE = "calendars/day.txt"
# Below this share of common days the store has another exchange's days, and single ones say nothing.
AGREEMENT = 0.9
# The longest pause of a large exchange in decades is 11 days (Shanghai, the spring of 2020).
LONGEST_GAP_DAYS = 14
# A holiday on which at least this share of the stocks of days around traded was none.
OPEN_SHARE = 0.5

KINDS = (
    Kind("calendar-empty", "error", "the calendar has no day", "bars count their days by it; none can be dated"),
    Kind("calendar-unparsable", "error", "a line of the calendar is no day",
         "Qlib fails on it, and to leave it out would shift every bar after it"),
    Kind("calendar-format", "warning", "a day of the calendar is not written YYYY-MM-DD",
         "software that compares days as text goes wrong", "writes it as YYYY-MM-DD"),
    Kind("calendar-time-of-day", "warning", "a day of the calendar has a time of day",
         "it is later than the same day without one, so that spells and segments lose their first or last day",
         "writes the day alone"),
    Kind("calendar-unsorted", "error", "a day of the calendar comes after a later one",
         "days are searched for by bisection, and found wrongly",
         "sorts the calendar, and every file of bars with it"),
    Kind("calendar-doubled-day", "error", "a day of the calendar is there twice",
         "a return of 0 stands between the two, or a bar on either",
         "joins the two days where no stock has different bars on them"),
    Kind("calendar-weekend", "error", "a day of the calendar is a Saturday or Sunday",
         "the exchange was closed: every window and label over the day is wrong",
         "takes the day out where no stock has any bar on it"),
    Kind("calendar-holiday", "error", "a day of the calendar is a holiday of the exchange, and no stock trades on it",
         "every window and label over the day is wrong", "takes the day out where no stock has any bar on it"),
    Kind("calendar-extra-session", "warning", "stocks trade on a day that is a holiday of the exchange",
         "the day may be of another exchange, or its date wrong"),
    Kind("calendar-missing-day", "error", "a day on which the exchange was open is not in the calendar",
         "the return of two days counts as one day's"),
    Kind("calendar-not-exchange", "warning",
         "the calendar is not that of the exchange that the import named, or else that the codes look like",
         "holidays and missing days could not be told"),
    Kind("calendar-gap", "warning", f"more than {LONGEST_GAP_DAYS} days lie between two days of the calendar",
         "trading days are missing; returns over the gap count as one day's"),
    Kind("calendar-future", "warning", "the calendar has days that are still to come",
         "bars on them cannot be true, and a workflow that runs to the end runs into nothing"),
)  # fmt: skip


def check_lines(source: Source, found: Findings) -> None:
    """What the lines of the calendar show by themselves."""
    if source.calendar_problem is not None:
        found.add("unreadable-file", f"{FILE} {source.calendar_problem}", file=FILE)
    if not source.lines:
        found.add(
            "calendar-empty", f"{FILE} has no day: bars cannot be dated, and were not checked", file=FILE
        )
        return
    days = source.days
    none = np.isnat(days)
    if none.any():
        line = int(np.argmax(none))
        message = f"day {line} of {FILE} is {_cut(source.lines[line])!r}{_more(none, 'lines')}"
        found.add("calendar-unparsable", message, FILE, count=int(none.sum()))
    odd = ~np.array(source.plain) & ~none
    timed = np.array([":" in line or "T" in line for line in source.lines]) & odd
    for kind, mask in (("calendar-time-of-day", timed), ("calendar-format", odd & ~timed)):
        if mask.any():
            line = int(np.argmax(mask))
            message = f"{FILE} has {_cut(source.lines[line])!r}{_more(mask, 'days')}"
            found.add(kind, message, FILE, date=days[line], count=int(mask.sum()))
    known = days[~none]
    steps = np.diff(known).astype(int)
    back = np.flatnonzero(steps < 0)
    if back.size:
        message = f"{known[back[0] + 1]} comes after {known[back[0]]}, and {back.size} such in all"
        found.add("calendar-unsorted", message, FILE, date=known[back[0] + 1], count=back.size)
    unique, counts = np.unique(known, return_counts=True)
    twice = unique[counts > 1]
    if twice.size:
        message = f"{_days(twice)} there more than once"
        found.add("calendar-doubled-day", message, FILE, date=twice[0], count=int((counts - 1).sum()))
    future = unique[unique > np.datetime64(date.today(), "D")]
    if future.size:
        message = f"{_days(future)} still to come"
        found.add("calendar-future", message, FILE, date=future[0], count=future.size)


def sessions(name: str | None, first: np.datetime64, last: np.datetime64) -> np.ndarray:
    """Days from `first` to `last` on which an exchange was open, as far as known: datetime64[D]."""
    none = np.array([], dtype="M8[D]")
    if name is None:
        return none
    default = exchange_calendars.get_calendar(name)
    earliest = type(default).bound_min() or pd.Timestamp("1970-01-01")
    latest = type(default).bound_max() or default.sessions[-1]
    start, end = max(pd.Timestamp(first), earliest), min(pd.Timestamp(last), latest)
    if start >= end:
        return none
    return _open_days(name, str(start.date()), str(end.date()))


@functools.lru_cache(maxsize=16)
def _open_days(name: str, start: str, end: str) -> np.ndarray:
    """Sessions of an exchange; kept, since a repair asks for them three times."""
    try:
        calendar = exchange_calendars.get_calendar(name, start=start, end=end)
    except exchange_calendars.errors.NoSessionsError:
        return np.array([], dtype="M8[D]")
    return calendar.sessions.to_numpy().astype("M8[D]")


@dataclass(frozen=True)
class Sessions:
    """The days of a calendar beside those of its exchange.

    Attributes
    ----------
    agreement : float or None
        Share of common days among the days of either; None where the exchange is not known.
    weekends, extra, missing : datetime64[D]
        Days of the calendar on a weekend (none where there are many: a market that never closes); on a weekday on
        which the exchange was closed; days on which it was open and which the calendar lacks.
    sessions : int
        How many days the exchange was open.
    """

    agreement: float | None
    weekends: np.ndarray
    extra: np.ndarray
    missing: np.ndarray
    sessions: int

    @property
    def known(self) -> bool:
        """Whether calendar and exchange agree so far that a single day says something."""
        return self.agreement is not None and self.agreement >= AGREEMENT


def compare(days: np.ndarray, exchange: str | None) -> Sessions:
    """The days of a calendar (datetime64[D], in any order) beside those of an exchange."""
    none = np.array([], dtype="M8[D]")
    known = np.unique(days[~np.isnat(days)])
    if not known.size:
        return Sessions(None, none, none, none, 0)
    weekends = known[~np.is_busday(known)]
    if len(weekends) >= 0.1 * len(known):
        weekends = none
    open_days = sessions(exchange, known[0], known[-1])
    weekends = np.setdiff1d(weekends, open_days)  # some exchanges open on Sundays
    if not open_days.size:
        return Sessions(None, weekends, none, none, 0)
    inside = known[(known >= open_days[0]) & (known <= open_days[-1])]
    agreement = len(np.intersect1d(inside, open_days)) / len(np.union1d(inside, open_days))
    extra = np.setdiff1d(np.setdiff1d(inside, open_days), weekends)
    return Sessions(agreement, weekends, extra, np.setdiff1d(open_days, inside), len(open_days))


def check_sessions(source: Source, traded: np.ndarray, found: Findings) -> float | None:
    """The calendar against the exchange's; how far they agree.

    Parameters
    ----------
    source, found
        What is checked, and where findings go.
    traded
        Stocks that traded, by line of the calendar: int `[D]`.
    """
    days = source.days
    known = np.unique(days[~np.isnat(days)])
    if not known.size:
        return None
    result = compare(days, source.exchange)
    exchange = source.exchange or "the exchange"
    _tell("calendar-weekend", result.weekends, "on a weekend", found)
    if result.known:
        _tell("calendar-missing-day", result.missing, f"missing, on which {exchange} was open", found)
        usual = np.median(traded[traded > 0]) if (traded > 0).any() else 0.0
        most = np.array([traded[days == day].max() for day in result.extra])
        opened = most > OPEN_SHARE * usual
        _tell("calendar-holiday", result.extra[~opened], f"no trading day of {exchange}", found)
        _tell(
            "calendar-extra-session",
            result.extra[opened],
            f"no trading day of {exchange}, yet stocks trade",
            found,
        )
        return result.agreement
    if result.agreement is not None:
        others = np.concatenate([result.weekends, result.extra])
        message = (
            f"{len(others)} of {len(known)} days are none of {exchange}, and {len(result.missing)} of its "
            f"{result.sessions} days from {known[0]} to {known[-1]} are missing"
        )
        found.add(
            "calendar-not-exchange",
            message,
            FILE,
            date=min([*others, *result.missing]),
            count=len(others) + len(result.missing),
        )
    gaps = np.diff(known).astype(int)
    wide = np.flatnonzero(gaps > LONGEST_GAP_DAYS)
    if wide.size:
        message = f"{gaps[wide[0]]} days lie between {known[wide[0]]} and {known[wide[0] + 1]}" + (
            f", and {wide.size} such gaps in all" if wide.size > 1 else ""
        )
        found.add("calendar-gap", message, FILE, date=known[wide[0]], count=wide.size)
    return result.agreement


def _tell(kind: str, days: np.ndarray, what: str, found: Findings) -> None:
    if days.size:
        found.add(kind, f"{_days(days)} {what}", file=FILE, date=days[0], count=days.size)


def _days(days: np.ndarray) -> str:
    """`2010-01-04 is`, `2010-01-04 and 2010-01-05 are`."""
    return f"{listed([str(day) for day in days])} {'is' if len(days) == 1 else 'are'}"


def _more(mask: np.ndarray, what: str) -> str:
    return f", and {int(mask.sum())} such {what} in all" if mask.sum() > 1 else ""


def _cut(text: str) -> str:
    return text if len(text) <= 40 else text[:40] + "…"
