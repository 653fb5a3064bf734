from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml

from qlib_ext.checks import UserError
from qlib_ext.records.signal import SignalRecord


class Predicting:
    """A model that predicts what it is told."""

    def __init__(self, predictions: Any):
        self.predictions = predictions

    def predict(self, dataset: Any) -> Any:
        return self.predictions


def test_it_writes_what_it_names(run: Any, workplace: Any, model: Any, files: Callable[[], set[str]]) -> None:
    record = SignalRecord(recorder=run, model=model, dataset=workplace)
    record.generate()
    assert files() == set(record.list())
    record.check(include_self=True)  # Qlib's own check agrees


def test_predictions_and_labels_share_their_rows(run: Any, workplace: Any, model: Any, read: Any) -> None:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    predictions, labels = read("signal/predictions.parquet"), read("signal/labels.parquet")
    assert predictions.index.equals(labels.index)
    assert predictions.index.names == ["datetime", "instrument"]
    assert predictions.index.is_monotonic_increasing
    assert predictions.columns[0] == "score"
    pd.testing.assert_frame_equal(labels, workplace.labels)
    pd.testing.assert_frame_equal(predictions, model.predict(workplace).sort_index())


def test_a_series_becomes_the_score(run: Any, workplace: Any, read: Any) -> None:
    scores = pd.Series(1.5, index=workplace.rows.swaplevel(), name="anything")
    SignalRecord(recorder=run, model=Predicting(scores), dataset=workplace).generate()
    table = read("signal/predictions.parquet")
    assert [*table.columns] == ["score"]
    assert table.index.names == ["datetime", "instrument"]


def test_origin(run: Any, workplace: Any, model: Any, read: Any) -> None:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    tags = run.list_tags()
    assert tags["data_fingerprint"] == "0123456789abcdef"
    config = yaml.safe_load(Path(run.download_artifact("config.yaml")).read_text())
    assert config == {"model": {"class": "a.Model"}, "dataset": {"kwargs": {"since": "2020-01-01"}}}
    summary = json.loads(Path(run.download_artifact("data/summary.json")).read_text())
    assert summary["instruments"] == 40
    assert json.loads(Path(run.download_artifact("environment.json")).read_text())["pyqlib"]
    coverage = read("data/coverage.parquet")
    assert [*coverage.columns] == ["segment", "members", "scored"]
    assert set(coverage["segment"]) == {"test"}


def test_a_member_without_a_score_is_not_covered(run: Any, workplace: Any, model: Any, read: Any) -> None:
    predictions = model.predict(workplace).copy()
    predictions.iloc[::3] = np.nan
    SignalRecord(recorder=run, model=Predicting(predictions), dataset=workplace).generate()
    coverage = read("data/coverage.parquet")
    scored = predictions["score"].notna().groupby("datetime").sum()
    assert coverage["scored"].tolist() == scored.reindex(coverage.index).tolist()
    assert coverage["scored"].sum() < 0.7 * coverage["members"].sum()


class TestRefuses:
    def test_a_dataset_that_does_not_describe_itself(self, run: Any, model: Any) -> None:
        with pytest.raises(UserError, match=r"`dataset` must have `describe`, as .*; found int"):
            SignalRecord(recorder=run, model=model, dataset=3).generate()

    def test_no_finite_score(self, run: Any, workplace: Any) -> None:
        scores = pd.Series(float("nan"), index=workplace.rows)
        with pytest.raises(UserError, match="predicted no score for the test segment"):
            SignalRecord(recorder=run, model=Predicting(scores), dataset=workplace).generate()

    def test_two_scores_for_one_stock_and_day(self, run: Any, workplace: Any) -> None:
        scores = pd.Series(1.0, index=workplace.rows.append(workplace.rows[:1]))
        with pytest.raises(UserError, match="`predictions` must have one row for each day and stock"):
            SignalRecord(recorder=run, model=Predicting(scores), dataset=workplace).generate()

    def test_rows_without_labels(self, run: Any, workplace: Any) -> None:
        stranger = pd.MultiIndex.from_tuples(
            [(workplace.calendar[-1], "SZ000001")], names=workplace.rows.names
        )
        scores = pd.Series(1.0, index=workplace.rows.append(stranger))
        with pytest.raises(UserError, match="no label rows for 1 of 2401 predictions"):
            SignalRecord(recorder=run, model=Predicting(scores), dataset=workplace).generate()

    def test_another_index(self, run: Any, workplace: Any) -> None:
        with pytest.raises(UserError, match=r"must have an index \(datetime, instrument\)"):
            SignalRecord(recorder=run, model=Predicting(pd.Series([1.0])), dataset=workplace).generate()
