"""A task of a workflow, checked as a whole before its data are read and its model is trained."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from qlib.config import C
from qlib.data.dataset import Dataset
from qlib.model.base import Model

from qlib_ext.checks import UserError, brief, one_of
from qlib_ext.config.build import build, check_config, in_one_form
from qlib_ext.config.security import check_classes
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.store import QlibStore
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.walk_forward import FoldedModel
from qlib_ext.records.base import check_records
from qlib_ext.workflow.ensemble import with_members
from qlib_ext.workflow.settings import check_numbers
from qlib_ext.workflow.walk_forward import walked

KEYS = ("model", "dataset", "record", "reweighter")


def check_task(task: Any, recorder: Any = None, *, writes: bool = True) -> None:
    """Check the task of a workflow: its parts, their arguments, and whether they fit each other and the store.

    Parameters
    ----------
    task
        As Qlib reads it.
    recorder
        Qlib's recorder of the run, where there is one already.
    writes
        Whether the task is to be run, so that its folders must be ones that can be written.

    Raises
    ------
    UserError
        Of the first thing that is wrong. A task that passes may still fail over what only its data can tell, such as a
        segment without a day.

    Notes
    -----
    What Qlib or a user brings is checked as far as its signature says; what belongs to the package is built, the model
    with its network and the records with it, but for the data. Qlib reads its own store for this: `qlib.init` comes
    before.
    """
    if not isinstance(task, Mapping):
        raise UserError(f"`task` must be a mapping with model, dataset and record, found {brief(task)}")
    for key in task:
        one_of("key of task", key, KEYS)
    for key in ("model", "dataset"):
        if key not in task:
            raise UserError(f"`task` must have a `{key}`, found {', '.join(task) or 'nothing'}")
    check_classes(task, "task")  # before anything is imported
    task = with_members(walked(task))
    model = _model(task["model"])
    check_places = getattr(model, "check_places", None)
    if writes and callable(check_places):
        check_places()
    spec = _spec_of_dataset(task["dataset"])
    if spec is not None:
        spec = dataclasses.replace(spec, tasks=_tasks(model))
        check_before = getattr(model, "check_before", None)
        if callable(check_before):
            check_before(spec)
    check_records(task, recorder, spec, writes=writes)
    check_numbers(task, "task")
    if isinstance(model, FoldedModel):
        folds = model.folds(QlibStore(C.dpm.get_data_uri("day")))
        check_task(model.task(folds[0]), recorder, writes=writes)
    if isinstance(model, Ensemble):
        for member in model.different_tasks().values():
            check_task(member, recorder, writes=writes)


def _model(config: Any) -> Model:
    described = in_one_form(config, "task.model")
    kind, kwargs = check_config(described, Model, name="task.model")
    if kind.__module__.startswith("qlib_ext."):
        return build(described, Model, name="task.model")
    try:
        model = kind(**kwargs)
    except (ValueError, TypeError, KeyError, AttributeError, NotImplementedError) as error:
        raise UserError(
            f"`task.model.kwargs` do not fit {kind.__name__}: {type(error).__name__}: {error}"
        ) from error
    if kind.__module__ == "qlib.contrib.model.gbdt":  # here: only its own users need LightGBM
        from qlib_ext.workflow.lightgbm_arguments import check_lightgbm

        check_lightgbm(model, kwargs, "task.model")
    return model


def _tasks(model: Model) -> dict[str, bool]:
    """The model's tasks, and whether they are classifications."""
    of = getattr(model, "classifications", None)
    return of() if callable(of) else {}


def _spec_of_dataset(config: Any) -> DatasetSpec | None:
    described = in_one_form(config, "task.dataset")
    kind, kwargs = check_config(described, Dataset, name="task.dataset")
    return kind.spec(**kwargs) if issubclass(kind, DailyPanelDataset) else None
