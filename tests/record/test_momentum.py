from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, confusion_matrix, f1_score

from qlib_ext.checks import UserError
from qlib_ext.record.momentum import MomentumRecord
from qlib_ext.record.signal import SignalRecord


@pytest.fixture
def scored(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    return run


def test_it_writes_what_it_names(scored: Any, files: Any) -> None:
    before = files()
    record = MomentumRecord(recorder=scored)
    record.generate()
    assert files() - before == set(record.list())


def test_against_scikit_learn(scored: Any, workplace: Any, model: Any, read: Any) -> None:
    MomentumRecord(recorder=scored).generate()
    table = model.predict(workplace).join(workplace.labels).dropna(subset=["MOMENTUM"])
    actual = table["MOMENTUM"].astype(int)
    guess = table[[f"momentum_{k}" for k in range(5)]].to_numpy().argmax(axis=1)
    metrics = scored.list_metrics()
    assert metrics["momentum/accuracy"] == pytest.approx(accuracy_score(actual, guess))
    assert metrics["momentum/macro_f1"] == pytest.approx(f1_score(actual, guess, average="macro"))
    persistence = table["MOMENTUM_PERSISTENCE"].astype(int)
    assert metrics["momentum/persistence_accuracy"] == pytest.approx(accuracy_score(actual, persistence))
    assert metrics["momentum/majority_accuracy"] == pytest.approx(actual.value_counts(normalize=True).max())
    np.testing.assert_array_equal(read("momentum/confusion.csv"), confusion_matrix(actual, guess))
    daily = read("momentum/daily.parquet")
    by_day = (actual == guess).groupby("datetime").mean()
    np.testing.assert_allclose(daily["accuracy"].dropna(), by_day)
    assert daily["n_stocks"].sum() == len(table)
    assert (
        read("momentum/summary.csv").loc["persistence", "accuracy"]
        == metrics["momentum/persistence_accuracy"]
    )


def test_a_model_without_the_task_is_told_so(scored: Any) -> None:
    with pytest.raises(UserError, match=r"expected the columns trend_0, trend_1, ... among .*'momentum_0'"):
        MomentumRecord(recorder=scored, task="trend").generate()


def test_an_unknown_label_is_named(scored: Any) -> None:
    with pytest.raises(UserError, match="`persistence` names `LAST`"):
        MomentumRecord(recorder=scored, persistence="LAST").generate()
