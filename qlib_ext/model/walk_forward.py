"""A model that is trained many times, on other days each; walking forward, the newest that was trained before a day scores it."""

from __future__ import annotations

import json
import logging
import tempfile
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient
from qlib.config import C
from qlib.data.dataset import Dataset
from qlib.model.base import Model

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.data.fold_datasets import folds_of, of_fold, read_plan
from qlib_ext.data.folds import Fold, FoldPlan, newest_only
from qlib_ext.market.store import QlibStore
from qlib_ext.model.trainings.below import PREDICTIONS, RunsBelow, left
from qlib_ext.model.trainings.side_by_side import Places
from qlib_ext.model.trainings.warm_start import START_FROM, can_start
from qlib_ext.tracking.active import active_recorder
from qlib_ext.tracking.artifacts import RunArtifacts

logger = logging.getLogger(__name__)

RUNS = "folds/runs.json"


class FoldedModel(Model, ABC):
    """Many models of one configuration, each trained on other days, as runs of their own below the one under way.

    Parameters
    ----------
    model
        `{class, kwargs}` of any Qlib model.
    dataset
        `{class, kwargs}` of a `DailyPanelDataset` whose segments name the plan.
    record
        Records of each training, in Qlib's form; one of them must be `SignalRecord`.

    Attributes
    ----------
    runs : list of dict
        Of each training, after `fit`: its number under what a training is called (`word`), `run_id`, `train`, `valid`, `test`
        and `trained` (False where an earlier run had it), and what the plan has beside.

    Raises
    ------
    UserError
        If an argument is of another shape, or one is to begin from another's weights and the model cannot.
    """

    kind_of_plan: type[Any]  # of `Plan`
    word: str  # what one training is called
    kept: str  # the artifact that says of the trainings what `runs` does

    _predictions: pd.DataFrame | None = None  # of the class too: Qlib's pickles drop it from an object

    def __init__(self, model: Mapping[str, Any], dataset: Mapping[str, Any], record: Sequence[Any] = ()):
        self.model = in_one_form(model, "task.model")
        self.dataset = in_one_form(dataset, "task.dataset")
        self.plan = read_plan(self.dataset, self.kind_of_plan)
        self.places = Places(self.plan.workers, self.plan.ray)
        self.record = [in_one_form(each, "record of a fold") for each in record]
        kind = locate(self.model["class"], name="task.model")
        if issubclass(kind, FoldedModel):
            raise UserError(f"a {self.word} cannot be trained many times itself: name its own model")
        if self.plan.warm_start and not can_start(self.model):
            raise UserError(
                f"`walk_forward.warm_start` must be false for {kind.__name__}, which cannot begin from the weights of another "
                "run; MultiTaskModel can, and an Ensemble with such a member"
            )
        self.runs: list[dict[str, Any]] = []

    @abstractmethod
    def folds(self, store: QlibStore) -> tuple[Any, ...]:
        """The trainings on the days of a store, each with its `number` and `segments`."""

    @abstractmethod
    def dataset_of(self, fold: Any) -> dict[str, Any]:
        """The dataset of a training."""

    @abstractmethod
    def described(self, folds: Sequence[Any]) -> list[dict[str, Any]]:
        """What the plan says of each training beside its segments."""

    @abstractmethod
    def stitched(self, client: MlflowClient) -> pd.DataFrame:
        """What the trainings have predicted, each day once, `score` first."""

    def records(self, fold: Any) -> list[dict[str, Any]]:
        """The records of a training."""
        return self.record

    def task(self, fold: Any, start_from: str | None = None) -> dict[str, Any]:
        """The task of a training, an ordinary one; `start_from` is the run whose weights it begins from."""
        kwargs = self.model["kwargs"]
        if start_from is not None:
            kwargs = {**kwargs, START_FROM: start_from}
        return {
            "model": {**self.model, "kwargs": kwargs},
            "dataset": self.dataset_of(fold),
            "record": self.records(fold),
        }

    def classifications(self) -> dict[str, bool]:
        """Task -> whether it predicts a class, of a model that has tasks."""
        kind = locate(self.model["class"], name="task.model")
        if not hasattr(kind, "classifications"):
            return {}
        return build(self.model, Model, name="task.model").classifications()

    def fit(self, dataset: Dataset, reweighter: Any = None) -> None:
        """Train each as a run below the one under way, or take it from a run that has it; read what they score.

        Raises
        ------
        UserError
            If no run is under way, or a training fails.
        """
        recorder = active_recorder()
        if recorder is None:
            raise UserError(
                f"{self.word}s are runs below another one, found none under way: run the workflow by `qrun`"
            )
        store = QlibStore(C.dpm.get_data_uri("day"))
        folds = self.folds(store)
        logger.info("training %d %ss: %s", len(folds), self.word, self.plan)
        recorder.set_tags(**{self.plan.name: str(self.plan)})
        below = RunsBelow(recorder, self.word, store.fingerprint())
        self.runs = [
            {self.word: fold.number, "run_id": run_id, **fold.segments, **more, "trained": trained}
            for fold, more, (run_id, trained) in zip(
                folds, self.described(folds), self._trained(below, folds), strict=True
            )
        ]
        self._predictions = self.stitched(recorder.client)
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / Path(self.kept).name
            path.write_text(json.dumps(self.runs, indent=2) + "\n", encoding="utf-8")
            recorder.log_artifact(str(path), str(Path(self.kept).parent))

    def predict(self, dataset: Dataset, segment: str = "test") -> pd.DataFrame:
        """What was predicted of the days of a segment, `score` first."""
        if self._predictions is None:
            raise RuntimeError(f"no {self.word} was trained yet: call `fit` first")
        first, last = (pd.Timestamp(day) for day in dataset.segments[segment])
        days = self._predictions.index.get_level_values("datetime")
        return self._predictions[(days >= first) & (days <= last)]

    def _trained(self, below: RunsBelow, folds: Sequence[Any]) -> list[tuple[str, bool]]:
        """The run of each training, and whether it was trained now."""
        found: list[tuple[str, bool]] = []
        begun = time.monotonic()
        for group in [[fold] for fold in folds] if self.plan.warm_start else [[*folds]]:
            before = found[-1][0] if found else None
            trainings = [below.training(fold.number, len(folds), self.task(fold, before)) for fold in group]
            found += below.trained(trainings, self.places, resume=bool(self.plan.resume))
            now = sum(trained for _, trained in found)
            if self.plan.warm_start and now:
                of = now + len(folds) - len(found)  # those that an earlier run had took no time
                rest = left(time.monotonic() - begun, now, of)
                logger.info("%d of %d %ss are there%s", len(found), len(folds), self.word, rest)
        return found


class WalkForward(FoldedModel):
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

    kind_of_plan = FoldPlan
    word, kept = "fold", RUNS
    makes = (RUNS,)

    def folds(self, store: QlibStore) -> tuple[Fold, ...]:
        """The folds on the days of a store."""
        return folds_of(self.dataset, store)

    def dataset_of(self, fold: Fold) -> dict[str, Any]:
        """The dataset of a fold."""
        return of_fold(self.dataset, fold)

    def described(self, folds: Sequence[Fold]) -> list[dict[str, Any]]:
        """Of which days the scores of each fold count, and from when on the next one is due."""
        return [
            {"scores": [f"{day:%Y-%m-%d}" for day in days], "due": f"{fold.due:%Y-%m-%d}"}
            for fold, days in zip(folds, newest_only(tuple(folds)), strict=True)
        ]

    def stitched(self, client: MlflowClient) -> pd.DataFrame:
        """What the folds have predicted; the newest fold's word of a day counts."""
        parts = [
            (str(run["fold"]), on_days(predictions(client, run["run_id"]), run["scores"]))
            for run in self.runs
        ]
        return joined(parts, self.word)


def predictions(client: MlflowClient, run_id: str) -> pd.DataFrame:
    """What a training has predicted."""
    with tempfile.TemporaryDirectory() as folder:
        return RunArtifacts.download(client, run_id, [PREDICTIONS], Path(folder)).table(PREDICTIONS)


def on_days(predicted: pd.DataFrame, bounds: Sequence[str]) -> pd.DataFrame:
    """What was predicted from a first day to a last."""
    days = predicted.index.get_level_values("datetime")
    first, last = (pd.Timestamp(day) for day in bounds)
    return predicted[(days >= first) & (days <= last)]


def joined(parts: Sequence[tuple[str, pd.DataFrame]], word: str) -> pd.DataFrame:
    """Predictions of trainings, by their names, below each other.

    Raises
    ------
    UserError
        If they have not the same columns.
    """
    columns = [*parts[0][1]]
    for name, part in parts:
        if [*part] != columns:
            raise UserError(
                f"the {word}s must predict the same columns, found {brief(columns)} in the first and {brief([*part])} in "
                f"{word} {name}: give the tasks their number of `classes`"
            )
    return pd.concat([part for _, part in parts])
