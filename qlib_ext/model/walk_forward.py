"""A model that is trained again and again through time; each day is scored by the newest that was trained before it."""

from __future__ import annotations

import hashlib
import inspect
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.entities import Run
from qlib.config import C
from qlib.data.dataset import Dataset
from qlib.model.base import Model

import qlib_ext
from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.data.fold_datasets import folds_of, of_fold, read_plan
from qlib_ext.data.folds import Fold, newest_only
from qlib_ext.market.store import QlibStore
from qlib_ext.model.fold_process import FoldJob, train_all
from qlib_ext.tracking import git
from qlib_ext.tracking.active import active_recorder
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.runs import PARENT

logger = logging.getLogger(__name__)

PREDICTIONS = "signal/predictions.parquet"
RUNS = "folds/runs.json"
FOLD, IDENTITY, PLAN = "fold", "fold_identity", "walk_forward"  # tags
START_FROM = "start_from"  # of a model that can begin from the weights of a run
# Where a fold leaves things and how it is taken up again: none of it decides a number.
NOT_IDENTITY = ("checkpoint_dir", "resume", "cache", "record")


class WalkForward(Model):
    """One model a fold, each trained on the days before those that it scores.

    Every fold is a run of its own on MLflow, below the one under way. Its dataset is fitted on its own days of training, and
    its segments lie as far apart as labels reach ahead (`qlib_ext.data.folds.FoldPlan`). A day is scored by the newest fold
    that scores it.

    Parameters
    ----------
    model
        `{class, kwargs}` of any Qlib model.
    dataset
        `{class, kwargs}` of a `DailyPanelDataset` with `segments: {walk_forward: {...}}`.
    record
        Records of each fold, in Qlib's form; one of them must be `SignalRecord`.

    Attributes
    ----------
    runs : list of dict
        `fold`, `run_id`, `train`, `valid`, `test`, `scores` (the days of which its scores count), `due` (from when the next
        one scores) and `trained` (False where an earlier run had it) of each fold, after `fit`.

    Raises
    ------
    UserError
        If an argument is of another shape, or folds are to begin from each other's weights and the model cannot.

    Notes
    -----
    `workflow.walk_forward.walked` makes it of a task whose dataset walks forward, so a workflow need not name it.
    """

    makes = (RUNS,)

    _predictions: pd.DataFrame | None = None  # of the class too: Qlib's pickles drop it from an object

    def __init__(self, model: Mapping[str, Any], dataset: Mapping[str, Any], record: Sequence[Any] = ()):
        self.model = in_one_form(model, "task.model")
        self.dataset = in_one_form(dataset, "task.dataset")
        self.plan = read_plan(self.dataset)
        self.record = [in_one_form(each, "record of a fold") for each in record]
        kind = locate(self.model["class"], name="task.model")
        if issubclass(kind, WalkForward):
            raise UserError("a fold cannot walk forward itself: name its own model")
        if self.plan.warm_start and START_FROM not in inspect.signature(kind).parameters:
            raise UserError(
                f"`walk_forward.warm_start` must be false for {kind.__name__}, which cannot begin from the weights of another "
                "run; MultiTaskModel can"
            )
        self.runs: list[dict[str, Any]] = []

    def folds(self, store: QlibStore) -> tuple[Fold, ...]:
        """The folds on the days of a store."""
        return folds_of(self.dataset, store)

    def task(self, fold: Fold, start_from: str | None = None) -> dict[str, Any]:
        """The task of a fold, an ordinary one; `start_from` is the run whose weights it begins from."""
        kwargs = self.model["kwargs"]
        if start_from is not None:
            kwargs = {**kwargs, START_FROM: start_from}
        return {
            "model": {**self.model, "kwargs": kwargs},
            "dataset": of_fold(self.dataset, fold),
            "record": self.record,
        }

    def classifications(self) -> dict[str, bool]:
        """Task -> whether it predicts a class, of a model that has tasks."""
        kind = locate(self.model["class"], name="task.model")
        if not hasattr(kind, "classifications"):
            return {}
        return build(self.model, Model, name="task.model").classifications()

    def fit(self, dataset: Dataset, reweighter: Any = None) -> None:
        """Train every fold as a run below the one under way, or take it from a run that has it; read what they score.

        Raises
        ------
        UserError
            If no run is under way, or a fold fails.
        """
        recorder = active_recorder()
        if recorder is None:
            raise UserError(
                "folds are runs below another one, found none under way: run the workflow by `qrun`"
            )
        store = QlibStore(C.dpm.get_data_uri("day"))
        folds = self.folds(store)
        logger.info("walking forward in %d folds: %s", len(folds), self.plan)
        recorder.set_tags(**{PLAN: str(self.plan)})
        fingerprint, found = store.fingerprint(), dict[int, tuple[str, bool]]()
        groups = [[fold] for fold in folds] if self.plan.warm_start else [[*folds]]
        for group in groups:
            before = found[group[0].number - 1][0] if self.plan.warm_start and found else None
            jobs = [self._job(recorder, fold, len(folds), fingerprint, before) for fold in group]
            found |= self._trained(recorder, jobs)
        self.runs = [
            {
                "fold": fold.number,
                "run_id": found[fold.number][0],
                **fold.segments,
                "scores": [f"{day:%Y-%m-%d}" for day in days],
                "due": f"{fold.due:%Y-%m-%d}",
                "trained": found[fold.number][1],
            }
            for fold, days in zip(folds, newest_only(folds), strict=True)
        ]
        self._compare_data(recorder, fingerprint)
        self._predictions = self._stitched(recorder)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(RUNS).name
            path.write_text(json.dumps(self.runs, indent=2) + "\n", encoding="utf-8")
            recorder.log_artifact(str(path), str(Path(RUNS).parent))

    def predict(self, dataset: Dataset, segment: str = "test") -> pd.DataFrame:
        """What the folds have predicted of the days of a segment, `score` first; the newest fold's word of a day counts."""
        if self._predictions is None:
            raise RuntimeError("no fold was trained yet: call `fit` first")
        first, last = (pd.Timestamp(day) for day in dataset.segments[segment])
        days = self._predictions.index.get_level_values("datetime")
        return self._predictions[(days >= first) & (days <= last)]

    def _job(
        self, recorder: Any, fold: Fold, folds: int, fingerprint: str, start_from: str | None
    ) -> FoldJob:
        task = self.task(fold, start_from)
        run = recorder.client.get_run(recorder.id)
        return FoldJob(
            fold.number,
            task,
            recorder.client.get_experiment(run.info.experiment_id).name,
            f"{run.info.run_name} fold {fold.number}",
            {PARENT: recorder.id, FOLD: f"{fold.number} of {folds}", IDENTITY: identity(task, fingerprint)},
        )

    def _trained(self, recorder: Any, jobs: Sequence[FoldJob]) -> dict[int, tuple[str, bool]]:
        """Number of a fold -> its run, and whether it was trained now."""
        found: dict[int, tuple[str, bool]] = {}
        commit = git.commit() if self.plan.resume else None
        for job in jobs if self.plan.resume else ():
            run = _finished(recorder, job)
            if run is not None:
                logger.info("fold %s: taken from the run %s", job.tags[FOLD], run.info.run_id)
                if (trained_by := run.data.tags.get("git_commit")) != commit:
                    logger.warning(
                        "fold %s was trained by the code of the commit %s, and this is %s: leave `resume` out where what has "
                        "changed since decides a number",
                        job.tags[FOLD],
                        trained_by,
                        commit,
                    )
                _adopt(recorder, run)
                found[job.number] = run.info.run_id, False
        missing = [job for job in jobs if job.number not in found]
        for job, run_id in train_all(missing, min(self.plan.workers, max(1, len(missing))), recorder.uri):
            logger.info("fold %s: trained as the run %s", job.tags[FOLD], run_id)
            found[job.number] = run_id, True
        return found

    def _compare_data(self, recorder: Any, fingerprint: str) -> None:
        """Say which folds have read other data than those that were there when the first began."""
        read = {
            run["fold"]: recorder.client.get_run(run["run_id"]).data.tags.get("data_fingerprint")
            for run in self.runs
        }
        others = [str(fold) for fold, found in read.items() if found != fingerprint]
        if others:
            logger.warning(
                "the store was changed while the folds were trained, and folds %s have read other data than the rest: run the "
                "workflow again on a store that stays as it is",
                ", ".join(others),
            )

    def _stitched(self, recorder: Any) -> pd.DataFrame:
        parts = []
        for run in self.runs:
            with tempfile.TemporaryDirectory() as folder:
                kept = RunArtifacts.download(recorder.client, run["run_id"], [PREDICTIONS], Path(folder))
                part = kept.table(PREDICTIONS)
            days = part.index.get_level_values("datetime")
            first, last = (pd.Timestamp(day) for day in run["scores"])
            parts.append(part[(days >= first) & (days <= last)])
            if [*part] != [*parts[0]]:
                raise UserError(
                    f"the folds must predict the same columns, found {brief([*parts[0]])} in the first and {brief([*part])} in "
                    f"fold {run['fold']}: give the tasks their number of `classes`"
                )
        return pd.concat(parts)


def identity(task: Mapping[str, Any], fingerprint: str) -> str:
    """What a fold is known by: its task, without what decides no number, its data and the version of the package."""
    known = {"task": _without(task), "fingerprint": fingerprint, "version": qlib_ext.__version__}
    return hashlib.sha256(json.dumps(known, sort_keys=True, default=str).encode()).hexdigest()[:32]


def _without(task: Any) -> Any:
    """A task without what decides no number."""
    if isinstance(task, Mapping):
        return {key: _without(value) for key, value in task.items() if key not in NOT_IDENTITY}
    return [_without(value) for value in task] if isinstance(task, list) else task


def _finished(recorder: Any, job: FoldJob) -> Run | None:
    """The newest finished run of the same fold; None where there is none that keeps its scores."""
    client = recorder.client
    found = client.search_runs(
        [client.get_run(recorder.id).info.experiment_id],
        f"tags.{IDENTITY} = '{job.tags[IDENTITY]}' and attributes.status = 'FINISHED'",
        order_by=["attributes.start_time DESC"],
    )
    return next((run for run in found if stored(client, run.info.run_id, [PREDICTIONS])), None)


def _adopt(recorder: Any, run: Run) -> None:
    """Put a fold below this run, where the one that it was trained below did not come to its end."""
    client = recorder.client
    if client.get_run(run.data.tags[PARENT]).info.status != "FINISHED":
        client.set_tag(run.info.run_id, PARENT, recorder.id)
