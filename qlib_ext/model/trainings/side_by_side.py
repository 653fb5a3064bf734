"""Where trainings go side by side, and how they end."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from typing import Any

from qlib_ext.checks import UserError, between, brief, integer, nearest
from qlib_ext.data.plan import MOST_WORKERS
from qlib_ext.masking import masked
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.model.trainings.ray_tasks import LOCAL, RayTasks
from qlib_ext.model.trainings.training import Training, qlib_settings

logger = logging.getLogger(__name__)

OF_RAY = {"address": LOCAL, "cpus": 1, "gpus": 0}  # and their defaults


@dataclass(frozen=True)
class Places:
    """Where trainings go: processes of this machine, or tasks of Ray.

    Parameters
    ----------
    workers
        Trainings side by side, each in a process of its own. Processes of this machine share its cores.
    ray
        None for processes of this machine. `local` starts Ray on this machine, and an address, `host:port` or `auto`, is that
        of a cluster; or a mapping of `address`, and `cpus` (threads too; 1) and `gpus` (0) that one training takes.

    Raises
    ------
    UserError
        If one of them is something else.
    """

    workers: int = 1
    ray: str | Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        integer("workers", self.workers, 1, MOST_WORKERS)
        if self.ray is None:
            return
        given = self.ray if isinstance(self.ray, Mapping) else {"address": self.ray}
        for key in given:
            if key not in OF_RAY:
                raise UserError(
                    f"`ray` has no place for `{key}`{nearest(str(key), OF_RAY)}; it takes {', '.join(OF_RAY)}"
                )
        whole = {**OF_RAY, **given}
        if not isinstance(whole["address"], str) or not whole["address"]:
            raise UserError(
                f"`ray` must be `{LOCAL}` or the address of a cluster, such as 10.0.0.1:6379, found {brief(whole['address'])}"
            )
        integer("ray.cpus", whole["cpus"], 1)
        between("ray.gpus", whole["gpus"], 0, 64)
        object.__setattr__(self, "ray", whole)

    def open(self) -> Processes | RayTasks:
        """Begin them: something that trains and waits, in a `with` statement."""
        if self.ray is None:
            return Processes(self.workers)
        assert isinstance(self.ray, Mapping)
        return RayTasks(workers=self.workers, **self.ray)


@dataclass(frozen=True)
class Outcome:
    """How a training ended.

    Attributes
    ----------
    training
        Which.
    run_id
        Of its run, where it has finished.
    error
        Why it has not.
    """

    training: Training
    run_id: str = ""
    error: Exception | None = None


def train_all(
    trainings: Iterable[Training],
    places: Places,
    tracking_uri: str,
    on_outcome: Callable[[Outcome], None],
    *,
    go_on: bool = False,
) -> None:
    """Train, as many side by side as there are places, and tell how each ended.

    An interruption (Ctrl-C, SIGTERM) ends all that are under way, and their runs as KILLED.

    Parameters
    ----------
    trainings
        What is to be trained. The next is taken when there is a place for it, and after `on_outcome` has heard of those that
        ended before: a generator may decide what comes next by what it has heard.
    places
        Where.
    tracking_uri
        Of MLflow.
    on_outcome
        Called in this thread with each outcome as it comes.
    go_on
        Whether others begin after one has failed, whose outcome then says why. Otherwise those that are under way end, none
        begins, and the first error is raised; others are logged.

    Raises
    ------
    UserError
        If the process of a training was killed, and `go_on` is false. Otherwise what the training raised.
    """
    settings = qlib_settings(tracking_uri)
    left, failed = iter(trainings), None
    with places.open() as place, ThreadPoolExecutor(places.workers) as threads:
        waiting: dict[Any, Training] = {}
        try:
            while True:
                room = places.workers - len(waiting) if failed is None else 0
                for training in islice(left, room):
                    waiting[threads.submit(place.train, training, settings)] = training
                if not waiting:
                    break
                done, _ = wait(waiting, return_when=FIRST_COMPLETED)
                for future in done:
                    outcome = _outcome(future, waiting.pop(future))
                    if outcome.error is None or go_on:
                        on_outcome(outcome)
                    elif failed is None:
                        failed = outcome.error
                    else:
                        logger.warning(
                            "%s failed too: %s", outcome.training.called, masked(str(outcome.error))
                        )
        except (
            Exception
        ):  # of `on_outcome`: what is under way ends by itself, and MLflow has it; only interruptions stop it
            raise
        except BaseException:
            place.stop()
            raise
    if failed is not None:
        raise failed


def _outcome(future: Any, training: Training) -> Outcome:
    try:
        return Outcome(training, future.result())
    except Exception as error:  # noqa: BLE001 - it is told, or raised when the others have ended
        return Outcome(training, error=error)
