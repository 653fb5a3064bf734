"""Factor values that came ready made: a table with a row for each day and stock, and a column for each factor."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, counted
from qlib_ext.files import open_table
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.columns import field_of
from qlib_ext.market.side_data.rows import BLANK, Rows
from qlib_ext.market.side_data.table import read_frame
from qlib_ext.market.side_data.user_table import NAMES
from qlib_ext.market.text_files import reading, separator

KEYS = ("datetime", "instrument")
SUFFIXES = (".parquet", ".csv", ".csv.gz")


class FactorTable:
    """Ready values.

    Parameters
    ----------
    path
        A CSV or Parquet file with a day, a code and a column of numbers for each factor.
    codes
        Those of the store.

    Attributes
    ----------
    names
        Of the F factors.
    values
        `[R, F]` float32.
    days, instruments
        Of the R rows.
    notes
        What was changed, as sentences.

    Raises
    ------
    UserError
        If it cannot be read, lacks a key or has no factor; of a column that holds no numbers, a day that is none, or two
        rows of one stock and day.
    """

    def __init__(self, path: Path, codes: Collection[str]) -> None:
        frame = _read(path)
        keys = {field: column for column in frame.columns if (field := field_of(str(column), NAMES)) in KEYS}
        missing = [key for key in KEYS if key not in keys]
        if missing:
            raise UserError(
                f"`{path}` must have a column of days (`datetime`) and one of codes (`instrument`), found "
                f"{', '.join(map(str, frame.columns)) or 'no column'}"
            )
        columns = [column for column in frame.columns if column not in keys.values()]
        if not columns or not len(frame):
            raise UserError(f"`{path}` must hold at least one factor and one row, found {frame.shape}")
        rows = Rows(frame.rename(columns={column: key for key, column in keys.items()}), f"`{path}`")
        found, days = rows.texts("instrument"), rows.days("datetime")
        if rows.found:
            raise UserError(rows.found[0].message)
        self.names = tuple(str(column) for column in columns)
        self.values = np.stack([_numbers(path, frame[column]) for column in columns], axis=1)
        self.days = pd.DatetimeIndex(days)
        self.notes: list[str] = []
        known = {word: self._spelled(str(word), codes) for word in found.cat.categories}
        changed = [word for word, code in known.items() if code != word]
        if changed:
            self.notes.append(
                f"{counted(len(changed), 'code')} written as the store does, such as {known[changed[0]]}"
            )
        self.instruments = np.asarray(found.map(known).astype(object))
        twice = pd.MultiIndex.from_arrays([self.days, self.instruments]).duplicated()
        if twice.any():
            row = int(twice.argmax())
            raise UserError(
                f"`{path}` must have one row for a stock and day, found another for {self.instruments[row]} on "
                f"{self.days[row]:%Y-%m-%d} in row {row + 1} ({int(twice.sum())} such rows)"
            )

    @staticmethod
    def _spelled(word: str, codes: Collection[str]) -> str:
        try:
            return code_in_store(word, codes)
        except UserError:  # no code at all: it is of no stock of the store, and counts for nothing
            return word.upper()

    def places(self, calendar: pd.DatetimeIndex, instruments: tuple[str, ...]) -> np.ndarray:
        """The row of each day and stock, `[D, S]` int64; -1 where there is none."""
        found = np.full((len(calendar), len(instruments)), -1, np.int64)
        day, stock = calendar.get_indexer(self.days), pd.Index(instruments).get_indexer(self.instruments)
        inside = (day >= 0) & (stock >= 0)
        found[day[inside], stock[inside]] = np.flatnonzero(inside)
        return found


def _read(path: Path) -> pd.DataFrame:
    with reading(path, "utf-8"):
        if path.suffix.lower() == ".parquet":
            return read_frame(path)
        given: dict[str, Any] = {"sep": separator(path), "encoding": "utf-8-sig"}
        with open_table(path) as stream:
            header = pd.read_csv(stream, nrows=0, **given).columns
        # a code such as 000001 is text, however much it looks like a number
        texts = {column: "category" for column in header if field_of(str(column), NAMES) in KEYS}
        with open_table(path) as stream:
            blank = {column: list(BLANK) for column in header if column not in texts}
            return pd.read_csv(
                stream, dtype=texts, keep_default_na=False, na_values=blank, low_memory=False, **given
            )


def _numbers(path: Path, column: pd.Series) -> np.ndarray:
    if pd.api.types.is_bool_dtype(column.dtype) or pd.api.types.is_numeric_dtype(column.dtype):
        return column.to_numpy(dtype=np.float32, na_value=np.nan)
    numbers = pd.to_numeric(column.astype(object), errors="coerce")
    wrong = numbers.isna() & column.notna()
    if wrong.any():
        row = int(wrong.to_numpy().argmax())
        raise UserError(
            f"`{path}` must hold numbers in the column `{column.name}`, found {brief(str(column.iloc[row]))} in row "
            f"{row + 1}: a factor is a number, and a column of something else does not belong here"
        )
    return numbers.to_numpy(dtype=np.float32)
