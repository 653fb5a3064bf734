"""What an artifact says, whatever its bytes are: as one table, by a hash of it, and by where two of them first differ."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
from safetensors import SafetensorError
from safetensors.numpy import load_file

from qlib_ext.checks import UserError, brief
from qlib_ext.files import SMALL, TABLE, open_file, read_json, read_text
from qlib_ext.tracking.artifacts import damaged, read_table

KINDS = (".parquet", ".csv", ".json", ".safetensors", ".txt")
MOST_CELLS = 400_000_000  # of a table, which a file of few bytes may claim to have
# Columns of tables and keys of JSON that name the run, the machine or the clock, and say nothing of the results.
INCIDENTAL = re.compile(r"run_id|trained|minutes|notes|store|weights_checksum|seconds(/.*)?")


@dataclass(frozen=True)
class Difference:
    """Where two contents first differ, and by how much they do at most.

    Attributes
    ----------
    path
        The artifact.
    where
        The row: its day and stock, or what else names it.
    column
        The column; empty where rows or columns themselves differ.
    expected, found
        What the bundle has, and what was made now.
    cells
        How many cells differ; 0 where rows or columns themselves do.
    largest
        The largest difference, as a share of the number or of the standard deviation of its column, whichever is larger;
        infinite where it is none of numbers.
    """

    path: str
    where: str
    column: str
    expected: str
    found: str
    cells: int = 0
    largest: float = math.inf

    def __str__(self) -> str:
        place = ", ".join(filter(None, (self.where, self.column)))
        return f"{self.path}: {place}: {self.expected} in the bundle, {self.found} here"


@dataclass(frozen=True)
class Content:
    """An artifact as one table.

    Attributes
    ----------
    keys
        What names its rows, a column each: `datetime` and `instrument`, the place in JSON, the number of a line.
    values
        The columns.
    """

    keys: pd.DataFrame
    values: pd.DataFrame

    def digest(self) -> str:
        """16 hex digits of what it says: names, kinds and values, and not how a file keeps them."""
        found = hashlib.sha256()
        for part in (self.keys, self.values):
            found.update(f"\0{len(part)}\0".encode())
            for name, column in part.items():
                kind, plain = _plain(column)
                found.update(json.dumps([str(name), kind]).encode())
                found.update(plain.tobytes() if kind != "text" else "\0".join(plain).encode())
        return found.hexdigest()[:16]


def read_content(file: Path, path: str) -> Content:
    """What an artifact says.

    Parameters
    ----------
    file
        Where it lies.
    path
        Its artifact path, for messages; the part behind the last dot is one of `KINDS`.

    Raises
    ------
    UserError
        If it cannot be read, or claims to hold more than memory has room for.
    """
    readers = {".json": _json, ".safetensors": _tensors, ".txt": _lines}
    try:
        content = readers.get(file.suffix, _table)(file, path)
    except UserError:
        raise
    except (ValueError, OSError, SafetensorError) as error:
        raise damaged(path, error, {}) from error
    incidental = [name for name in content.values if INCIDENTAL.fullmatch(str(name))]
    return Content(content.keys, content.values.drop(columns=incidental))


def first_difference(path: str, expected: Content, found: Content) -> Difference | None:
    """Where two contents first differ, row by row; None where they are equal to the last bit."""
    for what in ("keys", "values"):
        names = [[*map(str, getattr(each, what))] for each in (expected, found)]
        if names[0] != names[1]:
            word = "columns" if what == "values" else "columns of its index"
            return Difference(path, word, "", brief(names[0]), brief(names[1]))
    rows = min(len(expected.keys), len(found.keys))
    other = _unequal(expected.keys, found.keys, rows)
    named = np.flatnonzero(other.any(axis=1))
    if len(named):
        row = int(named[0])
        return Difference(path, f"row {row + 1}", "", _row(expected, row), _row(found, row))
    if len(expected.keys) != len(found.keys):
        more = "the bundle has" if len(expected.keys) > rows else "is found here"
        longer = expected if len(expected.keys) > rows else found
        where = f"row {rows + 1}, {_row(longer, rows)}, which only {more}"
        return Difference(path, where, "", f"{len(expected.keys):,} rows", f"{len(found.keys):,} rows")
    other = _unequal(expected.values, found.values, rows)
    if not other.any():
        return None
    row = int(np.flatnonzero(other.any(axis=1))[0])
    column = int(np.flatnonzero(other[row])[0])
    return Difference(
        path,
        _row(expected, row),
        str(expected.values.columns[column]),
        _shown(expected.values.iloc[row, column]),
        _shown(found.values.iloc[row, column]),
        cells=int(other.sum()),
        largest=_largest(expected.values, found.values, other),
    )


def _plain(column: pd.Series) -> tuple[str, Any]:
    """A column's kind and its values as every machine has them: -0 is 0, NaN is one, times are nanoseconds."""
    kind = column.dtype
    if isinstance(kind, np.dtype) and kind.kind == "f":
        values = column.to_numpy() + kind.type(0)
        values[np.isnan(values)] = np.nan
        return f"float{8 * kind.itemsize}", values.astype(kind.newbyteorder("<"))
    if isinstance(kind, np.dtype) and kind.kind in "iub":
        return "bool" if kind.kind == "b" else "int", column.to_numpy().astype("<i8")
    if isinstance(kind, np.dtype) and kind.kind == "M":
        return "time", column.to_numpy().astype("datetime64[ns]").astype("<i8")
    return "text", [json.dumps(_said(each), sort_keys=True, default=str) for each in column]


def _said(value: Any) -> Any:
    """A value of a column of anything, as JSON has it; what is missing is None."""
    if isinstance(value, float):
        return None if math.isnan(value) else value + 0.0
    return None if value is pd.NA or value is pd.NaT else value


def _unequal(expected: pd.DataFrame, found: pd.DataFrame, rows: int) -> np.ndarray:
    """Which cells of the first `rows` rows differ, `[rows, columns]`."""
    other = np.zeros((rows, len(expected.columns)), dtype=bool)
    for k in range(other.shape[1]):
        (kind, old), (kind_now, new) = (_plain(each.iloc[:rows, k]) for each in (expected, found))
        if kind != kind_now:
            other[:, k] = True
        elif kind.startswith("float"):
            other[:, k] = ~((old == new) | (np.isnan(old) & np.isnan(new)))
        else:
            other[:, k] = np.asarray(old) != np.asarray(new)
    return other


def _largest(expected: pd.DataFrame, found: pd.DataFrame, other: np.ndarray) -> float:
    largest = 0.0
    for k in np.flatnonzero(other.any(axis=0)):
        rows = other[:, k]
        try:
            old, whole, new = (
                np.array([_number(each) for each in column], dtype=np.float64)
                for column in (
                    expected.iloc[:, k][rows],
                    expected.iloc[:, k] if expected.iloc[:, k].dtype != object else expected.iloc[:, k][rows],
                    found.iloc[:, k][rows],
                )
            )
        except TypeError:
            return math.inf
        spread = float(np.nanstd(whole)) if len(whole) > 1 and np.isfinite(whole).any() else 0.0
        with np.errstate(divide="ignore", invalid="ignore"):
            apart = np.abs(new - old) / np.maximum(np.abs(old), spread)
        if not np.isfinite(apart).all():
            return math.inf
        largest = max(largest, float(apart.max()))
    return largest


def _number(value: Any) -> float:
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        raise TypeError("no number")
    return float(value)


def _row(content: Content, row: int) -> str:
    """What names a row: `2016-09-05 SH600157`."""
    return " ".join(_shown(value) for value in content.keys.iloc[row]) or f"row {row + 1}"


def _shown(value: Any) -> str:
    if isinstance(value, pd.Timestamp):
        return f"{value:%Y-%m-%d}" if value == value.normalize() else str(value)
    if isinstance(value, np.generic):
        value = value.item() if not isinstance(value, np.floating) else value
    return str(value) if isinstance(value, (str, np.floating)) else brief(value)


def _table(file: Path, path: str) -> Content:
    if file.suffix == ".parquet":
        with open_file(file, TABLE) as opened:
            said = pq.ParquetFile(opened).metadata
            if said.num_rows * max(said.num_columns, 1) > MOST_CELLS:
                raise UserError(
                    f"the artifact `{path}` must have at most {MOST_CELLS:,} cells, found {said.num_rows:,} rows of "
                    f"{said.num_columns:,} columns"
                )
    table = read_table(file, path, {})
    index = table.index
    if isinstance(index, pd.RangeIndex) and index.name is None:
        keys = pd.DataFrame(index=table.index)
    else:
        names = [str(name or f"level {k}") for k, name in enumerate(index.names)]
        keys = pd.DataFrame({name: index.get_level_values(k) for k, name in enumerate(names)})
    return Content(keys.reset_index(drop=True), table.reset_index(drop=True))


def _json(file: Path, path: str) -> Content:
    pairs = [*_leaves(read_json(file), "")]
    keys, values = [*zip(*pairs, strict=True)] or [(), ()]
    return Content(
        pd.DataFrame({"key": [*keys]}), pd.DataFrame({"value": pd.Series([*values], dtype=object)})
    )


def _leaves(content: Any, place: str) -> Iterator[tuple[str, Any]]:
    """Each value of JSON under its place, `segments.test.start`."""
    if isinstance(content, (dict, list)) and content:
        pairs = content.items() if isinstance(content, dict) else enumerate(content)
        for key, value in pairs:
            if not INCIDENTAL.fullmatch(str(key)):
                yield from _leaves(value, f"{place}.{key}" if place else str(key))
    else:
        yield place, content


def _tensors(file: Path, path: str) -> Content:
    with open_file(file, TABLE):
        tensors = load_file(file)
    names = sorted(tensors)
    keys = {
        "tensor": np.repeat(np.array(names, dtype=object), [tensors[name].size for name in names]),
        "place": np.concatenate([np.arange(tensors[name].size) for name in names] or [np.array([], int)]),
    }
    values = np.concatenate([tensors[name].reshape(-1) for name in names] or [np.array([])])
    return Content(pd.DataFrame(keys), pd.DataFrame({"value": values}))


def _lines(file: Path, path: str) -> Content:
    lines = read_text(file, TABLE if path.startswith("model/") else SMALL).split("\n")
    keys = pd.DataFrame({"line": np.arange(1, len(lines) + 1)})
    return Content(keys, pd.DataFrame({"text": pd.Series(lines, dtype=object)}))
