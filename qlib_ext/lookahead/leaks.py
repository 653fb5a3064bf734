"""From what differed to a finding: which of the ways into the past it is, and how it is told."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from qlib_ext.lookahead.changed_market import BARS, MEMBERSHIP, SIDE
from qlib_ext.lookahead.findings import Finding
from qlib_ext.lookahead.observation import (
    CONCEPTS,
    FEATURES,
    LABELS,
    MARKET_STATUS,
    MARKET_VALUE,
    ROWS,
    Day,
    Difference,
)
from qlib_ext.lookahead.subject import Labels

SAME_RANKS = 0.98  # Spearman's correlation of a feature with a label, beyond which it is one
COLUMNS = 100  # so many columns are held against labels
NAMED = 3


@dataclasses.dataclass
class Leak:
    """A difference that was seen again where nothing but the days after t differed.

    Attributes
    ----------
    difference
        On the first date.
    first
        Position of that date.
    follows
        What it follows from, of `changed_market.sources`.
    dates
        Positions of the dates with such a difference.
    """

    difference: Difference
    first: int
    follows: Sequence[str]
    dates: set[int] = dataclasses.field(default_factory=set)

    def add(self, t: int, difference: Difference) -> None:
        """One more date."""
        self.dates.add(t)
        if t < self.first:
            self.first, self.difference = t, difference


def finding(
    leak: Leak,
    calendar: pd.DatetimeIndex,
    columns: Sequence[str],
    label_columns: Sequence[str],
    days: Mapping[int, Day],
    labels: Mapping[int, Labels],
) -> Finding:
    """Name a leak.

    Parameters
    ----------
    leak
        What differed.
    calendar
        The days of the store.
    columns, label_columns
        Names of the features and of the raw labels.
    days, labels
        What is known of the days of the store itself, by position; at least the leak's first.
    """
    what, follows = leak.difference.what, _follows(leak.follows)
    size = leak.difference.said() if leak.difference.of else ""
    first = f"{calendar[leak.first]:%Y-%m-%d}"
    if what == FEATURES:
        names = columns_said(columns, leak.difference.columns)
        is_label = _label_among(leak, columns, label_columns, days, labels)
        if is_label is not None:
            return Finding("label-in-features", is_label, first, len(leak.dates), size)
        kind = "feature-looks-ahead"
        if leak.follows and BARS not in leak.follows:
            kind = "membership-looks-ahead" if MEMBERSHIP in leak.follows else "side-looks-ahead"
        said = f"{names} {'follow' if len(leak.difference.columns) > 1 else 'follows'} from {follows}"
        return Finding(kind, said, first, len(leak.dates), size)
    if what == ROWS:
        kind = "rows-look-ahead" if BARS in leak.follows or not leak.follows else "membership-looks-ahead"
        return Finding(kind, f"which stocks a day has follows from {follows}", first, len(leak.dates), size)
    kind, subject = {
        MARKET_VALUE: ("market-value-looks-ahead", "market values follow"),
        CONCEPTS: ("concepts-look-ahead", "industries or concepts follow"),
        MARKET_STATUS: ("market-status-looks-ahead", "features of the whole market follow"),
        LABELS: ("label-longer-than-declared", "labels follow beyond their reach"),
    }.get(what, ("score-looks-ahead", "scores follow"))
    return Finding(kind, f"{subject} from {follows}", first, len(leak.dates), size)


def columns_said(columns: Sequence[str], positions: Sequence[int]) -> str:
    """Names of some columns: the first few, and how many more."""
    names = [columns[i] if i < len(columns) else f"column {i}" for i in positions]
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(f"`{name}`" for name in names[:NAMED]) + more


def _follows(sources: Sequence[str]) -> str:
    if not sources:
        return "what several sources together held later"
    said = {BARS: "bars of later days", MEMBERSHIP: "who joins or leaves the universe later"}
    return " and ".join(
        said.get(source, f"rows of `{source.removeprefix(SIDE)}` that were known later") for source in sources
    )


def _label_among(
    leak: Leak,
    columns: Sequence[str],
    label_columns: Sequence[str],
    days: Mapping[int, Day],
    labels: Mapping[int, Labels],
) -> str | None:
    """Which feature is which label, as a sentence; None where none is."""
    day, label = days.get(leak.first), labels.get(leak.first, {}).get("raw")
    if day is None or label is None:
        return None
    _, ours, theirs = np.intersect1d(day.codes, label[0], return_indices=True)
    for column in leak.difference.columns[:COLUMNS]:
        values = day.planes[FEATURES][ours, column]
        for name, other in zip(label_columns, label[1][theirs].T, strict=True):
            if abs(_rank_correlation(values, other)) > SAME_RANKS:
                return f"{columns_said(columns, [column])} ranks the stocks as the label `{name}` does"
    return None


def _rank_correlation(one: np.ndarray, other: np.ndarray) -> float:
    """Spearman's correlation; 0 where fewer than 8 stocks have both, or one does not vary."""
    there = ~(np.isnan(one) | np.isnan(other))
    if there.sum() < 8:
        return 0.0
    ranks = [pd.Series(values[there]).rank().to_numpy() for values in (one, other)]
    if any(np.ptp(rank) == 0 for rank in ranks):
        return 0.0
    return float(np.corrcoef(*ranks)[0, 1])
