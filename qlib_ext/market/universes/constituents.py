"""Universes from a list of constituents, as index providers and data vendors hand them out.

Two shapes are read, told by their columns:

- spells: a code, the day from which it is a member, and the last day on which it is one (empty: still a member);
- snapshots: a date and a code, a row for each member of each date; or a folder with a file for each date, the date in
  its name. A snapshot holds until the day before the next one.

CSV and Parquet are read, CSV compressed or not.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, integer, one_of
from qlib_ext.files import open_table
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import recognise
from qlib_ext.market.spells import UNTIL, count_spells, locate_spells, spells_of
from qlib_ext.market.store import LIST_SIZE, MOST_CODES, QlibStore
from qlib_ext.market.text_files import check_parquet, separator
from qlib_ext.market.universes.universes import COMMAND, Universe, check_name
from qlib_ext.paths import is_stray

# Names under which the columns are known, without case and punctuation; anything else is named by the user.
NAMES: Mapping[str, tuple[frozenset[str], ...]] = {
    wanted: (frozenset(names.split()),)
    for wanted, names in {
        "code": "code symbol ticker instrument concode tscode wincode secucode orderbookid 代码 股票代码 证券代码 成分券代码",
        "from": "from start startdate fromdate begin begindate indate datein effectivedate 纳入日期",
        "to": "to end enddate todate outdate dateout 剔除日期",
        "date": "date datetime tradedate day snapshot 日期 交易日期",
    }.items()
}
CSV = (".csv", ".tsv", ".txt")
SUFFIXES = (*CSV, *(suffix + ".gz" for suffix in CSV), ".parquet")
SNAPSHOTS = "dated snapshots"
A_YEAR = 365  # days, without a leaver
_DAY_IN_NAME = re.compile(r"(?<!\d)(\d{4})[-_.]?(\d{2})[-_.]?(\d{2})(?!\d)")


def read_constituents(
    store: QlibStore,
    name: str,
    source: str | Path,
    *,
    columns: Mapping[str, str] | None = None,
    until: str = "last-day",
    size: int | None = None,
) -> Universe:
    """Read a universe from a list of constituents.

    Codes without bars are kept: a list that leaves out those who have gone is a list of survivors.

    Parameters
    ----------
    store
        Whose calendar and codes it is read for.
    name
        Of the universe.
    source
        A CSV or Parquet file, or a folder of snapshots.
    columns
        `code`, `from`, `to` or `date` to the column's name, for those that are not recognised.
    until
        What `to` is: the `last-day` of a member, or the `first-day-out`.
    size
        Nominal number of members, if it has one.

    Raises
    ------
    UserError
        If the source is missing, empty or cannot be read, a column is missing, a row has no code, a day that is
        none, or ends before it begins.
    """
    check_name(name)
    one_of("until", until, UNTIL)
    if size is not None:
        integer("size", size, 1)
    path = Path(source).expanduser()
    if not path.exists():
        raise UserError(f"expected a file or a folder of constituents, found nothing at `{path}`")
    known = set(store.instruments())
    table = _snapshot_folder(path, columns or {}) if path.is_dir() else _read(path, columns or {})
    if table.empty:
        raise UserError(f"`{path}` must name at least one member, found none")
    table["code"] = _codes(table["code"], known, path)
    if table["code"].nunique() > MOST_CODES:
        raise UserError(f"`{path}` must name at most {MOST_CODES:,} codes, found {table['code'].nunique():,}")
    if "date" in table and "from" not in table:
        members, codes, notes = _from_snapshots(table, store.calendar)
        what = SNAPSHOTS
    else:
        members, codes, notes = _from_spells(table, store.calendar, until)
        what = "spells of membership"
    spells = spells_of(store.calendar, codes, members)
    if spells.empty:
        raise UserError(
            f"`{path}` names no member on any day from {store.calendar[0]:%Y-%m-%d} to "
            f"{store.calendar[-1]:%Y-%m-%d}, the days of the store"
        )
    notes += _survivors(spells, what)
    without = sorted(set(spells["instrument"]) - known)
    if len(without) == spells["instrument"].nunique():
        raise UserError(
            f"none of the {len(without)} codes of `{path}` has bars in `{store.root}`: found {without[0]}, expected "
            f"codes such as {min(known, default='none')}"
        )
    if without:
        notes.append(
            f"{len(without)} of {spells['instrument'].nunique()} codes have no bars, such as {without[0]}: they stay "
            "in the list"
        )
    return Universe(
        name=name,
        spells=spells,
        size=size,
        rule=f"{what} read from {path.name}",
        command=shlex.join(
            [*COMMAND, name, "--constituents", path.name, *_options(columns or {}, until, size)]
        ),
        notes=tuple(notes),
    )


def _survivors(spells: pd.DataFrame, what: str) -> list[str]:
    """A note if nobody ever leaves over a year and more: then the list has those alone who are there today."""
    begin, end = spells["start"].min(), spells["end"].max()
    stays = spells.groupby("instrument")["end"].max().eq(end)
    if (end - begin).days < A_YEAR or len(stays) < 2 or not stays.all():
        return []
    of = " of one date" if what == SNAPSHOTS and spells["start"].nunique() == 1 else ""
    sentence = (
        f"no member ever leaves from {begin:%Y-%m-%d} to {end:%Y-%m-%d}: a list{of} of survivors alone. Whoever picks "
        "among them knows that none fails, and results are too good; take a list with the days on which members left"
    )
    return [sentence]


def _options(columns: Mapping[str, str], until: str, size: int | None) -> list[str]:
    words = [word for wanted, column in columns.items() for word in ("--column", f"{wanted}={column}")]
    words += ["--until", until] if until != UNTIL[0] else []
    return words + (["--size", str(size)] if size is not None else [])


def _snapshot_folder(folder: Path, columns: Mapping[str, str]) -> pd.DataFrame:
    files = sorted(
        file
        for file in folder.iterdir()
        if file.is_file() and file.name.lower().endswith(SUFFIXES) and not is_stray(file.name)
    )
    if not files:
        raise UserError(
            f"`{folder}` must hold a file of constituents for each date ({', '.join(SUFFIXES)}), found none"
        )
    tables: list[pd.DataFrame] = []
    seen: dict[str, str] = {}
    for file in files:
        match = _DAY_IN_NAME.search(file.name)
        if match is None:
            raise UserError(
                f"a file of a snapshot has its date in its name, such as 2015-06-15.csv; found `{file}`"
            )
        day = "-".join(match.groups())
        if day in seen:
            raise UserError(f"`{folder}` must hold one snapshot a date, found {seen[day]} and {file.name}")
        seen[day] = file.name
        tables.append(_read(file, columns, only=("code",)).assign(date=day, row=file.name))
    return pd.concat(tables, ignore_index=True)


def _read(path: Path, columns: Mapping[str, str], only: Sequence[str] = ()) -> pd.DataFrame:
    """Columns `code` and `from`, `to` or `date`, all as text ('' where empty), and `row`, for messages."""
    table = _as_text(path)
    for wanted in columns:
        one_of("columns", wanted, NAMES)
    wanted_here = {name: groups for name, groups in NAMES.items() if name in (only or NAMES)}
    header = [str(column) for column in table.columns]
    given = {name: column for name, column in columns.items() if name in wanted_here}
    found = recognise(header, given, where=f"`{path}`", known=wanted_here, required=())
    if not found and len(header) == 1:
        # A list of codes without a head: the first one was read as the head.
        table = pd.concat(
            [pd.DataFrame({"code": header}), table.set_axis(["code"], axis=1)], ignore_index=True
        )
        found = {"code": "code"}
    complete = [set(only)] if only else [{"code", "from"}, {"code", "date"}]
    if not any(needed <= set(found) for needed in complete):
        raise UserError(
            f"`{path}` must have columns for {' and '.join(only) or 'code, from and to, or for date and code'}; found "
            f"{', '.join(header)}: name them as in --column code=COLUMN"
        )
    rows = [f"row {number}" for number in range(1, len(table) + 1)]
    return pd.DataFrame({name: table[column] for name, column in found.items()}).assign(row=rows)


def _as_text(path: Path) -> pd.DataFrame:
    name = path.name.lower()
    if not name.endswith(SUFFIXES):
        raise UserError(f"a list of constituents must be one of {', '.join(SUFFIXES)}, found `{path}`")
    try:
        if name.endswith(".parquet"):
            check_parquet(path)
            table = pd.read_parquet(path)
        else:
            # As text, and nothing read as missing: `NA` is a code, and 000001 is no number.
            with open_table(path, LIST_SIZE) as file:
                table = pd.read_csv(
                    file, sep=separator(path), dtype=str, keep_default_na=False, encoding="utf-8-sig"
                )
    except UserError:
        raise
    except (ValueError, OSError) as error:  # pyarrow's errors and pandas' are either
        raise UserError(f"`{path}` cannot be read: {' '.join(str(error).split())}") from error
    return table.apply(_text)


def _text(column: pd.Series) -> pd.Series:
    if pd.api.types.is_datetime64_any_dtype(column.dtype):
        return column.dt.strftime("%Y-%m-%d").fillna("")
    if pd.api.types.is_integer_dtype(column.dtype):
        return column.astype(str).str.zfill(6)  # 1 was 000001 before somebody took it for a number
    return column.astype(object).where(column.notna(), "").astype(str).str.strip()


def _codes(column: pd.Series, known: set[str], path: Path) -> pd.Series:
    blank = np.flatnonzero(column == "")
    if len(blank):
        raise UserError(f"`{path}` must have a code in each row, found none in row {blank[0] + 1}")
    return column.map({code: code_in_store(code, known) for code in column.unique()})


def _days(table: pd.DataFrame, column: str) -> pd.DatetimeIndex:
    """A column of days; a blank is NaT."""
    text = table[column]
    short = text.str.fullmatch(r"\d{8}")
    written = text.where(~short, text.str.slice(0, 4) + "-" + text.str.slice(4, 6) + "-" + text.str.slice(6))
    # Vendors write 9999-12-31 for a member that is still in, which no Timestamp can hold.
    far = written.str.fullmatch(r"(2[3-9]|[3-9]\d)\d\d-.*")
    days = pd.to_datetime(written.mask(far, "2261-12-31"), format="ISO8601", errors="coerce")
    wrong = np.flatnonzero(days.isna() & (text != ""))
    if len(wrong):
        raise UserError(
            f"`{column}` must be a day such as 2015-06-15, found {brief(text.iloc[wrong[0]])} in {table['row'].iloc[wrong[0]]}"
        )
    return pd.DatetimeIndex(days).normalize()


def _from_spells(
    table: pd.DataFrame, calendar: pd.DatetimeIndex, until: str
) -> tuple[np.ndarray, list[str], list[str]]:
    """Members bool [D, S], their codes, and notes."""
    start = _days(table, "from")
    end = _days(table, "to") if "to" in table else pd.DatetimeIndex([pd.NaT] * len(table))
    unset = np.flatnonzero(start.isna())
    if len(unset):
        raise UserError(
            f"`from` must be a day such as 2015-06-15, found nothing in {table['row'].iloc[unset[0]]}"
        )
    if until == "first-day-out":
        end = end - pd.Timedelta(days=1)
    wrong = np.flatnonzero(end < start)
    if len(wrong):
        raise UserError(
            f"a spell must not end before it begins, found {table['code'].iloc[wrong[0]]} from "
            f"{start[wrong[0]]:%Y-%m-%d} to {end[wrong[0]]:%Y-%m-%d} in {table['row'].iloc[wrong[0]]}"
        )
    first, last = calendar[0], calendar[-1]
    outside = (start > last) | (end < first)
    beyond = ~outside & ((start < first) | (end > last))
    codes = sorted(set(table["code"]))
    spells = pd.DataFrame({"instrument": table["code"], "start": start, "end": end})
    stock, begins, after = locate_spells(spells, calendar, codes)
    times = count_spells(stock, begins, after, (len(calendar), len(codes)))
    notes = [
        _note(outside.sum(), len(table), "spells lie wholly outside the calendar: left out"),
        _note(
            beyond.sum(),
            len(table),
            f"spells reach beyond the calendar: cut to {first:%Y-%m-%d} to {last:%Y-%m-%d}",
        ),
        _note((~outside & (begins >= after)).sum(), len(table), "spells hold no trading day: left out"),
        _note((times > 1).any(axis=0).sum(), len(codes), "codes have spells that overlap: merged"),
    ]
    return times > 0, codes, [note for note in notes if note]


def _from_snapshots(
    table: pd.DataFrame, calendar: pd.DatetimeIndex
) -> tuple[np.ndarray, list[str], list[str]]:
    """Members bool [D, S], their codes, and notes."""
    date = _days(table, "date")
    unset = np.flatnonzero(date.isna())
    if len(unset):
        raise UserError(
            f"`date` must be a day such as 2015-06-15, found nothing in {table['row'].iloc[unset[0]]}"
        )
    twice = int(pd.DataFrame({"date": date, "code": table["code"].to_numpy()}).duplicated().sum())
    dates = date.unique().sort_values()
    begins = calendar.searchsorted(dates, side="left")
    after = np.append(begins[1:], len(calendar))
    late, early = begins >= len(calendar), dates < calendar[0]
    hidden = (begins == after) & ~late & ~early
    codes = sorted(set(table["code"]))
    column = pd.Index(codes).get_indexer(table["code"])
    snapshot = dates.get_indexer(date)
    members = np.zeros((len(calendar), len(codes)), dtype=bool)
    for number, (start_day, stop) in enumerate(zip(begins, after, strict=True)):
        members[start_day:stop, column[snapshot == number]] = True
    notes = [
        _note(late.sum(), len(dates), "snapshots lie after the calendar: left out"),
        _note(
            hidden.sum(),
            len(dates),
            "snapshots are followed by another before the next trading day: left out",
        ),
        _note(
            early.sum(),
            len(dates),
            "snapshots lie before the calendar: the last of them holds on its first day",
        ),
        _note(twice, len(table), "rows repeat another one: counted once"),
    ]
    return members, codes, [note for note in notes if note]


def _note(count: int, of: int, what: str) -> str:
    return f"{count} of {of} {what}" if count else ""
