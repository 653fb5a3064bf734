"""The task of a run that was bundled: read with care, without what belongs to the machine that it ran on."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import dotted, in_one_form, locate
from qlib_ext.config.security import check_classes
from qlib_ext.files import load_yaml, read_json, read_text
from qlib_ext.model.combinatorial import SPLITS
from qlib_ext.model.ensemble.member_scores import MEMBERS
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.model.walk_forward import RUNS
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.records.report import ReportRecord
from qlib_ext.tracking.artifacts import reading

CONFIG = "config.yaml"
BELOW = (RUNS, SPLITS, MEMBERS)  # artifacts that name the runs below one
# Where a run leaves things, where it finds others and how it is spread: none of it decides a number, and each would reach
# for a folder or a server that whoever wrote the bundle has chosen.
OF_THE_MACHINE = ("cache", "checkpoint_dir", "ray", "resume", "tracking_uri", "workers")
NOT_AGAIN = (ReportRecord, LedgerRecord)  # a page of the tables, and an entry beside the store


def below(root: Path) -> list[str]:
    """The ids of the runs below one, in their order, as its artifacts in the folder `root` name them."""
    if has_given_scores(task_of(root)):
        return []  # those that it combines are no trainings of its own
    for path in BELOW:
        if (root / path).is_file():
            with reading("the runs below", [path]):
                return [str(each["run_id"]) for each in read_json(root / path)]
    return []


def task_of(root: Path) -> dict[str, Any]:
    """The task of a run, of its artifacts in the folder `root`; a UserError where it names what no task may."""
    try:
        task = load_yaml(read_text(root / CONFIG))
    except UserError:
        raise
    except ValueError as error:
        raise UserError(f"`{CONFIG}` of the run {root.name} must be YAML: {error}") from error
    if not isinstance(task, Mapping) or not {"model", "dataset", "record"} <= set(task):
        raise UserError(
            f"`{CONFIG}` of the run {root.name} must have model, dataset and record, found {brief(task)}"
        )
    check_classes(task, f"{CONFIG} of the run {root.name}")
    for name in ("model", "dataset"):
        in_one_form(task[name], name)
    return dict(task)


def has_given_scores(task: Mapping[str, Any]) -> bool:
    """Whether a task trains nothing, since its scores were there already."""
    kind = locate(in_one_form(task["model"], "model")["class"], name="model")
    return issubclass(kind, GivenScores)


def portable(task: Any, device: str | None = None) -> Any:
    """A task without what belongs to a machine, and without its page; on `device` where a model names one."""
    if isinstance(task, Mapping):
        found = {key: portable(value, device) for key, value in task.items() if key not in OF_THE_MACHINE}
        if isinstance(found.get("record"), list):
            found["record"] = [each for each in found["record"] if not _is_page(each)]
        if "device" in found and device is not None:
            found["device"] = device
        return found
    return [portable(each, device) for each in task] if isinstance(task, list) else task


def _is_page(record: Any) -> bool:
    return isinstance(record, Mapping) and record.get("class") in {dotted(kind) for kind in NOT_AGAIN}
