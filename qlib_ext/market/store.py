"""Qlib's market store: daily bars, calendar and universes in one directory.

The layout is Qlib's own::

    calendars/day.txt                  one trading day a line
    instruments/<universe>.txt         CODE<TAB>first day<TAB>last day, a row for each spell of membership
    features/<code>/<field>.day.bin    little-endian float32: index of the first day in the calendar, then the values

Codes are upper-case in memory (`SH600000`) and lower-case as folder names, as Qlib has them.
"""

from __future__ import annotations

import functools
import hashlib
import io
import os
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.files import MIB, open_file, read_bytes, read_json, read_text
from qlib_ext.market.progress import Progress
from qlib_ext.market.spells import spell_mask
from qlib_ext.paths import is_stray

SUFFIX = ".day.bin"
# A file that was changed more lately may change again without a trace in its timestamps.
UNSETTLED_SECONDS = 2.0
HELP = (
    "To get a store: `qlib-ext data sample --out DIR` makes a sample market, "
    "`qlib-ext data download --out DIR` is Qlib's own data, `qlib-ext data import` makes one of CSV or Parquet; "
    "then set QLIB_DATA=DIR"
)
# Windows cannot name a folder like these; Qlib puts a prefix before them on every system.
_PREFIX = "_qlib_"
_RESERVED = {"CON", "PRN", "AUX", "NUL", *(port + digit for port in ("COM", "LPT") for digit in "0123456789")}
_STOCKS_AT_ONCE = 64
# More than any market has: a longer list is none of days or of stocks, and would fill the memory.
MOST_DAYS, MOST_CODES, LIST_SIZE = 100_000, 100_000, 32 * MIB
SAMPLE = Path("side") / "sample.json"  # the arguments of a synthetic market


class StoreError(UserError):
    """A market store is missing, lacks something or holds something that cannot be read."""


@dataclass(frozen=True)
class Signature:
    """What the file system says of a store's files, without a look into them.

    Attributes
    ----------
    digest
        64 hex digits of the path below the root, device, inode, size, time of modification and time of change of
        every file that the fingerprint covers.
    settled
        Whether equal digests mean equal content. They do not when a file was changed less than
        `UNSETTLED_SECONDS` before the look, since a change that follows may bear the same timestamps; when one lies
        in the future; or when every timestamp is a whole second, as a coarse clock or a reproducible image has it.
    """

    digest: str
    settled: bool


class QlibStore:
    """Read a market store in Qlib's format.

    Parameters
    ----------
    root
        Directory with `calendars/day.txt`, `features/` and `instruments/`; `~` is expanded.

    Attributes
    ----------
    root : Path
    calendar : pd.DatetimeIndex
        D trading days, ascending.

    Raises
    ------
    StoreError
        If the directory or a part of it is missing (the message names it and the commands that help), or the
        calendar is empty, unreadable or out of order.
    """

    def __init__(self, root: str | Path):
        self.root = Path(root).expanduser()
        if not self.root.is_dir():
            old = self.root.with_name(f".{self.root.name}.qlib-ext.old")
            hint = (
                f"A replacement was cut short: `mv {old} {self.root}` puts it back" if old.is_dir() else HELP
            )
            raise StoreError(f"expected a Qlib data directory, found no directory at `{self.root}`. {hint}")
        parts = {"calendars/day.txt": Path.is_file, "features": Path.is_dir, "instruments": Path.is_dir}
        missing = [part for part, is_there in parts.items() if not is_there(self.root / part)]
        if missing:
            raise StoreError(f"`{self.root}` is no Qlib data directory: {', '.join(missing)} missing. {HELP}")
        self._version: tuple[int, int] | None = self._now()
        self.calendar = read_calendar(self.root / "calendars" / "day.txt")
        self._check_version()

    @property
    def sample(self) -> dict[str, Any]:
        """The arguments of the synthetic market that this is, such as its `seed`; empty of any other store."""
        return read_mapping(self.root / SAMPLE)

    def _now(self) -> tuple[int, int] | None:
        """Device and inode of the directory: another version that takes its place has others."""
        try:
            status = self.root.stat()
        except FileNotFoundError:  # for a moment, where two renames replace a store
            return None
        return status.st_dev, status.st_ino

    def _check_version(self) -> None:
        """Refuse what was read of two versions of the store."""
        if self._version is not None and self._now() != self._version:
            raise StoreError(
                f"`{self.root}` was replaced by another version since it was opened; open it again"
            )

    def __repr__(self) -> str:
        return f"QlibStore({str(self.root)!r})"

    def universes(self) -> list[str]:
        """Names of the universes, sorted."""
        return sorted(
            path.stem for path in (self.root / "instruments").glob("*.txt") if not is_stray(path.name)
        )

    def membership(self, universe: str) -> pd.DataFrame:
        """Spells of membership, in the rows of the file.

        Codes without bars are kept: real stores name delisted firms.

        Returns
        -------
        DataFrame
            Columns `instrument` (upper-case), `start` and `end` (Timestamps, both days included).

        Raises
        ------
        StoreError
            If the universe is unknown (the known ones are listed) or its file cannot be read.
        """
        known = self.universes()
        if universe not in known:
            raise StoreError(
                f"`{self.root}` has no universe {brief(universe)}{nearest(str(universe), known)}; "
                f"instruments/ holds {', '.join(known) or 'none'}"
            )
        spells = _read_membership(self.root / "instruments" / f"{universe}.txt")
        self._check_version()
        return spells

    def member_mask(self, universe: str, instruments: Sequence[str]) -> np.ndarray:
        """Whether each of `instruments` is a member of `universe`, day by day: bool `[D, S]` over the calendar."""
        return spell_mask(self.membership(universe), self.calendar, instruments)

    def instruments(self) -> list[str]:
        """Upper-case codes that have a folder in `features/`, sorted."""
        return sorted(self._folders)

    def fields(self, instrument: str) -> list[str]:
        """Fields of which `instrument` has daily bars, sorted; unknown instrument: StoreError."""
        folder = self._folders.get(instrument.upper())
        if folder is None:
            raise StoreError(
                f"`{self.root}` has no bars of {brief(instrument)}{nearest(instrument.upper(), self._folders)}; "
                f"features/ holds {len(self._folders)} instruments"
            )
        with os.scandir(folder) as entries:
            return sorted(entry.name[: -len(SUFFIX)] for entry in entries if _is_bin(entry.name))

    def read(
        self, fields: Sequence[str], instruments: Sequence[str], out: np.ndarray | None = None
    ) -> np.ndarray:
        """Read bars over the whole calendar.

        Parameters
        ----------
        fields
            F fields, such as `close`; Qlib's `$close` is read as the same.
        instruments
            S codes.
        out
            float32 `[F, D, S]` in any memory layout to read into; a new array by default.

        Returns
        -------
        float32 `[F, D, S]`
            NaN on days without a value and for files that are not there (ask `fields` to tell the two apart).

        Raises
        ------
        StoreError
            If a file is not float32 with a start index, or reaches beyond the calendar; if another version took the
            place of the store since it was opened.
        """
        shape = len(fields), len(self.calendar), len(instruments)
        bars = np.empty(shape, dtype=np.float32) if out is None else out
        if bars.shape != shape:
            raise ValueError(f"`out` must have the shape {shape}, found {bars.shape}")
        folders = [self._folders.get(code.upper()) for code in instruments]
        names = [os.sep + field.lstrip("$").lower() + SUFFIX for field in fields]
        # A file is a column of `bars`. Some stocks at a time are turned over together: column by column is far
        # slower, and all of them at once would be a second copy of the market.
        for first in range(0, len(folders), _STOCKS_AT_ONCE):
            some = folders[first : first + _STOCKS_AT_ONCE]
            rows = np.full((len(fields), len(some), shape[1]), np.nan, dtype=np.float32)
            for column, folder in enumerate(some):
                if folder is not None:
                    for name, row in zip(names, rows[:, column], strict=True):
                        bars_of_file = read_bin(folder + name, len(row))
                        if bars_of_file is not None:
                            start, values = bars_of_file
                            row[start : start + len(values)] = values
            bars[:, :, first : first + len(some)] = rows.transpose(0, 2, 1)
        self._check_version()
        return bars

    def spans(self, fields: Sequence[str], instruments: Sequence[str]) -> np.ndarray:
        """First day of each file of bars and the day after its last, as positions in the calendar.

        Returns
        -------
        int64 `[F, S, 2]`
            Both 0 for a file that is not there.

        Raises
        ------
        StoreError
            As `read` does.
        """
        found = np.zeros((len(fields), len(instruments), 2), dtype=np.int64)
        for column, code in enumerate(instruments):
            folder = self._folders.get(code.upper())
            for row, field in enumerate(fields if folder is not None else ()):
                bars = read_bin(f"{folder}{os.sep}{field}{SUFFIX}", len(self.calendar))
                if bars is not None:
                    found[row, column] = bars[0], bars[0] + len(bars[1])
        self._check_version()
        return found

    def fingerprint(self) -> str:
        """16 hex digits of the content (calendar, memberships, bars): the same on every machine and path."""
        return self._fingerprint

    def know_fingerprint(self, fingerprint: str) -> None:
        """Take a fingerprint that is known from elsewhere, so that nothing has to be read for it."""
        self._fingerprint = fingerprint

    @functools.cached_property
    def _fingerprint(self) -> str:
        digest = hashlib.sha256()
        digest.update("\n".join(self.calendar.strftime("%Y-%m-%d")).encode())
        for universe in self.universes():
            spells = self.membership(universe)
            rows = spells["instrument"].str.cat(
                [spells[end].dt.strftime("%Y-%m-%d") for end in ("start", "end")], ","
            )
            digest.update(f"\0{universe}\0".encode() + "\n".join(rows).encode())
        for code in self.instruments():
            for field in self.fields(code):
                digest.update(f"\0{code}\0{field}\0".encode())
                digest.update(self.file_of_bars(code, field))
        self._check_version()
        return digest.hexdigest()[:16]

    def file_of_bars(self, instrument: str, field: str) -> bytes:
        """The file of a field of a stock, as it lies; both as `instruments` and `fields` have them."""
        path = self._folders[instrument] + os.sep + field + SUFFIX
        return read_bytes(path, bin_size(len(self.calendar)), StoreError)

    @functools.cached_property
    def _folders(self) -> dict[str, str]:
        return _feature_folders(self.root)

    def __getstate__(self) -> dict[str, Any]:
        # what was found out since travels to no other process: the files may be others there
        return {"root": self.root, "calendar": self.calendar, "_version": None}  # nor does the inode


def signature(root: Path) -> Signature:
    """Sizes, inodes and timestamps of all files that a store's fingerprint covers: far quicker than reading them.

    Take it before the store is opened: what changes later is then not in it, and a second one tells.

    Raises
    ------
    StoreError
        If a file vanishes meanwhile, or leads nowhere.
    """
    taken = time.time_ns()
    digest = hashlib.sha256()
    newest, whole_seconds = 0, True
    try:
        for name, found in _covered_files(root):
            facts = found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
            digest.update(f"{name}\0{facts}\n".encode())
            newest = max(newest, found.st_mtime_ns, found.st_ctime_ns)
            whole_seconds &= found.st_mtime_ns % 10**9 == found.st_ctime_ns % 10**9 == 0
    except FileNotFoundError as error:
        raise StoreError(
            f"`{root}` must hold still while its files are looked at, found no `{error.filename}`: start again, or "
            "remove the link if it is one that leads nowhere"
        ) from error
    settled = newest <= taken - int(UNSETTLED_SECONDS * 1e9) and not whole_seconds
    return Signature(digest.hexdigest(), settled)


def _covered_files(root: Path) -> Iterator[tuple[str, os.stat_result]]:
    """Path below the root, and what the system knows of it, of every file that the fingerprint covers."""
    yield "calendars/day.txt", (root / "calendars" / "day.txt").stat()
    for path in sorted((root / "instruments").glob("*.txt")):
        if not is_stray(path.name):
            yield f"instruments/{path.name}", path.stat()
    for code, folder in sorted(_feature_folders(root).items()):
        with os.scandir(folder) as entries:
            bins = sorted((entry.name, entry.stat()) for entry in entries if _is_bin(entry.name))
        for name, found in bins:
            yield f"features/{code}/{name}", found


def write_store(
    root: str | Path,
    calendar: pd.DatetimeIndex,
    instruments: Sequence[str],
    bars: Mapping[str, np.ndarray],
    memberships: Mapping[str, pd.DataFrame],
    progress: Progress | None = None,
) -> QlibStore:
    """Write a market store in Qlib's format.

    Each instrument is written from its first to its last day with a value in any field; one without any value
    gets no folder, and a field of which it has no value gets no file. `instruments/all.txt` holds every written
    instrument with these days, unless `memberships` has `all`.

    Parameters
    ----------
    root
        Directory to write into; it must be new or empty.
    calendar
        D trading days, ascending.
    instruments
        S codes.
    bars
        Field to array `[D, S]`, NaN where there is no value.
    memberships
        Universe to table with the columns `instrument`, `start` and `end` (both days included).
    progress
        Called with (done, total, what) as instruments are written.

    Raises
    ------
    StoreError
        If the directory is not empty, shapes do not fit, codes repeat, or the calendar is not ascending.
    """
    root = Path(root).expanduser()
    if root.exists() and (not root.is_dir() or any(root.iterdir())):
        raise StoreError(
            f"`{root}` must be a new or an empty directory to write a store into; choose another"
        )
    calendar, codes = pd.DatetimeIndex(calendar), [code.upper() for code in instruments]
    _check_calendar(calendar, "`calendar`")
    _check_parts(codes, bars, memberships, (len(calendar), len(codes)))
    for part in ("calendars", "features", "instruments"):
        (root / part).mkdir(parents=True, exist_ok=True)
    write_lines(root / "calendars" / "day.txt", calendar.strftime("%Y-%m-%d"))
    columns = {field: np.asarray(values, dtype="<f4").T.copy() for field, values in bars.items()}  # [S, D]
    everything = []
    for index, code in enumerate(codes):
        if progress is not None:
            progress(index, len(codes), "writing instruments")
        folder = root / "features" / ((_PREFIX if code in _RESERVED else "") + code.lower())
        span = _write_bins(folder, {field: values[index] for field, values in columns.items()})
        if span is not None:
            everything.append((code, *calendar[list(span)]))
    all_of_them = pd.DataFrame(everything, columns=["instrument", "start", "end"])
    for universe, spells in {"all": all_of_them, **memberships}.items():
        write_membership(root / "instruments" / f"{universe}.txt", spells)
    return QlibStore(root)


def _check_parts(
    codes: list[str],
    bars: Mapping[str, np.ndarray],
    memberships: Mapping[str, pd.DataFrame],
    shape: tuple[int, int],
) -> None:
    if len(set(codes)) < len(codes):
        twice = sorted(code for code, count in Counter(codes).items() if count > 1)
        raise StoreError(f"`instruments` must differ, found more than once: {', '.join(twice)}")
    for field, values in bars.items():
        if np.shape(values) != shape:
            raise StoreError(
                f"`bars[{field!r}]` must have a row a day and a column an instrument, {shape}, "
                f"found {np.shape(values)}"
            )
    for universe, spells in memberships.items():
        lacking = [column for column in ("instrument", "start", "end") if column not in spells]
        if lacking:
            raise StoreError(
                f"`memberships[{universe!r}]` must have instrument, start and end, found no {lacking[0]}"
            )


def _write_bins(folder: Path, rows: Mapping[str, np.ndarray]) -> tuple[int, int] | None:
    """Write the fields of an instrument, `[D]` each; positions of its first and last day, None without any value."""
    present = np.zeros(len(next(iter(rows.values()), ())), dtype=bool)
    for row in rows.values():
        present |= ~np.isnan(row)
    if not present.any():
        return None
    first, last = np.flatnonzero(present)[[0, -1]]
    folder.mkdir()
    for field, row in rows.items():
        if not np.isnan(row).all():
            values = np.concatenate([np.array([first], dtype="<f4"), row[first : last + 1]])
            values.tofile(folder / (field.lower() + SUFFIX))
    return first, last


def write_membership(path: Path, spells: pd.DataFrame) -> None:
    """Write the file of a universe: a row for each spell, code, first and last day."""
    ends = [pd.to_datetime(spells[end]).dt.strftime("%Y-%m-%d") for end in ("start", "end")]
    write_lines(path, map("\t".join, zip(spells["instrument"].str.upper(), *ends, strict=True)))


def synthetic_note(seed: object) -> str:
    """What is said first wherever figures of a synthetic market are shown."""
    return (
        f"Synthetic market: a program drew it (`qlib-ext data sample`, seed {seed}). Its prices and its index are invented, "
        "whatever the universe is called, and a forecast is planted in it: no figure says anything of a real market."
    )


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON file of a store, empty where there is none; a StoreError where it is no mapping."""
    try:
        found = read_json(path, error=StoreError)
    except FileNotFoundError:
        return {}
    except StoreError:
        raise
    except ValueError as error:
        raise StoreError(f"`{path}` must be JSON: {error}; delete it if nothing in it is needed") from error
    if not isinstance(found, dict):
        raise StoreError(
            f"`{path}` must be a mapping, found {type(found).__name__}; delete it if nothing in it is needed"
        )
    return found


def write_lines(path: Path, lines: Iterable[str]) -> None:
    """Write a text file as Qlib has them, on every system the same bytes."""
    path.write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")


def read_list(path: Path) -> str:
    """The text of a calendar or of a universe; a StoreError where it is no regular file, or too large for one."""
    try:
        return read_text(path, LIST_SIZE, StoreError)
    except UnicodeDecodeError as error:
        raise StoreError(f"`{path}` must be text in UTF-8: {error}") from error


def bin_size(days: int) -> int:
    """The most bytes that a file of bars has, in a calendar of `days`."""
    return 4 * (days + 1)


def read_calendar(path: Path) -> pd.DatetimeIndex:
    """Days of a file of the calendar; a StoreError where it has none, cannot be read, or is out of order."""
    lines = [line.strip() for line in read_list(path).splitlines() if line.strip()]
    if len(lines) > MOST_DAYS:
        raise StoreError(f"`{path}` must have at most {MOST_DAYS:,} days, found {len(lines):,}")
    try:
        calendar = pd.DatetimeIndex(pd.to_datetime(lines, format="ISO8601")).normalize()
    except ValueError as error:
        raise StoreError(f"`{path}` must have one day a line, such as 2010-01-04: {error}") from error
    _check_calendar(calendar, f"`{path}`")
    return calendar


def _check_calendar(calendar: pd.DatetimeIndex, name: str) -> None:
    if len(calendar) == 0:
        raise StoreError(f"{name} must hold trading days, found none")
    wrong = np.flatnonzero(np.diff(calendar.asi8) <= 0)
    if wrong.size:
        before, after = calendar[wrong[0]].date(), calendar[wrong[0] + 1].date()
        raise StoreError(f"{name} must be in ascending order, found {after} after {before}")


def _read_membership(path: Path) -> pd.DataFrame:
    names = ["instrument", "start", "end"]
    text = read_list(path)
    if not text.strip():
        return pd.DataFrame(
            {name: pd.Series(dtype=object if name == names[0] else "M8[ns]") for name in names}
        )
    try:
        # As text, and nothing read as missing: `NA` and `NAN` are codes.
        table = pd.read_csv(
            io.StringIO(text),
            sep="\t",
            header=None,
            names=names,
            usecols=[0, 1, 2],
            dtype=str,
            keep_default_na=False,
        )
        del text
        table = table.assign(
            instrument=table["instrument"].str.upper(),
            start=pd.to_datetime(table["start"], format="ISO8601"),
            end=pd.to_datetime(table["end"], format="ISO8601"),
        )
        if table.isna().to_numpy().any():
            raise ValueError(f"line {np.flatnonzero(table.isna().any(axis=1))[0] + 1} is incomplete")
    except ValueError as error:
        raise StoreError(f"`{path}` must have lines CODE<TAB>first day<TAB>last day: {error}") from error
    codes = table["instrument"].nunique()
    if codes > MOST_CODES:
        raise StoreError(f"`{path}` must name at most {MOST_CODES:,} instruments, found {codes:,}")
    return table


def _feature_folders(root: Path) -> dict[str, str]:
    """Upper-case code to folder of bars."""
    with os.scandir(root / "features") as entries:
        folders = [
            (entry.name.removeprefix(_PREFIX).upper(), entry.path)
            for entry in entries
            if entry.is_dir() and not is_stray(entry.name)
        ]
    twice = [code for code, count in Counter(code for code, _ in folders).items() if count > 1]
    if twice:
        raise StoreError(f"`{root / 'features'}` has more than one folder of {', '.join(sorted(twice))}")
    return dict(folders)


def _is_bin(name: str) -> bool:
    return name.endswith(SUFFIX) and not is_stray(name)


def read_bin(path: str | Path, days: int) -> tuple[int, np.ndarray] | None:
    """Position of the first value in a calendar of `days`, and the values of a file of bars; None where there is none.

    Raises
    ------
    StoreError
        If the file is not float32 with a start index, or reaches beyond the calendar.
    """
    try:
        with open_file(path, error=StoreError) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(bin_size(days))  # what lies beyond the calendar is refused by the size
    except FileNotFoundError:
        return None
    if size == 0 or size % 4:
        raise StoreError(f"`{path}` must hold a start index and float32 values, found {size} bytes")
    start, values = np.frombuffer(content, dtype="<f4", count=1)[0], np.frombuffer(content, "<f4", offset=4)
    count = size // 4 - 1
    if not (start >= 0 and start.is_integer() and start + count <= days):
        raise StoreError(
            f"`{path}` must start and end within the {days} days of calendars/day.txt, found days "
            f"{start:g} to {start + count - 1:g}: the calendar and the bars are of different downloads"
        )
    return int(start), values
