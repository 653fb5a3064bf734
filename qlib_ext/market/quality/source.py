"""A store as it lies on disk, read without expecting anything of it.

`QlibStore` refuses a store that is broken; the audit reads on, and says what it could not read.
"""

from __future__ import annotations

import functools
import json
import os
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import Any

import exchange_calendars
import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.files import open_file, read_bytes
from qlib_ext.market.codes import is_index, region
from qlib_ext.market.exchange_days import EXCHANGES
from qlib_ext.market.store import LIST_SIZE, MOST_DAYS, SUFFIX, bin_size
from qlib_ext.paths import is_stray, leads_out

PRICES = ("open", "high", "low", "close", "vwap")
FIELDS = (*PRICES, "volume", "amount", "factor", "change")
# Cells [stocks, days] of one block: an array of float64 takes 4 MB, all that a block's checks hold about 200 MB.
CELLS_PER_BLOCK = 1 << 19
MOST_STOCKS_PER_BLOCK = 256

_PREFIX = "_qlib_"  # before names that Windows reserves, such as `con`
_FREQUENCY = re.compile(r"^(.+)\.(day|week|month|\d*min)\.bin$", re.IGNORECASE)
_DAY = re.compile(r"^(\d{4})(?:-(\d{2})-|/?(\d{1,2})/?|-(\d{1,2})-)(\d{1,2})(?:[T ]+(.*))?$")


def parse_day(text: str) -> tuple[np.datetime64, bool]:
    """A day as written, and whether it is written as `YYYY-MM-DD` and nothing more; NaT where it is no day."""
    match = _DAY.match(text)
    if match is None:
        return np.datetime64("NaT", "D"), False
    year, plain, slashed, short, number, _ = match.groups()
    try:
        parsed = date(int(year), int(plain or slashed or short), int(number))
    except ValueError:
        return np.datetime64("NaT", "D"), False
    return np.datetime64(parsed, "D"), text == parsed.isoformat()


def read_text(path: Path) -> tuple[str, str | None]:
    """Text of a file and what is wrong with it: unreadable or too large (and the text empty), or not UTF-8."""
    try:
        if not path.is_file():
            return "", "is no regular file"
        content = read_bytes(path, LIST_SIZE)
    except UserError as error:
        return "", str(error).removeprefix(f"`{path}` ")
    except OSError as error:
        return "", f"cannot be read: {error.strerror or error}"
    try:
        return content.decode("utf-8-sig"), None
    except UnicodeDecodeError as error:
        return content.decode("utf-8", errors="replace"), f"is not UTF-8 text (byte {error.start})"


@dataclass(frozen=True)
class Folder:
    """One folder of `features/`.

    Attributes
    ----------
    path : Path
    code : str
        Upper-case.
    bins : dict
        Field, lower-case, to the name of its file of daily bars.
    strays : tuple of str
        Names of what is no file of bars.
    misnamed : tuple of str
        Files of daily bars with upper-case letters, which Qlib does not find.
    """

    path: Path
    code: str
    bins: dict[str, str]
    strays: tuple[str, ...] = ()
    misnamed: tuple[str, ...] = ()


@dataclass(frozen=True)
class Spell:
    """One readable row of a membership file; `line` counts from 1."""

    line: int
    code: str
    start: np.datetime64
    end: np.datetime64


@dataclass
class Membership:
    """One file of `instruments/`, row by row.

    Attributes
    ----------
    spells : list of Spell
        Rows with a code and two days, codes upper-case.
    short, undated, separated : list of (line, text)
        Rows with fewer than three columns; with a day that is none; with something else than tabs between columns.
    lower : list of (line, code)
        Codes with lower-case letters, as written.
    oddly_dated : list of (line, text)
        Days that are understood but not written YYYY-MM-DD.
    problem : str or None
        Why the file could not be read as text.
    """

    name: str
    file: str
    spells: list[Spell] = field(default_factory=list)
    short: list[tuple[int, str]] = field(default_factory=list)
    undated: list[tuple[int, str]] = field(default_factory=list)
    separated: list[tuple[int, str]] = field(default_factory=list)
    lower: list[tuple[int, str]] = field(default_factory=list)
    oddly_dated: list[tuple[int, str]] = field(default_factory=list)
    problem: str | None = None

    @property
    def codes(self) -> dict[str, None]:
        """Codes, each once, in the order of the file."""
        return dict.fromkeys(spell.code for spell in self.spells)


@dataclass(frozen=True)
class Bin:
    """What one file of bars says of itself.

    Attributes
    ----------
    start, stop : int
        Positions in the calendar of its first value and after its last one; -1 where it cannot be placed.
    problem : tuple or None
        Kind of fault and what was found.
    """

    start: int = -1
    stop: int = -1
    problem: tuple[str, str] | None = None

    @property
    def placed(self) -> bool:
        """Whether its values could be put on the calendar."""
        return self.start >= 0


@dataclass(frozen=True)
class Block:
    """Bars of S stocks over the D days of the calendar.

    Attributes
    ----------
    folders : tuple of Folder
        S stocks.
    values : dict
        Field to float32 `[S, D]`, NaN where there is none; the fields of `FIELDS` that any of the stocks has.
    bins : tuple of dict
        For each stock field to `Bin`, of every field that it has.
    """

    folders: tuple[Folder, ...]
    values: dict[str, np.ndarray]
    bins: tuple[dict[str, Bin], ...]

    @property
    def codes(self) -> list[str]:
        """S codes."""
        return [folder.code for folder in self.folders]

    def has(self, name: str) -> np.ndarray:
        """Which stocks have a file of `name` that could be put on the calendar: bool `[S]`."""
        return np.array([name in bins and bins[name].placed for bins in self.bins], dtype=bool)

    def file(self, row: int, name: str) -> str:
        """Path of a stock's file of `name` within the store."""
        folder = self.folders[row]
        return f"features/{folder.path.name}/{folder.bins.get(name, name + SUFFIX)}"


class Source:
    """What lies in the directory of a store.

    Parameters
    ----------
    root
        The directory; nothing in it needs to be there.

    Attributes
    ----------
    lines : list of str
        Lines of the calendar that are not blank: bars count their days by them.
    days : datetime64[D] [D]
        The day of each line, NaT where it is none.
    plain : list of bool
        Whether the line is written `YYYY-MM-DD`.
    calendar_problem : str or None
    folders : list of Folder
        One for each code, by code; of two that differ in case, the lower-case one.
    twice : list of (str, str)
        Folders that were left aside for it: name, and name of the one that was kept.
    memberships : list of Membership
    top_strays : list of str
        Paths within the store of files that stand where none belongs.
    unreadable : list of (str, str)
        Path and why.
    links_out : list of (str, str)
        Links that lead out of the store: path within it, and where they lead.
    """

    def __init__(self, root: Path):
        self.root = root
        self.unreadable: list[tuple[str, str]] = []
        self.top_strays: list[str] = []
        self.links_out: list[tuple[str, str]] = []
        for part in (root, root / "side"):
            self.entries(part)
        self._read_calendar()
        self._scan_features()
        self._read_memberships()

    @property
    def codes(self) -> list[str]:
        """Codes that have a folder, sorted."""
        return [folder.code for folder in self.folders]

    def relative(self, path: Path) -> str:
        """Path within the store, with forward slashes."""
        return path.relative_to(self.root).as_posix()

    def entries(self, path: Path) -> list[os.DirEntry[str]]:
        """What a directory holds, by name; none where it cannot be listed, which is noted."""
        try:
            with os.scandir(path) as found:
                entries = sorted(found, key=lambda entry: entry.name)
        except FileNotFoundError:
            return []
        except OSError as error:
            self.unreadable.append((self.relative(path), f"cannot be listed: {error.strerror or error}"))
            return []
        for entry in entries:
            if entry.is_symlink() and (end := leads_out(self.root, Path(entry.path))) is not None:
                self.links_out.append((self.relative(Path(entry.path)), end))
        return entries

    def metadata(self, name: str) -> tuple[Any, str | None]:
        """A JSON file of the store, None where there is none; and what is wrong with it."""
        path = self.root / name
        if not path.exists():
            return None, None
        text, problem = read_text(path)
        if problem is not None:
            return None, problem
        try:
            return json.loads(text), None
        except (ValueError, RecursionError) as error:
            return None, f"is no JSON: {error}"

    @functools.cached_property
    def imported(self) -> dict[str, Any]:
        """The settings of `qlib-ext data import` that `import.json` holds; nothing where it cannot be read."""
        content, _ = self.metadata("import.json")
        settings = content.get("settings") if isinstance(content, dict) else None
        return settings if isinstance(settings, dict) else {}

    def is_index(self, code: str) -> bool:
        """Whether a code is that of an index by its form, or of a benchmark of the import."""
        named = self.imported.get("benchmarks")
        return is_index(code) or (isinstance(named, list) and code in named)

    @functools.cached_property
    def exchange(self) -> str | None:
        """Whose days the calendar should have: that of the import, else that which the codes look like.

        None where nothing tells, or the import took the days of the data.
        """
        named = self.imported.get("exchange")
        if self.imported.get("calendar") == "data":
            return None
        if isinstance(named, str) and named in exchange_calendars.get_calendar_names():
            return named
        return EXCHANGES.get(region([code for code in self.codes if not is_index(code)]) or "")

    def blocks(self) -> Iterator[Block]:
        """The bars, block by block."""
        days = len(self.days)
        size = max(1, min(MOST_STOCKS_PER_BLOCK, CELLS_PER_BLOCK // max(1, days)))
        for first in range(0, len(self.folders), size):
            yield self.read(self.folders[first : first + size])

    def read(self, folders: Sequence[Folder]) -> Block:
        """The bars of some stocks, of the fields that the audit knows."""
        days = len(self.days)
        names = [name for name in FIELDS if any(name in folder.bins for folder in folders)]
        values = {name: np.full((len(folders), days), np.nan, dtype=np.float32) for name in names}
        bins: list[dict[str, Bin]] = []
        for row, folder in enumerate(folders):
            of_stock = {}
            for name, file in folder.bins.items():
                target = values[name][row] if name in values else None
                of_stock[name] = read_bin(folder.path / file, days, target)
            bins.append(of_stock)
        return Block(tuple(folders), values, tuple(bins))

    def _read_calendar(self) -> None:
        path = self.root / "calendars" / "day.txt"
        text, self.calendar_problem = read_text(path) if path.exists() else ("", None)
        self.lines = [line.strip() for line in text.splitlines() if line.strip()]
        if len(self.lines) > MOST_DAYS:
            self.calendar_problem = f"must have at most {MOST_DAYS:,} days, found {len(self.lines):,}"
            self.lines = []
        parsed = [parse_day(line) for line in self.lines]
        self.days = np.array([day for day, _ in parsed], dtype="M8[D]")
        self.plain = [plain for _, plain in parsed]
        for entry in self.entries(self.root / "calendars"):
            if not entry.name.endswith(".txt") or is_stray(entry.name):
                self.top_strays.append(f"calendars/{entry.name}")

    def _scan_features(self) -> None:
        by_code: dict[str, list[Folder]] = defaultdict(list)
        for entry in self.entries(self.root / "features"):
            if _is_directory(entry) and not is_stray(entry.name):
                folder = self._scan_folder(Path(entry.path))
                by_code[folder.code].append(folder)
            else:
                self.top_strays.append(f"features/{entry.name}")
        self.folders, self.twice = [], []
        for code in sorted(by_code):
            kept, *rest = sorted(
                by_code[code], key=lambda folder: folder.path.name != folder.path.name.lower()
            )
            self.folders.append(kept)
            self.twice += [(folder.path.name, kept.path.name) for folder in rest]

    def _scan_folder(self, path: Path) -> Folder:
        bins: dict[str, str] = {}
        strays, misnamed = [], []
        for entry in self.entries(path):
            match = _FREQUENCY.match(entry.name)
            if match is None or is_stray(entry.name):
                strays.append(entry.name)
            elif match[2].lower() == "day":
                if entry.name != entry.name.lower():
                    misnamed.append(entry.name)
                    if match[1].lower() in bins:
                        continue  # the file that Qlib reads is there too
                bins[match[1].lower()] = entry.name
        # Upper-case names sort first: where both are there, the lower-case one has replaced it.
        return Folder(path, path.name.removeprefix(_PREFIX).upper(), bins, tuple(strays), tuple(misnamed))

    def _read_memberships(self) -> None:
        self.memberships: list[Membership] = []
        for entry in self.entries(self.root / "instruments"):
            if entry.name.endswith(".txt") and not is_stray(entry.name):
                self.memberships.append(read_membership(Path(entry.path), f"instruments/{entry.name}"))
            else:
                self.top_strays.append(f"instruments/{entry.name}")


def _is_directory(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link in a circle
        return False


def read_membership(path: Path, file: str) -> Membership:
    """A membership file, each row as far as it can be understood."""
    text, problem = read_text(path)
    result = Membership(path.stem, file, problem=problem)
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.strip():
            continue
        columns = [column.strip() for column in line.split("\t")]
        if len(columns) < 3:
            columns = re.split(r"[,;|\s]+", line.strip())
            (result.short if len(columns) < 3 else result.separated).append((number, line))
            if len(columns) < 3:
                continue
        code = columns[0]
        days = [parse_day(column) for column in columns[1:3]]
        if not code:
            result.short.append((number, line))
            continue
        if any(np.isnat(day) for day, _ in days):
            result.undated.append((number, line))
            continue
        if not all(plain for _, plain in days):
            result.oddly_dated.append((number, line))
        if code != code.upper():
            result.lower.append((number, code))
        result.spells.append(Spell(number, code.upper(), days[0][0], days[1][0]))
    return result


def read_bin(path: Path, days: int, target: np.ndarray | None) -> Bin:
    """Place the values of a file of bars on the calendar, as far as they fit, in `target` `[D]`.

    With no calendar (`days` 0) nothing is placed, and only what the file itself shows is reported.
    """
    try:
        if not path.is_file():
            return Bin(problem=("unreadable-file", "is no regular file"))
        with open_file(path) as file:
            size = os.fstat(file.fileno()).st_size
            content = file.read(bin_size(days))
    except OSError as error:
        return Bin(problem=("unreadable-file", f"cannot be read: {error.strerror or error}"))
    if size == 0:
        return Bin(problem=("bin-empty", "has 0 bytes"))
    if size % 4:
        return Bin(problem=("bin-not-float32", f"has {size:,} bytes, which is no multiple of 4"))
    values = np.frombuffer(content, dtype="<f4")
    start, count = float(values[0]), size // 4 - 1
    if not (start >= 0 and start == np.floor(start) and start < 2**24):
        return Bin(problem=("bin-start-invalid", f"starts at day {start:g} of the calendar, which is none"))
    if count == 0:
        return Bin(problem=("bin-empty", "has a start and no value"))
    if days == 0:
        return Bin()
    first, stop = int(start), int(start) + count
    if stop > days:
        problem = (
            "bin-beyond-calendar",
            f"holds days {first} to {stop - 1} of a calendar of {days} days (counted from 0)",
        )
        if first >= days:
            return Bin(problem=problem)
    else:
        problem = None
    if target is not None:
        target[first : min(stop, days)] = values[1 : 1 + min(stop, days) - first]
    return Bin(first, min(stop, days), problem)


def majority(ranges: Sequence[tuple[int, int]]) -> tuple[int, int]:
    """The commonest of some ranges, the longest of those that are equally common."""
    counts = Counter(ranges)
    return max(counts, key=lambda span: (counts[span], span[1] - span[0]))
