"""The market held once: a dense `[field, day, stock]` array of everything that a universe has ever held."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from dataclasses import InitVar, dataclass

import numpy as np
import pandas as pd

from qlib_ext.market.store import QlibStore


@dataclass(frozen=True)
class MarketPanel:
    """Bars of a universe.

    Attributes
    ----------
    fields, calendar, instruments
        The names along the F, D and S axes.
    values
        `[F, D, S]` float32, NaN where there is no bar.
    members
        `[D, S]` bool: the universe's members of each day.
    missing_fields
        Optional fields that the store does not have; all NaN in `values`.
    padded
        `[E + D, S, F]` with E empty days in front, of which `values` is a view, where the market was loaded so:
        windows are gathered from it, and a second copy of the market is not needed. Else None.
    known_present
        `present`, where it is known already.
    """

    fields: tuple[str, ...]
    calendar: pd.DatetimeIndex
    instruments: tuple[str, ...]
    values: np.ndarray
    members: np.ndarray
    missing_fields: tuple[str, ...]
    padded: np.ndarray | None = None
    known_present: InitVar[np.ndarray | None] = None

    def __post_init__(self, known_present: np.ndarray | None) -> None:
        if known_present is not None:
            self.__dict__["present"] = known_present  # where the property of that name would keep it
        if self.padded is not None and not np.may_share_memory(self.padded, self.values):
            object.__setattr__(self, "padded", None)  # `dataclasses.replace` gave the panel other values

    @classmethod
    def load(cls, store: QlibStore, universe: str, fields: Sequence[str], empty_days: int = 0) -> MarketPanel:
        """Read the members of `universe`, on all days of the store.

        Members without bars are left out: nothing can be known or traded of them.

        Parameters
        ----------
        empty_days
            E, the days without bars in front of `padded`: T - 1 for windows of T days.
        """
        listed = set(store.membership(universe)["instrument"])
        instruments = tuple(code for code in store.instruments() if code in listed)
        shape = empty_days + len(store.calendar), len(instruments), len(fields)
        padded = np.empty(shape, dtype=np.float32)
        padded[:empty_days] = np.nan
        values = padded[empty_days:].transpose(2, 0, 1)
        store.read(fields, instruments, out=values)
        return cls(
            fields=tuple(fields),
            calendar=store.calendar,
            instruments=instruments,
            values=values,
            members=store.member_mask(universe, instruments),
            missing_fields=tuple(field for i, field in enumerate(fields) if not _any_value(values[i])),
            padded=padded,
        )

    def field(self, name: str) -> np.ndarray:
        """The `[D, S]` plane of one field."""
        return self.values[self.fields.index(name)]

    @functools.cached_property
    def present(self) -> np.ndarray:
        """`[D, S]` bool: members that have a close that day."""
        return self.members & ~np.isnan(self.field("close"))

    @functools.cached_property
    def listed(self) -> np.ndarray:
        """`[D, S]` bool: the days from a stock's first to its last bar, suspended ones included."""
        bars = np.zeros(self.members.shape, dtype=bool)
        for plane in self.values:
            bars |= ~np.isnan(plane)
        begun = np.maximum.accumulate(bars, axis=0)
        return begun & np.maximum.accumulate(bars[::-1], axis=0)[::-1]


def day_blocks(shape: tuple[int, ...], cells: int) -> Iterator[slice]:
    """The days of a `[D, S]` plane in runs of about `cells` days times stocks, at least a day each."""
    days, stocks = shape
    step = max(1, cells // max(1, stocks))
    for first in range(0, days, step):
        yield slice(first, min(first + step, days))


def _any_value(plane: np.ndarray) -> bool:
    # most fields have a value in their first days, and then the rest need not be looked at
    blocks = day_blocks(plane.shape, cells=1 << 20)
    return any(not np.isnan(plane[block]).all() for block in blocks)
