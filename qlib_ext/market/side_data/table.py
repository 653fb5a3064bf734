"""Tables of side data: their shapes, and every fault that a table alone shows.

What the shapes mean is told in `qlib_ext.market.side_data.side_data`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qlib_ext.checks import UserError, brief
from qlib_ext.files import open_table
from qlib_ext.market.finding import Finding
from qlib_ext.market.side_data.faults import JUMP, fault
from qlib_ext.market.side_data.rows import BLANK, FAR, Rows
from qlib_ext.market.text_files import check_parquet

KEYS = {
    "spells": ("instrument", "start", "end"),
    "values": ("datetime", "instrument"),
    "market": ("datetime",),
    "series": ("series", "period", "value", "release_date"),
}
# The column that says since when a row was known.
KNOWN_FROM = {"spells": "start", "values": "datetime", "market": "datetime", "series": "release_date"}
MARKET_VALUE = "market_value"  # the one table whose meaning is fixed: it must be positive
LAG = "stated_lag"  # where release dates were made from a lag, says which
INDUSTRY = "industry"  # and the one of which a stock has one at a time


@dataclass(frozen=True)
class SideTable:
    """A file of side data as it was read.

    Attributes
    ----------
    name, shape
        The file's name without suffix; spells, values, market or series.
    columns : tuple of str
        The columns that hold what the table is about; several of values and market.
    frame : DataFrame
        The columns of `KEYS[shape]` and `columns`, in the order of the file. Codes are upper-case and categories,
        days are Timestamps; an `end` that is open is NaT. Rows without a number are left out.
    """

    name: str
    shape: str
    columns: tuple[str, ...]
    frame: pd.DataFrame

    @property
    def column(self) -> str:
        """The column of a table that is about one thing: that of its name, or the only one."""
        if self.name in self.columns:
            return self.name
        if len(self.columns) > 1:
            raise UserError(
                f"the side data {brief(self.name)} must have a column {self.name} where one number is asked for, "
                f"found {', '.join(self.columns)}"
            )
        return self.columns[0]


def read_table(path: Path, file: str) -> tuple[SideTable | None, list[Finding]]:
    """Read a file of side data.

    Parameters
    ----------
    path
        A `.parquet` or `.csv` file; its stem is the table's name.
    file
        What findings call it: its path within the store.

    Returns
    -------
    table : SideTable or None
        None where it cannot be made.
    findings : list of Finding
        Every fault that the file alone shows, one a kind.
    """
    try:
        frame = read_frame(path)
    except (ValueError, OSError) as error:  # pyarrow's errors are one or the other
        text = " ".join(str(error).split())
        return None, [fault("side-unreadable", f"`{file}` is no Parquet or CSV table: {text}", file=file)]
    table, found = check_frame(path.stem, frame, f"`{file}`")
    return table, [replace(finding, file=file) for finding in found]


def read_frame(path: Path) -> pd.DataFrame:
    """Read a Parquet or CSV file (`.csv.gz` too); keys stay text, numbers become numbers where all of them are."""
    if path.suffix.lower() == ".parquet":
        check_parquet(path)
        schema = pq.read_schema(path)
        texts = [
            field.name
            for field in schema
            if pa.types.is_string(field.type) or pa.types.is_large_string(field.type)
        ]
        table = pq.read_table(path, read_dictionary=texts)
        frame = table.to_pandas(
            split_blocks=True, self_destruct=True
        )  # a whole market's values are there but once
        del table
        return frame if frame.index.names == [None] else frame.reset_index()  # keys may be the index
    names = read_header(path)
    keys = {*KEYS["spells"], *KEYS["values"], *KEYS["series"], "stated_lag"} - {"value"}
    if {"start", "end"} & set(names):  # what stocks belong to is text, however much it looks like numbers
        keys |= set(names)
    types = {name: "category" for name in names if name in keys}
    blank = {name: list(BLANK) for name in names if name not in keys}
    with open_table(path) as file:
        return pd.read_csv(file, dtype=types, keep_default_na=False, na_values=blank, low_memory=False)


def read_header(path: Path) -> list[str]:
    """The columns of a Parquet or CSV file; ValueError or OSError where it is none."""
    if path.suffix == ".parquet":
        check_parquet(path)
        return [name for name in pq.read_schema(path).names if not name.startswith("__index")]
    with open_table(path) as file:
        return list(pd.read_csv(file, nrows=0).columns)


def check_frame(name: str, frame: pd.DataFrame, where: str) -> tuple[SideTable | None, list[Finding]]:
    """Turn a frame as a file gives it into a table of one shape, and tell every fault of it.

    Parameters
    ----------
    name
        Of the table.
    frame
        Columns as in the file, in any order.
    where
        What messages call the table.
    """
    found = shape_of(name, list(frame.columns), where)
    if isinstance(found, Finding):
        return None, [found]
    shape, columns_about = found
    if frame.empty:
        return None, [fault("side-empty", f"{where} has no rows: remove it, or bring the table in again")]
    frame = frame.copy(deep=False)
    frame.index = pd.RangeIndex(len(frame))
    rows = Rows(frame, where)
    check = {
        "spells": _check_spells,
        "values": _check_values,
        "market": _check_market,
        "series": _check_series,
    }[shape]
    table = check(name, columns_about, rows)
    if table is not None and table.frame.empty:
        return None, [*rows.found, fault("side-empty", f"{where} has no number in any of its rows")]
    return table, rows.found


def shape_of(name: str, columns: Sequence[str], where: str) -> tuple[str, tuple[str, ...]] | Finding:
    """Shape of a table with these columns and what it is about, or what is wrong with them."""
    if {"series", "release_date", "period"} & set(columns):
        shape = "series"
    elif {"start", "end"} & set(columns):
        shape = "spells"
    elif "datetime" in columns:
        shape = "values" if "instrument" in columns or name == MARKET_VALUE else "market"
    else:
        forms = "; ".join(f"{', '.join(_needed(shape, name))} ({shape})" for shape in KEYS)
        return fault(
            "side-unknown-shape",
            f"{where} has the columns {', '.join(columns) or 'none'}, and must have those of one shape: {forms}",
        )
    missing = [key for key in KEYS[shape] if key not in columns]
    rest = [column for column in columns if column not in KEYS[shape]]
    if shape == "series":
        rest = ["value"]
    elif (shape == "spells" or name == MARKET_VALUE) and len(rest) > 1:
        rest = [column for column in rest if column == name]
    if rest and not missing:
        return shape, tuple(rest)
    missing = missing or [name]
    way_out = ""
    if "release_date" in missing:
        way_out = (
            ": without release dates figures would be known before they were published; add them, or state a lag "
            "as you bring the table in (`qlib-ext data side-data ... --lag`)"
        )
    return fault(
        "side-missing-column",
        f"{where} has no column {', '.join(missing)}, which a table of {shape} needs "
        f"({', '.join(_needed(shape, name))}){way_out}",
        count=len(missing),
    )


def _needed(shape: str, name: str) -> tuple[str, ...]:
    return KEYS[shape] if shape == "series" else (*KEYS[shape], name)


def _check_spells(name: str, columns: tuple[str, ...], rows: Rows) -> SideTable | None:
    (column,) = columns
    codes, names = rows.texts("instrument", upper=True), rows.texts(column)
    start, end = rows.days("start"), rows.days("end", open_ended=True)
    if rows.found:
        return None
    rows.label(codes, start)
    rows.report(
        (end < start).to_numpy(), "side-reversed-spell", "ends before it begins; correct or remove it"
    )
    table = pd.DataFrame({"instrument": codes, "start": start, "end": end, column: names})
    if not rows.found:
        rows.report(
            _overlaps(table, ["instrument"] if name == INDUSTRY else ["instrument", column]),
            "side-overlapping-spells",
            f"begins before an earlier spell of the stock{'' if name == INDUSTRY else ' and name'} has ended",
        )
    return SideTable(name, "spells", columns, table)


def _check_values(name: str, columns: tuple[str, ...], rows: Rows) -> SideTable | None:
    days, codes = rows.days("datetime"), rows.texts("instrument", upper=True)
    numbers = {column: rows.numbers(column) for column in columns}
    if rows.found:
        return None
    rows.label(codes, days)
    day, stock = days.to_numpy().astype("M8[D]").astype(np.int32), codes.cat.codes.to_numpy()
    in_order = (
        day[1:] >= day[:-1]
    ).all()  # as tables are written: a sort of the codes alone, which is quick, will do
    order = np.argsort(stock, kind="stable") if in_order else np.lexsort((day, stock))
    same_stock = np.diff(stock[order], prepend=-1) == 0  # by stock and day: as the row before
    days_since = np.diff(day[order], prepend=0)
    repeats = np.zeros(len(day), dtype=bool)
    repeats[order] = same_stock & (days_since == 0)
    rows.report(repeats, "side-doubled-row", "repeats a stock and day; keep one row for each")
    if name == MARKET_VALUE:
        (value,) = numbers.values()
        rows.report(
            ~np.isnan(value) & ~(value > 0),
            "side-bad-market-value",
            "has a market value that is not above 0; leave rows without a known one out",
        )
        ordered = value[order]
        with np.errstate(invalid="ignore", divide="ignore"):
            ratio = np.divide(ordered[1:], ordered[:-1])
        jumps = np.zeros(len(day), dtype=bool)
        jumps[order[1:]] = (
            (same_stock & (days_since <= 7))[1:] & (ratio > 0) & ((ratio >= JUMP) | (ratio <= 1 / JUMP))
        )
        rows.report(
            jumps,
            "side-market-value-jump",
            f"has a market value {JUMP:g} times larger or smaller than a week before or less; are units mixed?",
        )
    table = pd.DataFrame({"datetime": days, "instrument": codes, **numbers}, copy=False)
    return SideTable(name, "values", columns, _with_a_number(table, numbers))


def _check_market(name: str, columns: tuple[str, ...], rows: Rows) -> SideTable | None:
    days, numbers = rows.days("datetime"), {column: rows.numbers(column) for column in columns}
    if rows.found:
        return None
    rows.report(days.duplicated().to_numpy(), "side-doubled-row", "repeats a day; keep one row for each")
    table = pd.DataFrame({"datetime": days, **numbers}, copy=False)
    return SideTable(name, "market", columns, _with_a_number(table, numbers))


def _with_a_number(table: pd.DataFrame, numbers: Mapping[str, np.ndarray]) -> pd.DataFrame:
    """The rows in which some column has a number."""
    there = np.logical_or.reduce([~np.isnan(each) for each in numbers.values()])
    return table if there.all() else table[there]


def _check_series(name: str, columns: tuple[str, ...], rows: Rows) -> SideTable | None:
    (column,) = columns
    names, periods = rows.texts("series"), rows.periods("period")
    numbers, released = rows.numbers(column), rows.days("release_date")
    if rows.found:
        return None
    rows.label(names, released)
    frequency = periods["frequency"]
    rows.report(
        (frequency != frequency.groupby(names, observed=True).transform("first")).to_numpy(),
        "side-bad-period",
        "has a period of another length than the first of its series; give each length a series of its own",
    )
    rows.report(
        (released < periods["end"]).to_numpy(),
        "side-released-early",
        "is released before its period ends; give the day of publication, or a lag that reaches beyond the period",
    )
    table = pd.DataFrame(
        {"series": names, "period": periods["text"], "value": numbers, "release_date": released}
    )
    rows.report(
        table.duplicated(["series", "period", "release_date"]).to_numpy(),
        "side-doubled-row",
        "repeats a series, period and release date; keep one row for each",
    )
    if LAG in rows.frame:
        table[LAG] = rows.frame[LAG].astype(str)
    return SideTable(name, "series", columns, table[~np.isnan(numbers)])


def _overlaps(table: pd.DataFrame, keys: list[str]) -> np.ndarray:
    """Rows that begin before an earlier row of the same `keys` has ended."""
    ordered = table.assign(end=table["end"].fillna(FAR)).sort_values([*keys, "start"], kind="stable")
    group = ordered.groupby(keys, observed=True, sort=False).ngroup().to_numpy()
    # The latest end so far, within a group: groups lie one after the other, so each is lifted above the one before.
    end = ordered["end"].to_numpy().astype("M8[D]").astype(np.int64)
    lift = group * (int(end.max()) - int(end.min()) + 1)
    latest = np.maximum.accumulate(end + lift) - lift
    wrong = np.zeros(len(table), dtype=bool)
    start = ordered["start"].to_numpy().astype("M8[D]").astype(np.int64)
    wrong[ordered.index[1:]] = (group[1:] == group[:-1]) & (start[1:] <= latest[:-1])
    return wrong
