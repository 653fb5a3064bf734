"""A workflow run in this process, as `qrun` runs it in one of its own."""

from __future__ import annotations

import copy
import logging
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import qlib
from qlib.config import C
from qlib.model.trainer import task_train

from qlib_ext.checks import UserError
from qlib_ext.features.expression_text import guard
from qlib_ext.tracking.active import active_recorder, end_run
from qlib_ext.tracking.runs import place_kept
from qlib_ext.workflow.settings import check_settings
from qlib_ext.workflow.task import check_task

MANAGER = "qlib_ext.workflow.experiment.ExperimentManager"
OWN = "qlib_ext_own"  # in Qlib's settings, which another `qlib.init` begins anew: those are of this module


def run_workflow(workflow: Mapping[str, Any], path: Path | None = None) -> str:
    """Check a workflow and run it under the package's experiment manager; the id of its run.

    Parameters
    ----------
    workflow
        As a file has it, with `qlib_init` and `task`. Where it names no experiment manager, it gets the package's.
    path
        The file that it was read from, where there is one.

    Raises
    ------
    UserError
        Before the run begins, of what is wrong with it; later, of what only its data can tell. And where a run is under way in
        this process.

    Notes
    -----
    Qlib reads the store of the workflow from here on. MLflow's tracking URI is afterwards as it was, also where the workflow
    names one of its own.
    """
    config = copy.deepcopy(dict(workflow))
    check_settings(config)
    _check_no_run()
    name = str(config.get("experiment_name") or "workflow")
    given = {"kernels": 1, "logging_level": logging.WARNING, "clear_mem_cache": True, **config["qlib_init"]}
    given.setdefault("exp_manager", {"class": MANAGER, "kwargs": {"default_exp_name": name}})
    _find_modules(config.get("sys") or {}, path)
    qlib.init(**given)
    guard()  # again, for a workflow that names Qlib's own manager
    C[OWN] = True
    check_task(config["task"])
    with place_kept():
        try:
            return str(task_train(config["task"], name).id)
        except KeyboardInterrupt:
            end_run("KILLED")
            raise


def let_qlib_read(store: Path, region: str) -> None:
    """Let Qlib read a store, where this module has not let it already; no run is begun.

    Raises
    ------
    UserError
        If a run is under way in this process, which would lose its recorder.
    """
    if C.registered and C.get(OWN) and Path(C.dpm.get_data_uri("day")).resolve() == store.resolve():
        return
    _check_no_run()
    qlib.init(
        provider_uri=str(store.absolute()),
        region=region,
        kernels=1,
        logging_level=logging.ERROR,
        clear_mem_cache=True,
    )
    guard()
    C[OWN] = True


def _check_no_run() -> None:
    if active_recorder() is not None:
        raise UserError(
            "a run is under way in this process: end it first, `from qlib.workflow import R; R.end_exp('FAILED')`"
        )


def _find_modules(said: Mapping[str, Any], path: Path | None) -> None:
    """Let Python find modules where the workflow's `sys` says, as `qrun` does."""
    folders = {"path": Path(), "rel_path": Path() if path is None else path.absolute().parent}
    for key, folder in folders.items():
        given = said.get(key) or []
        for each in [given] if isinstance(given, str) else given:
            found = str(folder / each)
            if found not in sys.path:
                sys.path.append(found)
