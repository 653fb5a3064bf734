"""A task whose dataset walks forward, as the task that Qlib runs: a model of folds, on the days that they score."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from qlib.config import C

from qlib_ext.config.build import dotted, in_one_form
from qlib_ext.data.fold_datasets import folds_of, of_all_folds, walks_forward
from qlib_ext.market.store import QlibStore
from qlib_ext.model.walk_forward import WalkForward
from qlib_ext.records.base import looks_into_the_model
from qlib_ext.records.fold import FoldRecord
from qlib_ext.records.folds import FoldsRecord
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.records.lookahead import LookaheadRecord
from qlib_ext.records.report import ReportRecord
from qlib_ext.records.signal import SignalRecord


def walked(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task that Qlib runs in the place of one whose dataset says `segments: {walk_forward: {...}}`; any other as it is.

    Its model is a `WalkForward` around the task's own, its dataset that of the days which the folds score, and its records
    are the task's, with a `FoldsRecord` before the report. Records that look into the model run in each fold, and so does a
    look-ahead audit, where the task has one. Qlib must have been told of its store.

    Raises
    ------
    UserError
        If the plan is none, or the store leaves no room for it.
    """
    if not isinstance(task, Mapping) or not walks_forward(task.get("dataset")):
        return dict(task) if isinstance(task, Mapping) else task
    dataset = copy.deepcopy(task["dataset"])
    folds = folds_of(dataset, QlibStore(C.dpm.get_data_uri("day")))
    given = task.get("record") or []
    records = [
        in_one_form(each, "task.record") for each in ([given] if isinstance(given, Mapping) else given)
    ]
    own, inside = dotted(FoldsRecord), dotted(FoldRecord)
    beside = next((record for record in records if record["class"] == own), {"class": own, "kwargs": {}})
    of_model = [record for record in records if looks_into_the_model(record) and record != beside]
    kept = [record for record in records if record not in of_model]
    if beside not in kept:
        last = (dotted(LedgerRecord), dotted(ReportRecord))
        place = next((k for k, record in enumerate(kept) if record["class"] in last), len(kept))
        kept.insert(place, beside)
    if not any(record["class"] == inside for record in of_model):
        of_model.insert(0, {"class": inside, "kwargs": beside["kwargs"]})  # by the same label
    audits = [_of_a_fold(record) for record in records if record["class"] == dotted(LookaheadRecord)]
    of_fold = [{"class": dotted(SignalRecord)}, *audits, *of_model]
    model = {
        "class": dotted(WalkForward),
        "kwargs": {"model": copy.deepcopy(task.get("model")), "dataset": dataset, "record": of_fold},
    }
    return {**task, "model": model, "dataset": of_all_folds(dataset, folds), "record": kept}


def _of_a_fold(audit: Mapping[str, Any]) -> dict[str, Any]:
    """The audit of a fold: fewer days, since there are many folds; built anew after its training and after its validation."""
    kwargs = audit.get("kwargs") or {}
    return {**audit, "kwargs": {"dates": 4, "refits": 2, **kwargs}}
