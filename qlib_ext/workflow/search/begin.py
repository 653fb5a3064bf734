"""A search begun: everything read and checked before anything is trained, and a run on MLflow above all trainings."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import qlib
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from qlib.config import C
from qlib.workflow import R

from qlib_ext.features.expression_text import guard
from qlib_ext.market.store import QlibStore
from qlib_ext.model.trainings.side_by_side import Places
from qlib_ext.tracking.active import active_recorder, end_run
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.search import Search
from qlib_ext.workflow.search.searched import SearchedWorkflow
from qlib_ext.workflow.search.study import Tried
from qlib_ext.workflow.settings import check_settings
from qlib_ext.workflow.task import check_task

MANAGER = {"class": "qlib_ext.workflow.experiment.ExperimentManager"}


def begin(workflow: Path, space: Path, folder: Path, places: Places) -> Search:
    """The search of a workflow, where it stands; nothing is trained.

    Parameters
    ----------
    workflow, space
        Files.
    folder
        Of the search; it is made where it is not there.
    places
        Where trainings run side by side.

    Raises
    ------
    UserError
        If a file cannot be read, something in it is wrong, the two do not fit, or the folder holds another search.
    """
    plan = Plan.read(space)
    searched = SearchedWorkflow(workflow)
    check_settings(searched.config)
    settings: Mapping[str, Any] = {"exp_manager": MANAGER, **searched.config["qlib_init"]}
    qlib.init(**{**settings, "logging_level": logging.ERROR})
    guard()
    check_task(searched.config["task"])
    folder.mkdir(parents=True, exist_ok=True)
    return Search(searched, plan, QlibStore(C.dpm.get_data_uri("day")), folder, places)


def search_below_a_run(
    search: Search,
    trials: int | None,
    hours: float | None,
    on_trial: Callable[[Tried], None],
    written: Callable[[], Mapping[str, Path]],
) -> None:
    """Search below a run on MLflow, that of the earlier calls where there is one.

    Parameters
    ----------
    search, trials, hours, on_trial
        As in `Search.run`.
    written
        Writes what is found and says where; the run keeps it.

    Raises
    ------
    UserError
        As from `Search.run`; the run has failed then. An interruption ends it as KILLED.
    """
    name = f"{search.workflow.config.get('experiment_name', search.workflow.path.stem)} search"
    before = _of_earlier(search)
    R.start_exp(experiment_name=name, recorder_id=before, resume=before is not None)
    recorder = active_recorder()
    space = "; ".join(f"{parameter.name}: {parameter}" for parameter in search.plan.space)
    recorder.set_tags(search=search.folder.name, search_space=space)
    try:
        search.run(recorder, trials=trials, hours=hours, on_trial=on_trial)
        for path in written().values():
            recorder.log_artifact(str(path), "search")
        R.end_exp("FINISHED")
    except KeyboardInterrupt:
        end_run("KILLED")
        raise
    except BaseException:
        end_run("FAILED")
        raise


def _of_earlier(search: Search) -> str | None:
    """The run of the earlier calls, where MLflow has it; another MLflow has not."""
    if search.parent is None:
        return None
    try:
        found = MlflowClient(R.get_uri()).get_run(search.parent)
    except MlflowException:
        return None
    return search.parent if found.info.lifecycle_stage == "active" else None
