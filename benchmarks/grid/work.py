"""One run of a grid, in a process of its own."""

from __future__ import annotations

import contextlib
import copy
import fcntl
import logging
import os
import sys
import traceback
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mlflow import MlflowClient

    from benchmarks.grid.plan import Job

FINISHED = "FINISHED"


@dataclass(frozen=True)
class Outcome:
    """How a run ended: `finished`, `there already`, `running elsewhere` or `failed`; `message` says why it failed.

    `node` is the machine that it ran on, by Ray's id.
    """

    name: str
    how: str
    message: str = ""
    node: str = ""


def execute(job: Job, experiment: str, work: str, threads: int, runs: str | None) -> Outcome:
    """Run a job, unless it is finished; take it up from its checkpoint where an earlier worker fell.

    Parameters
    ----------
    job
        What to run.
    experiment
        MLflow experiment.
    work
        Directory of checkpoints, logs and locks; workers on several machines share it.
    threads
        Of torch and of BLAS.
    runs
        Folder in which finished runs are kept small (`benchmarks.grid.kept`); None keeps none.
    """
    # A worker is a fresh process: what libraries read once, on import, is set first.
    os.environ["OMP_NUM_THREADS"] = str(threads)
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    os.environ.setdefault("MPLBACKEND", "Agg")
    folder = Path(work)
    log = folder / "logs" / f"{job.name}.log"
    with _locked(folder / "locks" / f"{job.name}.lock") as mine:
        if not mine:
            return Outcome(job.name, "running elsewhere")
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a", encoding="utf-8") as stream, _into(stream), contextlib.chdir(folder):
            try:
                return _train(job, experiment, folder, threads, runs)
            except Exception:
                traceback.print_exc(file=stream)
                raise


def _train(job: Job, experiment: str, folder: Path, threads: int, runs: str | None) -> Outcome:
    import qlib
    import torch
    from mlflow import MlflowClient
    from qlib.model.trainer import task_train

    from benchmarks.grid.kept import is_kept, keep

    torch.set_num_threads(threads)
    config: dict[str, Any] = dict(job.config)
    client = MlflowClient(config["qlib_init"]["exp_manager"]["kwargs"]["uri"])
    there = finished(client, experiment, [job.name])
    if there and (runs is None or is_kept(Path(runs), job.name)):
        return Outcome(job.name, "there already")
    qlib.init(**config["qlib_init"])
    if not there:
        _bury(client, experiment, job.name)
        task = copy.deepcopy(config["task"])
        task["model"]["kwargs"]["checkpoint_dir"] = str(folder / "checkpoints")
        task_train(task, experiment_name=experiment, recorder_name=job.name)
        there = finished(client, experiment, [job.name])
    if runs is not None:
        keep(job, there[job.name], client, Path(runs))
    return Outcome(job.name, "finished", node=_node())


def _node() -> str:
    import ray

    return ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""


def finished(client: MlflowClient, experiment: str, names: list[str]) -> dict[str, Any]:
    """The newest finished run of each name that has one."""
    return {
        run.info.run_name: run for run in _runs(client, experiment, FINISHED) if run.info.run_name in names
    }


def _bury(client: MlflowClient, experiment: str, name: str) -> None:
    """Runs of this name that say they are running are of workers that fell: this worker holds the lock."""
    for run in _runs(client, experiment, "RUNNING"):
        if run.info.run_name == name:
            client.set_terminated(run.info.run_id, "KILLED")


def _runs(client: MlflowClient, experiment: str, status: str) -> Iterator[Any]:
    """Runs of an experiment with a status, oldest first."""
    found = client.get_experiment_by_name(experiment)
    token = "" if found is not None else None
    while token is not None and found is not None:
        page = client.search_runs(
            [found.experiment_id],
            f"attributes.status = '{status}'",
            order_by=["attributes.start_time ASC"],
            page_token=token or None,
        )
        yield from page
        token = page.token or None


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[bool]:
    """Hold a lock that ends with the process, however it ends; False where another process holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a+") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            yield False
            return
        file.truncate(0)
        file.write(f"{os.getpid()}\n")  # for whoever wants to know which process it is
        file.flush()
        yield True


@contextlib.contextmanager
def _into(stream: Any) -> Iterator[None]:
    """Send what the run says to its log file."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    root.addHandler(handler)
    try:
        with contextlib.redirect_stdout(stream), contextlib.redirect_stderr(stream):
            yield
    finally:
        root.removeHandler(handler)
        sys.stdout.flush()
