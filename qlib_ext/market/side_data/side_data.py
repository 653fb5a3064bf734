"""Side data: what a store knows beside its bars, each table with the day on which it was known.

A table `<store>/side/<name>.parquet` (or `.csv`) has one of four shapes, told by its columns:

========  ===========================================================  ===========================================
shape     columns                                                      known
========  ===========================================================  ===========================================
spells    instrument, start, end (both days included; no end: still    from `start` on
          in force) and what the stock belongs to, such as `industry`;
          a stock may have several at once
values    datetime, instrument and numbers, such as `market_value`     at the close of `datetime`
market    datetime and numbers of the whole market                     at the close of `datetime`
series    series, period (1998, 1998Q1, 1998-01 or 1998-01-31),        from `release_date` on; a later release of
          value, release_date; `stated_lag` says where release dates   the same period is a revision
          were made from a lag
========  ===========================================================  ===========================================

The last column of spells has the name of the table; where there is but one more column, it may have any. All further
columns of values are numbers, each of which may be missing. Other files in the folder are left alone.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import brief, integer, nearest
from qlib_ext.files import open_file
from qlib_ext.market.finding import Finding
from qlib_ext.market.side_data.faults import fault
from qlib_ext.market.side_data.table import KEYS, SideTable, read_header, read_table, shape_of
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.paths import is_stray

FOLDER = "side"
SUFFIXES = (".parquet", ".csv")


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
        for name, paths in side_files(self.root).items():
            if len(paths) > 1:
                raise self._error(two_files(paths))
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
                f"`{self.root}` has no side data {brief(name)}{nearest(str(name), self.names())}, it has {known}; "
                f"`qlib-ext data side-data DIR {name} FILE` brings a table in"
            )
        return self._paths[name]

    def shape(self, name: str) -> str:
        """The shape of a table by its columns; its rows are not read. SideDataError where they fit none."""
        return self._form(name)[0]

    def fields(self, name: str) -> list[str]:
        """The numbers of a table, by name: columns of values, or series. SideDataError for a table of spells."""
        shape, columns = self._form(name)
        if shape == "spells":
            raise SideDataError(
                f"the side data {brief(name)} of `{self.root}` must hold numbers, found spells, which group stocks: "
                f"`CSNeutralize(x, {name})`"
            )
        if shape == "series":
            return [str(series) for series in self.read(name).frame["series"].unique()]
        return list(columns)

    def _form(self, name: str) -> tuple[str, tuple[str, ...]]:
        path = self.path(name)
        try:
            columns = read_header(path)
        except (ValueError, OSError) as error:
            text = " ".join(str(error).split())
            message = f"`{within(path)}` is no Parquet or CSV table: {text}"
            raise self._error(fault("side-unreadable", message)) from error
        found = shape_of(name, columns, f"`{within(path)}`")
        if isinstance(found, Finding):
            raise self._error(found)
        return found

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
            table, found = read_table(path, within(path))
            errors = [finding for finding in found if finding.severity == "error"]
            if errors or table is None:
                raise self._error(*errors)
            self._tables[name] = table
        table = self._tables[name]
        if shape is not None and table.shape != shape:
            raise SideDataError(
                f"the side data {brief(name)} of `{self.root}` must be a table of {shape} ({', '.join(KEYS[shape])}), "
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
            with open_file(path, error=SideDataError) as file:
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


def side_files(root: Path) -> dict[str, list[Path]]:
    """Name -> its files in the side folder of a store, sorted by name."""
    folder = root / FOLDER
    found: dict[str, list[Path]] = {}
    if folder.is_dir():
        for path in sorted(folder.iterdir()):
            if path.suffix in SUFFIXES and path.is_file() and not is_stray(path.name):
                found.setdefault(path.stem, []).append(path)
    return found


def within(path: Path) -> str:
    """The path of a file of side data within its store."""
    return f"{FOLDER}/{path.name}"


def two_files(paths: Sequence[Path]) -> Finding:
    """The fault that a name has more than one file."""
    names = " and ".join(f"`{within(path)}`" for path in paths)
    message = f"{names} are of one name: remove one of them"
    return fault("side-two-files", message, file=within(paths[0]), count=len(paths))
