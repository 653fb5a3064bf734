"""Many runs: one after the other, or side by side as Ray tasks on one machine or on a cluster."""

from __future__ import annotations

import multiprocessing
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.grid.plan import Job
from benchmarks.grid.work import Outcome, execute
from qlib_ext.checks import UserError, between, integer

Given = tuple[str, str, int, str | None]  # of `execute`, but for the job
RETRIES = 3  # of a run whose worker fell; it goes on from its checkpoint


@dataclass(frozen=True)
class Resources:
    """What Ray may use.

    Attributes
    ----------
    address
        Of a running cluster (`auto` finds the one on this machine); None starts one here, for this call.
    workers
        Runs side by side, when Ray is started here.
    cpus, gpus
        That one run takes; a fraction of a GPU lets runs share it. A run uses as many threads as it has CPUs.
    """

    address: str | None = None
    workers: int = 1
    cpus: int = 1
    gpus: float = 0.0

    def __post_init__(self) -> None:
        integer("workers", self.workers, 1)
        integer("cpus", self.cpus, 1)
        between("gpus", self.gpus, 0, 64)


def run(
    jobs: Sequence[Job],
    *,
    experiment: str,
    work: Path,
    runs: Path | None,
    resources: Resources,
    on_outcome: Callable[[Outcome, int, int], None],
) -> list[Outcome]:
    """Run jobs, each in a process of its own; those of one machine and one worker without Ray.

    A run whose worker is killed is tried again, up to 3 times, and goes on from its checkpoint. A run that fails
    by itself is reported and does not stop the others.

    Parameters
    ----------
    jobs
        What to run.
    experiment
        MLflow experiment of all runs.
    work
        Directory of checkpoints, logs and locks, shared by all machines of a cluster.
    runs
        Folder in which finished runs are kept small; None keeps none.
    resources
        What Ray may use.
    on_outcome
        Called with each outcome as it comes, how many there are by then, and of how many.

    Raises
    ------
    UserError
        If Ray is needed and not installed, or the cluster is not there.
    """
    given: Given = (
        experiment,
        str(work.resolve()),
        resources.cpus,
        None if runs is None else str(runs.resolve()),
    )
    if resources.address is None and resources.workers == 1:
        outcomes: list[Outcome] = []
        for job in jobs:
            outcomes.append(_alone(job, work, given))
            on_outcome(outcomes[-1], len(outcomes), len(jobs))
        return outcomes
    try:
        import ray
    except ImportError as error:
        raise UserError("grids of runs need Ray: `pip install 'qlib-ext[grid]'`") from error

    _start(ray, resources)
    try:
        task = ray.remote(
            num_cpus=resources.cpus,
            num_gpus=resources.gpus,
            max_calls=1,  # a fresh process a run: Qlib and torch keep global state
            max_retries=RETRIES,
        )(execute)
        waiting = {task.options(name=job.name).remote(job, *given): job for job in jobs}
        outcomes = []
        while waiting:
            ready, _ = ray.wait([*waiting], num_returns=1)
            for reference in ready:
                job = waiting.pop(reference)
                outcomes.append(_outcome(ray, reference, job, work))
                on_outcome(outcomes[-1], len(outcomes), len(jobs))
        return outcomes
    finally:
        ray.shutdown()


def _alone(job: Job, work: Path, given: Given) -> Outcome:
    """Run a job in a fresh process, and again where that is killed."""
    for _ in range(RETRIES + 1):
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            try:
                return process.submit(execute, job, *given).result()
            except BrokenProcessPool:
                continue
            except Exception as error:  # noqa: BLE001 - the other runs go on
                return _failed(job, work, str(error))
    return _failed(job, work, f"its worker fell {RETRIES + 1} times")


def _failed(job: Job, work: Path, why: str) -> Outcome:
    return Outcome(job.name, "failed", f"{why} (see {work / 'logs' / f'{job.name}.log'})")


def _start(ray: Any, resources: Resources) -> None:
    root = str(Path(__file__).parents[2])
    environment = {"env_vars": {"PYTHONPATH": root, "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
    shared = {"log_to_driver": False, "logging_level": "ERROR", "runtime_env": environment}
    if resources.address is None:
        ray.init(
            num_cpus=resources.workers * resources.cpus,
            include_dashboard=False,
            _node_ip_address="127.0.0.1",
            **shared,
        )
        return
    try:
        _knock(resources.address)
        ray.init(address=resources.address, **shared)
    except OSError as error:
        raise UserError(
            f"no Ray cluster at {resources.address!r}: start one with `ray start --head`, or leave `--address` out"
        ) from error
    if not _fits(ray, resources):
        raise UserError(
            f"no node of the cluster has {resources.cpus} CPUs and {resources.gpus:g} GPUs: ask for less with "
            "`--cpus` and `--gpus`"
        )


def _knock(address: str) -> None:
    """Connect to `host:port` once: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()


def _fits(ray: Any, resources: Resources) -> bool:
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return any(
        node.get("CPU", 0) >= resources.cpus and node.get("GPU", 0) >= resources.gpus for node in nodes
    )


def _outcome(ray: Any, reference: Any, job: Job, work: Path) -> Outcome:
    try:
        return ray.get(reference)
    except ray.exceptions.RayTaskError as error:
        return _failed(job, work, str(error.cause))
    except (ray.exceptions.WorkerCrashedError, ray.exceptions.NodeDiedError) as error:
        return _failed(job, work, f"its worker fell {RETRIES + 1} times: {type(error).__name__}")
