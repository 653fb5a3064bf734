"""Spells: a code, the first day and the last day of something that holds for a while.

A table of spells has the columns `instrument` (upper-case), `start` and `end`, both days included; an `end` that is
NaT is still in force. Here spells become positions in a calendar and planes of days and stocks, and planes spells.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

# What the second day of a row means: the last day of the spell, or the first day after it.
UNTIL = ("last-day", "first-day-out")


def locate_spells(
    spells: pd.DataFrame, calendar: pd.DatetimeIndex, instruments: Iterable[str]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Where each spell lies: its stock's place in `instruments`, its first day's in `calendar`, and one after its last.

    The stock is -1 where it is none of `instruments`; a spell without a day of the calendar ends where it begins, or
    before.
    """
    column = {code.upper(): place for place, code in enumerate(instruments)}
    stock = np.array([column.get(code, -1) for code in spells["instrument"]], dtype=np.int64)
    first = calendar.searchsorted(spells["start"], side="left")
    after = calendar.searchsorted(spells["end"], side="right")
    return stock, first, np.where(spells["end"].isna(), len(calendar), after)


def count_spells(
    stock: np.ndarray, first: np.ndarray, after: np.ndarray, shape: tuple[int, int]
) -> npt.NDArray[np.int16]:
    """How many of the spells, as `locate_spells` gives them, each stock is in on each day: `[D, S]`."""
    days, stocks = shape
    edges = np.zeros((days + 1, stocks), dtype=np.int16)
    real = (stock >= 0) & (first < after)
    np.add.at(edges, (first[real], stock[real]), 1)
    np.add.at(edges, (after[real], stock[real]), -1)
    return edges.cumsum(axis=0, dtype=np.int16, out=edges)[:-1]


def spell_mask(
    spells: pd.DataFrame, calendar: pd.DatetimeIndex, instruments: Sequence[str]
) -> npt.NDArray[np.bool_]:
    """Whether each of `instruments` is in a spell, day by day: `[D, S]`."""
    shape = len(calendar), len(instruments)
    return count_spells(*locate_spells(spells, calendar, instruments), shape) > 0


def spell_labels(
    stock: np.ndarray, first: np.ndarray, after: np.ndarray, label: np.ndarray, shape: tuple[int, int]
) -> npt.NDArray[np.int64]:
    """The label of the spell that each stock is in on each day, `[D, S]`: of several the last one, -1 for none."""
    plane = np.full(shape, -1, dtype=np.int64)
    for column, begin, end, value in zip(stock, first, after, label, strict=True):
        if column >= 0:
            plane[begin:end, column] = value
    return plane


def spells_of(
    calendar: pd.DatetimeIndex, instruments: np.ndarray | Sequence[str], members: np.ndarray
) -> pd.DataFrame:
    """The runs of True in `members` `[D, S]` as rows instrument, start, end, by instrument and start."""
    edges = np.diff(np.pad(members.astype(np.int8), ((1, 1), (0, 0))), axis=0)
    column, first = np.nonzero(edges.T == 1)
    _, after = np.nonzero(edges.T == -1)
    table = pd.DataFrame(
        {"instrument": np.asarray(instruments)[column], "start": calendar[first], "end": calendar[after - 1]}
    )
    return table.sort_values(["instrument", "start"], ignore_index=True)


def daily_size(calendar: pd.DatetimeIndex, spells: pd.DataFrame) -> pd.Series:
    """Number of members by day of the calendar; a code counts once, however its spells overlap."""
    stock, first, after = locate_spells(spells, calendar, spells["instrument"].unique())
    order = np.lexsort((first, stock))
    order = order[((stock >= 0) & (first < after))[order]]
    stock, first, after = stock[order], first[order], after[order]
    # A plane of days and codes would be large. So each spell counts from where the earlier ones of its code end, and
    # codes lie one after the other, each lifted above the one before.
    lift = stock * (len(calendar) + 1)
    reached = np.maximum.accumulate(after + lift) - lift
    before = np.concatenate([[-1], reached[:-1]])
    same = np.concatenate([[False], stock[1:] == stock[:-1]])
    begins = np.where(same, np.maximum(first, before), first)
    edges = np.zeros(len(calendar) + 1, dtype=np.int64)
    np.add.at(edges, begins[begins < after], 1)
    np.add.at(edges, after[begins < after], -1)
    return pd.Series(edges.cumsum()[:-1], index=calendar, name="members")


def overlap(calendar: pd.DatetimeIndex, spells: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """How many members two universes share, by day: `members`, `other` (their numbers) and `both`."""
    codes = sorted({*spells["instrument"], *other["instrument"]})
    first, second = (spell_mask(table, calendar, codes) for table in (spells, other))
    shared = {"members": first, "other": second, "both": first & second}
    return pd.DataFrame({name: mask.sum(axis=1) for name, mask in shared.items()}, index=calendar)
