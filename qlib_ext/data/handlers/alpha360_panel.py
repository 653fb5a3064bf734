"""Qlib's Alpha360 as a handler that never builds the table."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C
from qlib.data.dataset.handler import DataHandler, DataHandlerLP
from qlib.data.dataset.loader import DataLoader
from qlib.data.dataset.processor import Processor
from qlib.utils.serial import Serializable

from qlib_ext.build import build
from qlib_ext.checks import UserError
from qlib_ext.data import expressions
from qlib_ext.data.alpha360 import FIELDS, Alpha360Windows
from qlib_ext.data.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore, StoreError

LABELS = {
    "RETURN": "Ref($close, -2) / Ref($close, -1) - 1",
    "NEXT_RETURN": "Ref($close, -1) / $close - 1",
}
DEFAULT_PROCESSORS: dict[str, list[dict[str, Any]]] = {
    "infer": [{"class": "qlib_ext.data.processors.momentum_line.MomentumLine"}],
    "learn": [{"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}],
}


HELP = "Point QLIB_DATA at a store that has it, or make a sample market: `qlib-ext data sample --out DIR`"


class PanelLoader(DataLoader, Serializable):
    """Qlib data loader of label columns, computed on a market panel that it holds for the features."""

    def __init__(
        self, labels: Mapping[str, str], fields: Sequence[str], optional_fields: Sequence[str]
    ) -> None:
        Serializable.__init__(self)
        self.labels = dict(labels)
        self.fields = tuple(fields)
        self.optional_fields = tuple(optional_fields)
        self._panel: MarketPanel | None = None

    @property
    def panel(self) -> MarketPanel:
        """The market; loaded by `load`."""
        if self._panel is None:
            raise RuntimeError("the market panel is not loaded: call the handler's `setup_data` first")
        return self._panel

    def load(self, instruments: str, start_time: Any = None, end_time: Any = None) -> pd.DataFrame:
        """Labels of every member that has a close, indexed (datetime, instrument), columns (label, name)."""
        store = QlibStore(C.dpm.get_data_uri("day"))
        needed = [field for field in self.fields if field not in self.optional_fields]
        require(store, universe=instruments, fields=needed)
        self._panel = panel = MarketPanel.load(store, instruments, self.fields)
        if not panel.instruments:
            raise StoreError(
                f"the store {store.root} has bars of no instrument that instruments/{instruments}.txt names; {HELP}"
            )
        lacking = [field for field in needed if field in panel.missing_fields]
        if lacking:  # others have it, such as an index
            raise StoreError(
                f"the store {store.root} has no `{'`, `'.join(lacking)}` of any member of `{instruments}`; {HELP}"
            )
        inside = np.ones(len(panel.calendar), dtype=bool)
        if start_time is not None:
            inside &= panel.calendar >= pd.Timestamp(start_time)
        if end_time is not None:
            inside &= panel.calendar <= pd.Timestamp(end_time)
        days, stocks = np.nonzero(panel.present & inside[:, None])
        data = {
            ("label", name): expressions.evaluate(text, panel)[days, stocks]
            for name, text in self.labels.items()
        }
        index = pd.MultiIndex(
            levels=[panel.calendar, pd.Index(panel.instruments)],
            codes=[days, stocks],
            names=["datetime", "instrument"],
        )
        return pd.DataFrame(data, index=index)


class Alpha360Panel(DataHandlerLP):
    """Alpha360 features as windows of a panel, and labels as a table that Qlib's processors work on.

    Features never pass through a table unless one is asked for (`fetch` with `feature`), which models such as
    LightGBM do. Labels are Qlib expressions; `infer_processors` work on raw labels (the momentum line is made
    there), `learn_processors` turn them into what training sees.

    Parameters
    ----------
    instruments
        Universe: the name of a file in the store's `instruments/`.
    fit_start_time, fit_end_time
        Days on which the features' medians and deviations are fitted: the training segment.
    start_time, end_time
        Range of the labels; the store's own by default.
    fields
        Fields of the windows, in order.
    optional_fields
        Fields that a store may lack; their features are 0 then, as they are under Qlib's processors.
    lookback_days
        Length of a window, in trading days.
    labels
        Label name -> Qlib expression.
    infer_processors, learn_processors
        Qlib processors of label columns, `{class: dotted path, kwargs: ...}`; by default MomentumLine, and
        CrossSectionNorm of RETURN.

    Notes
    -----
    A row is a member of the universe that has a close that day. A missing label is NaN and stays so.

    Departures from Qlib's Alpha360: members without a close that day (suspended) are no rows, since nothing is
    known of them at its close and they cannot be traded; Qlib keeps them with all features 0.
    """

    def __init__(
        self,
        instruments: str,
        fit_start_time: Any,
        fit_end_time: Any,
        start_time: Any = None,
        end_time: Any = None,
        fields: Sequence[str] = FIELDS,
        optional_fields: Sequence[str] = ("vwap",),
        lookback_days: int = 60,
        labels: Mapping[str, str] | None = None,
        infer_processors: Sequence[Any] | None = None,
        learn_processors: Sequence[Any] | None = None,
    ) -> None:
        self.fit_start_time = pd.Timestamp(fit_start_time)
        self.fit_end_time = pd.Timestamp(fit_end_time)
        if self.fit_start_time > self.fit_end_time:
            raise UserError(
                f"`fit_start_time` must not lie after `fit_end_time`, found {fit_start_time} and {fit_end_time}"
            )
        self.windows = Alpha360Windows(fields, lookback_days)
        infer = _processors(infer_processors, "infer")
        learn = _processors(learn_processors, "learn")
        labels = dict(LABELS if labels is None else labels)
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
            data_loader=PanelLoader(labels, fields, optional_fields),
            infer_processors=infer,
            learn_processors=learn,
            drop_raw=True,
        )

    @property
    def panel(self) -> MarketPanel:
        """The market that features are gathered from."""
        return self.data_loader.panel

    def setup_data(self, init_type: str = DataHandlerLP.IT_FIT_SEQ, **kwargs: Any) -> None:
        """Load panel and labels, run the processors, and fit the windows unless `init_type` says loaded."""
        super().setup_data(init_type=init_type, **kwargs)
        if init_type != DataHandlerLP.IT_LS:
            self.windows.fit(self.panel.values, self.panel.present & self._fit_days()[:, None])

    def _get_df_by_key(self, data_key: str = DataHandler.DK_I) -> pd.DataFrame:
        # raw and inference labels are the same table: returns as they are and the momentum class
        return super()._get_df_by_key(DataHandler.DK_I if data_key == DataHandler.DK_R else data_key)

    def _fit_days(self) -> np.ndarray:
        calendar = self.panel.calendar
        return np.asarray((calendar >= self.fit_start_time) & (calendar <= self.fit_end_time))

    def fetch(
        self,
        selector: Any = slice(None, None),
        level: str | int = "datetime",
        col_set: Any = DataHandler.CS_ALL,
        data_key: str = DataHandler.DK_I,
        squeeze: bool = False,
        proc_func: Any = None,
    ) -> pd.DataFrame:
        """Qlib's `fetch`: labels, features or both, as a table; features are gathered for the selected rows only."""
        label = super().fetch(selector, level, "label", data_key, False, proc_func)
        if col_set == "label":
            frame = label
        elif col_set == "feature":
            frame = self.feature_table(label.index)
        elif col_set in (DataHandler.CS_ALL, DataHandler.CS_RAW) or set(col_set) == {"feature", "label"}:
            frame = pd.concat({"feature": self.feature_table(label.index), "label": label}, axis=1)
        else:
            raise UserError(f"`col_set` must be feature, label or both, found {col_set!r}")
        return frame.squeeze() if squeeze else frame

    def feature_table(self, index: pd.MultiIndex) -> pd.DataFrame:
        """Alpha360 as Qlib tabulates it: `[rows, F * T]` float32, columns CLOSE59 ... VOLUME0."""
        import torch  # here, so that a handler without a table costs a LightGBM user no torch

        panel = self.panel
        days = panel.calendar.get_indexer(index.get_level_values("datetime"))
        stocks = pd.Index(panel.instruments).get_indexer(index.get_level_values("instrument"))
        padded = torch.from_numpy(self.windows.pad(panel.values))
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
        problems.append(f"no universe `{universe}` (instruments/{universe}.txt); it has {known}")
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


def _processors(given: Sequence[Any] | None, name: str) -> list[Processor]:
    configs = DEFAULT_PROCESSORS[name] if given is None else given
    return [build(config, Processor, name=f"{name}_processors[{i}]") for i, config in enumerate(configs)]
