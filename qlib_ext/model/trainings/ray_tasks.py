"""Trainings as tasks of Ray, on this machine or on a cluster; nothing that counts its threads is imported with this module."""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlib_ext.checks import UserError

if TYPE_CHECKING:
    from qlib_ext.model.trainings.training import Training

LOCAL = "local"
OF_MLFLOW = "MLFLOW_"  # variables of the environment: its server's user and password among them


class RayTasks:
    """A fresh process a training, wherever Ray has room.

    Parameters
    ----------
    address
        `local` starts Ray on this machine; `host:port` or `auto` is a cluster that runs. All its machines see the folder that
        the run was started in, the store and MLflow under the same names.
    workers
        Side by side.
    cpus, gpus
        That one training takes. It has as many threads as CPUs; where it takes no GPU, it sees all of its machine's.

    Raises
    ------
    UserError
        On entering, if Ray is not installed, the cluster is not there, or none of its machines has as much.
    """

    def __init__(self, address: str, workers: int, cpus: int, gpus: float) -> None:
        self.address = address
        self.workers = workers
        self.cpus = cpus
        self.gpus = gpus
        self._ray: Any = None
        self._task: Any = None
        self._own = False
        self._waiting: set[Any] = set()

    def __enter__(self) -> RayTasks:
        try:
            import ray  # here: an extra
        except ImportError as error:
            raise UserError(
                "`ray` needs the package ray, found none: pip install 'qlib-ext[grid]'"
            ) from error
        self._ray = ray
        self._own = not ray.is_initialized()  # a training on Ray may have trainings of its own
        if self._own:
            self._start()
        # A fresh process a training: Qlib and torch keep global state. None is tried again: its run would lie there twice.
        how = {"num_cpus": self.cpus, "num_gpus": self.gpus, "max_calls": 1, "max_retries": 0}
        self._task = self._ray.remote(**how)(begin)
        return self

    def __exit__(self, *error: object) -> None:
        if self._own:
            self._ray.shutdown()

    def train(self, training: Training, settings: Mapping[str, Any]) -> str:
        """Train and wait; the id of the run.

        Raises
        ------
        UserError
            If the process was killed, or its machine went away. Otherwise what the training raised.
        """
        of_mlflow = {name: value for name, value in os.environ.items() if name.startswith(OF_MLFLOW)}
        task = self._task.options(name=training.name)
        reference = task.remote(asdict(training), dict(settings), str(Path.cwd()), self.cpus, of_mlflow)
        self._waiting.add(reference)
        failed = self._ray.exceptions
        try:
            return str(self._ray.get(reference))
        except failed.RayTaskError as error:
            raise error.cause from error
        except (failed.WorkerCrashedError, failed.NodeDiedError, failed.OutOfMemoryError) as error:
            raise UserError(
                f"the process of {training.called} was killed ({type(error).__name__}), as a system does that has no memory left: "
                "take the run up by `resume: 1`, with fewer `workers` where there are several"
            ) from error
        finally:
            self._waiting.discard(reference)

    def stop(self) -> None:
        """End all that are under way; each ends its run as KILLED."""
        for reference in [*self._waiting]:
            self._ray.cancel(reference)

    def _start(self) -> None:
        # a training that takes no GPU sees them all: by default Ray would hide them
        seen = {"env_vars": {"RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0"}}
        shared = {"logging_level": "ERROR", "runtime_env": seen}
        if self.address == LOCAL:
            room = {"num_cpus": self.workers * self.cpus, "include_dashboard": False}
            try:
                self._ray.init(**room, _node_ip_address="127.0.0.1", **shared)
            except Exception as error:
                self._ray.shutdown()
                raise UserError(
                    f"Ray could not be started on this machine ({str(error)[:200]}): try again when less runs on it, or leave "
                    "`ray` out"
                ) from error
            return
        try:
            _knock(self.address)
            self._ray.init(address=self.address, **shared)
        except OSError as error:
            raise UserError(
                f"no Ray cluster at {self.address!r}: start one with `ray start --head`, or say `ray: {LOCAL}`"
            ) from error
        if not self._fits():
            self.__exit__()
            raise UserError(
                f"no machine of the cluster has {self.cpus} CPUs and {self.gpus:g} GPUs: ask for less with `ray: {{address: "
                f"{self.address}, cpus: 1}}`"
            )

    def _fits(self) -> bool:
        machines = [node["Resources"] for node in self._ray.nodes() if node["Alive"]]
        return any(each.get("CPU", 0) >= self.cpus and each.get("GPU", 0) >= self.gpus for each in machines)


def begin(
    training: Mapping[str, Any],
    settings: Mapping[str, Any],
    folder: str,
    threads: int,
    environment: Mapping[str, str],
) -> str:
    """Train in this process of Ray's; the id of the run."""
    os.environ |= {**environment, "OMP_NUM_THREADS": str(threads)}  # before anything reads them
    if not Path(folder).is_dir():
        raise UserError(
            f"{socket.gethostname()} must have the folder {folder}, from which the run was started: start it in one that all "
            "machines of the cluster share"
        )
    os.chdir(folder)
    from qlib_ext.model.trainings.training import Training, train

    return train(Training(**training), settings)


def _knock(address: str) -> None:
    """Connect to `host:port` once: Ray itself would try for minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
