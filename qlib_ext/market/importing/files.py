"""Files of a user's bars, CSV or Parquet: found, looked at, and read piece by piece."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qlib_ext.checks import UserError, brief
from qlib_ext.files import MIB, open_file, open_table
from qlib_ext.market.codes import is_bare, normalise_code
from qlib_ext.market.columns import KNOWN, REQUIRED, Known, recognise
from qlib_ext.market.importing.heads import LINES, Head, column_head, text_head, written_number
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.importing.trading_days import DayReader
from qlib_ext.market.text_files import reading
from qlib_ext.paths import is_stray

TEXT, PARQUET = "CSV", "Parquet"
SUFFIXES = {
    ".csv": TEXT,
    ".csv.gz": TEXT,
    ".tsv": TEXT,
    ".tsv.gz": TEXT,
    ".parquet": PARQUET,
    ".pq": PARQUET,
}
CHUNK_ROWS = 500_000  # of a long file: about 40 MB a chunk
CHUNK_CELLS, CHUNK_BYTES = 10 * CHUNK_ROWS, 512 * MIB  # of a wide one, and of its text
# What stands for a missing value; anything else that is no number is noted.
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "none", "-", "--"]
PRICES = ("open", "high", "low", "close", "preclose", "adj_close", "vwap")
GUESSED = "{code} without an exchange: given that of the first digits"
# Words of a status; numbers speak for themselves.
_YES_NO = {"true": 1.0, "false": 0.0, "yes": 1.0, "no": 0.0, "是": 1.0, "否": 0.0}
_WORDS = {
    "traded": {**_YES_NO, "交易": 1.0, "正常交易": 1.0, "停牌": 0.0},
    "paused": {**_YES_NO, "停牌": 1.0},
}
_POSITIVE = {"factor"}  # 0 is as wrong as a negative number
_INDEX = "__index_level_0__"  # how pandas calls an index without a name in Parquet


@dataclass(frozen=True)
class SourceFile:
    """One file of a source.

    Attributes
    ----------
    path : Path
    columns : mapping
        Field to column.
    code : str or None
        Of all its rows, from the file's name; None where a column or the head tells it.
    head : Head
        What stands before its rows.
    wide : mapping
        Code to field to the number of its column, where each instrument has columns of its own; else empty.
    """

    path: Path
    columns: Mapping[str, str]
    code: str | None
    head: Head
    wide: Mapping[str, Mapping[str, int]] = dataclasses.field(default_factory=dict)

    @property
    def kind(self) -> str:
        """`CSV` or `Parquet`."""
        return SUFFIXES[_suffix(self.path)]

    @property
    def unused(self) -> list[str]:
        """Columns that are no field."""
        return [name for name in dict.fromkeys(self.head.names) if name not in self.columns.values()]


@dataclass(frozen=True)
class Piece:
    """Rows of a file, in its order.

    Attributes
    ----------
    codes : tuple of str
        Instruments of the piece.
    code : int array [n]
        Index into `codes` of each row.
    days : datetime64[D] array [n]
    values : float64 array [n, F]
        A column a field as they were asked for, NaN where there is no value.
    negative : int array
        Rows whose high is below zero, so that no typing error explains it.
    """

    codes: tuple[str, ...]
    code: np.ndarray
    days: np.ndarray
    values: np.ndarray
    negative: np.ndarray

    def place(self, row: int) -> str:
        """A row, for messages."""
        return f"{self.codes[self.code[row]]} {self.days[row]}"


def scan(source: str | Path, settings: ImportSettings, notes: Notes) -> list[SourceFile]:
    """Find the files of a source and look at the head of each.

    Parameters
    ----------
    source
        A file or a folder; `~` is expanded. In a folder the files of a known suffix are read, not those of
        folders below, unless `settings.pattern` says otherwise; hidden files never.
    settings
        `pattern`, `columns`, `encoding`, `region`.
    notes
        What is left out goes there.

    Raises
    ------
    UserError
        If there is nothing to read, CSV and Parquet are mixed, a file cannot be read, or its columns are unclear.
    """
    paths = _find(Path(source).expanduser(), settings.pattern, notes)
    files = [_look(path, settings, KNOWN, REQUIRED) for path in paths]
    for file in files:
        stem = _stem(file.path)
        if file.code is not None and is_bare(stem, settings.region):
            notes.gather(GUESSED, [f"{stem} is {file.code}"])
        if file.head.titles:
            notes.add("{file} with lines above the names of its columns: not read", places=[file.path.name])
    return files


def _find(source: Path, pattern: str | None, notes: Notes) -> list[Path]:
    known = ", ".join(SUFFIXES)
    if source.is_file():
        if _suffix(source) not in SUFFIXES:
            raise UserError(f"`{source}` must be a file of one of the suffixes {known}")
        return [source]
    if not source.is_dir():
        raise UserError(f"expected a file or a folder of bars, found nothing at `{source}`")
    try:
        there = sorted(source.glob(pattern or "*"))
    except (ValueError, NotImplementedError) as error:
        raise UserError(f"`pattern` must be one such as *.csv, found {brief(pattern)}: {error}") from error
    files = [path for path in there if path.is_file() and not is_stray(path.name)]
    strays = [path.name for path in there if path.is_file() and is_stray(path.name)]
    paths = [path for path in files if _suffix(path) in SUFFIXES]
    others = [path.name for path in files if _suffix(path) not in SUFFIXES]
    if not paths:
        what = f"matches {brief(pattern)} and ends in" if pattern else "ends in"
        below = [f"{path.name}/" for path in sorted(source.iterdir()) if path.is_dir()]
        held = f"; it holds {', '.join([*others, *below][:5])}" if others or below else ""
        raise UserError(f"no file in `{source}` {what} one of {known}{held}")
    kinds = {SUFFIXES[_suffix(path)]: path for path in reversed(paths)}
    if len(kinds) > 1:
        raise UserError(
            f"`{source}` holds CSV and Parquet files, such as {kinds[TEXT].name} and {kinds[PARQUET].name}: choose "
            f"with a pattern such as `--pattern '*{_suffix(kinds[TEXT])}'`"
        )
    notes.add("{file} of other suffixes: not read", len(others), others)
    notes.add("{file} of the desktop or an editor, no data: not read", len(strays), strays)
    return paths


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), "")


def _stem(path: Path) -> str:
    return path.name[: -len(_suffix(path))]


def _look(path: Path, settings: ImportSettings, known: Known, required: Sequence[str]) -> SourceFile:
    given = dict(settings.columns)
    with reading(path, settings.encoding):
        if SUFFIXES[_suffix(path)] == PARQUET:
            with open_file(path) as parquet:
                schema = pq.read_schema(parquet)
            head = column_head(schema.names, known)
            if (
                _INDEX in schema.names
                and "date" not in given
                and pa.types.is_temporal(schema.field(_INDEX).type)
            ):
                given["date"] = _INDEX
        else:
            with open_table(path, encoding=settings.encoding) as table:
                stream = io.TextIOWrapper(table, encoding=settings.encoding, newline="")
                lines = list(itertools.islice(stream, LINES))
                while lines and not any(line.strip() for line in lines):
                    lines = list(itertools.islice(stream, LINES))
            if not lines:
                raise UserError(f"`{path}` is empty")
            head = text_head(lines, known, settings.decimal, str(path))
    if head.codes:
        return _look_at_wide(path, head, given, known, required)
    columns = recognise(head.names, given, where=f"`{path}`", known=known, required=required)
    code = None
    if "code" not in columns:
        with _naming(f"the name of `{path}`, since it has no column of codes"):
            code = normalise_code(_stem(path), settings.region)
    return SourceFile(path, columns, code, head)


def _look_at_wide(
    path: Path, head: Head, given: Mapping[str, str], known: Known, required: Sequence[str]
) -> SourceFile:
    """A file in which each instrument has columns of its own, as `yfinance` writes one or many."""
    wide = {}
    columns: dict[str, str] = {}
    for code in dict.fromkeys(filter(None, head.codes)):
        own = [number for number, of in enumerate(head.codes) if of in ("", code)]
        names = [head.names[number] for number in own]
        found = recognise(names, given, where=f"{code} in `{path}`", known=known, required=required)
        wide[code] = {field: own[names.index(column)] for field, column in found.items()}
        columns |= found
    return SourceFile(path, {**columns, "code": "the head"}, None, head, wide)


def day_reader(settings: ImportSettings, timezone: str) -> DayReader:
    """The reader of days that `settings` ask for; `timezone` is that of the exchange."""
    return DayReader(timezone, date_format=settings.date_format, keep_utc_dates=settings.timezone is None)


def pieces(
    file: SourceFile, fields: Sequence[str], settings: ImportSettings, days: DayReader, notes: Notes
) -> Iterator[Piece]:
    """Read a file piece by piece, a long one in chunks.

    A value that is no number, infinite, or negative where it cannot be is made NaN, and so is a price of 0;
    both are noted with stock, day and file.

    Parameters
    ----------
    file
        From `scan`.
    fields
        F fields, whose values are wanted; one that the file does not have is NaN.
    settings
        How it is read.
    days
        Reads the days; one reader for all files of a source is quickest.
    notes
        Receives what was found.

    Raises
    ------
    UserError
        If the file cannot be read, a row has no day or no code that can be read, or, with `bad_values="error"`,
        a value is bad.
    """
    before = 0
    stamps = set()
    for table in _tables(file, settings):
        read, taken = _days(file, table["date"], before, days)
        stamps.add(taken)
        codes, code = _codes(file, table, before, settings, notes)
        rows = _Rows(file.path.name, codes, code, read)
        values = np.full((len(table), len(fields)), np.nan)
        for index, field in enumerate(fields):
            if field in file.columns:
                sign = file.head.decimal
                values[:, index] = _numbers(table[field], field, rows, settings, notes, sign)
        high = pd.to_numeric(table["high"], errors="coerce") if "high" in table else pd.Series(dtype=float)
        yield Piece(codes, code, read, values, np.flatnonzero(high < 0))
        before += len(table)
    if "midnight UTC" in stamps:
        notes.add(
            "{file} with days stamped as midnight UTC: taken as the days they name (`--timezone "
            f"{days.timezone}` converts them)",
            places=[file.path.name],
        )
    if "local time" in stamps:
        notes.add(
            "{file} with times of day but no time zone: taken as local time of the exchange",
            places=[file.path.name],
        )


def read_table(
    path: str | Path,
    settings: ImportSettings,
    days: DayReader,
    known: Known,
    required: Sequence[str],
    notes: Notes,
) -> pd.DataFrame:
    """Read a smaller file of dated rows whole, such as splits and dividends.

    Parameters
    ----------
    path
        A CSV or Parquet file.
    settings
        `region` and `encoding` count.
    days
        Reads the days.
    known
        Field to the groups of names of its columns, as `recognise` takes them; with `date` and `code`.
    required
        Fields that must be there.
    notes
        Receives what was found.

    Returns
    -------
    DataFrame
        `date` (Timestamp), `code` (as a store has it), and the other fields that are there as floats.

    Raises
    ------
    UserError
        As `scan` and `pieces`; a bad value is always an error.
    """
    path = Path(path).expanduser()
    if not path.is_file():
        raise UserError(f"expected a file, found none at `{path}`")
    _find(path, None, notes)
    plain = dataclasses.replace(settings, columns={}, bad_values="error")
    file = _look(path, plain, known, required)
    fields = [field for field in file.columns if field not in ("date", "code")]
    parts = [
        pd.DataFrame(piece.values, columns=fields).assign(
            date=piece.days.astype("datetime64[ns]"), code=np.array(piece.codes, dtype=object)[piece.code]
        )
        for piece in pieces(file, fields, plain, days, notes)
    ]
    if not parts:
        raise UserError(f"`{path}` holds no rows")
    return pd.concat(parts, ignore_index=True)


def _tables(file: SourceFile, settings: ImportSettings) -> Iterator[pd.DataFrame]:
    """Tables of at least one row, with a column a field, as they were typed."""
    if file.wide:
        fields = {number: field for of in file.wide.values() for field, number in of.items()}
    else:
        fields = {file.head.names.index(column): field for field, column in file.columns.items()}
    read = _parquet_tables(file, fields) if file.kind == PARQUET else _text_tables(file, fields, settings)
    while True:
        # Only what the libraries do is under watch, not what is done with the table.
        with reading(file.path, settings.encoding):
            table = next(read, None)
        if table is None:
            return
        table = _long(table, file.wide) if file.wide else table.rename(columns=fields)
        if len(table):
            yield table


def _long(table: pd.DataFrame, wide: Mapping[str, Mapping[str, int]]) -> pd.DataFrame:
    """A row a day and instrument, of those that have any value on the day."""
    parts = []
    for code, fields in wide.items():
        part = table[list(fields.values())].set_axis(list(fields), axis=1)
        parts.append(
            part.dropna(how="all", subset=[field for field in fields if field != "date"]).assign(code=code)
        )
    return pd.concat(parts, ignore_index=True)


def _parquet_tables(file: SourceFile, fields: Mapping[int, str]) -> Iterator[pd.DataFrame]:
    with open_file(file.path) as stream, pq.ParquetFile(stream) as parquet:
        names = {parquet.schema_arrow.names[number]: number for number in fields}
        for batch in parquet.iter_batches(CHUNK_ROWS, columns=list(names)):
            yield _as_pandas(batch).rename(columns=names)


def _text_tables(
    file: SourceFile, fields: Mapping[int, str], settings: ImportSettings
) -> Iterator[pd.DataFrame]:
    with (
        open_table(file.path, CHUNK_BYTES, settings.encoding) as stream,
        pd.read_csv(
            stream,
            sep=file.head.separator,
            header=None,
            names=range(len(file.head.names)),
            skiprows=file.head.skipped,
            decimal=file.head.decimal,
            dtype={number: str for number, field in fields.items() if field in ("date", "code")},
            # `NA` is a code.
            na_values={number: MISSING for number, field in fields.items() if field != "code"},
            keep_default_na=False,
            encoding="utf-8-sig" if settings.encoding == "utf-8" else settings.encoding,
            chunksize=max(1, min(CHUNK_ROWS, CHUNK_CELLS // len(file.head.names))),
            low_memory=False,
            # Not only the columns that are wanted: then rows with too many fields would pass, shifted.
        ) as reader,
    ):
        for table in reader:
            stream.refill()
            if not isinstance(table.index, pd.RangeIndex):
                raise UserError(
                    f"`{file.path}` has rows of more fields than its header names; mend the header or the rows"
                )
            yield table[list(fields)]


def _as_pandas(batch: pa.RecordBatch) -> pd.DataFrame:
    table = pa.Table.from_batches([batch])
    for index, column in enumerate(table.schema):
        if pa.types.is_decimal(column.type):
            table = table.set_column(index, column.name, table.column(index).cast(pa.float64()))
        elif pa.types.is_dictionary(column.type):
            table = table.set_column(index, column.name, table.column(index).cast(column.type.value_type))
    return table.to_pandas(ignore_metadata=True)


@contextlib.contextmanager
def _naming(where: str) -> Iterator[None]:
    try:
        yield
    except UserError as error:
        raise UserError(f"{error} ({where})") from error


def _days(file: SourceFile, dates: pd.Series, before: int, reader: DayReader) -> tuple[np.ndarray, str]:
    """Days of the rows, none of them missing, and how they were stamped."""
    days, taken = reader.read(dates)
    wrong = np.flatnonzero(np.isnat(days))
    if wrong.size:
        value = dates.iloc[wrong[0]]
        raise UserError(
            f"`{file.path}` must have a day in each row of {brief(file.columns['date'])}, such as 2000-01-03, 20000103, a "
            f"timestamp or an epoch, found {'none' if pd.isna(value) else repr(value)} in row "
            f"{before + wrong[0] + 1:,} of the data ({wrong.size:,} such rows); tell another form with "
            "`--date-format`, such as %m/%d/%Y"
        )
    return days, taken


def _codes(
    file: SourceFile, table: pd.DataFrame, before: int, settings: ImportSettings, notes: Notes
) -> tuple[tuple[str, ...], np.ndarray]:
    """The instruments of a table, and the index of each row's."""
    if file.code is not None:
        return (file.code,), np.zeros(len(table), dtype=np.int32)
    position, written = pd.factorize(table["code"])
    texts = [str(one).strip() for one in written]
    empty = np.flatnonzero(
        (position < 0) | np.isin(position, [i for i, text in enumerate(texts) if not text])
    )
    if empty.size:
        raise UserError(
            f"`{file.path}` must have a code in each row of {brief(file.columns['code'])}, found none in row "
            f"{before + empty[0] + 1:,} of the data ({empty.size:,} such rows)"
        )
    with _naming(f"in {brief(file.columns['code'])} of `{file.path}`"):
        codes = [normalise_code(text, settings.region) for text in texts]
    guessed = [
        f"{text} is {code}" for text, code in zip(texts, codes, strict=True) if is_bare(text, settings.region)
    ]
    notes.gather(GUESSED, guessed)
    unique, merged = np.unique(codes, return_inverse=True)
    return tuple(unique.tolist()), merged.astype(np.int32)[position]


@dataclass(frozen=True)
class _Rows:
    """Where the rows of a table are, for messages."""

    file: str
    codes: tuple[str, ...]
    code: np.ndarray
    days: np.ndarray

    def places(self, rows: np.ndarray, values: pd.Series | None = None) -> Iterator[str]:
        for row in rows:
            value = "" if values is None else f" {brief(str(values.iloc[row]))}"
            yield f"{self.codes[self.code[row]]} {self.days[row]}{value} in {self.file}"


def bad_sentence(field: str) -> str:
    """The note of bad values of a field."""
    return f"{{value}} of `{field}` that cannot be (no number, infinite or negative): made missing"


def _as_written(column: pd.Series, field: str, settings: ImportSettings, decimal: str) -> np.ndarray:
    """Numbers of a column of texts, NaN where there is none."""
    texts = column.astype(object)
    if decimal == ",":  # a point parts thousands, and Python would take it for the decimal sign
        values = np.full(len(texts), np.nan)
    else:
        values = pd.to_numeric(texts, errors="coerce").to_numpy(dtype=np.float64).copy()
    percent = 100.0 if field == "change" and settings.change == "percent" else 1.0
    known: dict[Any, float] = {}
    for row in np.flatnonzero(np.isnan(values) & texts.notna().to_numpy()):
        text = texts.iloc[row]
        if text not in known:
            word = str(text).strip().lower()
            number = _WORDS.get(field, {}).get(word, written_number(word, decimal))
            scale = percent if word.endswith(("%", "%)")) else 1.0
            known[text] = np.nan if number is None else number * scale
        values[row] = known[text]
    return values


def _numbers(
    column: pd.Series, field: str, rows: _Rows, settings: ImportSettings, notes: Notes, decimal: str
) -> np.ndarray:
    """Values of a column, NaN where there is none or a bad one."""
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype) or column.dtype.kind in "biuf":
        try:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan).copy()
        except (ValueError, TypeError):  # an extension type of texts
            values = _as_written(column, field, settings, decimal)
    else:
        values = _as_written(column, field, settings, decimal)
    with np.errstate(invalid="ignore"):
        bad = np.isnan(values) & column.notna().to_numpy()
        bad |= np.isinf(values)
        if field in PRICES or field in ("volume", "amount"):
            bad |= values < 0
        elif field in _POSITIVE:
            bad |= values <= 0
    if bad.any():
        found = np.flatnonzero(bad)
        if settings.bad_values == "error":
            (first,) = rows.places(found[:1], column)
            raise UserError(
                f"`{field}` must be a finite number that is not negative, found {found.size:,} that are not, the "
                f"first of {first}; mend the source, or let `--bad-values nan` make them missing"
            )
        notes.add(bad_sentence(field), found.size, rows.places(found, column))
        values[bad] = np.nan
    if field in PRICES:
        zero = np.flatnonzero(values == 0)
        notes.add(f"{{price}} of 0 in `{field}`: made missing", zero.size, rows.places(zero))
        values[zero] = np.nan
    return values
