"""A user's table brought into a store as side data, whole or not at all."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from qlib_ext.checks import UserError, brief, one_of, short
from qlib_ext.market.replace import check_place, copy_store, locked
from qlib_ext.market.side_data.known_rows import SEVERAL, exchange_of
from qlib_ext.market.side_data.problems import beside_store
from qlib_ext.market.side_data.release_dates import released
from qlib_ext.market.side_data.rows import Rows
from qlib_ext.market.side_data.side_data import FOLDER, SUFFIXES, SideDataError
from qlib_ext.market.side_data.table import KEYS, SideTable, check_frame
from qlib_ext.market.side_data.user_table import UserTable
from qlib_ext.market.spells import UNTIL
from qlib_ext.market.store import QlibStore

# The rows of a table as they are written.
ORDER = {
    "spells": ["instrument", "start"],
    "values": ["datetime", "instrument"],
    "market": ["datetime"],
    "series": ["series", "release_date", "period"],
}


@dataclass(frozen=True)
class ImportedTable:
    """What `import_table` has written.

    Attributes
    ----------
    path : Path
        The file in the store.
    table : SideTable
        Its content.
    notes : tuple of str
        What was changed, left out or is worth a look, in counted sentences.
    """

    path: Path
    table: SideTable
    notes: tuple[str, ...]


def import_table(
    root: str | Path,
    name: str,
    source: str | Path,
    *,
    shape: str | None = None,
    columns: Mapping[str, str] | None = None,
    lags: Mapping[str, str] | None = None,
    frequencies: Mapping[str, str] | None = None,
    until: str = "last-day",
    exchange: str | None = None,
    several: str = "newest",
    after_close: bool = False,
    encoding: str = "utf-8",
    replace: bool = False,
) -> ImportedTable:
    """Bring a table into the side data of a store, whole or not at all.

    Parameters
    ----------
    root
        The store.
    name
        What the table is to be called: `market_value`, `industry`, `concepts`, `macro`, or any other name. Expressions
        read a number of it as `side.NAME.FIELD`.
    source
        CSV (`.csv`, `.tsv`, `.txt`, `.gz` too) or Parquet.
    shape
        spells, values, market or series; by default as the columns tell.
    columns
        Field to column of the source, for those that are not recognised: one of `user_table.NAMES`, `name` itself for
        the column that the table is about, or a series to be called so. An empty column says that there is none, or
        that the column of this name is to be left out.
    lags
        Series to lag, for figures without a release date: a key of `release_dates.LAGS`, or `[ANCHOR+]N(d|b)` with N
        calendar or business days after the `end` of the period (the default), after the first day of its last `month`,
        or after its `start`. The key `release_dates.EVERY` holds for all other series.
    frequencies
        Series to day, month, quarter or year: what the periods are, where the source writes them as days.
    until
        What the `end` of a spell is in the source: its `last-day`, or the `first-day-out`.
    exchange
        Name in `exchange_calendars`, such as XSHG: a time of day after its close counts for the next day. By default
        that of the store.
    several
        Which of the rows of values that were known for the same close counts: the `newest`, or their `mean`.
    after_close
        Whether days without a time are those on which a row of values came out after the close.
    encoding
        Of a CSV file.
    replace
        Whether a table of the same name may be replaced.

    Raises
    ------
    UserError
        If something would look ahead, an option does not fit, the name is taken, or the table has a fault of
        severity `error`. Nothing has been written then.
    """
    store, path = QlibStore(root), Path(source).expanduser()
    _check_target(store.root, name, replace)
    if shape is not None:
        one_of("shape", shape, KEYS)
    one_of("until", until, UNTIL)
    one_of("several", several, SEVERAL)
    lagged = bool(lags or frequencies)
    user = UserTable(
        path,
        name,
        shape,
        dict(columns or {}),
        encoding,
        set(store.instruments()),
        lagged=lagged,
        exchange=exchange or exchange_of(store),
        several=several,
        after_close=after_close,
    )
    if (several != "newest" or after_close) and user.shape not in ("values", "market"):
        raise UserError(
            f"`several` and `after_close` are for tables of values, found one of {user.shape} in `{path}`"
        )
    frame = user.frame()
    if until == "first-day-out":
        if user.shape != "spells" or "end" not in user.found:
            raise UserError(f"`until` is for the ends of spells, found none in `{path}`")
        frame = _ended_before(frame, path)
    if user.shape == "series":
        frame = released(frame, dict(lags or {}), dict(frequencies or {}), path, user.notes)
    elif lagged:
        raise UserError(
            f"lags and frequencies are for tables of series, found one of {user.shape} in `{path}`"
        )
    table = _checked(name, frame, path, store, user.notes)
    with locked(store.root) as lock:
        _check_target(store.root, name, replace)
        with lock.replaced() as new:
            old = {Path(FOLDER) / (name + suffix) for suffix in SUFFIXES}
            copy_store(store.root, new, leave_out=lambda relative: relative in old)
            (new / FOLDER).mkdir(exist_ok=True)
            table.frame.to_parquet(new / FOLDER / f"{name}.parquet", index=False)
    return ImportedTable(store.root / FOLDER / f"{name}.parquet", table, tuple(user.notes))


def _checked(name: str, frame: pd.DataFrame, path: Path, store: QlibStore, notes: list[str]) -> SideTable:
    """The table of a frame, in order; a fault is an error, everything else that is found a note."""
    table, findings = check_frame(name, frame, f"`{path}`")
    if table is not None:
        findings += beside_store(table, store.calendar, store.instruments())
    errors = [finding for finding in findings if finding.severity == "error"]
    if errors or table is None:
        more = f"; there are {len(errors) - 1} other kinds of fault" if len(errors) > 1 else ""
        raise SideDataError(f"{errors[0].message}{more}. Nothing was written")
    blank = len(frame) - len(table.frame)
    if blank:
        notes.append(f"{blank} of {len(frame)} rows have no number: left out")
    notes += [finding.message for finding in findings]
    in_order = table.frame.sort_values(ORDER[table.shape], kind="stable", ignore_index=True)
    return dataclasses.replace(table, frame=in_order)


def _check_target(root: Path, name: str, replace: bool) -> None:
    if not re.fullmatch(r"\w[\w-]*", name, flags=re.ASCII):
        raise UserError(
            f"the name of side data must be made of letters, digits, `_` and `-`, found {brief(name)}"
        )
    short("name of side data", name)
    there = [suffix for suffix in SUFFIXES if (root / FOLDER / (name + suffix)).exists()]
    if there and not replace:
        raise UserError(
            f"`{root}` has {FOLDER}/{name}{there[0]} already: choose another name, or add --replace"
        )
    check_place(root)


def _ended_before(frame: pd.DataFrame, path: Path) -> pd.DataFrame:
    """Spells whose `end` was the first day out, with their last day instead."""
    rows = Rows(frame, f"`{path}`")
    ends = rows.days("end", open_ended=True)
    if rows.found:
        raise SideDataError(rows.found[0].message)
    return frame.assign(end=ends - pd.Timedelta(days=1))
