"""One training: a task of Qlib's run in a process of its own, since Qlib and torch keep global state."""

from __future__ import annotations

import copy
import json
import logging
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import qlib
from mlflow.environment_variables import MLFLOW_RUN_CONTEXT
from qlib.config import C
from qlib.model.trainer import task_train

from qlib_ext.config.build import locate
from qlib_ext.tracking.active import end_run

# What of Qlib's settings a process must share with the one that began it.
SHARED = ("provider_uri", "region", "kernels", "custom_ops", "expression_cache", "dataset_cache")


@dataclass(frozen=True)
class Training:
    """A task to be trained: nothing in it is an object of Qlib.

    Attributes
    ----------
    called
        What it is in messages, such as `fold 3`; one word for it among those that are trained together.
    task
        As Qlib reads it.
    experiment, name
        Of the run.
    tags
        Of the run, from its first moment on.
    log
        File that takes what it says, in the place of the terminal; empty for none.
    """

    called: str
    task: Mapping[str, Any]
    experiment: str
    name: str
    tags: Mapping[str, str]
    log: str = ""


def train(training: Training, settings: Mapping[str, Any]) -> str:
    """Train in this process, which has told Qlib nothing yet; the id of the run.

    Parameters
    ----------
    training
        What.
    settings
        From `qlib_settings` of the process that asks for it.
    """
    if training.log:
        say_into(Path(training.log))
    os.environ[MLFLOW_RUN_CONTEXT.name] = json.dumps(dict(training.tags))
    qlib.init(**settings, logging_level=logging.WARNING)
    # here, so that what its package says on import is said to nobody
    locate(str(training.task["model"]["class"]), name="task.model")
    try:
        return str(task_train(copy.deepcopy(dict(training.task)), training.experiment, training.name).id)
    except KeyboardInterrupt:
        end_run("KILLED")
        raise


def say_into(path: Path) -> None:
    """Append what this process says from now on to a file, libraries in C among it, in the place of the terminal."""
    path.parent.mkdir(parents=True, exist_ok=True)
    sys.stdout.flush()
    sys.stderr.flush()
    with path.open("ab") as file:
        for descriptor in (1, 2):
            os.dup2(file.fileno(), descriptor)


def qlib_settings(tracking_uri: str) -> dict[str, Any]:
    """What `qlib.init` is told in another process, so that it reads the same store and writes to the same MLflow."""
    manager = copy.deepcopy(C["exp_manager"])
    manager["kwargs"] = {**manager.get("kwargs", {}), "uri": tracking_uri}
    return {**{key: C[key] for key in SHARED if key in C}, "exp_manager": manager}
