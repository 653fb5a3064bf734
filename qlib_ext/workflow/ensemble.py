"""A task whose model is an ensemble, as the task that Qlib runs: its members know the dataset and their records."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from qlib_ext.config.build import dotted, in_one_form, locate
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.records.base import looks_into_the_model
from qlib_ext.records.ensemble import EnsembleRecord
from qlib_ext.records.fold import FoldRecord
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.records.lookahead import LookaheadRecord
from qlib_ext.records.report import ReportRecord
from qlib_ext.records.signal import SignalRecord

OWN = dotted(EnsembleRecord)


def with_members(task: Mapping[str, Any]) -> dict[str, Any]:
    """The task that Qlib runs in the place of one whose model is an `Ensemble`; any other as it is.

    Members are given the task's dataset, and the records that look into a model. The task's other records are those of the
    ensemble, with an `EnsembleRecord` before the report.

    Raises
    ------
    UserError
        If the model or a record is of another shape.
    """
    if not isinstance(task, Mapping) or not is_ensemble(task.get("model")):
        return dict(task) if isinstance(task, Mapping) else task
    model = in_one_form(task["model"], "task.model")
    if model["kwargs"].get("dataset") is not None:
        return dict(task)
    given = task.get("record") or []
    records = [
        in_one_form(each, "task.record") for each in ([given] if isinstance(given, Mapping) else given)
    ]
    of_model = [record for record in records if looks_into_the_model(record) and record["class"] != OWN]
    # of a fold: what each member said, and from that what all say together
    fold = [record for record in of_model if record["class"] == dotted(FoldRecord)]
    inside = [
        {**record, "kwargs": {**record["kwargs"], "keep_scores": True}} if record in fold else record
        for record in of_model
    ]
    kept = [record for record in records if record not in of_model or record in fold]
    audits = [record for record in records if record["class"] == dotted(LookaheadRecord)]
    signal = {"class": dotted(SignalRecord), "kwargs": {}}
    members = {
        "dataset": copy.deepcopy(task.get("dataset")),
        "record": copy.deepcopy([signal, *audits, *inside]),
    }
    model = {**model, "kwargs": {**model["kwargs"], **members}}
    return with_ensemble_record({**task, "model": model, "record": kept})


def with_ensemble_record(task: Mapping[str, Any]) -> dict[str, Any]:
    """A task with an `EnsembleRecord` before ledger and report, unless it has one."""
    records = [*task["record"]]
    if not any(record["class"] == OWN for record in records):
        last = (dotted(LedgerRecord), dotted(ReportRecord))
        place = next((k for k, record in enumerate(records) if record["class"] in last), len(records))
        records.insert(place, {"class": OWN, "kwargs": {}})
    return {**task, "record": records}


def is_ensemble(model: Any) -> bool:
    """Whether a task's model is an ensemble."""
    if not isinstance(model, Mapping) or not isinstance(model.get("class"), str):
        return False
    path = in_one_form(model, "task.model")["class"]
    return path.startswith("qlib_ext.") and issubclass(locate(path, name="task.model"), Ensemble)
