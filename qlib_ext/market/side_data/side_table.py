"""Tables of side data: their shapes, and every fault that a table alone shows.

What the shapes mean is told in `qlib_ext.market.side_data.side_data`.
"""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qlib_ext.market.finding import Finding, Kind

KEYS = {
    "spells": ("instrument", "start", "end"),
    "values": ("datetime", "instrument"),
    "series": ("series", "period", "value", "release_date"),
}
MARKET_VALUE = "market_value"  # the one table whose meaning is fixed: it must be positive
LAG = "stated_lag"  # where release dates were made from a lag, says which
INDUSTRY = "industry"  # and the one of which a stock has one at a time
# What a blank number looks like in a CSV file. Codes are never blank: `NA` and `NAN` are codes.
BLANK = ("", "NA", "N/A", "NaN", "nan", "null", "None")
# Years that a Timestamp cannot hold; vendors write 9999-12-31 for "still in force".
FAR = pd.Timestamp("2261-12-31")
FIRST_YEAR = 1678
JUMP = 50.0  # times: more than any day's news does to a firm's value, less than a change of units

KINDS = (
    Kind("side-unreadable", "error", "a file of side data is no Parquet or CSV table", "nothing can be read from it"),
    Kind("side-two-files", "error", "a table of side data has both a Parquet and a CSV file",
         "which of them is meant is anybody's guess"),
    Kind("side-unknown-shape", "error", "the columns of a table of side data fit no known shape",
         "nothing says when a row was known"),
    Kind("side-missing-column", "error", "a table of side data lacks a column that its shape needs",
         "a series without release dates, for one, would be known before it was published"),
    Kind("side-empty", "error", "a table of side data has no rows", "whatever reads it would get nothing"),
    Kind("side-missing-value", "error", "rows of a table of side data have no stock, day, name or period",
         "they belong nowhere"),
    Kind("side-bad-date", "error", "rows of a table of side data have text that is no day, a time of day or a time zone",
         "when they were known cannot be told"),
    Kind("side-bad-number", "error", "rows of a table of side data have text or infinity where a number belongs",
         "it would spread through every feature made of it"),
    Kind("side-bad-period", "error",
         "rows of a series have a reference period that cannot be read, or of another length than the rest",
         "which figure follows which cannot be told"),
    Kind("side-reversed-spell", "error", "spells of a table of side data end before they begin",
         "the stock would have no industry or concept in a time in which it had one"),
    Kind("side-doubled-row", "error",
         "a table of side data has two rows for the same stock and day, or the same release of a period",
         "which of them is true cannot be told"),
    Kind("side-bad-market-value", "error", "market values are zero or negative",
         "they weigh stocks, and no listed firm is worth nothing"),
    Kind("side-released-early", "error", "figures of a series are released before their period ends",
         "a model would know them too early"),
    Kind("side-no-known-code", "error", "no code of a table of side data has bars",
         "codes are written another way than in the store, and no stock would get a value"),
    Kind("side-overlapping-spells", "warning",
         "spells of one stock and name overlap, or a stock has two industries at once",
         "an earlier spell was probably meant to end where the next begins"),
    Kind("side-market-value-jump", "warning", f"market values jump by {JUMP:g} times or more within a week",
         "rows in different units are mixed"),
    Kind("side-few-stocks", "warning", "a table of side data has rows for less than half of the stocks with bars",
         "the other half has none"),
    Kind("side-nothing-inside", "warning", "all rows of a table of side data lie outside of the calendar",
         "no day of the store has any of it"),
    Kind("side-ends-early", "warning", "a table of side data ends long before the bars do",
         "later days have none of it, or old figures"),
    Kind("side-outside-calendar", "note", "some rows of a table of side data lie outside of the calendar",
         "they are not used"),
    Kind("side-unknown-code", "note", "a table of side data names codes without bars", "their rows are not used"),
)  # fmt: skip
_SEVERITY = {kind.name: kind.severity for kind in KINDS}


@dataclass(frozen=True)
class SideTable:
    """A file of side data as it was read.

    Attributes
    ----------
    name, shape, column
        The file's name without suffix; spells, values or series; the column that holds what the table is about.
    frame : DataFrame
        The columns of `KEYS[shape]` and `column`, in the order of the file. Codes are upper-case and categories,
        days are Timestamps; an `end` that is open is NaT. Rows of values and series whose number is blank are left
        out.
    """

    name: str
    shape: str
    column: str
    frame: pd.DataFrame


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
    if path.suffix == ".parquet":
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
    return pd.read_csv(path, dtype=types, keep_default_na=False, na_values=blank, low_memory=False)


def read_header(path: Path) -> list[str]:
    """The columns of a Parquet or CSV file; ValueError or OSError where it is none."""
    if path.suffix == ".parquet":
        return [name for name in pq.read_schema(path).names if not name.startswith("__index")]
    return list(pd.read_csv(path, nrows=0).columns)


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
    shape, column = found
    if frame.empty:
        return None, [fault("side-empty", f"{where} has no rows: remove it, or bring the table in again")]
    frame = frame.copy(deep=False)
    frame.index = pd.RangeIndex(len(frame))
    rows = Rows(frame, where)
    check = {"spells": _check_spells, "values": _check_values, "series": _check_series}[shape]
    table = check(name, column, rows)
    if table is not None and table.frame.empty:
        return None, [*rows.found, fault("side-empty", f"{where} has no number in any of its rows")]
    return table, rows.found


def shape_of(name: str, columns: Sequence[str], where: str) -> tuple[str, str] | Finding:
    """Shape and value column of a table with these columns, or what is wrong with them."""
    if {"series", "release_date", "period"} & set(columns):
        shape = "series"
    elif {"start", "end"} & set(columns):
        shape = "spells"
    elif "datetime" in columns:
        shape = "values"
    else:
        forms = "; ".join(f"{', '.join(_needed(shape, name))} ({shape})" for shape in KEYS)
        return fault(
            "side-unknown-shape",
            f"{where} has the columns {', '.join(columns) or 'none'}, and must have those of one shape: {forms}",
        )
    missing = [key for key in KEYS[shape] if key not in columns]
    rest = [column for column in columns if column not in KEYS[shape]]
    column = "value" if shape == "series" else name if name in rest else rest[0] if len(rest) == 1 else None
    if column is not None and not missing:
        return shape, column
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


def _check_spells(name: str, column: str, rows: Rows) -> SideTable | None:
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
    return SideTable(name, "spells", column, table)


def _check_values(name: str, column: str, rows: Rows) -> SideTable | None:
    days, codes, numbers = rows.days("datetime"), rows.texts("instrument", upper=True), rows.numbers(column)
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
    there = ~np.isnan(numbers)
    if name == MARKET_VALUE:
        rows.report(
            there & ~(numbers > 0),
            "side-bad-market-value",
            "has a market value that is not above 0; leave rows without a known one out",
        )
        ordered = numbers[order]
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
    table = pd.DataFrame({"datetime": days, "instrument": codes, column: numbers}, copy=False)
    return SideTable(name, "values", column, table if there.all() else table[there])


def _check_series(name: str, column: str, rows: Rows) -> SideTable | None:
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
    return SideTable(name, "series", "value", table[~np.isnan(numbers)])


class Rows:
    """The rows of a table: columns turned into types, faults collected."""

    def __init__(self, frame: pd.DataFrame, where: str):
        self.frame = frame
        self.where = where
        self.found: list[Finding] = []
        self._codes: pd.Series | None = None
        self._days: pd.Series | None = None

    def label(self, codes: pd.Series, days: pd.Series) -> None:
        """What a row is called in the findings that follow."""
        self._codes, self._days = codes, days

    def report(self, wrong: np.ndarray, kind: str, message: str) -> None:
        """One finding for the rows `wrong` (bool), told by the first of them."""
        count = int(np.count_nonzero(wrong))
        if not count:
            return
        row = int(np.argmax(wrong))
        code = None if self._codes is None else str(self._codes.iloc[row])
        day = None if self._days is None else f"{self._days.iloc[row]:%Y-%m-%d}"
        what = f"row {row + 1}" + ("" if code is None else f" ({code}, {day})")
        rest = f" ({count} rows are like it)" if count > 1 else ""
        self.found.append(
            fault(kind, f"{self.where}: {what} {message}{rest}", instrument=code, date=day, count=count)
        )

    def texts(self, name: str, upper: bool = False) -> pd.Series:
        """A column of names or codes as categories in the order of the alphabet; a blank is a fault."""
        codes, uniques = pd.factorize(self.frame[name])
        words = [str(word).strip() for word in uniques]
        categories, back = np.unique(
            np.array([word.upper() if upper else word for word in words], dtype=object), return_inverse=True
        )
        codes = np.append(back, -1)[codes]  # code -1, a missing value, is the last
        blank = codes == -1
        if len(categories) and categories[0] == "":
            blank |= codes == 0
        self.report(blank, "side-missing-value", f"has no `{name}`")
        return pd.Series(pd.Categorical.from_codes(codes, categories=categories))

    def days(self, name: str, open_ended: bool = False) -> pd.Series:
        """A column of days as Timestamps; a blank is NaT where the column may be open, and a fault elsewhere."""
        column = self.frame[name]
        if getattr(column.dtype, "tz", None) is not None:
            everyone = np.ones(len(column), dtype=bool)
            self.report(
                everyone, "side-bad-date", f"has a time zone in `{name}`; write the exchange's local day"
            )
            return pd.Series(pd.NaT, index=column.index)
        codes, uniques = pd.factorize(column)
        empty = np.array([isinstance(word, str) and not word.strip() for word in uniques], dtype=bool)
        parsed = [
            pd.NaT if is_empty else parse_day(word) for is_empty, word in zip(empty, uniques, strict=True)
        ]
        days = pd.DatetimeIndex([*parsed, pd.NaT])[codes]  # code -1, a missing value, is the last
        blank = np.append(empty, True)[codes]
        wrong = np.asarray(days.isna()) & ~blank
        if wrong.any():
            found = column.iloc[int(np.argmax(wrong))]
            self.report(
                wrong, "side-bad-date", f"must have a day such as 2010-01-04 as `{name}`, found {found!s}"
            )
        if not open_ended:
            self.report(blank, "side-missing-value", f"has no `{name}`")
        return pd.Series(days)

    def numbers(self, name: str) -> np.ndarray:
        """A column of numbers as float64, NaN for blanks."""
        column = self.frame[name]
        if pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype):
            numbers = column.to_numpy(dtype=float, na_value=np.nan)
            blank = np.isnan(numbers)
        else:
            text = column.astype(object)
            blank = (text.isna() | text.isin(BLANK)).to_numpy()
            numbers = pd.to_numeric(text.where(~blank), errors="coerce").to_numpy(dtype=float)
        wrong = ~np.isfinite(numbers) & ~blank
        if wrong.any():
            found = column.iloc[int(np.argmax(wrong))]
            self.report(wrong, "side-bad-number", f"must have a finite number as `{name}`, found {found!s}")
        return numbers

    def periods(self, name: str) -> pd.DataFrame:
        """A column of reference periods, as `parse_periods` reads them."""
        periods = parse_periods(self.frame[name])
        wrong = periods["frequency"].isna().to_numpy()
        if wrong.any():
            found = self.frame[name].iloc[int(np.argmax(wrong))]
            self.report(
                wrong,
                "side-bad-period",
                f"must have a period such as 1998, 1998Q1, 1998-01 or 1998-01-31 as `{name}`, found {found!s}",
            )
        return periods


def parse_periods(column: pd.Series) -> pd.DataFrame:
    """Read reference periods.

    Parameters
    ----------
    column
        Texts such as 1998, 1998Q1, 1998-01 or 1998-01-31, or days.

    Returns
    -------
    DataFrame
        A row for each of `column`: `text` in the forms above, `frequency` (Y, Q, M or D), `ordinal` (grows by 1 from
        a period to the next), `start` and `end` (first and last day). All but `ordinal` are missing where there is no
        period to read.
    """
    codes, uniques = pd.factorize(column)
    periods = [_period(word) for word in uniques]
    records = [
        (None, None, -1, pd.NaT, pd.NaT)
        if period is None
        else (
            str(period),
            period.freqstr[0],
            period.ordinal,
            period.start_time.normalize(),
            period.end_time.normalize(),
        )
        for period in [*periods, None]  # code -1, a missing value, is the last
    ]
    table = pd.DataFrame(records, columns=["text", "frequency", "ordinal", "start", "end"])
    table = table.astype({"start": "M8[ns]", "end": "M8[ns]"})
    return table.iloc[codes].set_axis(column.index)


_PERIOD = re.compile(r"(\d{4})(?:-?[Qq]([1-4])|(?:-|[Mm])(0?[1-9]|1[0-2]))?")


def _period(word: object) -> pd.Period | None:
    match = _PERIOD.fullmatch(str(word).strip())
    if match:
        year, quarter, month = match.groups()
        if not FIRST_YEAR <= int(year) <= FAR.year:
            return None
        if quarter:
            return pd.Period(f"{year}Q{quarter}", freq="Q")
        return pd.Period(f"{year}-{int(month):02d}", freq="M") if month else pd.Period(year, freq="Y")
    day = parse_day(word)
    return None if pd.isna(day) else pd.Period(day, freq="D")


_DAY = re.compile(r"(\d{4})(?:([-/.])(\d{1,2})\2(\d{1,2})|(\d{2})(\d{2}))(?:[T ]00:00(?::00(?:\.0+)?)?)?")


def parse_day(word: object) -> pd.Timestamp:
    """The day that a text such as 2010-01-04, a number such as 20100104 or a date names; NaT where it names none.

    The year comes first; a time other than midnight, or a time zone, is no day. Years that a Timestamp cannot hold,
    such as that of 9999-12-31, give the last day that this package uses.
    """
    if isinstance(word, dt.date) and not isinstance(word, dt.datetime):
        word = word.isoformat()
    if isinstance(word, (dt.datetime, np.datetime64)):
        day = pd.Timestamp(word)
        if day.tz is not None or day != day.normalize() or day.year < FIRST_YEAR:
            return pd.NaT
        return FAR if day.year > FAR.year else day.as_unit("ns")
    if not isinstance(word, (str, int, float, np.number)):
        return pd.NaT
    whole = isinstance(word, (float, np.floating)) and word % 1 == 0
    match = _DAY.fullmatch(f"{word:.0f}" if whole else str(word).strip())
    if match is None:
        return pd.NaT
    year, _, month, day_of_month, two, digits = match.groups()
    if int(year) > FAR.year:
        return FAR
    if int(year) < FIRST_YEAR:
        return pd.NaT
    try:
        return pd.Timestamp(int(year), int(month or two), int(day_of_month or digits))
    except ValueError:
        return pd.NaT


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


def fault(
    kind: str,
    message: str,
    *,
    file: str | None = None,
    instrument: str | None = None,
    date: str | None = None,
    count: int = 1,
) -> Finding:
    """Make a finding of one of `KINDS`, with its severity."""
    return Finding(kind, _SEVERITY[kind], message, file, instrument, date, count)
