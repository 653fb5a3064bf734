"""Rows of a table of rules, each with the day from which it is in force, and the choice among them."""

from __future__ import annotations

import datetime as dt
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, at_least, brief, integer, nearest, one_of

KEYS = ("from", "until", "board", "status", "first_days", "source")  # besides a row's own values


@dataclass(frozen=True)
class Row:
    """A rule that is in force for some boards, statuses and days.

    Attributes
    ----------
    start, until
        First and last day, both included; no `until`: still in force.
    boards
        Names of boards; None: all.
    status
        The status that a stock must have; None: any that has no row of its own.
    first_days
        Of how many trading days after its listing the row tells; None: of all. Such a row is for the stocks that were
        listed from `start` to `until`.
    values
        What the rule says.
    source
        Where it is written.
    """

    start: pd.Timestamp
    until: pd.Timestamp | None
    boards: frozenset[str] | None
    status: str | None
    first_days: int | None
    values: Mapping[str, Any]
    source: str

    def covers(
        self,
        board: str,
        day: pd.Timestamp,
        status: str | None,
        listed: pd.Timestamp | None,
        age: int | None,
    ) -> bool:
        """Whether the rule is in force for a stock; see `choose`."""
        if self.boards is not None and board not in self.boards:
            return False
        if self.status is not None and self.status != status:
            return False
        begin = day
        if self.first_days is not None:
            if listed is None or age is None or age >= self.first_days:
                return False
            begin = listed
        return self.start <= begin and (self.until is None or begin <= self.until)

    def overlaps(self, first: pd.Timestamp, last: pd.Timestamp) -> bool:
        """Whether the rule is in force on any day from `first` to `last`."""
        return self.start <= last and (self.until is None or first <= self.until)


def parse(
    rows: object,
    where: str,
    *,
    takes: Sequence[str],
    boards: Collection[str],
    statuses: Collection[str],
) -> list[Row]:
    """Rows as YAML gives them, checked.

    Parameters
    ----------
    rows
        A list of mappings with `from` and the values `takes`, and those of the other `KEYS` that the row needs.
    where
        The name of the list, for messages.
    takes
        Names of the values; one that ends in `?` may be left out.
    boards, statuses
        What `board` and `status` may name.

    Raises
    ------
    UserError
        If a row is no such mapping.
    """
    if not isinstance(rows, list):
        raise UserError(f"`{where}` must be a list of rows, found {brief(rows)}")
    return [_row(row, f"{where}[{k}]", takes, boards, statuses) for k, row in enumerate(rows)]


def choose(
    rows: Iterable[Row],
    board: str,
    day: pd.Timestamp,
    *,
    status: str | None = None,
    listed: pd.Timestamp | None = None,
    age: int | None = None,
) -> Row | None:
    """The row that holds for a stock on a day; None where there is none.

    Of several, one of the first days after the listing comes before others, then one of the stock's status, then one
    of its board, then the newest, then the one further down in the table.

    Parameters
    ----------
    rows
        In the order of the table.
    board, status
        Of the stock on the day.
    day
        A trading day.
    listed, age
        The day of the listing, and how many trading days have passed since, 0 on the day itself; None: unknown or long
        ago.
    """
    found, best = None, None
    for row in rows:
        if not row.covers(board, day, status, listed, age):
            continue
        rank = (row.first_days is not None, row.status is not None, row.boards is not None, row.start)
        if best is None or rank >= best:
            found, best = row, rank
    return found


def _row(
    row: object, where: str, takes: Sequence[str], boards: Collection[str], statuses: Collection[str]
) -> Row:
    if not isinstance(row, Mapping):
        raise UserError(f"`{where}` must be a mapping with a key `from`, found {brief(row)}")
    values = [name.rstrip("?") for name in takes]
    for key in row:
        if key not in (*KEYS, *values):
            hint = nearest(str(key), [*KEYS, *values])
            raise UserError(
                f"`{where}` has no place for `{key}`{hint}; it takes {', '.join((*KEYS, *values))}"
            )
    for key in ("from", *(name for name in takes if not name.endswith("?"))):
        if key not in row:
            raise UserError(f"`{where}` must have a key `{key}`, found {', '.join(map(str, row))}")
    start, until = _day(row["from"], f"{where}.from"), row.get("until")
    if until is not None:
        until = _day(until, f"{where}.until")
        if until < start:
            raise UserError(
                f"`{where}.until` must not come before `from`, {start:%Y-%m-%d}; found {until:%Y-%m-%d}"
            )
    board, status, first_days = row.get("board"), row.get("status"), row.get("first_days")
    named = None
    if board is not None:
        named = frozenset(board if isinstance(board, list) else [board])
        for name in named:
            one_of(f"{where}.board", name, boards)
    if status is not None:
        one_of(f"{where}.status", status, statuses)
    if first_days is not None:
        integer(f"{where}.first_days", first_days, 1)
    return Row(
        start, until, named, status, first_days, {key: row.get(key) for key in values}, row.get("source", "")
    )


def _day(value: object, where: str) -> pd.Timestamp:
    """A date of YAML, or one in a string."""
    if isinstance(value, str):
        try:
            value = dt.date.fromisoformat(value)
        except ValueError as error:
            raise UserError(f"`{where}` must be a date such as 2023-08-28, found {brief(value)}") from error
    if not isinstance(value, dt.date):
        raise UserError(f"`{where}` must be a date such as 2023-08-28, found {brief(value)}")
    return pd.Timestamp(value)


def share(value: object, where: str) -> float:
    """A rate or a limit: a fraction of at least 0, and below 1, where percent would give themselves away."""
    at_least(where, value, 0)
    number = float(value)  # type: ignore[arg-type]
    if number >= 1:
        raise UserError(f"`{where}` must be a fraction below 1, found {brief(value)}: write 10 % as 0.10")
    return number
