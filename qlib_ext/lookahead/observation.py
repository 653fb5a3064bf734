"""What a model is given on a day and what it says of it, in a form in which two markets can be compared."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset import DatasetH

from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.handlers.panel import PanelHandler

FEATURES, ROWS, MARKET_VALUE, CONCEPTS, MARKET_STATUS, SCORES, LABELS = (
    "features",
    "rows",
    "market_value",
    "concepts",
    "market_status",
    "scores",
    "labels",
)


@dataclasses.dataclass
class Day:
    """One day.

    Attributes
    ----------
    codes
        `[N]` codes of its stocks, ascending.
    planes
        What each stock has, as `[N, X]` float: `features`, and where there are any `market_value`, `concepts` and
        `market_status`, which all stocks have in common.
    scores
        `[N, K]` float: what the model says of each stock; None where it was not asked.
    """

    codes: np.ndarray
    planes: dict[str, np.ndarray]
    scores: np.ndarray | None = None


@dataclasses.dataclass(frozen=True)
class Difference:
    """How two versions of a day differ.

    Attributes
    ----------
    what
        `features`, `rows`, `market_value`, `concepts`, `market_status`, `scores` or `labels`.
    columns
        Positions of the columns that differ.
    stocks, of
        How many stocks differ, of how many.
    size
        The largest difference.
    """

    what: str
    columns: tuple[int, ...]
    stocks: int
    of: int
    size: float

    def said(self) -> str:
        """The size in words."""
        largest = f", by up to {self.size:.3g}" if np.isfinite(self.size) and self.size > 0 else ""
        return f"{self.stocks} of {self.of} stocks{largest}"


def differences(before: Day, after: Day) -> list[Difference]:
    """What differs between two versions of a day, bit for bit; a missing value equals a missing one."""
    found = []
    if not np.array_equal(before.codes, after.codes):
        other = np.setxor1d(before.codes, after.codes)
        found.append(Difference(ROWS, (), len(other), len(before.codes), np.nan))
    common, ours, theirs = np.intersect1d(before.codes, after.codes, assume_unique=True, return_indices=True)
    planes = [(what, before.planes[what], after.planes[what]) for what in before.planes]
    if before.scores is not None and after.scores is not None:
        planes.append((SCORES, before.scores, after.scores))
    for what, one, other in planes:
        one, other = one[ours], other[theirs]
        if what == CONCEPTS:
            one, other = _same_columns(one, other)
        difference = compare(what, one, other)
        if difference is not None:
            found.append(difference)
    assert len(common) == len(ours)
    return found


def compare(what: str, one: np.ndarray, other: np.ndarray) -> Difference | None:
    """Two arrays `[N, X]` bit for bit; None where they are equal."""
    if one.shape != other.shape:
        return Difference(what, (), len(one), len(one), np.nan)
    unequal = ~((one == other) | (np.isnan(one) & np.isnan(other)))
    if not unequal.any():
        return None
    with np.errstate(invalid="ignore"):
        apart = np.abs(one - other)[unequal]
    size = float(np.nanmax(apart)) if not np.isnan(apart).all() else np.nan
    columns = tuple(np.flatnonzero(unequal.any(axis=0)).tolist())
    return Difference(what, columns, int(unequal.any(axis=1).sum()), len(one), size)


def _same_columns(one: np.ndarray, other: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Two memberships `[N, G]` without what is only a name: empty concepts and the order of the columns."""

    def ordered(matrix: np.ndarray) -> np.ndarray:
        used = matrix[:, matrix.any(axis=0)]
        return used[:, np.lexsort(used[::-1])] if used.size else used

    return ordered(one), ordered(other)


def by_day(table: pd.DataFrame | pd.Series) -> dict[pd.Timestamp, tuple[np.ndarray, np.ndarray]]:
    """A table indexed (datetime, instrument), in any order: day -> codes ascending `[N]` and values `[N, X]`."""
    frame = table.to_frame() if isinstance(table, pd.Series) else table
    frame = frame.reorder_levels(["datetime", "instrument"]).sort_index()
    days = frame.index.get_level_values("datetime")
    codes = frame.index.get_level_values("instrument").to_numpy().astype(str)
    values = frame.to_numpy(dtype=np.float64 if (frame.dtypes == np.float64).any() else np.float32)
    if frame.empty:  # a model may have no score on any of the days
        return {}
    starts = np.flatnonzero(np.r_[True, days[1:] != days[:-1]])
    stops = np.append(starts[1:], len(days))
    return {days[a]: (codes[a:b], values[a:b]) for a, b in zip(starts, stops, strict=True)}


def fitted_state(dataset: DatasetH) -> dict[str, np.ndarray]:
    """Everything that a dataset was fitted to: numbers and arrays of its features, sources and processors, by name."""
    found: dict[str, np.ndarray] = {}
    holders: list[tuple[str, Any]] = []
    handler = dataset.handler
    if isinstance(dataset, DailyPanelDataset):
        holders += dataset.arguments.sources.items()
    if isinstance(handler, PanelHandler):
        holders.append(("features", handler.features))
    for kind in ("shared", "infer", "learn"):
        for i, processor in enumerate(getattr(handler, f"{kind}_processors", None) or ()):
            holders.append((f"{kind}_processors[{i}] ({type(processor).__name__})", processor))
    for name, holder in holders:
        for key, value in vars(holder).items():
            array = _numbers(value)
            if array is not None and not key.startswith("_"):
                found[f"{name}.{key}"] = array
    return found


def moved(before: dict[str, np.ndarray], after: dict[str, np.ndarray]) -> list[str]:
    """Names of what was fitted to other numbers."""
    return [
        name
        for name in before
        if name not in after
        or before[name].shape != after[name].shape
        or not np.array_equal(before[name], after[name], equal_nan=True)
    ]


def _numbers(value: Any) -> np.ndarray | None:
    if isinstance(value, (pd.Series, pd.DataFrame)):
        value = value.to_numpy()
    if isinstance(value, (bool, int, float, np.number)):
        return np.asarray(value, dtype=float)
    if isinstance(value, np.ndarray) and value.dtype.kind in "fiu":
        return value.astype(float)
    return None
