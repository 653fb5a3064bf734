"""The market of a handler, and its label columns as Qlib's processors want them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset.loader import DataLoader
from qlib.utils.serial import Serializable

from qlib_ext.data.labels.base import tabulate
from qlib_ext.data.labels.label import Label
from qlib_ext.data.store_check import HELP
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore, StoreError


class PanelLoader(DataLoader, Serializable):
    """Holds the market that features are gathered from, and computes label columns on it.

    Parameters
    ----------
    labels
        Label name -> label.

    Attributes
    ----------
    notes
        What a reader of the results should know of the labels, once they were computed.
    """

    def __init__(self, labels: Mapping[str, Label]) -> None:
        Serializable.__init__(self)
        self.labels = dict(labels)
        self.notes: tuple[str, ...] = ()
        self._panel: MarketPanel | None = None
        self._store: QlibStore | None = None

    @property
    def panel(self) -> MarketPanel:
        """The market; loaded by `load_panel`, or taken from a cache."""
        if self._panel is None:
            raise RuntimeError("the market panel is not loaded: call the handler's `setup_data` first")
        return self._panel

    @panel.setter
    def panel(self, panel: MarketPanel) -> None:
        self._panel = panel

    def load_panel(
        self, store: QlibStore, universe: str, features: FeatureSet, made: Sequence[str] = ()
    ) -> MarketPanel:
        """Read the market, in the layout that windows are gathered from.

        Parameters
        ----------
        made
            Fields that the features read and the store does not hold, since the handler makes them.
        """
        fields = [field for field in features.fields if field not in made]
        panel = MarketPanel.load(store, universe, fields, empty_days=features.lookback_days - 1)
        if not panel.instruments:
            raise StoreError(
                f"the store {store.root} has bars of no instrument that instruments/{universe}.txt names; {HELP}"
            )
        required = set(features.required_fields) - set(made)
        lacking = [field for field in panel.missing_fields if field in required]
        if lacking:  # others have it, such as an index
            raise StoreError(
                f"the store {store.root} has no `{'`, `'.join(lacking)}` of any member of `{universe}`; {HELP}"
            )
        self._panel, self._store = panel, store
        return panel

    def rows(self, start_time: Any = None, end_time: Any = None) -> np.ndarray:
        """`[D, S]` bool: members that have a close, on the days from start to end."""
        calendar = self.panel.calendar
        if start_time is None and end_time is None:
            return self.panel.present
        inside = np.ones(len(calendar), dtype=bool)
        if start_time is not None:
            inside &= calendar >= pd.Timestamp(start_time)
        if end_time is not None:
            inside &= calendar <= pd.Timestamp(end_time)
        return self.panel.present & inside[:, None]

    def load(self, instruments: str, start_time: Any = None, end_time: Any = None) -> pd.DataFrame:
        """Labels before any processor, of the market that is loaded: indexed (datetime, instrument)."""
        rows = self.rows(start_time, end_time)
        whole = slice(0, len(rows))
        columns = {name: of(whole)[rows] for name, of in self.evaluators().items()}
        return tabulate(self.panel, rows, whole, columns)

    def evaluators(self) -> dict[str, Callable[[slice], np.ndarray]]:
        """Label name -> from a run of days to the label's values `[days, S]`, before any processor."""
        if self._store is None:
            raise RuntimeError("the market was taken from a cache, and labels with it: nothing computes them")
        found = {name: label.values(self.panel, self._store) for name, label in self.labels.items()}
        self.notes = tuple(dict.fromkeys(note for values in found.values() for note in values.notes))
        return {name: values.of for name, values in found.items()}
