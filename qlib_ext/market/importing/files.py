"""Files of a user's bars, CSV or Parquet: found, looked at, and read piece by piece."""

from __future__ import annotations

import contextlib
import csv
import dataclasses
import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

from qlib_ext.checks import UserError
from qlib_ext.market.codes import is_bare, normalise_code
from qlib_ext.market.columns import KNOWN, REQUIRED, recognise
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.importing.trading_days import DayReader
from qlib_ext.market.text_files import reading

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
# What stands for a missing value; anything else that is no number is noted.
MISSING = ["", "NA", "N/A", "#N/A", "NaN", "nan", "null", "NULL", "None", "none", "-", "--"]
PRICES = ("open", "high", "low", "close", "adj_close", "vwap")
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
        Of all its rows, from the file's name; None where a column tells it.
    separator : str
        Of a CSV file.
    """

    path: Path
    columns: Mapping[str, str]
    code: str | None
    separator: str = ","

    @property
    def kind(self) -> str:
        """`CSV` or `Parquet`."""
        return SUFFIXES[_suffix(self.path)]


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
    """

    codes: tuple[str, ...]
    code: np.ndarray
    days: np.ndarray
    values: np.ndarray


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
    return [_look(path, settings, KNOWN, REQUIRED) for path in paths]


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
        raise UserError(f"`pattern` must be one such as *.csv, found {pattern!r}: {error}") from error
    files = [path for path in there if path.is_file() and not path.name.startswith(".")]
    paths = [path for path in files if _suffix(path) in SUFFIXES]
    others = [path.name for path in files if _suffix(path) not in SUFFIXES]
    if not paths:
        what = f"matches {pattern!r} and ends in" if pattern else "ends in"
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
    return paths


def _suffix(path: Path) -> str:
    name = path.name.lower()
    return next((suffix for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.endswith(suffix)), "")


def _look(
    path: Path,
    settings: ImportSettings,
    known: Mapping[str, tuple[frozenset[str], ...]],
    required: Sequence[str],
) -> SourceFile:
    separator = ","
    with reading(path, settings.encoding):
        if SUFFIXES[_suffix(path)] == PARQUET:
            schema = pq.read_schema(path)
            header = schema.names
        else:
            opener = gzip.open if path.name.lower().endswith(".gz") else open
            with opener(path, "rt", encoding=settings.encoding, newline="") as lines:
                first = next((line for line in lines if line.strip()), "")
            if not first:
                raise UserError(f"`{path}` is empty")
            first = first.lstrip("\ufeff")
            separator = max(",\t;|", key=first.count)
            header = next(csv.reader([first.rstrip("\r\n")], delimiter=separator))
    given = dict(settings.columns)
    if _INDEX in header and "date" not in given and pa.types.is_temporal(schema.field(_INDEX).type):
        given["date"] = _INDEX
    columns = recognise(header, given, where=f"`{path}`", known=known, required=required)
    code = None
    if "code" not in columns:
        stem = path.name[: -len(_suffix(path))]
        with _naming(f"the name of `{path}`, since it has no column of codes"):
            code = normalise_code(stem, settings.region)
    return SourceFile(path, columns, code, separator)


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
                values[:, index] = _numbers(table[field], field, rows, settings, notes)
        yield Piece(codes, code, read, values)
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
    known: Mapping[str, tuple[frozenset[str], ...]],
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
    names = {column: field for field, column in file.columns.items()}
    read = _parquet_tables(file, names) if file.kind == PARQUET else _text_tables(file, names, settings)
    while True:
        # Only what the libraries do is under watch, not what is done with the table.
        with reading(file.path, settings.encoding):
            table = next(read, None)
        if table is None:
            return
        if len(table):
            yield table


def _parquet_tables(file: SourceFile, names: Mapping[str, str]) -> Iterator[pd.DataFrame]:
    with pq.ParquetFile(file.path) as parquet:
        for batch in parquet.iter_batches(CHUNK_ROWS, columns=list(names)):
            yield _as_pandas(batch).rename(columns=names)


def _text_tables(
    file: SourceFile, names: Mapping[str, str], settings: ImportSettings
) -> Iterator[pd.DataFrame]:
    with pd.read_csv(
        file.path,
        sep=file.separator,
        dtype={file.columns[field]: str for field in ("date", "code") if field in file.columns},
        # `NA` is a code.
        na_values={column: MISSING for column, field in names.items() if field != "code"},
        keep_default_na=False,
        encoding="utf-8-sig" if settings.encoding == "utf-8" else settings.encoding,
        chunksize=CHUNK_ROWS,
        low_memory=False,
        # Not only the columns that are wanted: then rows with too many fields would pass, shifted.
    ) as reader:
        for table in reader:
            if not isinstance(table.index, pd.RangeIndex):
                raise UserError(
                    f"`{file.path}` has rows of more fields than its header names; mend the header or the rows"
                )
            yield table[list(names)].rename(columns=names)


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
            f"`{file.path}` must have a day in each row of {file.columns['date']!r}, such as 2000-01-03, 20000103, a "
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
            f"`{file.path}` must have a code in each row of {file.columns['code']!r}, found none in row "
            f"{before + empty[0] + 1:,} of the data ({empty.size:,} such rows)"
        )
    with _naming(f"in {file.columns['code']!r} of `{file.path}`"):
        codes = [normalise_code(text, settings.region) for text in texts]
    guessed = [
        f"{text} is {code}" for text, code in zip(texts, codes, strict=True) if is_bare(text, settings.region)
    ]
    notes.gather("{code} without an exchange: given that of the first digits", guessed)
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
            value = "" if values is None else f" {str(values.iloc[row])!r}"
            yield f"{self.codes[self.code[row]]} {self.days[row]}{value} in {self.file}"


def bad_sentence(field: str) -> str:
    """The note of bad values of a field."""
    return f"{{value}} of `{field}` that cannot be (no number, infinite or negative): made missing"


def _numbers(
    column: pd.Series, field: str, rows: _Rows, settings: ImportSettings, notes: Notes
) -> np.ndarray:
    """Values of a column, NaN where there is none or a bad one."""
    if isinstance(column.dtype, pd.api.extensions.ExtensionDtype) or column.dtype.kind in "iuf":
        try:
            values = column.to_numpy(dtype=np.float64, na_value=np.nan).copy()
        except (ValueError, TypeError):  # an extension type of texts
            values = pd.to_numeric(column.astype(object), errors="coerce").to_numpy(dtype=np.float64).copy()
    else:
        values = pd.to_numeric(column, errors="coerce").to_numpy(dtype=np.float64).copy()
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
