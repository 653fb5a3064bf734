"""Handlers of daily panels: features are windows of a market in memory, labels a table for Qlib's processors."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C
from qlib.data.dataset.handler import DataHandler, DataHandlerLP
from qlib.data.dataset.loader import DataLoader
from qlib.data.dataset.processor import Processor
from qlib.data.dataset.utils import fetch_df_by_col
from qlib.log import TimeInspector
from qlib.utils.serial import Serializable

from qlib_ext import checks
from qlib_ext.checks import UserError, nearest
from qlib_ext.config.build import build
from qlib_ext.data.cache import PanelCache, key_of
from qlib_ext.data.days import as_day, check_range
from qlib_ext.data.labels.label_planes import GROUP, LabelPlanes, label_table, run, works_per_day
from qlib_ext.data.prepared import Prepared
from qlib_ext.features import expressions
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.windows import Windows
from qlib_ext.market.store import QlibStore, StoreError

logger = logging.getLogger(__name__)

LABELS = {
    "RETURN": "Ref($close, -2) / Ref($close, -1) - 1",
    "NEXT_RETURN": "Ref($close, -1) / $close - 1",
}
HELP = "Point QLIB_DATA at a store that has it, or make a sample market: `qlib-ext data sample --out DIR`"


class PanelLoader(DataLoader, Serializable):
    """Qlib data loader of label columns, computed on a market panel that it holds for the features."""

    def __init__(
        self,
        labels: Mapping[str, str],
        fields: Sequence[str],
        optional_fields: Sequence[str],
        lookback_days: int,
    ) -> None:
        Serializable.__init__(self)
        self.labels = dict(labels)
        self.fields = tuple(fields)
        self.optional_fields = tuple(optional_fields)
        self.lookback_days = lookback_days
        self._panel: MarketPanel | None = None

    @property
    def panel(self) -> MarketPanel:
        """The market; loaded by `load_panel` or `load`."""
        if self._panel is None:
            raise RuntimeError("the market panel is not loaded: call the handler's `setup_data` first")
        return self._panel

    @property
    def needed(self) -> list[str]:
        """The fields that a store must have."""
        return [field for field in self.fields if field not in self.optional_fields]

    def load_panel(self, store: QlibStore, universe: str) -> MarketPanel:
        """Read the market, in the layout that windows are gathered from."""
        panel = MarketPanel.load(store, universe, self.fields, empty_days=self.lookback_days - 1)
        if not panel.instruments:
            raise StoreError(
                f"the store {store.root} has bars of no instrument that instruments/{universe}.txt names; {HELP}"
            )
        lacking = [field for field in self.needed if field in panel.missing_fields]
        if lacking:  # others have it, such as an index
            raise StoreError(
                f"the store {store.root} has no `{'`, `'.join(lacking)}` of any member of `{universe}`; {HELP}"
            )
        self._panel = panel
        return panel

    def take_panel(self, panel: MarketPanel) -> None:
        """Hold a panel that was loaded elsewhere."""
        self._panel = panel

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
        """Labels of every member that has a close, indexed (datetime, instrument), columns (label, name)."""
        store = QlibStore(C.dpm.get_data_uri("day"))
        require(store, universe=instruments, fields=self.needed)
        self.load_panel(store, instruments)
        return label_table(self.panel, self.rows(start_time, end_time), self.labels)


class PanelHandler(DataHandlerLP):
    """Features as windows of a panel, and labels as a table that Qlib's processors work on.

    Features never pass through a table unless one is asked for (`fetch` with `feature`), which models such as
    LightGBM do. Labels are Qlib expressions; `infer_processors` work on raw labels (classes are made there),
    `learn_processors` turn them into what training sees. A subclass says what the windows are.

    Parameters
    ----------
    instruments
        Universe: the name of a file in the store's `instruments/`.
    windows
        The features.
    fields
        Fields of the bars that the market is held in.
    fit_start_time, fit_end_time
        Days on which the statistics of the features are fitted: the training segment. Both None leave it to the
        dataset, which gives them where it splits the days itself.
    start_time, end_time
        Range of the labels; the store's own by default.
    optional_fields
        Fields that a store may lack.
    labels
        Label name -> Qlib expression.
    infer_processors, learn_processors
        Qlib processors of label columns, `{class: dotted path, kwargs: ...}`.
    cache
        A directory in which what is prepared is kept for later runs (see `qlib_ext.data.cache`); None, or `off`
        from a workflow, keeps nothing.
    init_data
        Whether to load everything at once, as in Qlib. Without it `setup_data` is the caller's: for a handler that
        takes the statistics of another day's training (`windows.restore`) and must not fit its own.

    Notes
    -----
    A row is a member of the universe that has a close that day. A missing label is NaN and stays so.

    Where all processors work a day at a time and say so (`per_day`, see `qlib_ext.data.labels.label_planes`), labels are held
    as planes of days and stocks, and a table is made of the days that are asked for, when they are. Processors that
    do not say so are given the whole table, as Qlib does it; then nothing is cached.
    """

    _store: QlibStore | None = None  # of the class too: a pickled handler comes back without them
    _labels: LabelPlanes | None = None

    def __init__(
        self,
        instruments: str,
        *,
        windows: Windows,
        fields: Sequence[str],
        fit_start_time: Any = None,
        fit_end_time: Any = None,
        start_time: Any = None,
        end_time: Any = None,
        optional_fields: Sequence[str] = (),
        labels: Mapping[str, str],
        infer_processors: Sequence[Any] = (),
        learn_processors: Sequence[Any] = (),
        cache: str | Path | None = None,
        init_data: bool = True,
    ) -> None:
        checks.instance("instruments", instruments, str)
        if not isinstance(labels, Mapping):
            raise UserError(f"`labels` must be a mapping from names to Qlib expressions, found {labels!r}")
        check_range(start_time, end_time)
        self.cache = _cache_directory(cache)
        self.fit_start_time, self.fit_end_time = _fit_range(fit_start_time, fit_end_time)
        self.windows = windows
        infer = _processors(infer_processors, "infer")
        learn = _processors(learn_processors, "learn")
        labels = dict(labels)
        for processor in [*infer, *learn]:
            if hasattr(
                processor, "expressions"
            ):  # a processor that needs label columns of its own names them
                texts, names = processor.expressions()
                labels.update(zip(names, texts, strict=True))
        if not labels:
            raise UserError("`labels` must name at least one label, found none")
        self.horizon_days = max(expressions.reach(text) for text in labels.values())
        super().__init__(
            instruments=instruments,
            start_time=start_time,
            end_time=end_time,
            data_loader=PanelLoader(labels, fields, optional_fields, windows.lookback_days),
            infer_processors=infer,
            learn_processors=learn,
            drop_raw=True,
            init_data=init_data,
        )

    # -- what a subclass may add ---------------------------------------------------------------------------

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if the store lacks what the features need beside bars."""

    def complete(self) -> None:
        """Called when the market is there: load what the windows need beside it."""

    def features_identity(self) -> dict[str, Any]:
        """What decides the features beside bars and windows, ready for JSON."""
        return {}

    def describe(self) -> dict[str, Any]:
        """What the features are made of, ready for JSON, for the description of a run."""
        return {}

    def notes(self) -> list[str]:
        """What a reader of the results should know of the features, as sentences."""
        return [
            f"the store has no `{field}`: its features are 0, as under Qlib's processors"
            for field in self.panel.missing_fields
        ]

    # ------------------------------------------------------------------------------------------------------

    @property
    def panel(self) -> MarketPanel:
        """The market that features are gathered from."""
        return self.data_loader.panel

    @property
    def store(self) -> QlibStore:
        """The store that the data were read from."""
        if self._store is None:
            raise RuntimeError("no store was read yet: call `setup_data` first")
        return self._store

    @property
    def padded(self) -> np.ndarray:
        """The market as windows are gathered from it, `[D + T - 1, S, ...]` with T - 1 empty days in front."""
        return self.windows.pad(self.panel.values)

    def setup_data(self, init_type: str = DataHandlerLP.IT_FIT_SEQ, **kwargs: Any) -> None:
        """Load panel and labels, run the processors, and fit the windows unless `init_type` says loaded."""
        checks.one_of("init_type", init_type, (self.IT_FIT_SEQ, self.IT_FIT_IND, self.IT_LS))
        fits = init_type != self.IT_LS
        self._labels = None
        self._store = QlibStore(C.dpm.get_data_uri("day"))
        self.check(self._store, fits=fits)
        slow = [x for x in [*self.infer_processors, *self.learn_processors] if not works_per_day(x)]
        if slow:
            if self.cache is not None:
                logger.warning("the panel cache is not used: %s does not say `per_day`", _class(slow[0]))
            super().setup_data(init_type=init_type, **kwargs)
            self.complete()
            if fits:
                self._fit()
            return
        for processor in self.infer_processors:
            if not processor.is_for_infer():
                raise UserError(
                    f"`infer_processors` must hold processors for inference, found {type(processor).__name__}: "
                    "it belongs to `learn_processors`"
                )
        if self.cache is None or not self._may_be_cached():
            self._prepare(fits)
        else:
            self._prepare_with(PanelCache(self.cache), fits)

    def check(self, store: QlibStore, *, fits: bool = True) -> None:
        """Raise a UserError if the store lacks what the handler reads, or `fits` is asked for and no days are given."""
        require(store, universe=self.instruments, fields=self.data_loader.needed)
        self.check_store(store)
        if fits and self.fit_start_time is None:
            raise UserError(
                "`fit_start_time` and `fit_end_time` must be given, as the days of the training segment, found none: "
                "only a dataset that splits the days (`segments: {split: ...}`) gives them itself"
            )

    def label_names(self) -> tuple[tuple[str, ...] | None, tuple[str, ...] | None]:
        """Names of the labels, as the infer processors and then the learn processors leave them.

        They are read off what the processors make of a table without rows. None where a processor may need rows: it
        does not say that it works per day.
        """
        if not all(works_per_day(x) for x in [*self.infer_processors, *self.learn_processors]):
            return None, None
        columns = pd.MultiIndex.from_tuples([(GROUP, name) for name in self.data_loader.labels])
        index = pd.MultiIndex.from_arrays([pd.DatetimeIndex([]), []], names=["datetime", "instrument"])
        table = run(self.infer_processors, pd.DataFrame(index=index, columns=columns, dtype="float32"))
        raw = tuple(name for group, name in table.columns if group == GROUP)
        table = run(self.learn_processors, table.copy())
        return raw, tuple(name for group, name in table.columns if group == GROUP)

    def _prepare(self, fits: bool) -> None:
        """Read the market, fit the windows where asked to, and make the labels."""
        with TimeInspector.logt("Reading the market"):
            panel = self.data_loader.load_panel(self.store, self.instruments)
            self.complete()
        if fits:
            with TimeInspector.logt("Fitting the features"):
                self._fit()
        with TimeInspector.logt("Making the labels"):
            self._labels = LabelPlanes.make(
                panel,
                self.data_loader.rows(self.start_time, self.end_time),
                self.data_loader.labels,
                self.infer_processors,
                self.learn_processors,
            )

    def _prepare_with(self, cache: PanelCache, fits: bool) -> None:
        """Take everything from the cache, or prepare it and leave it there."""
        look = cache.look(self.store.root)
        self._store = look.store
        key = self._cache_key(look.fingerprint)
        entry = cache.load(key)
        if entry is not None:
            logger.info("panels of %s are taken from the cache %s", self.store.root, cache.root)
            prepared = Prepared.of(entry)
            self.data_loader.take_panel(prepared.panel)
            self.complete()
            self._labels = prepared.labels
            if fits:
                self.windows.restore(prepared.median, prepared.scale)
            return
        self._prepare(fits)
        if not fits:  # the statistics were fitted on other data, and belong to no entry of these
            return
        with TimeInspector.logt("Writing the panel cache"):
            if look.unchanged():
                cache.save(key, self._prepared().entry())
            else:
                logger.warning("%s was changed while it was read, so nothing is cached", self.store.root)

    def _fit(self) -> None:
        self.windows.fit(self.panel.values, self.panel.present & self._fit_days()[:, None])

    def _may_be_cached(self) -> bool:
        for processor in [*self.infer_processors, *self.learn_processors]:
            if not _is_ours(processor):
                logger.warning("the panel cache is not used: no key can hold %s", _class(processor))
                return False
        return True

    def _cache_key(self, fingerprint: str) -> str:
        processors = [
            [{"class": _class(x), **vars(x)} for x in of_kind]
            for of_kind in (self.infer_processors, self.learn_processors)
        ]
        return key_of(
            {
                "fingerprint": fingerprint,
                "universe": str(self.instruments),
                "range": [str(self.start_time), str(self.end_time)],
                "fit": [str(self.fit_start_time), str(self.fit_end_time)],
                "fields": self.data_loader.fields,
                "optional_fields": self.data_loader.optional_fields,
                "windows": self.windows.identity(),
                "beside": self.features_identity(),
                "labels": list(self.data_loader.labels.items()),
                "processors": processors,
            }
        )

    def _prepared(self) -> Prepared:
        assert self._labels is not None
        assert self.windows.median is not None
        assert self.windows.scale is not None
        return Prepared(self.panel, self._labels, self.windows.median, self.windows.scale)

    def label_planes(self, data_key: str = DataHandlerLP.DK_L) -> dict[str, np.ndarray]:
        """Labels by name, `[D, S]` float32, NaN where there is no row: what training sees, or raw ones."""
        if self._labels is None:
            return self._planes_of_table(self._get_df_by_key(data_key))
        if data_key == DataHandlerLP.DK_L:
            return dict(self._labels.learn)
        return dict(self._labels.raw_labels)

    def _planes_of_table(self, table: pd.DataFrame) -> dict[str, np.ndarray]:
        label = table[GROUP]
        days = self.panel.calendar.get_indexer(label.index.get_level_values("datetime"))
        stocks = pd.Index(self.panel.instruments).get_indexer(label.index.get_level_values("instrument"))
        planes = {}
        for name in label.columns:
            planes[name] = np.full(self.panel.members.shape, np.nan, np.float32)
            planes[name][days, stocks] = label[name].to_numpy(dtype=np.float32)
        return planes

    def _get_df_by_key(self, data_key: str = DataHandler.DK_I) -> pd.DataFrame:
        if self._labels is not None:
            return self._label_table(slice(0, len(self.panel.calendar)), data_key)
        # raw and inference labels are the same table: returns as they are and the momentum class
        return super()._get_df_by_key(DataHandler.DK_I if data_key == DataHandler.DK_R else data_key)

    def _label_table(self, days: slice, data_key: str) -> pd.DataFrame:
        assert self._labels is not None
        learn = self.learn_processors if data_key == DataHandler.DK_L else None
        return self._labels.table(self.panel, days, learn)

    def _fit_days(self) -> np.ndarray:
        calendar = self.panel.calendar
        return np.asarray((calendar >= self.fit_start_time) & (calendar <= self.fit_end_time))

    def get_cols(self, col_set: Any = DataHandler.CS_ALL, data_key: str = DataHandler.DK_I) -> list[Any]:
        """Names of the label columns."""
        if self._labels is None:
            return super().get_cols(col_set, data_key)
        day = int(self._labels.rows.any(axis=1).argmax())  # the first with a row
        return fetch_df_by_col(self._label_table(slice(day, day + 1), data_key), col_set).columns.to_list()

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
        table = (
            self._get_df_by_key(data_key) if self._labels is None else self._some(selector, level, data_key)
        )
        label = self._fetch_data(table, selector, level, GROUP, False, proc_func)
        if col_set == "label":
            frame = label
        elif col_set == "feature":
            frame = self.feature_table(label.index)
        elif col_set in (DataHandler.CS_ALL, DataHandler.CS_RAW) or set(col_set) == {"feature", "label"}:
            frame = pd.concat({"feature": self.feature_table(label.index), "label": label}, axis=1)
        else:
            raise UserError(f"`col_set` must be feature, label or both, found {col_set!r}")
        return frame.squeeze() if squeeze else frame

    def _some(self, selector: Any, level: str | int | None, data_key: str) -> pd.DataFrame:
        """The label table, of no more days than `selector` can choose from."""
        days = slice(0, len(self.panel.calendar))
        if isinstance(selector, (tuple, list)) and len(selector) == 2:
            selector = slice(*selector)  # as Qlib has it
        if level in ("datetime", 0):
            if isinstance(selector, (str, pd.Timestamp)):
                selector = slice(selector, selector)
            if isinstance(selector, slice) and selector.step is None:
                asked = self.panel.calendar.slice_indexer(selector.start, selector.stop)
                assert self._labels is not None
                if self._labels.rows[asked].any():
                    days = asked
        return self._label_table(days, data_key)

    def feature_table(self, index: pd.MultiIndex) -> pd.DataFrame:
        """Features as Qlib tabulates them: `[rows, F * T]` float32, such as columns CLOSE59 ... VOLUME0."""
        import torch  # here, so that a handler without a table costs a LightGBM user no torch

        panel = self.panel
        days = panel.calendar.get_indexer(index.get_level_values("datetime"))
        stocks = pd.Index(panel.instruments).get_indexer(index.get_level_values("instrument"))
        padded = torch.from_numpy(self.padded)
        names = self.windows.column_names()
        table = np.empty((len(index), len(names)), dtype=np.float32)
        order = np.argsort(days, kind="stable")
        starts = np.flatnonzero(np.diff(days[order], prepend=-1))
        for rows in np.split(order, starts[1:]):
            if len(rows):
                features = self.windows.gather(padded, int(days[rows[0]]), torch.from_numpy(stocks[rows]))
                table[rows] = features.transpose(1, 2).reshape(len(rows), -1).numpy()  # [N, F * T]
        return pd.DataFrame(table, index=index, columns=names)


def require(
    store: QlibStore,
    *,
    universe: str | None = None,
    fields: Sequence[str] = (),
    instruments: Sequence[str] = (),
) -> None:
    """Check that a store has a universe, fields and instruments, before any long work.

    Raises
    ------
    StoreError
        One message that names everything that is missing and the commands that help.
    """
    problems = []
    if universe is not None and universe not in store.universes():
        known = ", ".join(store.universes()) or "none"
        problems.append(
            f"no universe `{universe}` (instruments/{universe}.txt){nearest(universe, store.universes())}; it has {known}"
        )
    elif universe is not None and store.membership(universe).empty:
        problems.append(f"no member of the universe `{universe}`: instruments/{universe}.txt is empty")
    known_instruments = set(store.instruments())
    for code in instruments:
        if code.upper() not in known_instruments:
            problems.append(f"no bars of the benchmark `{code}` (features/{code.lower()}/)")
    for field in fields:
        if not any(field in store.fields(code) for code in known_instruments):
            problems.append(f"no field `{field}` (features/*/{field}.day.bin)")
    if problems:
        raise StoreError(
            f"the store {store.root} lacks what the workflow needs: {'; '.join(problems)}. {HELP}"
        )


def _processors(given: Sequence[Any], name: str) -> list[Processor]:
    if not isinstance(given, (list, tuple)):
        raise UserError(f"`{name}_processors` must be a list of processors, found {given!r}")
    return [build(config, Processor, name=f"{name}_processors[{i}]") for i, config in enumerate(given)]


def _fit_range(start: Any, end: Any) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    if (start is None) != (end is None):
        raise UserError(
            f"`fit_start_time` and `fit_end_time` must be given both or not at all, found {start} and {end}"
        )
    if start is None:
        return None, None
    first, last = as_day("fit_start_time", start), as_day("fit_end_time", end)
    if first > last:
        raise UserError(f"`fit_start_time` must not lie after `fit_end_time`, found {start} and {end}")
    return first, last


def _cache_directory(given: Any) -> str | None:
    """The directory, or None for none: YAML reads `off` as false."""
    if given is None or given is False or given == "off":
        return None
    if not isinstance(given, (str, Path)) or not str(given).strip():
        raise UserError(f"`cache` must be a directory, or off for none, found {given!r}")
    return str(given)


def _class(processor: Processor) -> str:
    return f"{type(processor).__module__}.{type(processor).__qualname__}"


def _is_ours(processor: Processor) -> bool:
    """Whether a key of the cache says all of a processor: of other people's code it would not see a change."""
    modules = [kind.__module__ for kind in type(processor).__mro__ if kind is not object]
    if not all(module.startswith(("qlib_ext.", "qlib.")) for module in modules):
        return False
    try:
        json.dumps(vars(processor))
    except TypeError:
        return False
    return True
