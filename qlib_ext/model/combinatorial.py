"""A model that is cross-validated: trained once for each choice of folds, on the others, before and after them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from qlib_ext.config.build import locate
from qlib_ext.data.combinatorial import CombinatorialPlan, Split, as_texts
from qlib_ext.data.fold_datasets import of_split, splits_of
from qlib_ext.market.store import QlibStore
from qlib_ext.model.walk_forward import FoldedModel, joined, on_days, predictions

SPLITS = "splits/runs.json"


class CrossValidated(FoldedModel):
    """One model a split, each trained on the days of all folds but those that it scores.

    Every split is a run of its own on MLflow, below the one under way. Most learn of days after those that they score: that
    says how good a method is over many histories, and nobody could have traded it. The scores make several paths
    (`qlib_ext.data.combinatorial.CombinatorialPlan`); what this model predicts is the first of them, named before anything was
    seen, on which each day is scored by one model as on every other.

    Parameters
    ----------
    model
        `{class, kwargs}` of any Qlib model.
    dataset
        `{class, kwargs}` of a `DailyPanelDataset` with `segments: {combinatorial: {...}}`.
    record
        Records of each split, in Qlib's form; one of them must be `SignalRecord`. Those that are for a training in the order
        of time alone (`in_order`) run in the last split.

    Attributes
    ----------
    runs : list of dict
        `split`, `run_id`, `train`, `valid`, `test` (stretches of days), `folds` (those that it scores), `scores` (first and
        last day of each), `paths` (the path that each is a part of), `in_order` (whether its training comes before all that it
        scores) and `trained` (False where an earlier run had it) of each split, after `fit`.

    Raises
    ------
    UserError
        If an argument is of another shape.

    Notes
    -----
    `workflow.walk_forward.walked` makes it of a task whose dataset says so, so a workflow need not name it.
    """

    kind_of_plan = CombinatorialPlan
    word, kept = "split", SPLITS
    makes = (SPLITS,)

    def folds(self, store: QlibStore) -> tuple[Split, ...]:
        """The splits on the days of a store."""
        return splits_of(self.dataset, store)

    def dataset_of(self, fold: Split) -> dict[str, Any]:
        """The dataset of a split."""
        return of_split(self.dataset, fold)

    def records(self, fold: Split) -> list[dict[str, Any]]:
        """The records of a split, some in the last alone."""
        return [each for each in self.record if fold.in_order or not _wants_order(each)]

    def described(self, folds: Sequence[Split]) -> list[dict[str, Any]]:
        """The folds that each split scores, their days, and their paths."""
        return [
            {
                "folds": [*split.folds],
                "scores": as_texts(split.scores),
                "paths": [*split.paths],
                "in_order": split.in_order,
            }
            for split in folds
        ]

    def stitched(self, client: MlflowClient) -> pd.DataFrame:
        """What is predicted on the first path."""
        return paths(client, self.runs, last=1)[0]


def paths(
    client: MlflowClient, runs: Sequence[Mapping[str, Any]], last: int | None = None
) -> list[pd.DataFrame]:
    """What splits have predicted on each path, in the order of time.

    Parameters
    ----------
    client
        Of the MLflow store that has the runs.
    runs
        As `CrossValidated.runs` has them.
    last
        The last path that is wanted; by default all.
    """
    parts: dict[int, dict[int, tuple[str, pd.DataFrame]]] = {}
    for run in runs:
        wanted = [k for k, path in enumerate(run["paths"]) if last is None or path <= last]
        if not wanted:
            continue
        predicted = predictions(client, run["run_id"])
        for k in wanted:
            part = str(run["split"]), on_days(predicted, run["scores"][k])
            parts.setdefault(run["paths"][k], {})[run["folds"][k]] = part
    return [joined([parts[path][fold] for fold in sorted(parts[path])], "split") for path in sorted(parts)]


def _wants_order(record: Mapping[str, Any]) -> bool:
    return getattr(locate(str(record["class"]), name="record"), "in_order", False)
