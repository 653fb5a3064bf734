"""The dataset of a workflow: segments of trading days over a panel handler."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from qlib.config import C
from qlib.data.dataset import DatasetH
from qlib.data.dataset.handler import DataHandlerLP

from qlib_ext import checks
from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.data.handlers.panel import PanelHandler, require
from qlib_ext.data.panel import DailyPanels
from qlib_ext.data.segments import SPLIT, Segments, check_segments, check_shares, split_days
from qlib_ext.data.side_data.concepts import ConceptGather, Concepts, ConceptSpells
from qlib_ext.data.side_data.market_value import MarketValue, fill
from qlib_ext.data.side_data.source import Source
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.store import QlibStore

logger = logging.getLogger(__name__)


class DailyPanelDataset(DatasetH):
    """Segments of trading days, as daily panels for torch models and as tables for Qlib's own.

    Parameters
    ----------
    handler
        A `PanelHandler`, or `{class, kwargs}` of one.
    segments
        Name -> (first day, last day), both included. They may reach beyond the store: what is there is used, and
        `notes` say so. They must not overlap. Or `{split: [0.7, 0.15, 0.15]}`: these shares of the trading days,
        from the handler's `start_time` to its `end_time` and while the universe has members, become `train`, `valid`
        and `test` in their order in time, and the handler fits on `train`.
    benchmark
        Instrument that records will compare with; checked here, so that a missing one stops the workflow at once.
    record_fields
        Fields that records will need beside those of the features, such as `change` for price limits; checked here
        for the same reason.
    purge
        Leave out the last days of a segment whose labels reach into the next one.
    table_labels
        Labels in the table that a table model trains on; rows that lack one are dropped there.
    market_value
        Where the panels' market values come from, a `MarketValue` or `{class, kwargs}` of one; None: they have none.
    concepts
        Where the panels' concepts come from, a `Concepts` or `{class, kwargs}` of one; None: they have none.
    cache
        Directory in which the handler keeps what it prepares for later runs, or `off`; None leaves it to the
        handler's own argument of that name.

    Raises
    ------
    StoreError
        If the store is missing, or lacks the universe, the benchmark or a field.
    UserError
        If a segment is reversed, overlaps another, or holds no day of the store; if `test` lies before `train` or
        `valid`; if shares are not three that make 1 together.
    """

    segments: Segments

    def __init__(
        self,
        handler: Mapping[str, Any] | PanelHandler,
        segments: Mapping[str, Sequence[Any]],
        benchmark: str | None = None,
        record_fields: Sequence[str] = (),
        purge: bool = True,
        table_labels: Sequence[str] = ("RETURN",),
        market_value: Mapping[str, Any] | MarketValue | None = None,
        concepts: Mapping[str, Any] | Concepts | None = None,
        cache: str | Path | None = None,
    ) -> None:
        described, days = self._check(
            handler, segments, benchmark, record_fields, purge, table_labels, market_value, concepts, cache
        )
        super().__init__(build(described, PanelHandler, name="handler"), days)

    def _check(
        self,
        handler: Mapping[str, Any] | PanelHandler,
        segments: Mapping[str, Sequence[Any]],
        benchmark: str | None = None,
        record_fields: Sequence[str] = (),
        purge: bool = True,
        table_labels: Sequence[str] = ("RETURN",),
        market_value: Mapping[str, Any] | MarketValue | None = None,
        concepts: Mapping[str, Any] | Concepts | None = None,
        cache: str | Path | None = None,
    ) -> tuple[Mapping[str, Any] | PanelHandler, Segments]:
        """Check and keep the arguments, before anything is loaded; the handler as it is to be built, and the segments."""
        if not isinstance(handler, (Mapping, PanelHandler)):
            raise UserError(f"`handler` must be a mapping with `class` and `kwargs`, found {handler!r}")
        split = isinstance(segments, Mapping) and SPLIT in segments
        if split and len(segments) > 1:
            others = ", ".join(str(name) for name in segments if name != SPLIT)
            raise UserError(
                f"`segments.{SPLIT}` makes all segments, found {others} beside it: leave them out"
            )
        self.shares = check_shares(segments[SPLIT]) if split else None
        checked = {} if split else check_segments(segments)
        self.benchmark = None if benchmark is None else checks.instance("benchmark", benchmark, str)
        self.record_fields = checks.words("record_fields", record_fields)
        self.purge = checks.instance("purge", purge, bool)
        self.table_labels = checks.words("table_labels", table_labels)
        self.market_value = (
            None if market_value is None else build(market_value, MarketValue, name="market_value")
        )
        self.concepts = None if concepts is None else build(concepts, Concepts, name="concepts")
        handler = _with_cache(handler, cache)
        self.store = self._open()  # before the handler loads anything
        if self.shares is not None:
            checked = split_days(self.store, handler, self.shares)
            handler = _with_fit(handler, checked["train"])
        return handler, checked

    @classmethod
    def foresee(cls, **kwargs: Any) -> DatasetSpec:
        """Check the arguments of a dataset, and say what is known of it while nothing is loaded.

        Parameters
        ----------
        kwargs
            As a workflow gives them to the constructor.

        Raises
        ------
        UserError
            As from the constructor, but for what only the data can tell.
        """
        dataset = cls.__new__(cls)
        config, segments = dataset._check(**kwargs)
        if isinstance(config, Mapping):
            config = {**config, "kwargs": {**(config.get("kwargs") or {}), "init_data": False}}
        handler = build(config, PanelHandler, name="handler")
        handler.check(dataset.store)
        raw, learned = handler.label_names()
        if learned is not None:
            for name in dataset.table_labels:
                checks.one_of("table_labels", name, learned)
        known = DatasetSpec(
            dataset.store,
            str(handler.instruments),
            dataset.benchmark,
            segments,
            raw_labels=raw,
            labels=learned,
        )
        for name in segments:
            known.require_days(name)
        return known

    def setup_data(self, handler_kwargs: dict | None = None, **kwargs: Any) -> None:
        """Set the handler up where asked to, and work out which days each segment holds.

        A dataset that was pickled holds no data: `setup_data(handler_kwargs={"init_type": "load_state"})` loads
        them from the store that Qlib reads by then, and keeps the fitted statistics.
        """
        self.store = self._open()
        self._planes: dict[str, dict[str, np.ndarray]] = {}
        self._padded_on: tuple[torch.device, torch.Tensor] | None = None
        self.segments = check_segments(self.segments)  # `config` may have set others
        super().setup_data(handler_kwargs=handler_kwargs, **kwargs)
        self.store = self.handler.store  # what the data were read from, and of the same moment
        labels = self.handler.get_cols(col_set="label", data_key=DataHandlerLP.DK_L)
        for name in self.table_labels:
            checks.one_of("table_labels", name, labels)
        self.days, self.purged_days, self.notes = self._split()
        self._load_side()
        for note in self.notes:
            logger.warning(note)

    def _open(self) -> QlibStore:
        store = QlibStore(C.dpm.get_data_uri("day"))
        require(
            store, fields=self.record_fields, instruments=[] if self.benchmark is None else [self.benchmark]
        )
        for name, source in self._sources().items():
            reason = source.lacks(store)
            if reason is not None:
                raise UserError(
                    f"`{name}` ({type(source).__name__}) does not fit the store {store.root}: {reason}; "
                    f"bring a table in (`qlib-ext data side-data DIR NAME FILE`), or take FirstAvailable"
                )
        return store

    def _sources(self) -> dict[str, Source]:
        """The sources of side data that the dataset names."""
        named = {"market_value": self.market_value, "concepts": self.concepts}
        return {name: source for name, source in named.items() if source is not None}

    def _load_side(self) -> None:
        """Read the side data that the dataset names, and note what they are and of how much there are any."""
        panel = self.handler.panel
        self._market_value: np.ndarray | None = None
        self._concepts: ConceptSpells | None = None
        self._gather_on: tuple[torch.device, ConceptGather] | None = None
        self.side = {
            name: {"class": type(source).__name__, **source.describe(self.store)}
            for name, source in self._sources().items()
        }
        known: dict[str, np.ndarray] = {}
        if self.market_value is not None:
            values = self.market_value.load(self.store, panel.instruments)
            values = values[self.store.calendar.get_indexer(panel.calendar)]
            self._market_value = fill(values, panel.present)
            known["market_value"] = ~np.isnan(values)
        if self.concepts is not None:
            self._concepts = self.concepts.load(self.store, panel)
            if self._concepts is not None:
                known["concepts"] = self._concepts.covered(*panel.present.shape)
                self.side["concepts"]["count"] = len(self._concepts.names)
        for name, source in self._sources().items():
            self.notes += source.notes(self.store)
            if name in known:
                share = float(known[name][panel.present].mean())
                self.side[name]["coverage"] = round(share, 4)
                if share < 0.8:
                    without = "the median of the day" if name == "market_value" else "none"
                    self.notes.append(
                        f"{name}: known for {share:.0%} of the stocks and days; the others have {without}"
                    )

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
        return tuple(self._label_planes(DataHandlerLP.DK_L))

    def identity(self) -> dict[str, Any]:
        """What decides the numbers that a model sees, ready for JSON: equal for equal data, wherever they lie."""
        processors = [*self.handler.infer_processors, *self.handler.learn_processors]
        described = {key: value for key, value in self.describe().items() if key not in ("store", "notes")}
        return {
            **described,
            "fit": [str(self.handler.fit_start_time), str(self.handler.fit_end_time)],
            "processors": [{"class": type(x).__name__, **vars(x)} for x in processors],
        }

    def _split(self) -> tuple[dict[str, np.ndarray], dict[str, int], list[str]]:
        panel = self.handler.panel
        calendar = panel.calendar
        notes = self.handler.notes()
        usable = panel.present.any(axis=1)
        if self.handler.start_time is not None:
            usable &= calendar >= pd.Timestamp(self.handler.start_time)
        if self.handler.end_time is not None:
            usable &= calendar <= pd.Timestamp(self.handler.end_time)
        fit_start, fit_end = self.handler.fit_start_time, self.handler.fit_end_time
        for name, (start, end) in self.segments.items():
            if fit_start is None:
                break  # nothing was fitted here: the statistics are those of another dataset
            if "train" in self.segments and name != "train" and start <= fit_end and fit_start <= end:
                notes.append(
                    f"features are normalised by statistics of {fit_start:%Y-%m-%d} to {fit_end:%Y-%m-%d}, "
                    f"which has days of segment `{name}`: `fit_start_time` and `fit_end_time` belong to `train`"
                )
        days: dict[str, np.ndarray] = {}
        for name, (start, end) in self.segments.items():
            inside = np.flatnonzero((calendar >= start) & (calendar <= end) & usable)
            if not len(inside):
                there = calendar[usable]
                found = f"{there[0]:%Y-%m-%d} to {there[-1]:%Y-%m-%d}" if len(there) else "none at all"
                raise UserError(
                    f"segment `{name}` ({start:%Y-%m-%d} to {end:%Y-%m-%d}) holds no day of the universe "
                    f"`{self.universe}` in the store {self.store.root} ({found}): "
                    "change the segments, or take another store"
                )
            first, last = calendar[inside[0]], calendar[inside[-1]]
            if (first - start).days > 10 or (end - last).days > 10:
                notes.append(
                    f"segment `{name}` asks for {start:%Y-%m-%d} to {end:%Y-%m-%d}; "
                    f"the store gives {first:%Y-%m-%d} to {last:%Y-%m-%d} ({len(inside)} days)"
                )
            days[name] = inside
        purged = dict.fromkeys(days, 0)
        if self.purge:
            for name, inside in days.items():
                later = [other[0] for other in days.values() if other[0] > inside[-1]]
                if later:
                    kept = inside[inside + self.handler.horizon_days < min(later)]
                    if not len(kept):
                        raise UserError(
                            f"segment `{name}` has {len(inside)} days, and the labels of all of them reach into the "
                            f"next segment ({self.handler.horizon_days} days ahead): make it longer, or set `purge` "
                            "to false"
                        )
                    purged[name] = len(inside) - len(kept)
                    days[name] = kept
        return days, purged, notes

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
            raise UserError(f"`segment` must be one of {', '.join(self.days)}, found {segment!r}")
        panel = self.handler.panel
        return DailyPanels(
            windows=self.handler.windows,
            padded=self._padded(torch.device(device)),
            calendar=panel.calendar,
            instruments=panel.instruments,
            days=self.days[segment],
            present=panel.present,
            labels=self._label_planes(DataHandlerLP.DK_L),
            raw_labels=self._label_planes(DataHandlerLP.DK_R),
            market_value=self._market_value,
            concepts=self._gather(torch.device(device)),
        )

    def _gather(self, device: torch.device) -> ConceptGather | None:
        if self._concepts is None:
            return None
        if self._gather_on is None or self._gather_on[0] != device:
            days, stocks = self.handler.panel.present.shape
            self._gather_on = device, ConceptGather(self._concepts, days, stocks, device)
        return self._gather_on[1]

    def _padded(self, device: torch.device) -> torch.Tensor:
        # by the device that was asked for: a tensor on `cuda` says `cuda:0`, which is not equal to it
        if self._padded_on is None or self._padded_on[0] != device:
            self._padded_on = device, torch.from_numpy(self.handler.padded).to(device)
        return self._padded_on[1]

    def _label_planes(self, data_key: str) -> dict[str, np.ndarray]:
        if data_key not in self._planes:
            self._planes[data_key] = self.handler.label_planes(data_key)
        return self._planes[data_key]

    def _prepare_seg(self, slc: Any, **kwargs: Any) -> pd.DataFrame:
        for name, (start, end) in self.segments.items():
            if isinstance(slc, tuple) and slc == (start, end):
                calendar, days = self.handler.panel.calendar, self.days[name]
                slc = slice(calendar[days[0]], calendar[days[-1]])
        if kwargs.get("data_key") != DataHandlerLP.DK_L:
            return super()._prepare_seg(slc, **kwargs)
        label = self.handler.fetch(slc, col_set="label", data_key=DataHandlerLP.DK_L)[list(self.table_labels)]
        label = label.dropna()
        if kwargs.get("col_set") == "label":
            return label
        features = self.handler.feature_table(label.index)
        if kwargs.get("col_set") == "feature":
            return features
        return pd.concat({"feature": features, "label": label}, axis=1)

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
        return {
            "universe": self.universe,
            "benchmark": self.benchmark,
            "store": self.store.root.name,
            "fingerprint": self.fingerprint,
            "store_start": f"{calendar[0]:%Y-%m-%d}",
            "store_end": f"{calendar[-1]:%Y-%m-%d}",
            "instruments": len(panel.instruments),
            "instruments_without_bars": len(listed - set(panel.instruments)),
            "fields": list(self.handler.windows.fields),
            "missing_fields": list(panel.missing_fields),
            "lookback_days": self.handler.windows.lookback_days,
            "label_horizon_days": self.handler.horizon_days,
            "labels": dict(self.handler.data_loader.labels),
            "segments": {
                name: {
                    "asked_start": f"{self.segments[name][0]:%Y-%m-%d}",
                    "asked_end": f"{self.segments[name][1]:%Y-%m-%d}",
                    "start": f"{calendar[days[0]]:%Y-%m-%d}",
                    "end": f"{calendar[days[-1]]:%Y-%m-%d}",
                    "days": len(days),
                    "rows": int(panel.present[days].sum()),
                    "purged_days": self.purged_days[name],
                }
                for name, days in self.days.items()
            },
            **({} if self.shares is None else {"split": list(self.shares)}),
            **self.handler.describe(),
            **self.side,
            "notes": list(self.notes),
        }


def _with_cache(
    handler: Mapping[str, Any] | PanelHandler, cache: str | Path | None
) -> Mapping[str, Any] | PanelHandler:
    if cache is None:
        return handler
    if not isinstance(handler, Mapping):
        raise UserError(
            "`cache` must be given to the handler where that is made already, found it at the dataset"
        )
    return {**handler, "kwargs": {**(handler.get("kwargs") or {}), "cache": cache}}


def _with_fit(
    handler: Mapping[str, Any] | PanelHandler, train: tuple[pd.Timestamp, pd.Timestamp]
) -> Mapping[str, Any] | PanelHandler:
    """The handler, to be fitted on `train` unless it says on what."""
    if not isinstance(handler, Mapping):
        if handler.fit_start_time is None:
            raise UserError(
                "a handler that is made already must have been fitted, where the dataset splits the days"
            )
        return handler
    kwargs = dict(handler.get("kwargs") or {})
    if kwargs.get("fit_start_time") is None and kwargs.get("fit_end_time") is None:
        kwargs["fit_start_time"], kwargs["fit_end_time"] = train
    return {**handler, "kwargs": kwargs}
