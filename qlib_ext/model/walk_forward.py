"""A model that is trained again and again through time; each day is scored by the newest that was trained before it."""

from __future__ import annotations

import inspect
import json
import logging
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.config import C
from qlib.data.dataset import Dataset
from qlib.model.base import Model

from qlib_ext.checks import UserError, brief
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.data.fold_datasets import folds_of, of_fold, read_plan
from qlib_ext.data.folds import Fold, newest_only
from qlib_ext.market.store import QlibStore
from qlib_ext.model.trainings.below import PREDICTIONS, RunsBelow
from qlib_ext.model.trainings.side_by_side import Places
from qlib_ext.tracking.active import active_recorder

logger = logging.getLogger(__name__)

RUNS = "folds/runs.json"
FOLD, PLAN = "fold", "walk_forward"  # tags
START_FROM = "start_from"  # of a model that can begin from the weights of a run


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
        self.places = Places(self.plan.workers, self.plan.ray)
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
        below = RunsBelow(recorder, FOLD, store.fingerprint())
        self.runs = [
            {
                "fold": fold.number,
                "run_id": run_id,
                **fold.segments,
                "scores": [f"{day:%Y-%m-%d}" for day in days],
                "due": f"{fold.due:%Y-%m-%d}",
                "trained": trained,
            }
            for fold, days, (run_id, trained) in zip(
                folds, newest_only(folds), self._trained(below, folds), strict=True
            )
        ]
        self._predictions = self._stitched(below)
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

    def _trained(self, below: RunsBelow, folds: tuple[Fold, ...]) -> list[tuple[str, bool]]:
        """The run of each fold, and whether it was trained now."""
        found: list[tuple[str, bool]] = []
        for group in [[fold] for fold in folds] if self.plan.warm_start else [[*folds]]:
            before = found[-1][0] if found else None
            trainings = [below.training(fold.number, len(folds), self.task(fold, before)) for fold in group]
            found += below.trained(trainings, self.places, resume=bool(self.plan.resume))
        return found

    def _stitched(self, below: RunsBelow) -> pd.DataFrame:
        parts = []
        for run in self.runs:
            part = below.table(run["run_id"], PREDICTIONS)
            days = part.index.get_level_values("datetime")
            first, last = (pd.Timestamp(day) for day in run["scores"])
            parts.append(part[(days >= first) & (days <= last)])
            if [*part] != [*parts[0]]:
                raise UserError(
                    f"the folds must predict the same columns, found {brief([*parts[0]])} in the first and {brief([*part])} in "
                    f"fold {run['fold']}: give the tasks their number of `classes`"
                )
        return pd.concat(parts)
