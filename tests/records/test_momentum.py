from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import (
    accuracy_score,
    brier_score_loss,
    cohen_kappa_score,
    confusion_matrix,
    f1_score,
    log_loss,
    matthews_corrcoef,
    ndcg_score,
    precision_recall_fscore_support,
)

from qlib_ext.checks import UserError
from qlib_ext.model.losses.approx_ndcg import adaptive_k
from qlib_ext.records.momentum import MomentumRecord
from qlib_ext.records.signal import SignalRecord


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


@pytest.fixture
def judged(workplace: Any, model: Any) -> pd.DataFrame:
    """The rows that count."""
    return model.predict(workplace).join(workplace.labels).dropna(subset=["MOMENTUM"]).sort_index()


CLASSES = [f"momentum_{k}" for k in range(5)]


def scores(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("momentum/scores.json")).read_text(encoding="utf-8"))


class TestByClass:
    def test_against_scikit_learn(self, scored: Any, judged: pd.DataFrame, read: Any) -> None:
        MomentumRecord(recorder=scored).generate()
        actual, guess = judged["MOMENTUM"], judged[CLASSES].to_numpy().argmax(axis=1)
        found = read("momentum/classes.csv")
        precision, recall, f1, support = precision_recall_fscore_support(actual, guess)
        for name, expected in {"precision": precision, "recall": recall, "f1": f1, "actual": support}.items():
            np.testing.assert_allclose(found[name], expected, atol=1e-10)
        assert [*found["name"]] == ["Sink", "Negative", "Volatile", "Positive", "Bounce"]
        expected = precision_recall_fscore_support(actual, judged["MOMENTUM_PERSISTENCE"])[1]
        np.testing.assert_allclose(found["persistence_recall"], expected, atol=1e-10)
        assert sorted(found["majority_recall"]) == [0, 0, 0, 0, 1]
        summary, metrics = read("momentum/summary.csv"), scored.list_metrics()
        assert summary.loc["model", "kappa"] == pytest.approx(cohen_kappa_score(actual, guess))
        assert metrics["momentum/matthews"] == pytest.approx(matthews_corrcoef(actual, guess))
        assert metrics["momentum/kappa"] == pytest.approx(summary.loc["model", "kappa"])

    def test_the_difference_from_a_rule_has_an_interval(self, scored: Any, read: Any) -> None:
        MomentumRecord(recorder=scored).generate()
        summary, daily = read("momentum/summary.csv"), read("momentum/daily.parquet")
        for rule in ("persistence", "majority"):
            row = summary.loc[rule]
            assert row["difference"] == pytest.approx((daily["accuracy"] - daily[f"{rule}_accuracy"]).mean())
            assert row["difference_low"] < row["difference"] < row["difference_high"]
        assert np.isnan(summary.loc["model", "difference"])

    def test_names(self, scored: Any, read: Any) -> None:
        MomentumRecord(recorder=scored, class_names=list("ABCDE")).generate()
        assert [*read("momentum/classes.csv")["name"]] == list("ABCDE")
        with pytest.raises(
            UserError, match="must name the 5 classes of the task `momentum`, found 2: up, down"
        ):
            MomentumRecord(recorder=scored, class_names=["up", "down"]).generate()
        with pytest.raises(UserError, match="`class_names` must be a list"):
            MomentumRecord(recorder=scored, class_names="ABCDE")


class TestProbabilities:
    def test_against_scikit_learn(self, scored: Any, judged: pd.DataFrame, read: Any) -> None:
        MomentumRecord(recorder=scored).generate()
        p, actual = judged[CLASSES].to_numpy(), judged["MOMENTUM"].to_numpy()
        found, metrics = scores(scored), scored.list_metrics()
        assert found["rows"] == len(judged)
        assert metrics["momentum/log_loss"] == pytest.approx(log_loss(actual, p))
        expected = brier_score_loss(actual, p, scale_by_half=False)
        assert metrics["momentum/brier_score"] == pytest.approx(expected)
        assert found["brier_score"] == pytest.approx(expected)
        shares = np.tile(np.bincount(actual.astype(int)) / len(actual), (len(actual), 1))
        assert found["constant_log_loss"] == pytest.approx(log_loss(actual, shares))
        calibration = read("momentum/calibration.csv")
        for name, y, q in [
            ("predicted class", actual == p.argmax(axis=1), p.max(axis=1)),
            ("3", actual == 3, p[:, 3]),
        ]:
            observed, predicted = calibration_curve(y, q, n_bins=10)
            rows = calibration.loc[name]
            rows = rows[rows["predictions"] > 0]
            np.testing.assert_allclose(rows["predicted"], predicted, atol=1e-10)
            np.testing.assert_allclose(rows["observed"], observed, atol=1e-10)
            gap = (rows["predictions"] * (rows["observed"] - rows["predicted"]).abs()).sum() / len(judged)
            error = (
                found["calibration_error"]
                if name != "3"
                else read("momentum/classes.csv").loc[3, "calibration_error"]
            )
            assert error == pytest.approx(gap)


class TestOverTime:
    def test_k_is_that_of_the_loss(self, scored: Any, judged: pd.DataFrame, read: Any) -> None:
        MomentumRecord(recorder=scored, share=0.3).generate()
        daily = read("momentum/daily.parquet")
        for day, classes in judged["MOMENTUM"].groupby("datetime"):
            expected = adaptive_k(torch.tensor(classes.to_numpy()), 0.3).item()
            assert daily.loc[day, "k"] == expected
            assert daily.loc[day, "k_share"] == pytest.approx(expected / len(classes))
            score = judged.loc[day, CLASSES].to_numpy() @ np.arange(5)
            gain = 2 ** classes.to_numpy() - 1
            assert daily.loc[day, "ndcg"] == pytest.approx(ndcg_score([gain], [score], k=expected), abs=1e-10)
        assert (daily["ndcg"] > daily["ndcg_by_chance"]).mean() > 0.7  # the model knows something

    def test_shares_by_day_and_month(self, scored: Any, judged: pd.DataFrame, read: Any) -> None:
        MomentumRecord(recorder=scored).generate()
        daily, monthly = read("momentum/daily.parquet"), read("momentum/monthly.csv")
        share = pd.crosstab(judged.index.get_level_values("datetime"), judged["MOMENTUM"], normalize="index")
        known = daily.loc[share.index]
        for number in range(5):
            np.testing.assert_allclose(known[f"actual_{number}"], share[number])
        predicted = known[[f"predicted_{number}" for number in range(5)]]
        np.testing.assert_allclose(predicted.sum(axis=1), 1)
        of_month = share.groupby(pd.DatetimeIndex(share.index).to_period("M")).mean()
        np.testing.assert_allclose(monthly.loc[of_month.index.astype(str), "actual_2"], of_month[2])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"share": 0}, r"`share` must lie in \(0, 1\], found 0"),
        ({"bins": 0}, "`bins` must be at least 1, found 0"),
    ],
)
def test_arguments_are_checked_before_any_work(run: Any, arguments: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        MomentumRecord(recorder=run, **arguments)
