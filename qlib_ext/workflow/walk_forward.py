"""A task of many trainings, folds or splits, as the task that Qlib runs: a model of them, on the days that they score."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from qlib.config import C

from qlib_ext.config.build import dotted, in_one_form
from qlib_ext.data.fold_datasets import folds_of, is_combinatorial, of_all_folds, splits_of, walks_forward
from qlib_ext.market.store import QlibStore
from qlib_ext.model.combinatorial import CrossValidated
from qlib_ext.model.walk_forward import WalkForward
from qlib_ext.records.base import looks_into_the_model
from qlib_ext.records.fold import FoldRecord
from qlib_ext.records.folds import FoldsRecord
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.records.lookahead import LookaheadRecord
from qlib_ext.records.paths import PathsRecord
from qlib_ext.records.report import ReportRecord
from qlib_ext.records.signal import SignalRecord


def walked(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task that Qlib runs in the place of one whose dataset says `segments: {walk_forward: {...}}`, or `combinatorial`.

    Any other stays as it is. The model becomes a `WalkForward`, or a `CrossValidated`, around the task's own, the dataset that
    of the days which are scored, and the records are the task's, with a `FoldsRecord` or a `PathsRecord` before the report.
    Records that look into the model run in each fold, or split, and so does a look-ahead audit, where the task has one. Qlib
    must have been told of its store.

    Raises
    ------
    UserError
        If the plan is none, or the store leaves no room for it.
    """
    given = task.get("dataset") if isinstance(task, Mapping) else None
    walks = walks_forward(given)
    if not walks and not is_combinatorial(given):
        return dict(task) if isinstance(task, Mapping) else task
    dataset = copy.deepcopy(task["dataset"])
    store = QlibStore(C.dpm.get_data_uri("day"))
    if walks:
        kind, record = dotted(WalkForward), dotted(FoldsRecord)
        folds = folds_of(dataset, store)
        days = folds[0].test[0], folds[-1].test[1]
    else:
        kind, record = dotted(CrossValidated), dotted(PathsRecord)
        splits = splits_of(dataset, store)
        days = splits[0].scores[0][0], splits[-1].scores[-1][1]
    kept, inside = _apart(task.get("record") or [], record)
    model = {
        "class": kind,
        "kwargs": {"model": copy.deepcopy(task.get("model")), "dataset": dataset, "record": inside},
    }
    return {**task, "model": model, "dataset": of_all_folds(dataset, days), "record": kept}


def _apart(given: Any, own: str) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The records of a task, and of each of its trainings; `own` is the class that lays the trainings beside each other."""
    inside = dotted(FoldRecord)
    records = [
        in_one_form(each, "task.record") for each in ([given] if isinstance(given, Mapping) else given)
    ]
    beside = next((record for record in records if record["class"] == own), {"class": own, "kwargs": {}})
    of_model = [record for record in records if looks_into_the_model(record) and record != beside]
    kept = [record for record in records if record not in of_model]
    if beside not in kept:
        last = (dotted(LedgerRecord), dotted(ReportRecord))
        place = next((k for k, record in enumerate(kept) if record["class"] in last), len(kept))
        kept.insert(place, beside)
    others = {dotted(FoldsRecord), dotted(PathsRecord)} - {own}
    of_model = [record for record in of_model if record["class"] not in others]
    if not any(record["class"] == inside for record in of_model):
        of_model.insert(0, {"class": inside, "kwargs": beside["kwargs"]})  # by the same label
    audits = [_of_a_fold(record) for record in records if record["class"] == dotted(LookaheadRecord)]
    return kept, [{"class": dotted(SignalRecord)}, *audits, *of_model]


def _of_a_fold(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The audit of a fold: fewer days, since there are many folds; built anew after its training and after its validation."""
    kwargs = audit.get("kwargs") or {}
    return {**audit, "kwargs": {"dates": 4, "refits": 2, **kwargs}}
