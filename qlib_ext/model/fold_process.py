"""A fold trained as a run of its own, in a process of its own: Qlib and torch keep global state."""

from __future__ import annotations

import copy
import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, ThreadPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from itertools import islice
from typing import Any

import qlib
from mlflow.environment_variables import MLFLOW_RUN_CONTEXT
from qlib.config import C
from qlib.model.trainer import task_train

from qlib_ext.checks import UserError
from qlib_ext.config.build import locate
from qlib_ext.tracking.active import end_run

# What of Qlib's settings a process must share with the one that began it.
SHARED = ("provider_uri", "region", "kernels", "custom_ops", "expression_cache", "dataset_cache")


@dataclass(frozen=True)
class FoldJob:
    """A fold to be trained: nothing in it is an object of Qlib.

    Attributes
    ----------
    number
        Of the fold.
    task
        As Qlib reads it.
    experiment, name
        Of the run.
    tags
        Of the run, from its first moment on.
    """

    number: int
    task: Mapping[str, Any]
    experiment: str
    name: str
    tags: Mapping[str, str]


def train_all(jobs: Sequence[FoldJob], workers: int, tracking_uri: str) -> Iterator[tuple[FoldJob, str]]:
    """Train folds, `workers` at a time, and give each with the id of its run as it ends.

    A fold that fails lets those that are under way end, and none begin. An interruption ends all.

    Parameters
    ----------
    jobs
        The folds.
    workers
        Processes side by side.
    tracking_uri
        Of MLflow.

    Raises
    ------
    UserError
        If the process of a fold was killed. Otherwise what the fold raised.
    """
    settings = qlib_settings(tracking_uri)
    before = set(multiprocessing.active_children())
    left = iter(jobs)
    with ThreadPoolExecutor(workers) as threads:
        waiting = {threads.submit(_in_a_process, job, settings): job for job in islice(left, workers)}
        try:
            while waiting:
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                # All of them first: where one has failed, no other begins, and the pool waits for those under way.
                ended = [(waiting.pop(each), each.result()) for each in done]
                waiting |= {
                    threads.submit(_in_a_process, job, settings): job for job in islice(left, len(ended))
                }
                yield from ended
        except Exception:
            raise
        except BaseException:
            for process in set(multiprocessing.active_children()) - before:
                process.terminate()  # which ends its run as KILLED
            raise


def train(job: FoldJob, settings: Mapping[str, Any]) -> str:
    """Train a fold in this process; the id of its run."""
    os.environ[MLFLOW_RUN_CONTEXT.name] = json.dumps(dict(job.tags))
    qlib.init(**settings, logging_level=logging.WARNING)
    locate(
        str(job.task["model"]["class"]), name="task.model"
    )  # what its package says on import is said to nobody
    try:
        return str(task_train(copy.deepcopy(dict(job.task)), job.experiment, job.name).id)
    except KeyboardInterrupt:
        end_run("KILLED")
        raise


def qlib_settings(tracking_uri: str) -> dict[str, Any]:
    """What `qlib.init` is told in another process, so that it reads the same store and writes to the same MLflow."""
    manager = copy.deepcopy(C["exp_manager"])
    manager["kwargs"] = {**manager.get("kwargs", {}), "uri": tracking_uri}
    return {**{key: C[key] for key in SHARED if key in C}, "exp_manager": manager}


def _in_a_process(job: FoldJob, settings: Mapping[str, Any]) -> str:
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
        try:
            return process.submit(train, job, settings).result()
        except BrokenProcessPool as error:
            raise UserError(
                f"the process of fold {job.number} was killed, as a system does that has no memory left: take the walk-forward "
                "up by `resume: 1`, with fewer `workers` where there are several"
            ) from error
