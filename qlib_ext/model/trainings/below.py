"""Trainings as runs below the one under way: folds of a walk-forward, members of an ensemble; or taken from earlier runs."""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from mlflow.exceptions import MlflowException

import qlib_ext
from qlib_ext.checks import duration
from qlib_ext.model.trainings.side_by_side import Outcome, Places, train_all
from qlib_ext.model.trainings.training import Training
from qlib_ext.tracking import git
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.runs import PARENT

logger = logging.getLogger(__name__)

PREDICTIONS = "signal/predictions.parquet"
# Where a training leaves things, how it is taken up again and where it goes: none of it decides a number.
NOT_IDENTITY = ("checkpoint_dir", "resume", "cache", "record", "workers", "ray")


class RunsBelow:
    """Makes and finds runs below another one.

    Parameters
    ----------
    recorder
        Of the run under way.
    kind
        What the runs below are: `fold`, `member`. It is the name of their tag, and part of their names.
    fingerprint
        Of the store that they read.
    """

    def __init__(self, recorder: Any, kind: str, fingerprint: str) -> None:
        self.recorder = recorder
        self.kind = kind
        self.fingerprint = fingerprint
        self.identity = f"{kind}_identity"  # the tag by which a run is found again
        run = recorder.client.get_run(recorder.id)
        self._experiment = recorder.client.get_experiment(run.info.experiment_id)
        self._name = run.info.run_name

    def training(self, number: int, of: int, task: Mapping[str, Any]) -> Training:
        """The training of the run `number` of so many."""
        place = f"{number} of {of}"
        return Training(
            f"{self.kind} {place}",
            task,
            self._experiment.name,
            f"{self._name} {self.kind} {number}",
            {PARENT: self.recorder.id, self.kind: place, self.identity: identity(task, self.fingerprint)},
        )

    def trained(
        self, trainings: Sequence[Training], places: Places, *, resume: bool
    ) -> list[tuple[str, bool]]:
        """The run of each training, and whether it was trained now; with `resume`, one that an earlier run has is taken.

        Raises
        ------
        UserError
            If one fails.
        """
        taken = self._taken(trainings) if resume else {}
        missing = [each for each in trainings if each.called not in taken]
        found = {called: (run_id, False) for called, run_id in taken.items()}

        begun, ended = time.monotonic(), 0

        def told(outcome: Outcome) -> None:
            nonlocal ended
            ended += 1
            rest = left(time.monotonic() - begun, ended, len(missing), places.workers)
            logger.info("%s: trained as the run %s%s", outcome.training.called, outcome.run_id, rest)
            found[outcome.training.called] = outcome.run_id, True

        if missing:
            fitting = Places(min(places.workers, len(missing)), places.ray)
            train_all(missing, fitting, self.recorder.uri, told)
        self._compare_data({called: run_id for called, (run_id, _) in found.items()})
        return [found[each.called] for each in trainings]

    def table(self, run_id: str, path: str) -> pd.DataFrame:
        """A table that a run below keeps."""
        with tempfile.TemporaryDirectory() as folder:
            return RunArtifacts.download(self.recorder.client, run_id, [path], Path(folder)).table(path)

    def _taken(self, trainings: Sequence[Training]) -> dict[str, str]:
        """What it is called -> its run, of those that an earlier run has."""
        commit, found = git.commit(), {}
        for training in trainings:
            run = self._finished(training)
            if run is None:
                continue
            logger.info("%s: taken from the run %s", training.called, run.info.run_id)
            if (trained_by := run.data.tags.get("git_commit")) != commit:
                logger.warning(
                    "%s was trained by the code of the commit %s, and this is %s: leave `resume` out where what has changed "
                    "since decides a number",
                    training.called,
                    trained_by,
                    commit,
                )
            self._adopt(run)
            found[training.called] = run.info.run_id
        return found

    def _finished(self, training: Training) -> Run | None:
        """The newest finished run of the same training; None where there is none that keeps its scores."""
        client = self.recorder.client
        found = client.search_runs(
            [self._experiment.experiment_id],
            f"tags.{self.identity} = '{training.tags[self.identity]}' and attributes.status = 'FINISHED'",
            order_by=["attributes.start_time DESC"],
        )
        return next((run for run in found if stored(client, run.info.run_id, [PREDICTIONS])), None)

    def _adopt(self, run: Run) -> None:
        """Put a run below this one, where the one that it was trained below failed, was stopped or is gone.

        One that was killed is RUNNING on MLflow, as one that still trains, and keeps what is below it.
        """
        client = self.recorder.client
        try:
            status = client.get_run(run.data.tags[PARENT]).info.status
        except (KeyError, MlflowException):  # it was deleted for good, or never named
            status = "gone"
        if status not in ("FINISHED", "RUNNING"):
            client.set_tag(run.info.run_id, PARENT, self.recorder.id)

    def _compare_data(self, runs: Mapping[str, str]) -> None:
        """Say which have read other data than those that were there when the first began."""
        client = self.recorder.client
        others = [
            called
            for called, run_id in runs.items()
            if client.get_run(run_id).data.tags.get("data_fingerprint") != self.fingerprint
        ]
        if others:
            logger.warning(
                "the store was changed during the training, and %s read other data than the rest: run the workflow again on a "
                "store that stays as it is",
                ", ".join(others),
            )


def left(passed: float, ended: int, of: int, workers: int = 1) -> str:
    """How long the rest of some trainings takes, by how long those took that have ended; empty where none is left."""
    if ended >= of:
        return ""
    return f"; about {duration(passed / max(ended, min(workers, of)) * (of - ended))} left, by those so far"


def identity(task: Mapping[str, Any], fingerprint: str) -> str:
    """What a training is known by: its task, without what decides no number, its data and the version of the package."""
    known = {"task": _without(task), "fingerprint": fingerprint, "version": qlib_ext.__version__}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _without(task: Any) -> Any:
    """A task without what decides no number."""
    if isinstance(task, Mapping):
        return {key: _without(value) for key, value in task.items() if key not in NOT_IDENTITY}
    return [_without(value) for value in task] if isinstance(task, list) else task
