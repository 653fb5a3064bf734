"""The market held once: a dense `[field, day, stock]` array of everything that a universe has ever held."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

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
    """

    fields: tuple[str, ...]
    calendar: pd.DatetimeIndex
    instruments: tuple[str, ...]
    values: np.ndarray
    members: np.ndarray
    missing_fields: tuple[str, ...]

    @classmethod
    def load(cls, store: QlibStore, universe: str, fields: Sequence[str]) -> MarketPanel:
        """Read the members of `universe`, on all days of the store.

        Members without bars are left out: nothing can be known or traded of them.
        """
        listed = set(store.membership(universe)["instrument"])
        instruments = tuple(code for code in store.instruments() if code in listed)
        values = store.read(fields, instruments)
        missing = tuple(field for i, field in enumerate(fields) if np.isnan(values[i]).all())
        return cls(
            fields=tuple(fields),
            calendar=store.calendar,
            instruments=instruments,
            values=values,
            members=store.member_mask(universe, instruments),
            missing_fields=missing,
        )

    def field(self, name: str) -> np.ndarray:
        """The `[D, S]` plane of one field."""
        return self.values[self.fields.index(name)]

    @property
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
