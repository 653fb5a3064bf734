"""Labels as planes of days and stocks, made by Qlib's processors a run of days at a time.

Qlib's processors work on a table with a row for every stock and day. Of a whole market that table has twenty million
rows, and every step of a processor is another copy of some of its columns. But most processors of labels look at one
day at a time: given some of the days, they give these days the values that they would give them among all. Such a
processor says so by an attribute of its class, `per_day = True`; then only some days are ever a table.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.checks import UserError
from qlib_ext.data.labels.base import GROUP, Labels, tabulate
from qlib_ext.features.market_panel import MarketPanel, day_blocks

CELLS_AT_ONCE = 1 << 18  # days times stocks that are a table at a time


def works_per_day(processor: Processor) -> bool:
    """Whether a processor may be given some of the days at a time.

    It may where the class that holds its code says `per_day = True`: every day's rows are then made from that day's
    rows alone, in the same order, none is added or left out, every column is float, and nothing is fitted or kept
    from one call to the next. A subclass with a `__call__` of its own must say so anew, and one that fits something
    cannot.
    """
    if type(processor).fit is not Processor.fit:
        return False
    for kind in type(processor).__mro__:
        if "per_day" in vars(kind):
            return vars(kind)["per_day"] is True
        if "__call__" in vars(kind):
            return False
    return False


@dataclass(frozen=True)
class LabelPlanes(Labels):
    """Labels of every day and stock, held as planes; a table is made of the days that are asked for.

    Attributes
    ----------
    market
        What they are labels of.
    processors
        The learn processors.
    raw
        Column of the table -> `[D, S]`, NaN where there is no row: what the infer processors give, in their type.
    learn
        Label name -> `[D, S]` float32, NaN where there is no row: what training sees. A label that the learn
        processors leave as it is shares its memory with the raw one.
    rows
        `[D, S]` bool: the rows of the table.
    """

    market: MarketPanel
    processors: Sequence[Processor]
    raw: Mapping[tuple[str, str], np.ndarray]
    learn: Mapping[str, np.ndarray]
    rows: np.ndarray

    @classmethod
    def make(
        cls,
        market: MarketPanel,
        rows: np.ndarray,
        labels: Mapping[str, Callable[[slice], np.ndarray]],
        infer: Sequence[Processor],
        learn: Sequence[Processor],
    ) -> LabelPlanes:
        """Take labels and process them, a run of days at a time.

        Parameters
        ----------
        market
            The bars.
        rows
            `[D, S]` bool: the days and stocks that have labels.
        labels
            Label name -> from a run of days to its values `[days, S]`.
        infer, learn
            Processors that work per day.

        Raises
        ------
        UserError
            If a processor is not what it says of itself.
        """
        raw: dict[tuple[str, str], np.ndarray] = {}
        own: dict[str, np.ndarray] = {}  # of the labels that learn processors change
        names: list[str] = []
        for days in day_blocks(rows.shape, CELLS_AT_ONCE):
            here = rows[days]
            if not here.any() and (raw or days.stop < len(rows)):
                continue  # but the columns must be known, be there a row or not
            data = {(GROUP, name): values(days)[here] for name, values in labels.items()}
            table = run(infer, tabulate(market, rows, days, data))
            found = {column: _floats(table, column) for column in table.columns}
            if raw:
                _check_columns(list(raw), list(found))
            for column, values in found.items():
                if column not in raw:
                    raw[column] = np.full(rows.shape, np.nan, values.dtype)
                raw[column][days][here] = values
            table = run(learn, table.copy() if any(not x.readonly() for x in learn) else table)
            now = [name for group, name in table.columns if group == GROUP]
            if names:
                _check_columns(names, now)
            names = now
            for name in names:
                column, values = (GROUP, name), _floats(table, (GROUP, name)).astype(np.float32, copy=False)
                if name not in own:
                    if column in raw and _same_bits(values, raw[column][days][here]):
                        continue
                    own[name] = np.full(rows.shape, np.nan, np.float32)
                    if column in raw:
                        own[name][: days.start] = raw[column][: days.start]
                own[name][days][here] = values
        changed = {name: own[name] if name in own else raw[GROUP, name] for name in names}
        return cls(market, learn, raw, changed, rows)

    def planes(self, key: str) -> dict[str, np.ndarray]:
        return dict(self.learn if key == "learn" else self._raw_labels)

    @functools.cached_property
    def _raw_labels(self) -> dict[str, np.ndarray]:
        return {
            name: plane.astype(np.float32, copy=False)
            for (group, name), plane in self.raw.items()
            if group == GROUP
        }

    def table(self, days: slice, key: str) -> pd.DataFrame:
        """The rows of `days`; where these have none, those of the first day that has some."""
        if not self.rows[days].any():
            first = int(self.rows.any(axis=1).argmax())
            days = slice(first, first + 1)
        here = self.rows[days]
        table = tabulate(self.market, self.rows, days, {name: x[days][here] for name, x in self.raw.items()})
        return run(self.processors, table) if key == "learn" else table


def run(processors: Sequence[Processor], table: pd.DataFrame) -> pd.DataFrame:
    """The table after processors that work per day; they may write into it."""
    for processor in processors:
        index = table.index
        table = processor(table)
        if not (table.index is index or table.index.equals(index)):
            raise UserError(
                f"{type(processor).__name__} says `per_day`, so it must leave the rows as they are, found "
                f"{len(table)} rows of {len(index)}, or others: leave out `per_day`"
            )
    return table


def _check_columns(before: Sequence[object], now: Sequence[object]) -> None:
    if now != before:
        raise UserError(
            f"processors that say `per_day` must give the same columns on all days, found {before} and then {now}: "
            "leave out `per_day`"
        )


def _floats(table: pd.DataFrame, column: tuple[str, str]) -> np.ndarray:
    values = table[column].to_numpy()
    if values.dtype not in (np.float32, np.float64):
        raise UserError(
            f"processors that say `per_day` must give columns of floats, found {values.dtype} in {column}: "
            "leave out `per_day`"
        )
    return values


def _same_bits(one: np.ndarray, other: np.ndarray) -> bool:
    return other.dtype == np.float32 and np.array_equal(one.view(np.int32), other.view(np.int32))
