"""A workflow's dataset and model, as the audit handles them: built, asked about days, loaded again from another store."""

from __future__ import annotations

import contextlib
import copy
import inspect
import io
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.dataset import DatasetH, TSDatasetH
from qlib.data.dataset.handler import DataHandlerLP
from qlib.data.dataset.loader import QlibDataLoader
from qlib.model.base import Model
from qlib.utils import init_instance_by_config

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.engine import evaluation
from qlib_ext.lookahead.observation import CONCEPTS, FEATURES, MARKET_STATUS, MARKET_VALUE, Day, by_day
from qlib_ext.lookahead.provider import unrecorded
from qlib_ext.market.store import QlibStore
from qlib_ext.model.multi_task import MultiTaskModel

FEATURE = "feature"  # Qlib's name of the group of columns
PROBE = "days that are looked at"  # the name of a segment
LOOK_ROWS = 10_000  # on about as many rows a model that has no weights is trained for a look
LOOK_ROUNDS = 10  # and for as many rounds or epochs, where it has them
TEST = "test"  # the segment that a model scores which asks for none

Scored = tuple[np.ndarray, np.ndarray]  # codes and values of a day
Labels = dict[str, Scored]  # by kind of label


def build_dataset(task: Mapping[str, Any]) -> DatasetH:
    """The dataset of a task, from the store that Qlib reads; nothing is taken from a cache or kept in one."""
    config = copy.deepcopy(dict(task["dataset"]))
    kwargs = config.get("kwargs", {})
    for holder in (kwargs, *(x.get("kwargs", {}) for x in [kwargs.get("handler")] if isinstance(x, Mapping))):
        if "cache" in holder:
            holder["cache"] = None
    return init_instance_by_config(config, accept_types=DatasetH)


class Subject:
    """A dataset on the store that it was built from, or frozen on another.

    Parameters
    ----------
    dataset
        A `DatasetH`; a `DailyPanelDataset` is asked for its panels, a `TSDatasetH` for its windows.
    store
        The store that it was built from.
    tabular
        Whether its model reads tables even where the dataset has panels.
    """

    def __init__(self, dataset: DatasetH, store: QlibStore, *, tabular: bool = False) -> None:
        self.dataset = dataset
        self.handler = dataset.handler
        self.calendar = store.calendar
        self.has_panels = isinstance(dataset, DailyPanelDataset)
        self.by_panels = self.has_panels and not tabular
        self.by_windows = isinstance(dataset, TSDatasetH)
        self.segments = {name: self._days(name) for name in dataset.segments}
        self._columns: list[str] | None = None

    def _days(self, segment: str) -> np.ndarray:
        if self.has_panels:
            return np.asarray(self.dataset.days[segment])
        start, end = self.dataset.segments[segment]
        inside = np.ones(len(self.calendar), dtype=bool)
        if start is not None:
            inside &= np.asarray(self.calendar >= pd.Timestamp(start))
        if end is not None:
            inside &= np.asarray(self.calendar <= pd.Timestamp(end))
        return np.flatnonzero(inside)

    # -- what it says of itself ----------------------------------------------------------------------------

    @property
    def horizon_days(self) -> int | None:
        """How many days after t a label of t reaches, by its expressions; None where it does not say."""
        declared = getattr(self.handler, "horizon_days", None)
        if declared is not None:
            return int(declared)
        loader = getattr(self.handler, "data_loader", None)
        if not isinstance(loader, QlibDataLoader) or not loader.is_group or "label" not in loader.fields:
            return None
        return max((evaluation.reach(text) for text in loader.fields["label"][0]), default=0)

    @property
    def lookback_days(self) -> int:
        """How many days before t its features reach, as far as it says; 60 where it does not, and a window more where it has any."""
        declared = 60 if self.features is None else self.features.history_days
        return declared + (self.dataset.step_len - 1 if self.by_windows else 0)

    def fit_ranges(self) -> list[tuple[str, Any, Any]]:
        """Who is fitted, and on which days; None is an open end."""
        found = []
        holders = [] if self.features is None else [("the features", self.handler)]
        for kind in ("shared", "infer", "learn"):
            holders += [
                (f"{type(x).__name__} of the {kind} processors", x)
                for x in getattr(self.handler, f"{kind}_processors", None) or ()
                if hasattr(x, "fit_end_time")
            ]
        for name, holder in holders:
            start, end = (getattr(holder, which, None) for which in ("fit_start_time", "fit_end_time"))
            first, last = (None if day is None else pd.Timestamp(day) for day in (start, end))
            found.append((name, first, last))
        return found

    def look_ahead(self) -> list[str]:
        """What of its features it says is known only later."""
        return [] if self.features is None else self.features.look_ahead()

    @property
    def features(self) -> FeatureSet | None:
        """The feature set of a `PanelHandler`; None of another handler."""
        return self.handler.features if isinstance(self.handler, PanelHandler) else None

    @property
    def columns(self) -> list[str]:
        """Names of the features, once a day was looked at."""
        return self._columns or []

    # -- another market ------------------------------------------------------------------------------------

    def reload(self) -> None:
        """Load the data from the store that Qlib reads now, and keep what was fitted."""
        kwargs = {"init_type": DataHandlerLP.IT_LS} if isinstance(self.handler, DataHandlerLP) else {}
        self.dataset.setup_data(handler_kwargs=kwargs)

    def reload_since(self, day: int) -> None:
        """As `reload`, from a store that has the days around a later one alone: of the segments, those that hold it."""
        whole = self.dataset.segments
        self.dataset.segments = {name: bounds for name, bounds in whole.items() if day in self.segments[name]}
        try:
            self.reload()
        finally:
            self.dataset.segments = whole

    # -- days ----------------------------------------------------------------------------------------------

    def probe(self, days: Sequence[int], name: str = PROBE) -> DatasetH:
        """The dataset with one more segment, or another of its name, of these days."""
        days = sorted({*days})
        dates = self.calendar[days]
        clone = _twin(self.dataset)
        clone.segments = {**self.dataset.segments, name: (dates[0], dates[-1])}
        if self.has_panels:
            clone.days = {**self.dataset.days, name: np.array(days)}
        kind = type(self.dataset)
        known = (DatasetH, DailyPanelDataset)
        if kind.prepare is DatasetH.prepare and kind._prepare_seg in [x._prepare_seg for x in known]:
            clone.prepare = _Prepare(self, dates, name)
        return clone

    def observe(self, days: Sequence[int]) -> dict[int, Day]:
        """Rows, features and side data of days."""
        if not len(days):
            return {}
        return self._panel_days(days) if self.by_panels else self._table_days(days)

    def _panel_days(self, days: Sequence[int]) -> dict[int, Day]:
        panels = self.probe(days).panels(PROBE)
        names = np.asarray(panels.instruments, dtype=str)
        self._columns = self.handler.features.column_names()
        found = {}
        for panel in panels:
            codes = names[panel.instruments.numpy()]
            order = np.argsort(codes)
            planes = {FEATURES: panel.features.transpose(1, 2).flatten(1).numpy()[order]}
            if panel.market_value is not None:
                planes[MARKET_VALUE] = panel.market_value.numpy()[order, None]
            if panel.concepts is not None:
                planes[CONCEPTS] = panel.concepts.numpy()[order]
            if panel.market_status is not None:
                planes[MARKET_STATUS] = panel.market_status.expand(len(panel), -1).numpy()
            found[int(self.calendar.get_loc(panel.date))] = Day(codes[order], planes)
        return found

    def _table_days(self, days: Sequence[int]) -> dict[int, Day]:
        if self.by_windows:
            found = self._windows(days, FEATURE, DataHandlerLP.DK_I)
            return {day: Day(codes, {FEATURES: values}) for day, (codes, values) in found.items()}
        table = self.probe(days).prepare(PROBE, col_set=FEATURE, data_key=DataHandlerLP.DK_I)
        self._columns = [str(name) for name in table.columns]
        found = self._of_days(table, days)
        return {day: Day(codes, {FEATURES: values}) for day, (codes, values) in found.items()}

    def _windows(self, days: Sequence[int], col_set: Any, data_key: str) -> dict[int, Scored]:
        """Of each day the codes `[N]` and the windows that end with it, the oldest day's columns first `[N, T F]`."""
        found: dict[int, Scored] = {}
        for group in self._groups(days):
            sampler = self.probe(group).prepare(PROBE, col_set=col_set, data_key=data_key)
            if len(sampler):
                rows = np.asarray(sampler[[*range(len(sampler))]]).reshape(len(sampler), -1)
                found |= self._of_days(pd.DataFrame(rows, index=sampler.get_index()), days)
        if col_set == FEATURE:
            names = [str(name) for name in self.handler.get_cols(FEATURE, data_key=data_key)]
            ago = reversed(range(self.dataset.step_len))
            self._columns = [f"{name}, {k} days ago" if k else name for k in ago for name in names]
        return found

    def _groups(self, days: Sequence[int]) -> list[list[int]]:
        """The days, cut where a dataset of windows would lay many that nobody asks for between two of them."""
        days = sorted({*days})
        far = self.dataset.step_len if self.by_windows else len(self.calendar)
        cuts = [k for k in range(1, len(days)) if days[k] - days[k - 1] > far]
        return [days[a:b] for a, b in zip([0, *cuts], [*cuts, len(days)], strict=True)]

    def _of_days(self, table: pd.DataFrame | pd.Series, days: Sequence[int]) -> dict[int, Scored]:
        """What a table says of the days that are asked for."""
        wanted = {*days}
        return {
            position: found
            for date, found in by_day(table).items()
            if (position := int(self.calendar.get_loc(date))) in wanted
        }

    def table_features(self, days: Sequence[int]) -> dict[int, Day]:
        """The features of days as a table model would get them."""
        return self._table_days(days)

    def scores(self, model: Model, days: Sequence[int]) -> dict[int, Scored]:
        """What a model says of days that are scored in one call: codes `[N]` and scores `[N, K]` of each."""
        found: dict[int, Scored] = {}
        name = PROBE if "segment" in inspect.signature(model.predict).parameters else TEST
        for group in self._groups(days):
            probe = self.probe(group, name)
            predicted = model.predict(probe, name) if name == PROBE else model.predict(probe)
            found |= self._of_days(predicted, days)
        return found

    def labels(self, days: Sequence[int]) -> dict[int, Labels]:
        """Labels of days, raw and as training sees them: kind -> codes and values `[N, labels]`."""
        found: dict[int, Labels] = {day: {} for day in days}
        if not len(days):
            return found
        if self.has_panels:
            panels = self.probe(days).panels(PROBE)
            names = np.asarray(panels.instruments, dtype=str)
            for panel in panels:
                codes = names[panel.instruments.numpy()]
                order = np.argsort(codes)
                day = int(self.calendar.get_loc(panel.date))
                for kind, labels in (("raw", panel.raw_labels), ("learn", panel.labels)):
                    values = np.stack([x.numpy() for x in labels.values()], axis=1)[order]
                    found.setdefault(day, {})[kind] = codes[order], values
            return found
        for kind, key in (("raw", DataHandlerLP.DK_I), ("learn", DataHandlerLP.DK_L)):
            table = self._fetch(self.calendar[sorted({*days})], "label", key)
            if table is not None:
                for date, given in by_day(table).items():
                    day = int(self.calendar.get_loc(date))
                    if day in found:
                        found[day][kind] = given
        return found

    def label_columns(self) -> list[str]:
        """Names of the raw labels, in the order of `labels`."""
        if self.has_panels:
            return list(self.handler.label_planes(DataHandlerLP.DK_R))
        return [str(name) for name in self.handler.get_cols("label", data_key=DataHandlerLP.DK_I)]

    def handed(self, segment: str, last: int) -> dict[int, Labels]:
        """What training is given of the last days of a segment."""
        days = self.segments[segment][-last:]
        if self.has_panels:
            given = self.labels(days.tolist())
            return {day: {"learn": labels["learn"]} for day, labels in given.items() if "learn" in labels}
        if self.by_windows:
            found = self._windows(days.tolist(), ["feature", "label"], DataHandlerLP.DK_L)
            return {day: {"learn": values} for day, values in found.items()}
        table = self.dataset.prepare(segment, col_set=["feature", "label"], data_key=DataHandlerLP.DK_L)
        positions = {int(self.calendar.get_loc(date)): values for date, values in by_day(table).items()}
        return {day: {"learn": positions[day]} for day in sorted(positions)[-last:]}

    def _fetch(
        self, dates: pd.DatetimeIndex, col_set: Any, data_key: str, **kwargs: Any
    ) -> pd.DataFrame | None:
        """A table of some days; None where the handler has no such columns."""
        try:
            names = self.handler.get_cols(col_set, data_key=data_key)
        except KeyError:
            return None
        if not names:
            return None
        table = self.handler.fetch(slice(dates[0], dates[-1]), col_set=col_set, data_key=data_key, **kwargs)
        return table[table.index.get_level_values("datetime").isin(dates)]

    def narrowed(self, rows: int) -> DatasetH:
        """The dataset with short segments: the last days of `train` and the first of `valid`, of about `rows` rows."""
        clone = _twin(self.dataset)
        width = max(
            1, *(len(day.codes) for day in self.observe(self.segments["train"][-1:].tolist()).values())
        )
        wanted = {"train": -max(20, rows // width), "valid": max(5, rows // width // 4)}
        chosen = {
            name: (self.segments[name][count:] if count < 0 else self.segments[name][:count])
            for name, count in wanted.items()
            if name in self.segments
        }
        clone.segments = {
            name: (self.calendar[chosen[name][0]], self.calendar[chosen[name][-1]])
            if name in chosen
            else bounds
            for name, bounds in self.dataset.segments.items()
        }
        if self.has_panels:
            clone.days = {**self.dataset.days, **chosen}
        return clone


def _twin(dataset: DatasetH) -> DatasetH:
    """A second object with everything that a dataset has: `copy.copy` would drop what Qlib does not pickle."""
    twin = object.__new__(type(dataset))
    twin.__dict__.update(dataset.__dict__)
    return twin


class _Prepare:
    """`prepare` of a dataset, for which one segment is a number of days that need not follow each other."""

    def __init__(self, subject: Subject, dates: pd.DatetimeIndex, name: str) -> None:
        self.subject = subject
        self.dates = dates
        self.name = name

    def __call__(
        self, segments: Any, col_set: Any = "__all", data_key: str = DataHandlerLP.DK_I, **kwargs: Any
    ) -> Any:
        subject = self.subject
        if not isinstance(segments, str) or segments != self.name:
            return subject.dataset.prepare(segments, col_set=col_set, data_key=data_key, **kwargs)
        handler = subject.handler
        if col_set == FEATURE and isinstance(handler, PanelHandler):
            days = np.flatnonzero(subject.calendar.isin(self.dates))
            present = handler.panel.present[days]
            rows, columns = np.nonzero(present)
            codes = np.asarray(handler.panel.instruments, dtype=object)[columns]
            index = pd.MultiIndex.from_arrays(
                [subject.calendar[days[rows]], codes], names=["datetime", "instrument"]
            )
            return handler.feature_table(index)
        kwargs = {**getattr(subject.dataset, "fetch_kwargs", {}), **kwargs}
        parts = [
            handler.fetch(slice(date, date), col_set=col_set, data_key=data_key, **kwargs)
            for date in self.dates
        ]
        return pd.concat(parts)


def fresh_model(task: Mapping[str, Any], subject: Subject) -> Model:
    """The model of a task, with weights that let its scores follow from the features.

    A `MultiTaskModel` is given the weights that its seed draws. Any other model is trained for a look, on about
    `LOOK_ROWS` rows; Qlib's LightGBM model without its penalties, under which it would learn nothing of so few.
    """
    config = copy.deepcopy(dict(task["model"]))
    kwargs = dict(config.get("kwargs") or {})
    if "device" in kwargs:
        kwargs["device"] = "cpu"
    boosted = str(config["class"]).endswith("LGBModel")
    if boosted:
        kwargs.update(lambda_l1=0.0, lambda_l2=0.0, verbosity=-1)
    if "n_epochs" in kwargs:
        kwargs["n_epochs"] = min(kwargs["n_epochs"], LOOK_ROUNDS)
    config["kwargs"] = kwargs
    model = init_instance_by_config(config, accept_types=Model)
    if isinstance(model, MultiTaskModel):
        model.initialise(subject.dataset)
        return model
    with unrecorded(), contextlib.redirect_stdout(io.StringIO()):
        extra = {"num_boost_round": LOOK_ROUNDS} if boosted else {}
        model.fit(subject.narrowed(LOOK_ROWS), **extra)
    return model


def check_task(task: Any) -> None:
    """Raise a UserError unless a task names a dataset and a model."""
    for part in ("dataset", "model"):
        if (
            not isinstance(task, Mapping)
            or not isinstance(task.get(part), Mapping)
            or "class" not in task[part]
        ):
            raise UserError(f"`task.{part}` must be a mapping with `class` and `kwargs`, found {task!r:.200}")
