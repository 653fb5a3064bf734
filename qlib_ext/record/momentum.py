"""How well the momentum classes are told, beside rules that need no model."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, instance
from qlib_ext.metrics.classification import (
    accuracy,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    pooled_accuracy,
)
from qlib_ext.record.base import Record, matrices
from qlib_ext.record.ranking import require_column


class MomentumRecord(Record):
    """Accuracy of a classification task beside persistence and majority.

    The predicted class of a stock and day is the most probable one, of equals the lowest. Rows count that have a
    prediction, a label and a persistence class, so that all are judged on the same rows. The majority class is
    the most common one of these rows, known in hindsight and so a little too good a rule.

    Writes `momentum/daily.parquet`, by day: `accuracy`, `persistence_accuracy`, `majority_accuracy`, `n_stocks`;
    `momentum/confusion.csv` (a row an actual class, a column a predicted one) and `momentum/summary.csv`. Logs
    `momentum/accuracy`, `momentum/persistence_accuracy`, `momentum/majority_accuracy` and `momentum/macro_f1`,
    over all rows together.

    Parameters
    ----------
    recorder
        Given by Qlib.
    task
        Name of the task; its probabilities are the columns `<task>_0`, `<task>_1`, ... of the predictions.
    label
        Column of the actual class, 0 to C - 1.
    persistence
        Column of the class that follows if the last known sign persists.

    Raises
    ------
    UserError
        If the predictions or labels lack a column.
    """

    needs = ("signal/predictions.parquet", "signal/labels.parquet")
    makes = ("momentum/daily.parquet", "momentum/confusion.csv", "momentum/summary.csv")

    def __init__(
        self,
        recorder: Any,
        task: str = "momentum",
        label: str = "MOMENTUM",
        persistence: str = "MOMENTUM_PERSISTENCE",
    ):
        super().__init__(recorder)
        self.task = instance("task", task, str)
        self.label = instance("label", label, str)
        self.persistence = instance("persistence", persistence, str)

    def _generate(self) -> None:
        predictions = self.load_table("signal/predictions.parquet")
        labels = self.load_table("signal/labels.parquet")
        require_column("label", self.label, labels)
        require_column("persistence", self.persistence, labels)
        predicted, classes = self._predicted(predictions)
        days, _, columns = matrices(
            predictions.index, predicted, labels[self.label], labels[self.persistence]
        )
        missing = np.isnan(columns).any(axis=0)
        guess, actual, persistence = (np.where(missing, np.nan, column) for column in columns)
        majority = np.where(missing, np.nan, _most_common(actual))

        daily = pd.DataFrame(
            {
                "accuracy": accuracy(actual, guess),
                "persistence_accuracy": accuracy(actual, persistence),
                "majority_accuracy": majority_accuracy(actual),
                "n_stocks": (~missing).sum(axis=1),
            },
            index=days,
        )
        rules = {"model": guess, "persistence": persistence, "majority": majority}
        confusions = {name: confusion_matrix(actual, rule, classes) for name, rule in rules.items()}
        summary = pd.DataFrame(
            {
                name: {
                    "accuracy": pooled_accuracy(counts),
                    "macro_f1": macro_f1(counts),
                    "rows": counts.sum(),
                }
                for name, counts in confusions.items()
            }
        ).T.rename_axis(index="rule")
        confusion = pd.DataFrame(
            confusions["model"],
            index=pd.RangeIndex(classes, name="actual"),
            columns=[f"predicted_{k}" for k in range(classes)],
        )
        self.save_table("momentum/daily.parquet", daily)
        self.save_csv("momentum/confusion.csv", confusion)
        self.save_csv("momentum/summary.csv", summary)
        self.log_metrics(
            {
                "momentum/accuracy": summary.loc["model", "accuracy"],
                "momentum/persistence_accuracy": summary.loc["persistence", "accuracy"],
                "momentum/majority_accuracy": summary.loc["majority", "accuracy"],
                "momentum/macro_f1": summary.loc["model", "macro_f1"],
            }
        )

    def _predicted(self, predictions: pd.DataFrame) -> tuple[pd.Series, int]:
        """The most probable class of each row, NaN without probabilities; and the number of classes C."""
        columns: list[str] = []
        while f"{self.task}_{len(columns)}" in predictions:
            columns.append(f"{self.task}_{len(columns)}")
        if len(columns) < 2:
            raise UserError(
                f"`task` must name a classification task of the model: expected the columns {self.task}_0, "
                f"{self.task}_1, ... among the predictions, found {[*predictions.columns]}"
            )
        probabilities = predictions[columns].to_numpy()
        best = probabilities.argmax(axis=1).astype(float)
        best[np.isnan(probabilities).any(axis=1)] = np.nan
        return pd.Series(best, index=predictions.index), len(columns)


def _most_common(classes: np.ndarray) -> float:
    found, counts = np.unique(classes[~np.isnan(classes)], return_counts=True)
    return float(found[counts.argmax()]) if len(found) else float("nan")
