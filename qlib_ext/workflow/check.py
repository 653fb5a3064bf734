"""A workflow checked as a whole, without a run."""

from __future__ import annotations

import logging
from pathlib import Path

import qlib
from mlflow.environment_variables import MLFLOW_ALLOW_FILE_STORE

from qlib_ext.checks import UserError
from qlib_ext.features.expression_text import guard
from qlib_ext.tracking.availability import wait_seconds
from qlib_ext.workflow.read import read_workflow
from qlib_ext.workflow.settings import check_settings
from qlib_ext.workflow.task import check_task


def check_workflow(path: Path) -> None:
    """Check every argument of a workflow, and whether its parts fit each other and the store.

    Nothing is trained, no run is begun, and no class is imported that the workflow may not name.

    Parameters
    ----------
    path
        A workflow file, as `qrun` takes it.

    Raises
    ------
    UserError
        At the first thing that is wrong with it.
    """
    config = read_workflow(path)
    check_settings(config)
    wait_seconds()
    given = config["qlib_init"]
    if "exp_manager" not in given and not MLFLOW_ALLOW_FILE_STORE.get():
        raise UserError(
            "`qlib_init.exp_manager` must be {class: qlib_ext.workflow.experiment.ExperimentManager}: Qlib's own keeps runs "
            "in files, which MLflow refuses since 3.13; found none"
        )
    store = {key: given[key] for key in ("provider_uri", "region") if key in given}
    qlib.init(**store, kernels=1, logging_level=logging.ERROR)
    guard()
    check_task(config["task"])
