"""Side data: what a store knows beside its bars, each table with the day on which it was known.

A table `<store>/side/<name>.parquet` (or `.csv`) has one of three shapes, told by its columns:

========  ===========================================================  ===========================================
shape     columns                                                      known
========  ===========================================================  ===========================================
spells    instrument, start, end (both days included; no end: still    from `start` on
          in force) and what the stock belongs to, such as `industry`;
          a stock may have several at once
values    datetime, instrument and a number, such as `market_value`    at the close of `datetime`
series    series, period (1998, 1998Q1, 1998-01 or 1998-01-31),        from `release_date` on; a later release of
          value, release_date; `stated_lag` says where release dates   the same period is a revision
          were made from a lag
========  ===========================================================  ===========================================

The last column of spells and values has the name of the table; where there is but one more column, it may have any.
Other files in the folder are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import integer, nearest
from qlib_ext.market.finding import Finding
from qlib_ext.market.side_data.side_table import (
    FAR,
    KEYS,
    KINDS,
    SideTable,
    fault,
    read_header,
    read_table,
    shape_of,
)
from qlib_ext.market.store import QlibStore, StoreError

__all__ = ["KINDS", "SideData", "SideDataError", "SideTable", "as_of", "beside_store", "problems"]

FOLDER = "side"
SUFFIXES = (".parquet", ".csv")
ENDS_EARLY_DAYS = {"spells": 30, "values": 30, "series": 200}  # calendar days


class SideDataError(StoreError):
    """Side data are missing, or hold what cannot be used."""


class SideData:
    """The side data of a store.

    Parameters
    ----------
    store
        A store, or its root directory. A store without side data is one without names.

    Raises
    ------
    SideDataError
        If a name has both a Parquet and a CSV file.
    """

    def __init__(self, store: QlibStore | str | Path):
        self.root = store.root if isinstance(store, QlibStore) else Path(store).expanduser()
        self._paths: dict[str, Path] = {}
        self._tables: dict[str, SideTable] = {}
        for name, paths in _files(self.root).items():
            if len(paths) > 1:
                raise self._error(_two_files(paths))
            self._paths[name] = paths[0]

    def __repr__(self) -> str:
        return f"SideData({str(self.root)!r})"

    def __contains__(self, name: object) -> bool:
        return name in self._paths

    def names(self) -> list[str]:
        """Names of the tables, sorted."""
        return sorted(self._paths)

    def path(self, name: str) -> Path:
        """The file of a table; SideDataError that lists the known ones where there is none."""
        if name not in self._paths:
            known = ", ".join(self.names()) or "nothing"
            raise SideDataError(
                f"`{self.root}` has no side data {name!r}{nearest(str(name), self.names())}, it has {known}; "
                f"`qlib-ext data side-data DIR {name} FILE` brings a table in"
            )
        return self._paths[name]

    def shape(self, name: str) -> str:
        """The shape of a table by its columns; its rows are not read. SideDataError where they fit none."""
        path = self.path(name)
        try:
            columns = read_header(path)
        except (ValueError, OSError) as error:
            text = " ".join(str(error).split())
            message = f"`{_within(path)}` is no Parquet or CSV table: {text}"
            raise self._error(fault("side-unreadable", message)) from error
        found = shape_of(name, columns, f"`{_within(path)}`")
        if isinstance(found, Finding):
            raise self._error(found)
        return found[0]

    def read(self, name: str, shape: str | None = None) -> SideTable:
        """Read a table; it is kept for the next time.

        Parameters
        ----------
        name
            One of `names()`.
        shape
            What the table must be; any by default.

        Raises
        ------
        SideDataError
            If it is not there, of another shape, or has any fault of severity `error`; the message tells the first
            one, how many rows have it, and how many other kinds of fault there are.
        """
        if name not in self._tables:
            path = self.path(name)
            table, found = read_table(path, _within(path))
            errors = [finding for finding in found if finding.severity == "error"]
            if errors or table is None:
                raise self._error(*errors)
            self._tables[name] = table
        table = self._tables[name]
        if shape is not None and table.shape != shape:
            raise SideDataError(
                f"the side data {name!r} of `{self.root}` must be a table of {shape} ({', '.join(KEYS[shape])}), "
                f"found one of {table.shape}"
            )
        return table

    def values(
        self, name: str, calendar: pd.DatetimeIndex, instruments: Sequence[str], limit_days: int
    ) -> np.ndarray:
        """A table of values as known at the close of each day.

        Parameters
        ----------
        name
            A table of the shape `values`.
        calendar
            D days, ascending.
        instruments
            S codes.
        limit_days
            How many calendar days a number is carried forward, over suspensions and between rows; 0 carries none.

        Returns
        -------
        float32 `[D, S]`
            The newest number dated the day or before; NaN where there is none that is new enough. A number dated a
            day without trading is known at the next close.
        """
        table = self.read(name, "values")
        rows = table.frame
        numbers = rows[table.column].to_numpy()
        return as_of(rows["datetime"], rows["instrument"], numbers, calendar, instruments, limit_days)

    def fingerprint(self, names: Iterable[str] | None = None) -> str:
        """16 hex digits of the content of the files of `names`, all by default: equal wherever the store lies."""
        digest = hashlib.sha256()
        for name in sorted(self.names() if names is None else set(names)):
            path = self.path(name)
            digest.update(f"\0{path.name}\0{path.stat().st_size}\0".encode())
            with path.open("rb") as file:
                while chunk := file.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()[:16]

    def _error(self, *errors: Finding) -> SideDataError:
        more = len(errors) - 1
        rest = f"; there are {more} other kinds of fault, see `qlib-ext data check`" if more else ""
        return SideDataError(f"{errors[0].message}{rest} (in the store `{self.root}`)")


def as_of(
    dates: pd.Series,
    codes: pd.Series,
    numbers: np.ndarray,
    calendar: pd.DatetimeIndex,
    instruments: Sequence[str],
    limit_days: int,
) -> np.ndarray:
    """Rows (date, code, number) as float32 `[D, S]`, the newest of each stock by each day; see `SideData.values`."""
    integer("limit_days", limit_days, 0)
    columns = pd.Index([code.upper() for code in instruments])
    categories = codes.astype("category").cat
    stock = columns.get_indexer(categories.categories)[categories.codes.to_numpy()]
    stamp = dates.to_numpy().astype("M8[D]").astype(np.int32)
    days = calendar.to_numpy().astype("M8[D]").astype(np.int32)
    day = days.searchsorted(stamp, side="left")
    inside = (stock >= 0) & (day < len(days))
    stock, stamp, day, numbers = stock[inside], stamp[inside], day[inside], numbers[inside]
    if np.any(np.diff(stamp) < 0):  # of two rows that fall on one trading day the later is to be written last
        order = np.argsort(stamp, kind="stable")
        stock, stamp, day, numbers = stock[order], stamp[order], day[order], numbers[order]
    values = np.full((len(days), len(columns)), np.nan, dtype=np.float32)
    values[day, stock] = numbers
    known = np.full(
        values.shape, np.iinfo(np.int32).min // 2, dtype=np.int32
    )  # the number's date; none: long ago
    known[day, stock] = stamp
    for t in range(len(days)):  # a day at a time: the planes of a whole market are large
        if t:
            older = known[t] < known[t - 1]
            values[t, older] = values[t - 1, older]
            known[t, older] = known[t - 1, older]
    for t, today in enumerate(days):
        values[t, known[t] < today - limit_days] = np.nan
    return values


def problems(
    root: str | Path,
    names: Iterable[str] | None = None,
    *,
    calendar: pd.DatetimeIndex | None = None,
    instruments: Sequence[str] | None = None,
) -> list[Finding]:
    """What is wrong with the side data of a store; nothing that a file may hold raises.

    The store around them may be broken: only the folder `side` is read.

    Parameters
    ----------
    root
        The store's directory.
    names
        Tables to look at; all by default.
    calendar
        The store's trading days, for rows that lie outside of them; without it such checks are left out.
    instruments
        Codes that have bars, for codes that are not among them; without it such checks are left out.

    Returns
    -------
    list of Finding
        Each of one of `KINDS`, in the order of the files; all rows of a file with the same fault are one finding.
    """
    root = Path(root).expanduser()
    found: list[Finding] = []
    wanted = None if names is None else set(names)
    for name, paths in _files(root).items():
        if wanted is not None and name not in wanted:
            continue
        if len(paths) > 1:
            found.append(_two_files(paths))
        for path in paths:
            table, of_table = read_table(path, _within(path))
            found += of_table
            if table is not None and len(table.frame):
                of_store = beside_store(table, calendar, instruments)
                found += [replace(finding, file=_within(path)) for finding in of_store]
    return found


def _files(root: Path) -> dict[str, list[Path]]:
    """Name -> its files in the side folder of a store, sorted by name."""
    folder = root / FOLDER
    found: dict[str, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in SUFFIXES and path.is_file() and not path.name.startswith("."):
                found.setdefault(path.stem, []).append(path)
    return found


def _within(path: Path) -> str:
    """The path of a file of side data within its store."""
    return f"{FOLDER}/{path.name}"


def _two_files(paths: Sequence[Path]) -> Finding:
    names = " and ".join(f"`{_within(path)}`" for path in paths)
    message = f"{names} are of one name: remove one of them"
    return fault("side-two-files", message, file=_within(paths[0]), count=len(paths))


def beside_store(
    table: SideTable, calendar: pd.DatetimeIndex | None, instruments: Sequence[str] | None
) -> list[Finding]:
    """What only the calendar and the codes of a store show of a table."""
    return [*_beside_codes(table, instruments), *_beside_calendar(table, calendar)]


def _beside_codes(table: SideTable, instruments: Sequence[str] | None) -> list[Finding]:
    """What only the codes that have bars show."""
    if instruments is None or table.shape == "series":
        return []
    known = {code.upper() for code in instruments}
    codes = set(table.frame["instrument"].cat.remove_unused_categories().cat.categories)
    unknown, covered = sorted(codes - known), len(codes & known)
    found = []
    if not covered:
        message = (
            f"none of the {len(codes)} codes of `{table.name}` has bars, such as {unknown[0]}; write codes as the "
            f"store does, such as {min(known, default='none')}"
        )
        return [fault("side-no-known-code", message, instrument=unknown[0], count=len(codes))]
    if unknown:
        message = (
            f"{len(unknown)} of the {len(codes)} codes of `{table.name}` have no bars, such as {unknown[0]}"
        )
        found.append(fault("side-unknown-code", message, instrument=unknown[0], count=len(unknown)))
    if 2 * covered < len(known):
        message = f"`{table.name}` has rows for {covered} of the {len(known)} instruments that have bars"
        found.append(fault("side-few-stocks", message, count=len(known) - covered))
    return found


def _beside_calendar(table: SideTable, calendar: pd.DatetimeIndex | None) -> list[Finding]:
    """What only the trading calendar shows."""
    if calendar is None or not len(calendar):
        return []
    rows, start, end = table.frame, calendar[0], calendar[-1]
    first = rows[{"spells": "start", "values": "datetime", "series": "release_date"}[table.shape]]
    last = rows["end"].fillna(FAR) if table.shape == "spells" else first
    outside = (first > end).to_numpy()
    if (
        table.shape != "series"
    ):  # a figure of before is known on the first day, and what changes are taken from
        outside |= (last < start).to_numpy()
    found = []
    if outside.any():
        message = (
            f"{int(outside.sum())} of the {len(rows)} rows of `{table.name}` lie outside of the calendar, "
            f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        )
        date = f"{first.iloc[int(np.argmax(outside))]:%Y-%m-%d}"
        kind = "side-nothing-inside" if outside.all() else "side-outside-calendar"
        found.append(fault(kind, message, date=date, count=int(outside.sum())))
    newest = last.max()
    if not outside.all() and (end - newest).days > ENDS_EARLY_DAYS[table.shape]:
        message = (
            f"`{table.name}` ends on {newest:%Y-%m-%d}, {(end - newest).days} days before the bars, which end on "
            f"{end:%Y-%m-%d}"
        )
        found.append(fault("side-ends-early", message, date=f"{newest:%Y-%m-%d}"))
    return found
