"""Trainings in processes of this machine."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

from qlib_ext.checks import UserError
from qlib_ext.model.trainings.training import Training, train

THREADS = "OMP_NUM_THREADS"  # torch, LightGBM and BLAS read it as they are loaded


class Processes:
    """A fresh process a training.

    Parameters
    ----------
    workers
        Side by side. Where there are several, each has as many threads as its share of the cores; where OMP_NUM_THREADS is
        set, its share of those.
    """

    def __init__(self, workers: int) -> None:
        self.threads = max(1, _threads() // workers) if workers > 1 else None
        self._before = set(multiprocessing.active_children())
        self._starting = threading.Lock()

    def __enter__(self) -> Processes:
        return self

    def __exit__(self, *error: object) -> None:
        """Nothing is left open: each process ends with its training."""

    def train(self, training: Training, settings: Mapping[str, Any]) -> str:
        """Train and wait; the id of the run.

        Raises
        ------
        UserError
            If the process was killed. Otherwise what the training raised.
        """
        with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as process:
            with self._starting, _environment(self.threads):
                run_id = process.submit(train, training, settings)
            try:
                return run_id.result()
            except BrokenProcessPool as error:
                raise UserError(
                    f"the process of {training.called} was killed, as a system does that has no memory left: take the run up by "
                    "`resume: 1`, with fewer `workers` where there are several"
                ) from error

    def stop(self) -> None:
        """End all that are under way; each ends its run as KILLED."""
        for process in set(multiprocessing.active_children()) - self._before:
            process.terminate()


def _threads() -> int:
    """Of this process: those that it was given, or the cores that it may use."""
    given = os.environ.get(THREADS, "")
    if given.isdigit() and int(given):
        return int(given)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@contextlib.contextmanager
def _environment(threads: int | None) -> Iterator[None]:
    """What a process that is begun meanwhile inherits."""
    if threads is None:
        yield
        return
    before = os.environ.get(THREADS)
    os.environ[THREADS] = str(threads)
    try:
        yield
    finally:
        if before is None:
            del os.environ[THREADS]
        else:
            os.environ[THREADS] = before
