"""The rows of a source in memory, by instrument, each day once."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.market.columns import KNOWN
from qlib_ext.market.importing.files import Piece, SourceFile, pieces
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes, at
from qlib_ext.market.importing.trading_days import DayReader
from qlib_ext.market.progress import Progress

RAW = tuple(field for field in KNOWN if field not in ("date", "code"))


class SourceRows:
    """The rows of all files of a source, by instrument.

    Parameters
    ----------
    files
        From `scan`.
    settings, days, notes
        As `pieces` takes them.
    progress
        Called with (done, total, what) after each file.

    Attributes
    ----------
    fields : tuple of str
        F fields that any file has, without the day and the code; and `change` where no file has it and one has
        `preclose`, the close before as the exchange counts it on ex-days: it is what that says.
    codes : tuple of str
        S instruments, sorted.
    days : datetime64[D] array
        Days on which there is any row, ascending.
    count : int
        Rows.
    present : mapping
        Field to the number of its values that are there.
    negative, first_negative : int, str
        Rows whose high is below zero, how many and where the first one is.

    Raises
    ------
    UserError
        As `pieces`, and if there is no row.
    """

    def __init__(
        self,
        files: list[SourceFile],
        settings: ImportSettings,
        days: DayReader,
        notes: Notes,
        progress: Progress | None = None,
    ):
        there = {field for file in files for field in file.columns}
        extras = sorted(there - set(RAW) - {"date", "code"})
        self.fields = tuple(field for field in (*RAW, *extras) if field in there)
        self.count = 0
        self.days = np.empty(0, dtype="datetime64[D]")
        self._parts: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {}
        self.negative, self.first_negative = 0, ""
        present = np.zeros(len(self.fields), dtype=np.int64)
        for done, file in enumerate(files):
            lacking = [field for field in self.fields if field not in file.columns]
            for field in lacking:
                notes.add(f"{{file}} without a column of `{field}`, which others have", 1, [file.path.name])
            empty = True
            for piece in pieces(file, self.fields, settings, days, notes):
                empty = False
                self.count += len(piece.days)
                if len(piece.negative):
                    self.negative += len(piece.negative)
                    self.first_negative = self.first_negative or piece.place(piece.negative[0])
                present += (~np.isnan(piece.values)).sum(axis=0)
                self.days = np.union1d(self.days, piece.days)
                for code, part in _by_code(piece):
                    self._parts.setdefault(code, []).append(part)
            if empty:
                notes.add("{file} without rows", 1, [file.path.name])
            if progress is not None:
                progress(done + 1, len(files), file.path.name)
        if not self._parts:
            raise UserError(
                f"the source has no rows: {len(files)} files, such as `{files[0].path}`, are empty"
            )
        self.codes = tuple(sorted(self._parts))
        self.present = dict(zip(self.fields, present.tolist(), strict=True))
        self._columns = self.fields
        if "preclose" in self.fields and "change" not in self.fields:
            self.fields = (*self.fields, "change")

    def rows_on(self, days: np.ndarray) -> Iterator[tuple[str, np.ndarray]]:
        """Code and days of the rows on any of `days`."""
        for code in self.codes:
            own = np.concatenate([part for part, _ in self._parts[code]])
            hit = own[np.isin(own, days)]
            if hit.size:
                yield code, hit

    def some(self, most: int) -> Iterator[dict[str, np.ndarray]]:
        """Fields of up to `most` instruments, spread over all, by day and each day once; the rows stay."""
        for code in self.codes[:: -(-len(self.codes) // most)]:
            _, first = np.unique(np.concatenate([part for part, _ in self._parts[code]]), return_index=True)
            values = np.concatenate([part for _, part in self._parts[code]])[first]
            yield self._by_field(values)

    def instruments(self) -> Iterator[tuple[str, np.ndarray, dict[str, np.ndarray]]]:
        """Code, days and fields of each instrument in turn, in the order of the files; it can be read once."""
        for code in self.codes:
            parts = self._parts.pop(code)  # its memory is free once it is in the table
            days = np.concatenate([part for part, _ in parts])
            values = np.concatenate([part for _, part in parts])
            yield code, days, self._by_field(values)

    def _by_field(self, values: np.ndarray) -> dict[str, np.ndarray]:
        fields = {field: values[:, index] for index, field in enumerate(self._columns)}
        if self.fields != self._columns:
            fields["change"] = fields["close"] / fields["preclose"] - 1
        return fields


def _by_code(piece: Piece) -> Iterator[tuple[str, tuple[np.ndarray, np.ndarray]]]:
    """The rows of each instrument of a piece, in their order."""
    if len(piece.codes) == 1:
        yield piece.codes[0], (piece.days, piece.values)
        return
    order = np.argsort(piece.code, kind="stable")
    days, values = piece.days[order], piece.values[order]
    edges = np.searchsorted(piece.code[order], np.arange(len(piece.codes) + 1))
    for code, first, after in zip(piece.codes, edges[:-1], edges[1:], strict=True):
        yield code, (days[first:after], values[first:after])


def one_row_a_day(
    code: str, days: np.ndarray, values: dict[str, np.ndarray], duplicates: str, notes: Notes
) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Rows of one instrument in the order of days, each day once.

    Parameters
    ----------
    code
        The instrument, for messages.
    days
        datetime64[D] `[n]`.
    values
        Field to array `[n]`.
    duplicates
        `error`, `first` or `last`: what happens to rows of a day that differ; equal ones are one.
    notes
        Is told of both.

    Raises
    ------
    UserError
        If rows of a day differ, and `duplicates` is `error`.
    """
    order = np.argsort(days, kind="stable")
    if (np.diff(order) != 1).any():
        days, values = days[order], {field: array[order] for field, array in values.items()}
    again = np.flatnonzero(days[1:] == days[:-1]) + 1
    if not again.size:
        return days, values
    same = np.ones(len(again), dtype=bool)
    for array in values.values():
        now, before = array[again], array[again - 1]
        same &= (now == before) | (np.isnan(now) & np.isnan(before))
    notes.add("{row} that stood there twice: taken once", same.sum(), at(code, days[again[same]]))
    contradict = again[~same]
    if contradict.size:
        if duplicates == "error":
            day = days[contradict[0]]
            pair = [
                f"{field} {array[contradict[0] - 1]:g} and {array[contradict[0]]:g}"
                for field, array in values.items()
                if array[contradict[0] - 1] != array[contradict[0]]
            ]
            many = " Are these bars of less than a day?" if contradict.size > len(days) / 4 else ""
            raise UserError(
                f"{code} must have one row a day, found rows on {day} that contradict each other ({', '.join(pair)}), "
                f"and {contradict.size - 1:,} more of its rows like that; mend the source, or choose with "
                f"`--duplicates first` or `last`.{many}"
            )
        notes.add(
            f"{{row}} that contradict another of the same stock and day: the {duplicates} taken",
            contradict.size,
            at(code, days[contradict]),
        )
    different = days[1:] != days[:-1]
    keep = np.append(different, True) if duplicates == "last" else np.insert(different, 0, True)
    return days[keep], {field: array[keep] for field, array in values.items()}
