"""The scores of the test segment, with what they were made from."""

from __future__ import annotations

import importlib.metadata
import inspect
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
import yaml
from qlib.config import C
from qlib.data.dataset.handler import DataHandlerLP
from safetensors.numpy import save

import qlib_ext
from qlib_ext.checks import UserError
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.model.ensemble.ensemble import Ensemble
from qlib_ext.model.ensemble.member_scores import VALIDATION
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.model.plain_weights import PLAIN, WINDOWS, weights_of
from qlib_ext.records.base import Record

# Bottleneck: pandas takes its sums where it is installed, whose last digits are others.
PACKAGES = ("pyqlib", "torch", "numpy", "pandas", "Bottleneck", "scipy", "lightgbm", "mlflow")
INDEX = ["datetime", "instrument"]


class SignalRecord(Record):
    """Predict the test segment and keep the predictions, their raw labels and the origin of both.

    Writes `signal/predictions.parquet` (first column `score`, then what else the model predicts),
    `signal/labels.parquet` (raw labels, on the same rows), `data/summary.json` (the dataset's description),
    `data/coverage.parquet` (members and scored stocks of each day, with its segment), `config.yaml` (the task)
    and `environment.json` (versions). Of a LightGBM or linear model, which Qlib keeps as a pickle only, it writes
    `model/booster.txt` (LightGBM's own text) or `model/linear.safetensors` (coefficients), and `model/windows.safetensors` (the
    statistics of the features), so that the model can score later days. Where the dataset has a validation segment, it writes `signal/validation.parquet`: the
    model's scores of it beside the raw labels, by which an ensemble weights its members. Sets the tags `data_fingerprint`, `region` and `store` (where the data lay).

    Parameters
    ----------
    recorder, model, dataset
        As Qlib gives them; the dataset has `describe()` and `coverage(segment)` beside Qlib's `prepare`.

    Raises
    ------
    UserError
        If the dataset does not describe itself, or the predictions are empty, have no finite score, come twice
        for a stock and day, or are on rows that the dataset has no labels for.
    """

    makes = (
        "signal/predictions.parquet",
        "signal/labels.parquet",
        "data/summary.json",
        "data/coverage.parquet",
        "config.yaml",
        "environment.json",
    )
    may_make = (*PLAIN, WINDOWS, VALIDATION)

    asks = ("describe", "coverage")

    def __init__(self, recorder: Any, model: Any, dataset: Any):
        super().__init__(recorder)
        self.model = model
        self.dataset = dataset

    def check_before(self, spec: DatasetSpec) -> None:
        """There must be days to predict."""
        spec.require_segment("test", "SignalRecord")

    def _generate(self) -> None:
        for method in (*self.asks, "prepare"):
            if not callable(getattr(self.dataset, method, None)):
                raise UserError(
                    f"`dataset` must have `{method}`, as qlib_ext.data.dataset.DailyPanelDataset has; "
                    f"found {type(self.dataset).__name__}"
                )
        predictions = self._predictions()
        summary = self.dataset.describe()
        if isinstance(self.model, GivenScores):
            summary["notes"] = [*summary["notes"], *self.model.notes]
        self.save_table("signal/predictions.parquet", predictions)
        self.save_table("signal/labels.parquet", self._labels(predictions.index))
        self.save_json("data/summary.json", summary)
        self.save_table("data/coverage.parquet", self._coverage(summary["segments"], predictions))
        self._save_validation(summary["segments"])
        task = self.recorder.load_object("task")
        self.save_text("config.yaml", yaml.safe_dump(_plain(task), sort_keys=False, allow_unicode=True))
        self.save_json("environment.json", versions())
        self._save_weights()
        tags = {
            "data_fingerprint": str(summary["fingerprint"]),
            "region": str(C["region"]),
            "store": str(Path(C.dpm.get_data_uri("day")).expanduser().absolute()),
        }
        self.log_tags(tags)

    def _predictions(self) -> pd.DataFrame:
        frame = as_predictions(self.model.predict(self.dataset))
        if frame.empty or not frame["score"].notna().any():
            raise UserError(
                f"{type(self.model).__name__} predicted no score for the test segment: expected at least one "
                f"finite score, found {len(frame)} rows. Check `dataset.kwargs.segments.test` against the store"
            )
        return frame

    def _save_validation(self, segments: Mapping[str, Any]) -> None:
        """Keep what the model says of the segment that it was chosen by; of given scores there is none."""
        if "valid" not in segments or isinstance(self.model, GivenScores):
            return
        if "segment" not in inspect.signature(self.model.predict).parameters:
            return  # a model that knows the test segment alone
        if isinstance(self.model, Ensemble) and not (self.model.scores and self.model.scores.validation):
            return  # of which a member is one
        scores = as_predictions(self.model.predict(self.dataset, "valid"))["score"]
        self.save_table(VALIDATION, pd.concat([scores, self._labels(scores.index, "valid")], axis=1))

    def _save_weights(self) -> None:
        """Keep what one of Qlib's own models learned, without a pickle."""
        learned = weights_of(self.model)
        if not learned or getattr(getattr(self.dataset, "handler", None), "features", None) is None:
            return
        for path, content in learned.items():
            self.save_bytes(path, content)
        fitted = {name: np.ascontiguousarray(values) for name, values in self.dataset.statistics().items()}
        self.save_bytes(WINDOWS, save(fitted))

    def _labels(self, rows: pd.MultiIndex, segment: str = "test") -> pd.DataFrame:
        labels = self.dataset.prepare(segment, col_set="label", data_key=DataHandlerLP.DK_R)
        labels = _on_days_and_stocks("labels", labels)
        without = rows.difference(labels.index)
        if len(without):
            raise UserError(
                f"the dataset has no label rows for {len(without)} of {len(rows)} predictions, the first is "
                f"{without[0]}: labels and predictions must come from the same dataset"
            )
        return labels.reindex(rows)

    def _coverage(self, segments: Mapping[str, Any], predictions: pd.DataFrame) -> pd.DataFrame:
        """Of each segment what could be scored, and of the days that were predicted what was."""
        parts = {name: self.dataset.coverage(name) for name in segments}
        given = predictions["score"].notna().groupby("datetime").sum()
        scored = parts["test"]["scored"]
        parts["test"]["scored"] = given.reindex(scored.index, fill_value=0).astype(scored.dtype)
        covered = pd.concat(parts, names=["segment"]).reset_index("segment")
        return covered.rename_axis(index="datetime")


def as_predictions(predicted: pd.Series | pd.DataFrame) -> pd.DataFrame:
    """What a model predicts as the run keeps it: `score` first, sorted by (datetime, instrument), each row once."""
    frame = predicted.to_frame() if isinstance(predicted, pd.Series) else predicted.copy()
    frame.columns = ["score", *map(str, frame.columns[1:])]
    return _on_days_and_stocks("predictions", frame)


def versions() -> dict[str, str]:
    """Versions of the interpreter, the system, the package and what it computes with; and on what, which decides last digits."""
    found = {
        "Python": platform.python_version(),
        "System": platform.platform(),
        "Processor": f"{platform.machine()} {torch.backends.cpu.get_cpu_capability()}",
        "Threads": str(torch.get_num_threads()),
        "qlib_ext": qlib_ext.__version__,
    }
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"
    return found


def _on_days_and_stocks(name: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Sort the rows by (datetime, instrument), in this order, whatever the order of the levels was."""
    if not isinstance(frame.index, pd.MultiIndex) or set(frame.index.names) != set(INDEX):
        raise UserError(
            f"`{name}` must have an index (datetime, instrument), found {list(frame.index.names)}"
        )
    frame = frame.reorder_levels(INDEX).sort_index()
    twice = frame.index[frame.index.duplicated()]
    if len(twice):
        raise UserError(f"`{name}` must have one row for each day and stock, found {twice[0]} more than once")
    return frame


def _plain(content: Any) -> Any:
    """The configuration in YAML's own types."""
    if isinstance(content, Mapping):
        return {str(key): _plain(value) for key, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [_plain(value) for value in content]
    if content is None or isinstance(content, (bool, int, float, str)):
        return content
    return str(content)
