"""A dataset of many trainings, folds or splits: their days, the dataset of each, and that of the days that all of them score."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from typing import Any, TypeVar

import pandas as pd

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build, check_config, in_one_form
from qlib_ext.data.combinatorial import COMBINATORIAL, CombinatorialPlan, Split
from qlib_ext.data.config import DatasetConfig
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.folds import WALK_FORWARD, Fold, FoldPlan
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.plan import Days, Plan
from qlib_ext.data.scores_only import scores_only
from qlib_ext.data.segments import universe_days
from qlib_ext.market.store import QlibStore

P = TypeVar("P", bound=Plan)

FIT = ("fit_start_time", "fit_end_time")


def walks_forward(dataset: Any) -> bool:
    """Whether the configuration of a dataset names folds in the place of segments."""
    return WALK_FORWARD in _segments(dataset)


def is_combinatorial(dataset: Any) -> bool:
    """Whether the configuration of a dataset names a combinatorial cross-validation in the place of segments."""
    return COMBINATORIAL in _segments(dataset)


def read_plan(dataset: Any, kind: type[P]) -> P:
    """The plan of a dataset of many trainings.

    Raises
    ------
    UserError
        If it is no plan, stands beside segments, or the dataset is none of the package's.
    """
    config = in_one_form(dataset, "task.dataset")
    check_config(
        {"class": config["class"], "kwargs": config["kwargs"]}, DailyPanelDataset, name="task.dataset"
    )
    segments = config["kwargs"]["segments"]
    others = [str(name) for name in segments if name != kind.name]
    if others:
        raise UserError(
            f"`segments.{kind.name}` makes all segments, found {', '.join(others)} beside it: leave them out"
        )
    return kind.of(segments[kind.name])


def folds_of(dataset: Any, store: QlibStore) -> tuple[Fold, ...]:
    """The folds of a dataset that walks forward, on the days of a store.

    Raises
    ------
    UserError
        If the days leave no room for them, or the dataset does not describe itself.
    """
    return read_plan(dataset, FoldPlan).folds(*_days_and_reach(dataset, store))


def splits_of(dataset: Any, store: QlibStore) -> tuple[Split, ...]:
    """The splits of a dataset that is cross-validated, on the days of a store.

    Raises
    ------
    UserError
        As from `folds_of`; or if what cannot leave out days is to be fitted on the days of training.
    """
    plan = read_plan(dataset, CombinatorialPlan)
    _check_fitted(dataset)
    return plan.splits(*_days_and_reach(dataset, store))


def _days_and_reach(dataset: Any, store: QlibStore) -> tuple[pd.DatetimeIndex, int]:
    """The trading days of a dataset's universe, and how many days its labels reach ahead."""
    first = store.calendar[0]
    arguments = DatasetConfig.of(**{**dataset["kwargs"], "segments": {"test": (first, first)}})
    described, _ = arguments.resolve(store)
    if not isinstance(described, Mapping):
        raise UserError(
            f"`handler` must be a mapping where many are made, each training with its own, found {brief(described)}"
        )
    handler = build(
        {**described, "kwargs": {**(described.get("kwargs") or {}), "init_data": False, "cache": None}},
        PanelHandler,
        name="handler",
    )
    return universe_days(store, described), handler.horizon_days


def of_fold(dataset: Any, fold: Fold) -> dict[str, Any]:
    """The dataset of a fold: its segments, and all that is fitted is fitted on its own days of training."""
    return with_segments(dataset, fold.segments)


def with_segments(dataset: Any, segments: Mapping[str, Any], *, judging: bool = False) -> dict[str, Any]:
    """A dataset with other segments; all that is fitted is fitted on their days of training, or on their stretches.

    Parameters
    ----------
    dataset
        `{class, kwargs}` of it.
    segments
        Of `train` a pair of days, or a list of pairs, between which days are left out.
    judging
        Whether training may lie after days of the test.

    Raises
    ------
    UserError
        If there are stretches, and what cannot leave out days is to be fitted on them.
    """
    config = in_one_form(copy.deepcopy(dataset), "task.dataset")
    handler = in_one_form(config["kwargs"].get("handler"), "task.dataset.handler")
    if judging:
        config["kwargs"]["judging"] = True
    if any(isinstance(each, (list, tuple)) for each in segments.get("train", ())):
        _check_fitted(config)
        kept = {key: value for key, value in handler["kwargs"].items() if key not in FIT}
        handler["kwargs"] = {**kept, "fit_spans": segments["train"]}
        return {**config, "kwargs": {**config["kwargs"], "handler": handler, "segments": segments}}
    fitted = dict(zip(FIT, segments["train"], strict=True)) if "train" in segments else {}
    handler["kwargs"] |= fitted
    kwargs = _refitted({**config["kwargs"], "handler": handler}, fitted)
    return {**config, "kwargs": {**kwargs, "segments": segments}}


def of_split(dataset: Any, split: Split) -> dict[str, Any]:
    """The dataset of a split: its segments, and the features are fitted on its own days of training, with their gaps.

    The split whose training comes before all that it scores is an ordinary one.
    """
    return with_segments(dataset, split.segments, judging=not split.in_order)


def of_all_folds(dataset: Any, days: Days) -> dict[str, Any]:
    """The dataset of the days that are scored, first and last: labels and members, nothing that a model would see."""
    config = in_one_form(copy.deepcopy(dataset), "task.dataset")
    first, last = (f"{day:%Y-%m-%d}" for day in days)
    return scores_only({**config, "kwargs": {**config["kwargs"], "segments": {"test": [first, last]}}})


def _segments(dataset: Any) -> Mapping[str, Any]:
    kwargs = dataset.get("kwargs") if isinstance(dataset, Mapping) else None
    segments = kwargs.get("segments") if isinstance(kwargs, Mapping) else None
    return segments if isinstance(segments, Mapping) else {}


def _check_fitted(dataset: Any) -> None:
    """Raise a UserError where anything but the features names days to fit on: it would take all from the first to the last."""
    kwargs = in_one_form(dataset, "task.dataset")["kwargs"]
    handler = in_one_form(kwargs.get("handler"), "task.dataset.handler")["kwargs"]
    others = {key: value for key, value in handler.items() if key not in FIT}
    for part in _mappings([others, {key: value for key, value in kwargs.items() if key != "handler"}]):
        own = part.get("kwargs")
        if isinstance(own, Mapping) and any(key in own for key in FIT):
            raise UserError(
                f"training in stretches, as of `segments.{COMBINATORIAL}`, leaves out the days between them, and "
                f"{brief(part.get('class'))} is fitted from one day to another, with all between them: leave it out, or "
                "judge by `segments.walk_forward`"
            )


def _mappings(part: Any) -> Iterator[Mapping[str, Any]]:
    """All mappings inside of a configuration."""
    if isinstance(part, Mapping):
        yield part
    for each in (
        part.values() if isinstance(part, Mapping) else part if isinstance(part, (list, tuple)) else ()
    ):
        yield from _mappings(each)


def _refitted(part: Any, fitted: Mapping[str, str]) -> Any:
    """`part`, where all that names days to fit on names those of `fitted`."""
    if isinstance(part, Mapping):
        return {
            key: fitted[key] if key in fitted else _refitted(value, fitted) for key, value in part.items()
        }
    return [_refitted(value, fitted) for value in part] if isinstance(part, list) else part
