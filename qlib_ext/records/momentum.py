"""How well the momentum classes are told, beside rules that need no model."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, between, brief, instance, integer
from qlib_ext.data.processors import momentum_line, rise_or_fall
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.calibration import (
    Reliability,
    brier_score,
    expected_calibration_error,
    log_loss,
    reliability,
)
from qlib_ext.metrics.classification import (
    Counts,
    accuracy,
    class_scores,
    cohen_kappa,
    confusion_matrix,
    macro_f1,
    majority_accuracy,
    matthews_correlation,
    pooled_accuracy,
)
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.ndcg import adaptive_k, ndcg_at, ndcg_by_chance
from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.records.base import Record
from qlib_ext.records.columns import matrices, probability_columns, require_column
from qlib_ext.records.estimates import estimated

PREDICTED_CLASS = "predicted class"


class MomentumRecord(Record):
    """Accuracy of a classification task beside persistence and majority, and whether its probabilities hold.

    The predicted class of a stock and day is the most probable one, of equals the lowest. Rows count that have a
    prediction, a label and a persistence class, so that all are judged on the same rows. The majority class is
    the most common one of these rows, known in hindsight and so a little too good a rule. Intervals are of 95%, by the
    stationary bootstrap over days.

    Writes under `momentum/`:

    `daily.parquet`
        By day: `accuracy`, `persistence_accuracy`, `majority_accuracy`, `n_stocks`; `actual_<c>` and `predicted_<c>`,
        the shares of class c; `k`, the adaptive k, and `k_share` of the day's stocks; `ndcg` at that k, of the stocks
        in the order of their expected class, and `ndcg_by_chance`.
    `summary.csv`
        By rule (model, persistence, majority): accuracy, macro F1, Cohen's kappa, Matthews correlation, rows;
        `difference`, the mean over days of the model's accuracy less the rule's, with its interval.
    `confusion.csv`
        A row an actual class, a column a predicted one.
    `classes.csv`
        By class: name, stocks in it and predicted to be, precision, recall and F1 of the model, recall of the other
        rules, calibration error of its probability.
    `calibration.csv`
        By class, and `predicted class` for the most probable one: bins of probability, how many predictions each has,
        their mean probability and the share that came true.
    `monthly.csv`
        By month: accuracy of the rules, and shares of the classes, actual and predicted, means over days.
    `scores.json`
        Calibration error, Brier score and log loss, with those of the constant forecast of the test rows' class
        shares, and the settings.
    `estimates.parquet`
        The accuracy, and `momentum/over_persistence`, its lead over persistence as a mean over days, each with its
        interval.

    Logs `momentum/accuracy`, `momentum/persistence_accuracy`, `momentum/majority_accuracy`, `momentum/macro_f1`,
    `momentum/kappa`, `momentum/matthews`, `momentum/calibration_error`, `momentum/brier_score` and
    `momentum/log_loss`, over all rows together, and `momentum/ndcg` as a mean over days.

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
    class_names
        Names of the classes. By default those of the momentum line where there are five classes, of rise or fall where
        there are two, else their numbers.
    share
        Least share of a day's stocks for the adaptive k, in (0, 1]; the loss has 0.2.
    bins
        Bins of probability for the calibration, at least 1.

    Raises
    ------
    UserError
        If an argument is out of its range, the predictions or labels lack a column, or the names are not as many as
        the classes.
    """

    needs = ("signal/predictions.parquet", "signal/labels.parquet")
    makes = (
        "momentum/daily.parquet",
        "momentum/summary.csv",
        "momentum/confusion.csv",
        "momentum/classes.csv",
        "momentum/calibration.csv",
        "momentum/monthly.csv",
        "momentum/scores.json",
        "momentum/estimates.parquet",
    )

    def __init__(
        self,
        recorder: Any,
        task: str = "momentum",
        label: str = "MOMENTUM",
        persistence: str = "MOMENTUM_PERSISTENCE",
        class_names: Sequence[str] | None = None,
        share: float = 0.2,
        bins: int = 10,
    ):
        super().__init__(recorder)
        self.task = instance("task", task, str)
        self.label = instance("label", label, str)
        self.persistence = instance("persistence", persistence, str)
        if isinstance(class_names, str):
            raise UserError(f"`class_names` must be a list of names, found {brief(class_names)}")
        self.class_names = None if class_names is None else [str(name) for name in class_names]
        self.share = between("share", share, 0, 1, open_low=True)
        self.bins = integer("bins", bins, 1)

    def check_before(self, spec: DatasetSpec) -> None:
        """Task and labels, against those of the model and the dataset."""
        spec.require_classification("task", self.task)
        spec.require_raw_label("label", self.label)
        spec.require_raw_label("persistence", self.persistence)

    def _generate(self) -> None:
        predictions = self.load_table("signal/predictions.parquet")
        labels = self.load_table("signal/labels.parquet")
        require_column("label", self.label, labels)
        require_column("persistence", self.persistence, labels)
        columns = probability_columns(self.task, predictions)
        classes = len(columns)
        names = self._names(classes)
        # One row a prediction from here on; what does not count is NaN everywhere.
        probabilities = predictions[columns].to_numpy(dtype=np.float64)
        truth = labels.reindex(predictions.index)
        actual = truth[self.label].to_numpy(dtype=np.float64)
        persistence = truth[self.persistence].to_numpy(dtype=np.float64)
        missing = np.isnan(probabilities).any(axis=1) | np.isnan(actual) | np.isnan(persistence)
        probabilities[missing], actual[missing], persistence[missing] = np.nan, np.nan, np.nan
        guess = np.where(missing, np.nan, np.where(missing[:, None], 0.0, probabilities).argmax(axis=1))
        majority = np.where(missing, np.nan, _most_common(actual))
        rules = {"model": guess, "persistence": persistence, "majority": majority}

        expected = probabilities @ np.arange(classes)
        spread = {"actual": actual, "expected": expected, **rules}
        as_series = [pd.Series(values, index=predictions.index) for values in spread.values()]
        days, _, found = matrices(predictions.index, *as_series)
        by_day = dict(zip(spread, found, strict=True))
        daily = self._daily(days, by_day, classes)
        confusions = {name: confusion_matrix(actual, rule, classes) for name, rule in rules.items()}
        summary = _summary(confusions, daily)
        calibration = self._calibration(probabilities, actual, guess)
        scores = {"calibration_error": _error(calibration, PREDICTED_CLASS)}
        scores |= _scores(probabilities, actual, confusions["model"])
        by_class = _by_class(confusions, names, calibration)
        confusion = pd.DataFrame(
            confusions["model"],
            index=pd.RangeIndex(classes, name="actual"),
            columns=[f"predicted_{k}" for k in range(classes)],
        )
        months = daily.drop(columns=["n_stocks", "k"]).groupby(days.to_period("M")).mean()
        settings = {"task": self.task, "label": self.label, "class_names": names, "share": self.share}

        self.save_table("momentum/daily.parquet", daily)
        self.save_csv("momentum/summary.csv", summary)
        self.save_csv("momentum/confusion.csv", confusion)
        self.save_csv("momentum/classes.csv", by_class)
        self.save_csv("momentum/calibration.csv", calibration)
        self.save_csv("momentum/monthly.csv", months.set_axis(months.index.astype(str)).rename_axis("month"))
        self.save_table("momentum/estimates.parquet", estimates(summary, daily))
        self.save_json("momentum/scores.json", settings | {"rows": int((~missing).sum())} | scores)
        self.log_metrics(
            {
                "momentum/accuracy": summary.loc["model", "accuracy"],
                "momentum/persistence_accuracy": summary.loc["persistence", "accuracy"],
                "momentum/majority_accuracy": summary.loc["majority", "accuracy"],
                "momentum/macro_f1": summary.loc["model", "macro_f1"],
                "momentum/kappa": summary.loc["model", "kappa"],
                "momentum/matthews": summary.loc["model", "matthews"],
                "momentum/calibration_error": scores["calibration_error"],
                "momentum/brier_score": scores["brier_score"],
                "momentum/log_loss": scores["log_loss"],
                "momentum/ndcg": daily["ndcg"].mean(),
            }
        )

    def _daily(self, days: pd.DatetimeIndex, by_day: Mapping[str, Floats], classes: int) -> pd.DataFrame:
        actual = by_day["actual"]
        count = (~np.isnan(actual)).sum(axis=1)
        k = adaptive_k(actual, self.share)
        columns = {
            "accuracy": accuracy(actual, by_day["model"]),
            "persistence_accuracy": accuracy(actual, by_day["persistence"]),
            "majority_accuracy": majority_accuracy(actual),
            "n_stocks": count,
            "k": k,
            "k_share": _share(k, count),
            "ndcg": ndcg_at(by_day["expected"], actual, k),
            "ndcg_by_chance": ndcg_by_chance(actual, k),
        }
        for number in range(classes):
            columns[f"actual_{number}"] = _share((actual == number).sum(axis=1), count)
            columns[f"predicted_{number}"] = _share((by_day["model"] == number).sum(axis=1), count)
        return pd.DataFrame(columns, index=days)

    def _calibration(self, probabilities: Floats, actual: Floats, guess: Floats) -> pd.DataFrame:
        """Bins of the probability of the predicted class, and of each class against all others."""
        unknown = np.isnan(actual)
        hit = np.where(unknown, np.nan, guess == actual)
        found = {PREDICTED_CLASS: reliability(probabilities.max(axis=1), hit, self.bins)}
        for number in range(probabilities.shape[1]):
            outcome = np.where(unknown, np.nan, actual == number)
            found[str(number)] = reliability(probabilities[:, number], outcome, self.bins)
        return pd.concat(
            pd.DataFrame(
                {
                    "class": name,
                    "low": bins.edges[:-1],
                    "high": bins.edges[1:],
                    "predictions": bins.predictions,
                    "predicted": bins.predicted,
                    "observed": bins.observed,
                }
            ).set_index("class")
            for name, bins in found.items()
        )

    def _names(self, classes: int) -> list[str]:
        known = {len(names): names for names in (momentum_line.CLASS_NAMES, rise_or_fall.CLASS_NAMES)}
        names = self.class_names or [*known.get(classes, [f"class {k}" for k in range(classes)])]
        if len(names) != classes:
            raise UserError(
                f"`class_names` must name the {classes} classes of the task `{self.task}`, found {len(names)}: "
                f"{', '.join(names)}"
            )
        return names


def _scores(probabilities: Floats, actual: Floats, confusion: Counts) -> dict[str, float]:
    """How good the probabilities are, beside the forecast of the test rows' own class shares for every stock."""
    total = confusion.sum()
    shares = confusion.sum(axis=1) / total if total else np.full(len(confusion), np.nan)
    constant = np.broadcast_to(shares, probabilities.shape)
    return {
        "brier_score": brier_score(probabilities, actual),
        "log_loss": log_loss(probabilities, actual),
        "constant_brier_score": brier_score(constant, actual),
        "constant_log_loss": log_loss(constant, actual),
    }


def _error(calibration: pd.DataFrame, name: str) -> float:
    """Expected calibration error of the rows of one class."""
    bins = calibration.loc[[name]]
    columns = (bins[x].to_numpy() for x in ("predictions", "predicted", "observed"))
    return expected_calibration_error(Reliability(np.append(bins["low"], 1.0), *columns))


def _summary(confusions: Mapping[str, Counts], daily: pd.DataFrame) -> pd.DataFrame:
    columns = {"model": "accuracy", "persistence": "persistence_accuracy", "majority": "majority_accuracy"}
    rows = {}
    for rule, counts in confusions.items():
        rows[rule] = {
            "accuracy": pooled_accuracy(counts),
            "macro_f1": macro_f1(counts),
            "kappa": cohen_kappa(counts),
            "matthews": matthews_correlation(counts),
            "rows": counts.sum(),
        }
        difference = daily["accuracy"] - daily[columns[rule]]
        if rule != "model":
            low, high = bootstrap_mean(difference)
            rows[rule] |= {
                "difference": difference.mean(),
                "difference_low": low,
                "difference_high": high,
            }
    return pd.DataFrame(rows).T.rename_axis(index="rule")


def estimates(summary: pd.DataFrame, daily: pd.DataFrame) -> pd.DataFrame:
    """The accuracy over all stocks and days, and the lead over persistence of a mean day."""

    def accuracy_of(each: Floats, stocks: Floats) -> list[float]:
        return [float(each @ stocks / stocks.sum())]

    table = daily[daily["n_stocks"] > 0]
    values = {"momentum/accuracy": summary.loc["model", "accuracy"]}
    found = estimated(values, accuracy_of, table["accuracy"], table["n_stocks"])
    lead = summary.loc["persistence", ["difference", "difference_low", "difference_high"]]
    found.loc["momentum/over_persistence"] = lead.to_numpy()
    return found


def _by_class(
    confusions: Mapping[str, Counts], names: Sequence[str], calibration: pd.DataFrame
) -> pd.DataFrame:
    scores = {rule: class_scores(counts) for rule, counts in confusions.items()}
    model = scores["model"]
    table = {
        "name": [*names],
        "actual": model.actual,
        "predicted": model.predicted,
        "precision": model.precision,
        "recall": model.recall,
        "f1": model.f1,
        "persistence_recall": scores["persistence"].recall,
        "majority_recall": scores["majority"].recall,
        "calibration_error": [_error(calibration, str(number)) for number in range(len(names))],
    }
    return pd.DataFrame(table).rename_axis(index="class")


def _share(part: Counts, whole: Counts) -> Floats:
    return np.divide(part, whole, out=np.full(len(whole), np.nan), where=whole > 0)


def _most_common(classes: Floats) -> float:
    found, counts = np.unique(classes[~np.isnan(classes)], return_counts=True)
    return float(found[counts.argmax()]) if len(found) else float("nan")
