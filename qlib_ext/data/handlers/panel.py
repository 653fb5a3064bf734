"""The handler of daily panels: features are windows of a market in memory, labels what Qlib's processors make of them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pandas as pd
import torch
from qlib.config import C
from qlib.data.dataset.handler import DataHandler, DataHandlerLP
from qlib.data.dataset.processor import Processor
from qlib.data.dataset.utils import fetch_df_by_col
from qlib.log import TimeInspector

from qlib_ext.checks import UserError, brief, instance, one_of
from qlib_ext.config.build import build
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.data.cache import PanelCache, key_of
from qlib_ext.data.days import check_range
from qlib_ext.data.handlers.arguments import (
    build_labels,
    build_processors,
    check_cache_directory,
    check_fit_range,
    check_fit_spans,
    check_rules,
)
from qlib_ext.data.handlers.loader import PanelLoader
from qlib_ext.data.labels.base import GROUP, Labels
from qlib_ext.data.labels.label_planes import LabelPlanes, run, works_per_day
from qlib_ext.data.labels.label_table import LabelTable
from qlib_ext.data.prepared import Prepared, can_be_keyed, class_path
from qlib_ext.data.store_check import require
from qlib_ext.features.allocation import Allocate, in_memory
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.tradable_prices import MARK, with_tradable_prices
from qlib_ext.market.rules.trading_days import FIELDS, identity
from qlib_ext.market.store import QlibStore

logger = logging.getLogger(__name__)

T = TypeVar("T")

LABELS = {
    "RETURN": "Ref($close, -2) / Ref($close, -1) - 1",
    "NEXT_RETURN": "Ref($close, -1) / $close - 1",
}


class PanelHandler(Rebuildable, DataHandlerLP):
    """Features as windows of a market in memory, and labels that Qlib's processors work on.

    Features never pass through a table unless one is asked for (`fetch` with `feature`), which models such as
    LightGBM do. Labels are Qlib expressions or classes; `infer_processors` work on raw labels (classes are made there),
    `learn_processors` turn them into what training sees.

    Parameters
    ----------
    instruments
        Universe: the name of a file in the store's `instruments/`.
    features
        A `FeatureSet`, or `{class, kwargs}` of one; Alpha360 by default.
    fit_start_time, fit_end_time
        Days on which the statistics of the features are fitted: the training segment. Both None leave it to the
        dataset, which gives those of its segment `train`.
    fit_spans
        In their place, a list of first and last days, where days between them are to be left out.
    start_time, end_time
        Range of the labels; the store's own by default.
    labels
        Label name -> Qlib expression, or `{class, kwargs}` of a `Label`, such as
        `qlib_ext.data.labels.horizon.HorizonReturn`; by default the return that can be traded and that of the next day.
    infer_processors, learn_processors
        Qlib processors of label columns, `{class: dotted path, kwargs: ...}`; none by default.
    cache
        A directory in which what is prepared is kept for later runs (see `qlib_ext.data.cache`); None, or `off`
        from a workflow, keeps nothing.
    tradable_prices
        The exchange's rules, such as `cn`, by which windows hold no price at which nobody could trade
        (see `qlib_ext.features.tradable_prices`), and `$tradable` is a field; None, or `off`, leaves the bars as they are.
    benchmark
        Instrument that labels are compared with where they name none; the dataset gives its own.
    init_data
        Whether to load everything at once, as in Qlib. Without it `setup_data` is the caller's: for a handler that
        takes the statistics of another day's training (`features.restore`) and must not fit its own.

    Notes
    -----
    A row is a member of the universe that has a close that day. A missing label is NaN and stays so.

    Where all processors work a day at a time and say so (`per_day`), labels are `LabelPlanes`, and a table is made of
    the days that are asked for, when they are. Processors that do not say so are given the whole table, as Qlib does
    it (`LabelTable`); then nothing is cached.
    """

    _store: QlibStore | None = None  # of the class too: a pickled handler comes back without them
    _labels: Labels | None = None
    _padded: np.ndarray | None = None
    _notes: tuple[str, ...] = ()

    def __init__(
        self,
        instruments: str,
        features: Mapping[str, Any] | FeatureSet | None = None,
        fit_start_time: Any = None,
        fit_end_time: Any = None,
        start_time: Any = None,
        end_time: Any = None,
        labels: Mapping[str, Any] | None = None,
        infer_processors: Sequence[Any] = (),
        learn_processors: Sequence[Any] = (),
        cache: str | Path | None = None,
        tradable_prices: str | Path | None = None,
        benchmark: str | None = None,
        init_data: bool = True,
        fit_spans: Sequence[Sequence[Any]] | None = None,
    ) -> None:
        instance("instruments", instruments, str)
        check_range(start_time, end_time)
        self.cache = check_cache_directory(cache)
        self.fit_start_time, self.fit_end_time = check_fit_range(fit_start_time, fit_end_time)
        self.fit_spans = check_fit_spans(self.fit_start_time, self.fit_end_time, fit_spans)
        if fit_spans is not None:
            self.fit_start_time, self.fit_end_time = self.fit_spans[0][0], self.fit_spans[-1][1]
        self.features = Alpha360() if features is None else build(features, FeatureSet, name="features")
        infer = build_processors(infer_processors, "infer")
        learn = build_processors(learn_processors, "learn")
        given = build_labels(LABELS if labels is None else labels, [*infer, *learn])
        named = {name: label.against(benchmark) for name, label in given.items()}
        self.horizon_days = max(label.horizon_days for label in named.values())
        self.rules = check_rules(tradable_prices)
        super().__init__(
            instruments=instruments,
            start_time=start_time,
            end_time=end_time,
            data_loader=PanelLoader(named),
            infer_processors=infer,
            learn_processors=learn,
            drop_raw=True,
            init_data=init_data,
        )

    @property
    def panel(self) -> MarketPanel:
        """The market that features are gathered from."""
        return self.data_loader.panel

    @property
    def store(self) -> QlibStore:
        """The store that the data were read from."""
        return _there(self._store)

    @property
    def labels(self) -> Labels:
        """The labels of all days, raw and as training sees them."""
        return _there(self._labels)

    @property
    def padded(self) -> np.ndarray:
        """The market as features are gathered from it; the feature set says its shape."""
        return _there(self._padded)

    # -- before anything is loaded -------------------------------------------------------------------------

    def check(self, store: QlibStore, *, fits: bool = True) -> None:
        """Raise a UserError if the store lacks what the handler reads, or `fits` is asked for and no days are given."""
        fields = [*self.features.required_fields]
        if self.rules is not None:
            fields = [field for field in dict.fromkeys([*fields, *FIELDS]) if field != MARK]
        require(store, universe=self.instruments, fields=fields)
        self.features.check_store(store)
        for label in self.data_loader.labels.values():
            label.check_store(store)
        if fits and self.features.names and self.fit_start_time is None:
            raise UserError(
                "`fit_start_time` and `fit_end_time` must be given, as the days of the training segment, found none: "
                "a dataset gives them itself where it has a segment `train`"
            )

    def label_names(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Names of the labels, as the infer processors and then the learn processors leave them.

        They are read off what the processors make of a table without rows. None where a processor may need rows: it
        does not say that it works per day.
        """
        if self._whole_table():
            return None, None
        columns = pd.MultiIndex.from_tuples([(GROUP, name) for name in self.data_loader.labels])
        index = pd.MultiIndex.from_arrays([pd.DatetimeIndex([]), []], names=["datetime", "instrument"])
        table = run(self.infer_processors, pd.DataFrame(index=index, columns=columns, dtype="float32"))
        raw = tuple(name for group, name in table.columns if group == GROUP)
        table = run(self.learn_processors, table.copy())
        return raw, tuple(name for group, name in table.columns if group == GROUP)

    def label_days(self) -> dict[str, dict[str, int]]:
        """Label, before any processor -> how many days it can `reach` ahead, and the `span` of its return."""
        labels = self.data_loader.labels.items()
        return {name: {"reach": each.horizon_days, "span": each.span_days} for name, each in labels}

    # -- loading -------------------------------------------------------------------------------------------

    def setup_data(self, init_type: str = DataHandlerLP.IT_FIT_SEQ, **kwargs: Any) -> None:
        """Load the market and the labels, and fit the features unless `init_type` says that their state was loaded."""
        one_of("init_type", init_type, (self.IT_FIT_SEQ, self.IT_FIT_IND, self.IT_LS))
        self._labels = self._padded = None
        self._store = QlibStore(C.dpm.get_data_uri("day"))
        self.check(self._store, fits=init_type != self.IT_LS)
        reason = None if self.cache is None else self._reason_against_a_key()
        if reason is not None:
            logger.warning("the panel cache is not used: %s", reason)
        if self.cache is None or reason is not None:
            self._prepare(init_type)
        else:
            self._prepare_with(PanelCache(self.cache), init_type)

    def _whole_table(self) -> list[Processor]:
        """The processors that need all days at once."""
        return [x for x in [*self.infer_processors, *self.learn_processors] if not works_per_day(x)]

    def _prepare(self, init_type: str, allocate: Allocate = in_memory) -> None:
        """Read the market, fit the features where asked to, and make the labels."""
        with TimeInspector.logt("Reading the market"):
            made = () if self.rules is None else (MARK,)
            market = self.data_loader.load_panel(self.store, self.instruments, self.features, made)
            self.features.join(self.store, market)
        notes: list[str] = []
        with TimeInspector.logt("Computing the features"):
            if self.rules is not None:
                market, notes = with_tradable_prices(market, self.store, self.rules)
            self._padded = self.features.pad(market, allocate)
        if init_type != self.IT_LS and self.features.names:
            with TimeInspector.logt("Fitting the features"):
                self.features.fit(market, market.present & self.fit_days()[:, None], self._padded)
        with TimeInspector.logt("Making the labels"):
            self._labels = self._label_table(init_type) if self._whole_table() else self._label_planes()
        self._notes = tuple(dict.fromkeys([*notes, *self.data_loader.notes]))

    def _label_table(self, init_type: str) -> LabelTable:
        super().setup_data(init_type=init_type)
        return LabelTable(
            self.panel, {key: self._get_df_by_key(key) for key in (DataHandler.DK_I, DataHandler.DK_L)}
        )

    def _label_planes(self) -> LabelPlanes:
        for processor in self.infer_processors:
            if not processor.is_for_infer():
                raise UserError(
                    f"`infer_processors` must hold processors for inference, found {type(processor).__name__}: "
                    "it belongs to `learn_processors`"
                )
        rows = self.data_loader.rows(self.start_time, self.end_time)
        processors = self.infer_processors, self.learn_processors
        return LabelPlanes.make(self.panel, rows, self.data_loader.evaluators(), *processors)

    def _prepare_with(self, cache: PanelCache, init_type: str) -> None:
        """Take everything from the cache, or prepare it and leave it there."""
        fits = init_type != self.IT_LS
        look = cache.look(self.store.root)
        self._store = look.store
        key = self._cache_key(look.fingerprint)
        entry = cache.load(key)
        if entry is not None:
            logger.info("panels of %s are taken from the cache %s", self.store.root, cache.root)
            prepared = Prepared.of(entry, self.learn_processors)
            self.data_loader.panel = prepared.panel
            self.features.join(self.store, prepared.panel)
            self._labels, self._padded, self._notes = prepared.labels, prepared.padded, prepared.notes
            if fits:
                self.features.restore(prepared.median, prepared.scale)
            return
        if not fits:  # the statistics were fitted on other data, and belong to no entry of these
            self._prepare(init_type)
            return
        with cache.draft() as draft:
            self._prepare(init_type, draft.allocate)
            if not look.unchanged():
                logger.warning("%s was changed while it was read, so nothing is cached", self.store.root)
                return
            with TimeInspector.logt("Writing the panel cache"):
                cache.save(key, self._prepared().entry(), draft)
        saved = cache.load(key) if isinstance(self._padded, np.memmap) else None
        if saved is not None:  # what is written to it from now on stays in this process
            self._padded = Prepared.of(saved, self.learn_processors).padded

    def _prepared(self) -> Prepared:
        assert isinstance(self._labels, LabelPlanes)
        assert self.features.median is not None
        assert self.features.scale is not None
        statistics = self.features.median, self.features.scale
        return Prepared(self.panel, self.padded, self._labels, *statistics, notes=self._notes)

    def _reason_against_a_key(self) -> str | None:
        """Why no key of the cache can say all that the data follow from; None where one can."""
        for processor in self._whole_table():
            return f"{class_path(processor)} does not say `per_day`"
        parts: list[tuple[object, Any]] = [(self.features, self.features.identity())]
        parts += [(x, vars(x)) for x in [*self.infer_processors, *self.learn_processors]]
        parts += [(x, x.identity(self.store)) for x in self.data_loader.labels.values()]
        for part, settings in parts:
            if not can_be_keyed(part, settings):
                return f"no key can hold {class_path(part)}"
        return None

    def _cache_key(self, fingerprint: str) -> str:
        processors = [
            [{"class": class_path(x), **vars(x)} for x in of_kind]
            for of_kind in (self.infer_processors, self.learn_processors)
        ]
        return key_of(
            {
                "fingerprint": fingerprint,
                "universe": str(self.instruments),
                "range": [str(self.start_time), str(self.end_time)],
                "fit": self.fit_identity(),
                "fields": self.features.fields,
                "optional_fields": self.features.optional_fields,
                "features": self.features.identity(),
                "labels": [[name, x.identity(self.store)] for name, x in self.data_loader.labels.items()],
                "tradable_prices": self.prices_identity(),
                "processors": processors,
            }
        )

    def prices_identity(self) -> dict[str, str | None] | None:
        """What decides which prices are seen beside the bars, ready for JSON; None where all are."""
        return None if self.rules is None else identity(self.store, self.rules)

    # -- what was loaded -----------------------------------------------------------------------------------

    def fit_days(self) -> np.ndarray:
        """`[D]` bool: the days of the training, by which features are normalised; none where it has no such days."""
        calendar = self.panel.calendar
        found = np.zeros(len(calendar), dtype=bool)
        for first, last in self.fit_spans:
            found |= np.asarray((calendar >= first) & (calendar <= last))
        return found

    def fit_identity(self) -> list[str]:
        """First and last day of each stretch that is fitted on, as texts."""
        return [str(day) for days in self.fit_spans or ((None, None),) for day in days]

    def notes(self) -> list[str]:
        """What a reader of the results should know of features and labels, as sentences."""
        missing = [
            f"the store has no `{field}`: its features are 0, as under Qlib's processors"
            for field in self.panel.missing_fields
        ]
        return [*missing, *self.features.notes(self.store), *self._notes]

    def label_planes(self, data_key: str = DataHandlerLP.DK_L) -> dict[str, np.ndarray]:
        """Labels by name, `[D, S]` float32, NaN where there is no row: what training sees, or raw ones."""
        return self.labels.planes(data_key)

    def get_cols(self, col_set: Any = DataHandler.CS_ALL, data_key: str = DataHandler.DK_I) -> list[Any]:
        """Names of the label columns."""
        return fetch_df_by_col(self.labels.table(slice(0, 1), data_key), col_set).columns.to_list()

    def fetch(
        self,
        selector: Any = slice(None, None),
        level: str | int = "datetime",
        col_set: Any = DataHandler.CS_ALL,
        data_key: str = DataHandler.DK_I,
        squeeze: bool = False,
        proc_func: Any = None,
    ) -> pd.DataFrame:
        """Qlib's `fetch`: labels, features or both, as a table of the selected rows only."""
        table = self.labels.table(self._days(selector, level), data_key)
        label = self._fetch_data(table, selector, level, GROUP, False, proc_func)
        if col_set == "label":
            frame = label
        elif col_set == "feature":
            frame = self.feature_table(label.index)
        elif col_set in (DataHandler.CS_ALL, DataHandler.CS_RAW) or set(col_set) == {"feature", "label"}:
            frame = pd.concat({"feature": self.feature_table(label.index), "label": label}, axis=1)
        else:
            raise UserError(f"`col_set` must be feature, label or both, found {brief(col_set)}")
        return frame.squeeze() if squeeze else frame

    def _days(self, selector: Any, level: str | int | None) -> slice:
        """The days that `selector` can choose from."""
        if isinstance(selector, (tuple, list)) and len(selector) == 2:
            selector = slice(*selector)  # as Qlib has it
        if level in ("datetime", 0):
            if isinstance(selector, (str, pd.Timestamp)):
                selector = slice(selector, selector)
            if isinstance(selector, slice) and selector.step is None:
                return self.panel.calendar.slice_indexer(selector.start, selector.stop)
        return slice(0, len(self.panel.calendar))

    def feature_table(self, index: pd.MultiIndex) -> pd.DataFrame:
        """Features as Qlib tabulates them: `[rows, F * T]` float32, such as columns CLOSE59 ... VOLUME0."""
        panel = self.panel
        days = panel.calendar.get_indexer(index.get_level_values("datetime"))
        stocks = pd.Index(panel.instruments).get_indexer(index.get_level_values("instrument"))
        padded = torch.from_numpy(self.padded)
        names = self.features.column_names()
        table = np.empty((len(index), len(names)), dtype=np.float32)
        order = np.argsort(days, kind="stable")
        starts = np.flatnonzero(np.diff(days[order], prepend=-1))
        for rows in np.split(order, starts[1:]):
            if len(rows):
                features = self.features.gather(padded, int(days[rows[0]]), torch.from_numpy(stocks[rows]))
                table[rows] = features.transpose(1, 2).reshape(len(rows), -1).numpy()  # [N, F * T]
        return pd.DataFrame(table, index=index, columns=names)


def _there(held: T | None) -> T:
    if held is None:
        raise RuntimeError("nothing was loaded yet: call `setup_data` first")
    return held
