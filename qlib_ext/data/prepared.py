"""What a handler prepares, as an entry of the panel cache and back."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.config.build import dotted
from qlib_ext.data.cache import Entry
from qlib_ext.data.labels.label_planes import LabelPlanes
from qlib_ext.features.market_panel import MarketPanel


@dataclass(frozen=True)
class Prepared:
    """A market with its labels, and the statistics of its features.

    Attributes
    ----------
    panel
        The market, loaded with the empty days that windows need.
    padded
        The market as features are gathered from it.
    labels
        Of all its days.
    median, scale
        `[T, F]` float32, fitted.
    notes
        What a reader of the results should know of how they were made.
    """

    panel: MarketPanel
    padded: np.ndarray
    labels: LabelPlanes
    median: np.ndarray
    scale: np.ndarray
    notes: tuple[str, ...] = ()

    def entry(self) -> Entry:
        """Everything, as facts that JSON can say and arrays."""
        panel, labels = self.panel, self.labels
        assert panel.padded is not None
        facts = {
            "fields": panel.fields,
            "missing_fields": panel.missing_fields,
            "instruments": panel.instruments,
            "calendar": panel.calendar.astype("M8[ns]").asi8.tolist(),
            "raw": list(labels.raw),
            "learn": list(labels.learn),
            "notes": list(self.notes),
        }
        arrays = {
            "bars": panel.padded,
            "features": self.padded,
            "members": panel.members,
            "present": panel.present,
            "rows": labels.rows,
            "median": self.median,
            "scale": self.scale,
            **{f"raw {i}": plane for i, plane in enumerate(labels.raw.values())},
            **{f"learn {i}": plane for i, plane in enumerate(labels.learn.values())},
        }
        return Entry(facts, arrays)

    @classmethod
    def of(cls, entry: Entry, processors: Sequence[Processor]) -> Prepared:
        """The same again, with the learn processors that the labels were made by."""
        facts, arrays = entry.facts, entry.arrays
        calendar = pd.DatetimeIndex(np.array(facts["calendar"], dtype="M8[ns]"))
        bars = arrays["bars"]
        panel = MarketPanel(
            fields=tuple(facts["fields"]),
            calendar=calendar,
            instruments=tuple(facts["instruments"]),
            values=bars[len(bars) - len(calendar) :].transpose(2, 0, 1),
            members=arrays["members"],
            missing_fields=tuple(facts["missing_fields"]),
            padded=bars,
            known_present=arrays["present"],
        )
        labels = LabelPlanes(
            panel,
            processors,
            {tuple(column): arrays[f"raw {i}"] for i, column in enumerate(facts["raw"])},
            {name: arrays[f"learn {i}"] for i, name in enumerate(facts["learn"])},
            arrays["rows"],
        )
        statistics = arrays["median"], arrays["scale"]
        return cls(panel, arrays["features"], labels, *statistics, notes=tuple(facts["notes"]))


def class_path(part: object) -> str:
    """`package.module.Class` of an object."""
    return dotted(type(part))


def can_be_keyed(part: object, settings: Mapping[str, Any]) -> bool:
    """Whether a key of the cache says all of a part: of other people's code it would not see a change."""
    modules = [kind.__module__ for kind in type(part).__mro__ if kind is not object]
    if not all(module.startswith(("qlib_ext.", "qlib.", "abc")) for module in modules):
        return False
    try:
        json.dumps(settings)
    except TypeError:
        return False
    return True
