"""What is known of a dataset while nothing of it is loaded."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import pandas as pd

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.market.spells import daily_size
from qlib_ext.market.store import QlibStore


@dataclass(frozen=True)
class DatasetSpec:
    """Facts that models and records hold their arguments against before a training.

    Attributes
    ----------
    store
        The market.
    universe
        Name of the universe.
    benchmark
        Instrument that the dataset names to compare with, or None.
    segments
        Name -> first and last day that the workflow asks for, both included.
    lookback_days, num_features
        T and F, the sizes of a stock's window.
    num_market
        M, how many features of the whole market a day has.
    raw_labels, labels
        Names of the labels as records judge by and as tasks learn, or None where only the data will tell.
    features
        Names of the features, or None where only the data will tell.
    tasks
        Task of the model -> whether it is a classification; empty for a model that has no such tasks.
    """

    store: QlibStore
    universe: str
    benchmark: str | None
    segments: Mapping[str, tuple[pd.Timestamp, pd.Timestamp]]
    lookback_days: int
    num_features: int
    raw_labels: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    features: tuple[str, ...] | None = None
    tasks: Mapping[str, bool] = field(default_factory=dict)
    num_market: int = 0

    def require_segment(self, name: str, reader: str) -> None:
        """Raise a UserError where the dataset has no such segment."""
        if name not in self.segments:
            raise UserError(
                f"`segments` must hold `{name}`, which {reader} needs, found {', '.join(self.segments)}"
            )

    def require_days(self, segment: str) -> None:
        """Raise a UserError where the universe has no member on any day of a segment."""
        if self.most_members(segment):
            return
        first, last = self.segments[segment]
        spells, calendar = self.store.membership(self.universe), self.store.calendar
        there = max(spells["start"].min(), calendar[0]), min(spells["end"].max(), calendar[-1])
        raise UserError(
            f"segment `{segment}` ({first:%Y-%m-%d} to {last:%Y-%m-%d}) holds no day of the universe `{self.universe}` in "
            f"the store {self.store.root} ({there[0]:%Y-%m-%d} to {there[1]:%Y-%m-%d}): change the segments, or take "
            "another store"
        )

    def require_raw_label(self, argument: str, label: str) -> None:
        """Raise a UserError where it is known that no such label will be there to judge by."""
        _require(argument, label, self.raw_labels)

    def require_label(self, argument: str, label: str) -> None:
        """Raise a UserError where it is known that no such label will be there to learn."""
        _require(argument, label, self.labels)

    def require_classification(self, argument: str, task: str) -> None:
        """Raise a UserError where it is known that the model has no such task of classes."""
        classes = [name for name, classification in self.tasks.items() if classification]
        if self.tasks and task not in classes:
            raise UserError(
                f"`{argument}` must be a classification task of the model ({', '.join(classes) or 'it has none'}), found "
                f"{brief(task)}{nearest(task, classes)}"
            )

    def require_field(self, argument: str, name: str) -> None:
        """Raise a UserError where no instrument of the store has such a field."""
        if not any(name in self.store.fields(code) for code in self.store.instruments()):
            known = sorted(
                {each for code in self.store.instruments()[:50] for each in self.store.fields(code)}
            )
            raise UserError(
                f"`{argument}` needs the field `{name}`, which the store {self.store.root} does not have; it has "
                f"{', '.join(known)}{nearest(name, known)}"
            )

    def most_members(self, segment: str) -> int:
        """The most stocks that the universe has on a day of a segment; 0 where the store has no such day."""
        first, last = self.segments[segment]
        days = self.store.calendar[(self.store.calendar >= first) & (self.store.calendar <= last)]
        if not len(days):
            return 0
        spells = self.store.membership(self.universe)
        spells = spells[spells["instrument"].isin(self.store.instruments())]
        return int(daily_size(days, spells).max())


def _require(argument: str, label: str, known: tuple[str, ...] | None) -> None:
    if known is not None and label not in known:
        raise UserError(
            f"`{argument}` must be one of the dataset's labels ({', '.join(known)}), found {brief(label)}"
            f"{nearest(str(label), known)}"
        )
