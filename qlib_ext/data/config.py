"""The arguments of a dataset, checked alone: before a store is opened, and before anything is loaded."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from qlib.config import C

from qlib_ext.checks import UserError, brief, instance, nearest, one_of, words
from qlib_ext.config.build import build
from qlib_ext.data.combinatorial import Stretches
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.segments import SPLIT, Segments, Spans, check_shares, check_spans, split_days, whole
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.data.store_check import require
from qlib_ext.features.side_data.concepts import Concepts
from qlib_ext.features.side_data.market_status import MarketStatus
from qlib_ext.features.side_data.market_value import MarketValue
from qlib_ext.features.side_data.source import Source
from qlib_ext.market.store import QlibStore

# What a dataset adds to its panels beside bars: argument -> what it must be.
SOURCES: Mapping[str, type[Source]] = {
    "market_value": MarketValue,
    "concepts": Concepts,
    "market_status": MarketStatus,
}


@dataclass(frozen=True)
class DatasetConfig:
    """What a workflow says of its dataset.

    Parameters
    ----------
    handler
        A `PanelHandler`, or `{class, kwargs}` of one.
    segments
        Name -> (first day, last day), both included. They may reach beyond the store: what is there is used, and
        notes say so. They must not overlap. Or `{split: [0.7, 0.15, 0.15]}`: these shares of the trading days,
        from the handler's `start_time` to its `end_time` and while the universe has members, become `train`, `valid`
        and `test` in their order in time. The handler fits on `train`, unless it says on what. A segment may be a list of
        such pairs, which leaves out what lies between them. `{walk_forward: ...}` and `{combinatorial: ...}` are for a whole
        workflow (`qlib_ext.workflow.walk_forward`).
    benchmark
        Instrument that records, and labels `less: index`, compare with; checked here, so that a missing one stops the workflow at once.
    record_fields
        Fields that records will need beside those of the features, such as `change` for price limits; checked here
        for the same reason.
    purge
        Leave out the days of a segment whose labels reach into another one.
    judging
        Whether `train` and `valid` may lie after days of `test`, as in a split of a combinatorial cross-validation. Such a
        model says how good the method is; nobody could have traded it.
    table_labels
        Labels in the table that a table model trains on; rows that lack one are dropped there.
    market_value
        Where the panels' market values come from, a `MarketValue` or `{class, kwargs}` of one; None: they have none.
    concepts
        Where the panels' concepts come from, a `Concepts` or `{class, kwargs}` of one; None: they have none.
    market_status
        Where the features of the whole market come from, a `MarketStatus` or `{class, kwargs}` of one; None: the panels
        have none. They are normalised by the days on which the handler fits.
    cache
        Directory in which the handler keeps what it prepares for later runs, or `off`; None leaves it to the
        handler's own argument of that name.

    Attributes
    ----------
    shares
        The shares of a split, or None where days are given.
    spans
        The stretches of days of each segment; empty where shares are given.

    Raises
    ------
    UserError
        If an argument is not of these kinds; if a segment is reversed or overlaps another; if `test` lies before
        `train` or `valid`; if shares are not three that make 1 together.
    """

    handler: Mapping[str, Any] | PanelHandler
    segments: Mapping[str, Sequence[Any]]
    benchmark: str | None = None
    record_fields: Sequence[str] = ()
    purge: bool = True
    table_labels: Sequence[str] = ("RETURN",)
    market_value: Mapping[str, Any] | MarketValue | None = None
    concepts: Mapping[str, Any] | Concepts | None = None
    market_status: Mapping[str, Any] | MarketStatus | None = None
    cache: str | Path | None = None
    judging: bool = False
    shares: tuple[float, ...] | None = dataclasses.field(init=False, default=None)
    spans: Spans = dataclasses.field(init=False, default_factory=dict)

    @classmethod
    def of(cls, **arguments: Any) -> DatasetConfig:
        """From keyword arguments, as a workflow gives them; a UserError names the nearest of an unknown one."""
        known = [field.name for field in dataclasses.fields(cls) if field.init]
        for name in arguments:
            if name not in known:
                raise UserError(
                    f"`task.dataset.kwargs` has no place for `{name}`{nearest(name, known)}; "
                    f"DailyPanelDataset takes {', '.join(known)}"
                )
        return cls(**arguments)

    def __post_init__(self) -> None:
        if not isinstance(self.handler, (Mapping, PanelHandler)):
            raise UserError(
                f"`handler` must be a mapping with `class` and `kwargs`, found {brief(self.handler)}"
            )
        if self.cache is not None and isinstance(self.handler, PanelHandler):
            raise UserError(
                "`cache` must be given to the handler where that is made already, found it at the dataset"
            )
        split = isinstance(self.segments, Mapping) and SPLIT in self.segments
        if split and len(self.segments) > 1:
            others = ", ".join(str(name) for name in self.segments if name != SPLIT)
            raise UserError(
                f"`segments.{SPLIT}` makes all segments, found {others} beside it: leave them out"
            )
        self._set("shares", check_shares(self.segments[SPLIT]) if split else None)
        instance("judging", self.judging, bool)
        self._set("spans", {} if split else check_spans(self.segments, judging=self.judging))
        self._set("segments", whole(self.spans))
        if self.benchmark is not None:
            instance("benchmark", self.benchmark, str)
        instance("purge", self.purge, bool)
        for name in ("record_fields", "table_labels"):
            self._set(name, words(name, getattr(self, name)))
        for name, kind in SOURCES.items():
            given = getattr(self, name)
            self._set(name, None if given is None else build(given, kind, name=name))

    def _set(self, name: str, checked: Any) -> None:
        object.__setattr__(self, name, checked)  # as dataclasses do it in a frozen one

    @property
    def sources(self) -> dict[str, Source]:
        """The sources of side data that are named."""
        named = {name: getattr(self, name) for name in SOURCES}
        return {name: source for name, source in named.items() if isinstance(source, Source)}

    @property
    def num_market(self) -> int:
        """M, the number of features of the whole market; 0 where the dataset names none."""
        return len(self.market_status.names) if isinstance(self.market_status, MarketStatus) else 0

    def open_store(self) -> QlibStore:
        """The store that Qlib reads.

        Raises
        ------
        StoreError
            If it is missing, or lacks the benchmark or a field of the records.
        UserError
            If it lacks what a source of side data needs.
        """
        store = QlibStore(C.dpm.get_data_uri("day"))
        require(
            store, fields=self.record_fields, instruments=[] if self.benchmark is None else [self.benchmark]
        )
        for name, source in self.sources.items():
            reason = source.lacks(store)
            if reason is not None:
                raise UserError(
                    f"`{name}` ({type(source).__name__}) does not fit the store {store.root}: {reason}; {source.way_out}"
                )
        return store

    def resolve(self, store: QlibStore) -> tuple[Mapping[str, Any] | PanelHandler, Segments]:
        """The handler as it is to be built, and the segments as days, where a split needs the store to tell them."""
        handler = self.handler
        if isinstance(handler, Mapping) and self.cache is not None:
            handler = _with_kwargs(handler, cache=self.cache)
        if isinstance(handler, Mapping) and self.benchmark is not None:
            handler = _with_kwargs(handler, **{"benchmark": self.benchmark, **(handler.get("kwargs") or {})})
        if self.shares is None:
            days: Segments = dict(self.segments)  # type: ignore[arg-type]  # `__post_init__` made pairs of days
            if isinstance(handler, Mapping) and "train" in days:
                handler = _fitted_on(handler, self.spans["train"])
            return handler, days
        segments = split_days(store, handler, self.shares)
        return _fitted_on(handler, (segments["train"],)), segments

    def spec(self) -> DatasetSpec:
        """What is known of the dataset while nothing of it is loaded.

        Raises
        ------
        UserError
            Of whatever would stop the dataset, but for what only its data can tell.
        """
        store = self.open_store()
        described, segments = self.resolve(store)
        if isinstance(described, Mapping):
            described = _with_kwargs(described, init_data=False)
        handler = build(described, PanelHandler, name="handler")
        handler.check(store)
        raw, learned = handler.label_names()
        if learned is not None:
            for name in self.table_labels:
                one_of("table_labels", name, learned)
        spec = DatasetSpec(
            store,
            str(handler.instruments),
            self.benchmark,
            segments,
            lookback_days=handler.features.lookback_days,
            num_features=len(handler.features.names),
            num_market=self.num_market,
            raw_labels=raw,
            labels=learned,
            features=tuple(handler.features.feature_places()),
        )
        for name in segments:
            spec.require_days(name)
        return spec


def _with_kwargs(handler: Mapping[str, Any], **kwargs: Any) -> dict[str, Any]:
    return {**handler, "kwargs": {**(handler.get("kwargs") or {}), **kwargs}}


def _fitted_on(
    handler: Mapping[str, Any] | PanelHandler, train: Stretches
) -> Mapping[str, Any] | PanelHandler:
    """The handler, to be fitted on `train` unless it says on what."""
    if not isinstance(handler, Mapping):
        if handler.fit_start_time is None:
            raise UserError(
                "a handler that is made already must have been fitted, where the dataset splits the days"
            )
        return handler
    kwargs = handler.get("kwargs") or {}
    if any(kwargs.get(name) is not None for name in ("fit_start_time", "fit_end_time", "fit_spans")):
        return handler
    if len(train) > 1:
        return _with_kwargs(handler, fit_spans=train)
    return _with_kwargs(handler, fit_start_time=train[0][0], fit_end_time=train[0][1])
