"""A dataset that walks forward: its folds, the dataset of each, and that of the days that all of them score."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build, check_config, in_one_form
from qlib_ext.data.config import DatasetConfig
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.folds import WALK_FORWARD, Fold, FoldPlan
from qlib_ext.data.handlers.panel import PanelHandler
from qlib_ext.data.scores_only import scores_only
from qlib_ext.data.segments import universe_days
from qlib_ext.market.store import QlibStore

FIT = ("fit_start_time", "fit_end_time")


def walks_forward(dataset: Any) -> bool:
    """Whether the configuration of a dataset names folds in the place of segments."""
    kwargs = dataset.get("kwargs") if isinstance(dataset, Mapping) else None
    segments = kwargs.get("segments") if isinstance(kwargs, Mapping) else None
    return isinstance(segments, Mapping) and WALK_FORWARD in segments


def read_plan(dataset: Any) -> FoldPlan:
    """The plan of a dataset that walks forward.

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
    others = [str(name) for name in segments if name != WALK_FORWARD]
    if others:
        raise UserError(
            f"`segments.{WALK_FORWARD}` makes all segments, found {', '.join(others)} beside it: leave them out"
        )
    return FoldPlan.of(segments[WALK_FORWARD])


def folds_of(dataset: Any, store: QlibStore) -> tuple[Fold, ...]:
    """The folds of a dataset that walks forward, on the days of a store.

    Raises
    ------
    UserError
        If the days leave no room for them, or the dataset does not describe itself.
    """
    plan = read_plan(dataset)
    first = store.calendar[0]
    arguments = DatasetConfig.of(**{**dataset["kwargs"], "segments": {"test": (first, first)}})
    described, _ = arguments.resolve(store)
    if not isinstance(described, Mapping):
        raise UserError(
            f"`handler` must be a mapping where folds are made, each with its own, found {brief(described)}"
        )
    handler = build(
        {**described, "kwargs": {**(described.get("kwargs") or {}), "init_data": False, "cache": None}},
        PanelHandler,
        name="handler",
    )
    return plan.folds(universe_days(store, described), handler.horizon_days)


def of_fold(dataset: Any, fold: Fold) -> dict[str, Any]:
    """The dataset of a fold: its segments, and all that is fitted is fitted on its own days of training."""
    return with_segments(dataset, fold.segments)


def with_segments(dataset: Any, segments: Mapping[str, Any]) -> dict[str, Any]:
    """A dataset with other segments; all that is fitted is fitted on their days of training."""
    config = in_one_form(copy.deepcopy(dataset), "task.dataset")
    handler = in_one_form(config["kwargs"].get("handler"), "task.dataset.handler")
    fitted = dict(zip(FIT, segments["train"], strict=True)) if "train" in segments else {}
    handler["kwargs"] |= fitted
    kwargs = _refitted({**config["kwargs"], "handler": handler}, fitted)
    return {**config, "kwargs": {**kwargs, "segments": segments}}


def of_all_folds(dataset: Any, folds: tuple[Fold, ...]) -> dict[str, Any]:
    """The dataset of the days that the folds score: labels and members, nothing that a model would see."""
    config = in_one_form(copy.deepcopy(dataset), "task.dataset")
    first, last = folds[0].segments["test"][0], folds[-1].segments["test"][1]
    return scores_only({**config, "kwargs": {**config["kwargs"], "segments": {"test": [first, last]}}})


def _refitted(part: Any, fitted: Mapping[str, str]) -> Any:
    """`part`, where all that names days to fit on names those of `fitted`."""
    if isinstance(part, Mapping):
        return {
            key: fitted[key] if key in fitted else _refitted(value, fitted) for key, value in part.items()
        }
    return [_refitted(value, fitted) for value in part] if isinstance(part, list) else part
