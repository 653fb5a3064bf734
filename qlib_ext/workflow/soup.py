"""The workflow that averages the weights of runs."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from qlib_ext.checks import UserError
from qlib_ext.config.build import dotted, in_one_form, locate
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.model.soup import Soup

KEPT = ("backbone", "tasks", "device")


def of_runs(task: Mapping[str, Any], runs: Sequence[str], kind: str) -> dict[str, Any]:
    """The task whose model is the mean of the weights of runs; dataset and records are those of the first.

    Parameters
    ----------
    task
        Of the first run.
    runs
        Ids of all.
    kind
        As of `Soup`.

    Raises
    ------
    UserError
        If the run is not of a MultiTaskModel.
    """
    model = in_one_form(task["model"], "task.model")
    if not issubclass(locate(model["class"], name="task.model"), MultiTaskModel):
        raise UserError(
            f"`task.model` of the first run must be a MultiTaskModel, whose weights can be averaged, found {model['class']}; "
            "of a walk-forward name a fold"
        )
    given = model["kwargs"]
    kwargs: dict[str, Any] = {"runs": [*runs], "kind": kind}
    kwargs |= {name: given[name] for name in KEPT if name in given}
    precision = (given.get("trainer") or {}).get("precision")
    if precision is not None:
        kwargs["trainer"] = {"precision": precision}
    return copy.deepcopy({**task, "model": {"class": dotted(Soup), "kwargs": kwargs}})
