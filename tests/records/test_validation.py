"""Figures of the days of validation."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy.stats import pearsonr, spearmanr

from qlib_ext.checks import UserError
from qlib_ext.records.validation import FIGURES, ValidationRecord, digest, figures, measured

DAYS = pd.bdate_range("2020-01-01", periods=6, name="datetime")
ROWS = pd.MultiIndex.from_product([DAYS, list("abcdefgh")], names=["datetime", "instrument"])
DRAW = np.random.default_rng(0)
SCORE = pd.Series(DRAW.normal(size=len(ROWS)), ROWS)
LABEL = pd.Series(DRAW.normal(0, 0.01, size=len(ROWS)), ROWS)


def test_figures_are_those_of_scipy_and_pandas() -> None:
    daily = measured(SCORE, LABEL, topk=2, cost_bps=0)
    found = figures(daily)
    assert {*found} == {*FIGURES}
    pairs = [(SCORE[day], LABEL[day]) for day in DAYS]
    ranked = pd.Series([spearmanr(*pair).statistic for pair in pairs])
    plain = pd.Series([pearsonr(*pair).statistic for pair in pairs])
    assert found["rank_ic"] == pytest.approx(ranked.mean())
    assert found["rank_icir"] == pytest.approx(ranked.mean() / ranked.std())
    assert found["ic"] == pytest.approx(plain.mean())
    assert found["icir"] == pytest.approx(plain.mean() / plain.std())
    earned = pd.Series([label[score.nlargest(2).index].mean() - label.mean() for score, label in pairs])
    assert found["excess_return"] == pytest.approx(earned.mean())
    assert found["information_ratio"] == pytest.approx(earned.mean() / earned.std() * math.sqrt(252))


def test_a_score_that_orders_nothing_has_no_rank_ic() -> None:
    found = figures(measured(SCORE * 0, LABEL, topk=2, cost_bps=0))
    assert math.isnan(found["rank_ic"])


def test_equal_scores_have_one_digest_in_any_order() -> None:
    assert digest(SCORE) == digest(SCORE.sample(frac=1, random_state=1))
    assert digest(SCORE) != digest(SCORE + 1e-9)


def test_scores_without_labels_are_refused() -> None:
    with pytest.raises(UserError, match="must have labels"):
        measured(SCORE, LABEL * np.nan, topk=2, cost_bps=0)


class OfTest:
    def predict(self, dataset: Any) -> pd.Series:
        return SCORE


def test_a_model_that_scores_the_test_segment_alone_is_refused() -> None:
    record = ValidationRecord(None, OfTest(), None)
    with pytest.raises(UserError, match="found OfTest, whose `predict` takes no `segment`"):
        record._generate()
