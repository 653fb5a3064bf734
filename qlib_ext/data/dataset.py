"""The dataset of a workflow: segments of trading days over a panel handler."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext.checks import UserError, brief, one_of
from qlib_ext.config.build import build
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.data.combinatorial import Stretches, as_texts
from qlib_ext.data.config import DatasetConfig
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.panel import DailyPanels
from qlib_ext.data.segments import Segments, check_spans, find_days, in_stretches, purged, whole
from qlib_ext.data.side import SidePlanes
from qlib_ext.data.spec import DatasetSpec

logger = logging.getLogger(__name__)

# Before the names of statistics that are kept with a model.
WINDOWS, MARKET_STATUS = "windows.", "market_status."


class DailyPanelDataset(Rebuildable, DatasetH):
    """Segments of trading days, as daily panels for torch models and as tables for Qlib's own.

    Parameters
    ----------
    handler, segments, options
        As `qlib_ext.data.config.DatasetConfig` has them: it checks them all before anything is loaded.

    Attributes
    ----------
    days
        Segment -> positions of its days in the calendar of the market.
    purged_days
        Segment -> how many of its last days were left out.
    notes
        What a reader of the results should know of the data.

    Raises
    ------
    StoreError
        If the store is missing, or lacks the universe, the benchmark or a field.
    UserError
        As from `DatasetConfig`; if a segment holds no day of the store.
    """

    segments: Segments

    def __init__(
        self,
        handler: Mapping[str, Any] | PanelHandler,
        segments: Mapping[str, Sequence[Any]],
        **options: Any,
    ) -> None:
        self.arguments = DatasetConfig.of(handler=handler, segments=segments, **options)
        self.store = self.arguments.open_store()  # before the handler loads anything
        described, days = self.arguments.resolve(self.store)
        self.spans = self.arguments.spans or {name: (each,) for name, each in days.items()}
        super().__init__(build(described, PanelHandler, name="handler"), days)

    @classmethod
    def spec(cls, **arguments: Any) -> DatasetSpec:
        """What a dataset of these arguments would be, with nothing loaded; a UserError if it could not be."""
        return DatasetConfig.of(**arguments).spec()

    def setup_data(self, handler_kwargs: dict[str, Any] | None = None, **kwargs: Any) -> None:
        """Set the handler up where asked to, and work out which days each segment holds.

        A dataset that was pickled holds no data: `setup_data(handler_kwargs={"init_type": "load_state"})` loads
        them from the store that Qlib reads by then, and keeps the fitted statistics.
        """
        self.store = self.arguments.open_store()
        self._padded_on: tuple[torch.device, torch.Tensor] | None = None
        if self.segments != whole(self.spans):  # `config` has set others
            self.spans = check_spans(self.segments, judging=self.arguments.judging)
        self.segments = whole(self.spans)
        super().setup_data(handler_kwargs=handler_kwargs, **kwargs)
        self.store = self.handler.store  # what the data were read from, and of the same moment
        for name in self.arguments.table_labels:
            one_of("table_labels", name, self.label_names)
        found, notes = find_days(self.handler, self.spans)
        self.days = purged(found, self.handler.horizon_days) if self.arguments.purge else found
        self.purged_days = {name: len(found[name]) - len(days) for name, days in self.days.items()}
        self._side = SidePlanes(
            self.arguments.sources,
            self.store,
            self.handler.panel,
            self.handler.fit_days(),
            refit=(handler_kwargs or {}).get("init_type", DataHandlerLP.IT_LS) != DataHandlerLP.IT_LS,
        )
        self.notes = [*self.handler.notes(), *notes, *self._side.notes]
        for note in self.notes:
            logger.warning(note)

    @property
    def benchmark(self) -> str | None:
        """The instrument to compare with."""
        return self.arguments.benchmark

    @property
    def universe(self) -> str:
        """The name of the universe."""
        return str(self.handler.instruments)

    @property
    def instruments(self) -> tuple[str, ...]:
        """Codes of the S stocks of the market panel."""
        return self.handler.panel.instruments

    @property
    def fingerprint(self) -> str:
        """Fingerprint of the store's content."""
        return self.store.fingerprint()

    @property
    def label_names(self) -> tuple[str, ...]:
        """Labels that a task can name."""
        return tuple(self.handler.label_planes(DataHandlerLP.DK_L))

    def statistics(self) -> dict[str, np.ndarray]:
        """All that was fitted to the training days, by name: of the windows `[T, F]`, of the market's status `[M]`."""
        fitted: dict[str, Any] = {WINDOWS: self.handler.features, MARKET_STATUS: self.arguments.market_status}
        return {
            f"{name}{key}": getattr(part, key)
            for name, part in fitted.items()
            if part is not None
            for key in ("median", "scale")
        }

    def identity(self) -> dict[str, Any]:
        """What decides the numbers that a model sees, ready for JSON: equal for equal data, wherever they lie."""
        processors = [*self.handler.infer_processors, *self.handler.learn_processors]
        described = {key: value for key, value in self.describe().items() if key not in ("store", "notes")}
        return {
            **described,
            "labels": {name: x.identity(self.store) for name, x in self.handler.data_loader.labels.items()},
            "tradable_prices": self.handler.prices_identity(),
            "fit": self.handler.fit_identity(),
            "processors": [{"class": type(x).__name__, **vars(x)} for x in processors],
        }

    def panels(self, segment: str, device: torch.device | str = "cpu") -> DailyPanels:
        """Daily panels of a segment, on the device that trains.

        Parameters
        ----------
        segment
            A name in `segments`.
        device
            Where the market is held, once for all segments.
        """
        if segment not in self.days:
            raise UserError(f"`segment` must be one of {', '.join(self.days)}, found {brief(segment)}")
        panel = self.handler.panel
        return DailyPanels(
            features=self.handler.features,
            padded=self._padded(torch.device(device)),
            calendar=panel.calendar,
            instruments=panel.instruments,
            days=self.days[segment],
            present=panel.present,
            labels=self.handler.label_planes(DataHandlerLP.DK_L),
            raw_labels=self.handler.label_planes(DataHandlerLP.DK_R),
            market_value=self._side.market_value,
            concepts=self._side.concepts(torch.device(device)),
            market_status=self._side.market_status,
        )

    def _padded(self, device: torch.device) -> torch.Tensor:
        # by the device that was asked for: a tensor on `cuda` says `cuda:0`, which is not equal to it
        if self._padded_on is None or self._padded_on[0] != device:
            self._padded_on = device, torch.from_numpy(self.handler.padded).to(device)
        return self._padded_on[1]

    def _prepare_seg(self, slc: Any, **kwargs: Any) -> pd.DataFrame:
        for name, bounds in self.segments.items():
            if isinstance(slc, tuple) and slc == bounds:
                parts = [self._prepare_seg(slice(*days), **kwargs) for days in self._stretches(name)]
                return parts[0] if len(parts) == 1 else pd.concat(parts)
        if kwargs.get("data_key") != DataHandlerLP.DK_L:
            return super()._prepare_seg(slc, **kwargs)
        label = self.handler.fetch(slc, col_set="label", data_key=DataHandlerLP.DK_L)[
            list(self.arguments.table_labels)
        ]
        label = label.dropna()
        if kwargs.get("col_set") == "label":
            return label
        features = self.handler.feature_table(label.index)
        if kwargs.get("col_set") == "feature":
            return features
        return pd.concat({"feature": features, "label": label}, axis=1)

    def _stretches(self, segment: str) -> Stretches:
        """First and last day that each stretch of a segment has."""
        days = self.handler.panel.calendar[self.days[segment]]
        parts = [
            days[in_stretches(days, (each,))] for each in self.spans.get(segment, (self.segments[segment],))
        ]
        return tuple((part[0], part[-1]) for part in parts if len(part))

    def coverage(self, segment: str) -> pd.DataFrame:
        """By day of a segment: `members` of the universe with bars in the store, and how many of them are `scored`."""
        panel, days = self.handler.panel, self.days[segment]
        return pd.DataFrame(
            {"members": panel.members[days].sum(axis=1), "scored": panel.present[days].sum(axis=1)},
            index=pd.DatetimeIndex(panel.calendar[days], name="datetime"),
        )

    def describe(self) -> dict[str, Any]:
        """What the run is made of, ready for JSON."""
        panel = self.handler.panel
        calendar = panel.calendar
        listed = set(self.store.membership(self.universe)["instrument"])
        sample = self.store.sample
        labels, rules = self.handler.data_loader.labels, self.handler.rules
        return {
            **({"synthetic": True, "synthetic_seed": sample.get("seed")} if sample else {}),
            "universe": self.universe,
            "benchmark": self.benchmark,
            "store": self.store.root.name,
            "fingerprint": self.fingerprint,
            "store_start": f"{calendar[0]:%Y-%m-%d}",
            "store_end": f"{calendar[-1]:%Y-%m-%d}",
            "instruments": len(panel.instruments),
            "instruments_without_bars": len(listed - set(panel.instruments)),
            "fields": list(self.handler.features.names),
            "missing_fields": list(panel.missing_fields),
            "lookback_days": self.handler.features.lookback_days,
            "label_horizon_days": self.handler.horizon_days,
            "labels": {name: str(label) for name, label in labels.items()},
            "label_days": self.handler.label_days(),
            **({} if rules is None else {"tradable_prices": rules.name}),
            "segments": {
                name: {
                    "asked_start": f"{self.segments[name][0]:%Y-%m-%d}",
                    "asked_end": f"{self.segments[name][1]:%Y-%m-%d}",
                    "start": f"{calendar[days[0]]:%Y-%m-%d}",
                    "end": f"{calendar[days[-1]]:%Y-%m-%d}",
                    "days": len(days),
                    "rows": int(panel.present[days].sum()),
                    "purged_days": self.purged_days[name],
                    **({"stretches": as_texts(self._stretches(name))} if len(self.spans[name]) > 1 else {}),
                }
                for name, days in self.days.items()
            },
            **({} if self.arguments.shares is None else {"split": list(self.arguments.shares)}),
            **self.handler.features.describe(),
            **self._side.described,
            "notes": list(self.notes),
        }
