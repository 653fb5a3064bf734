"""The files of bars of one instrument, read as they are and written anew with more in them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from qlib_ext.market.store import SUFFIX, StoreError, read_bin

NEVER = 2**31 - 1


class InstrumentBins:
    """The bars of one instrument as its files have them.

    `folder` is that of the instrument, None where it has none yet, `days` those of the calendar; fields without a file
    are left out. A StoreError where a file is broken.

    Attributes
    ----------
    fields : set of str
        Those with a file.
    start, stop : int
        Positions in the calendar of the first day, and of the one after the last; `NEVER` and 0 without bars.
    """

    def __init__(self, folder: Path | None, fields: tuple[str, ...], days: int):
        read = {
            name: None if folder is None else _read_bin(folder / (name + SUFFIX), days) for name in fields
        }
        self._bins = {name: pair for name, pair in read.items() if pair is not None}
        self.fields = set(self._bins)
        self.start = min((start for start, _ in self._bins.values()), default=NEVER)
        self.stop = max((start + len(values) for start, values in self._bins.values()), default=0)

    def at(self, name: str, positions: np.ndarray) -> np.ndarray:
        """Values of a field at days of the calendar, float32, NaN where there is none."""
        result = np.full(len(positions), np.nan, dtype=np.float32)
        if name in self._bins:
            start, values = self._bins[name]
            inside = (positions >= start) & (positions < start + len(values))
            result[inside] = values[positions[inside] - start]
        return result

    def last(self, name: str) -> float:
        """The last value of a field, NaN where there is none."""
        if name in self._bins:
            there = self._bins[name][1]
            there = there[np.isfinite(there)]
            if there.size:
                return float(there[-1])
        return float("nan")

    def with_cells(
        self, cells: Mapping[str, tuple[np.ndarray, np.ndarray]]
    ) -> Iterator[tuple[str, int, np.ndarray]]:
        """Each field with its start and values when the cells are in; all fields span the same days."""
        places = [positions for positions, _ in cells.values()]
        start = min(self.start, *(int(some.min()) for some in places))
        stop = max(self.stop, *(int(some.max()) + 1 for some in places))
        for name in {**self._bins, **cells}:
            values = np.full(stop - start, np.nan, dtype="<f4")
            if name in self._bins:
                first, old = self._bins[name]
                values[first - start : first - start + len(old)] = old
            if name in cells:
                positions, new = cells[name]
                values[positions - start] = new
            yield name, start, values


def _read_bin(path: Path, days: int) -> tuple[int, np.ndarray] | None:
    try:
        return read_bin(path, days)
    except StoreError as error:
        raise StoreError(
            f"`{path}` cannot be added to, it is broken: see `qlib-ext data check`. Nothing was changed ({error})"
        ) from error
