"""Each combiner against another way to the same numbers."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LinearRegression

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import spearman
from qlib_ext.model.combiners.ic_weights import ICWeights, _shrinkage
from qlib_ext.model.combiners.mean_quantile import MeanQuantile
from qlib_ext.model.combiners.mean_rank import MeanRank
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.combiners.stacking import Stacking


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(0).normal(size=(60, 20))


@pytest.fixture
def scores(truth: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.array([0.9, 0.5, 0.1, 0.0])[:, None, None] * truth + rng.normal(size=(4, 60, 20))


def test_mean_rank_is_the_mean_of_percentiles(scores: np.ndarray) -> None:
    ranks = sum(pd.DataFrame(each).rank(axis=1) for each in scores) / 4
    np.testing.assert_allclose(MeanRank().combine(scores), 2 * (ranks - 0.5) / 20 - 1, atol=1e-12)


def test_mean_z_score_is_the_mean_of_standardised_scores(scores: np.ndarray) -> None:
    parts = [(each - each.mean(1, keepdims=True)) / each.std(1, keepdims=True) for each in scores]
    np.testing.assert_allclose(MeanZScore().combine(scores), np.mean(parts, axis=0))


def test_ic_weights_without_shrinkage_are_the_mean_rank_ics(scores: np.ndarray, truth: np.ndarray) -> None:
    combiner = ICWeights(shrinkage=0)
    combiner.fit(scores, truth)
    ics = np.maximum([spearman(each, truth).mean() for each in scores], 0)
    np.testing.assert_allclose(combiner.weights_of(4), ics / ics.sum())
    combiner = ICWeights(shrinkage=1)
    combiner.fit(scores, truth)
    np.testing.assert_allclose(combiner.weights_of(4), 0.25)


def test_what_days_alone_would_cause_is_shrunk_away(truth: np.ndarray) -> None:
    """Members that are worth the same: over many draws the weights hardly differ, and the raw ones do."""
    spread = {}
    for name, combiner in (("shrunk", ICWeights()), ("raw", ICWeights(shrinkage=0))):
        weights = []
        for seed in range(40):
            rng = np.random.default_rng(seed)
            combiner.fit(0.2 * truth[:20] + rng.normal(size=(4, 20, 20)), truth[:20])
            weights.append(combiner.weights_of(4))
        spread[name] = np.std(weights)
    assert spread["shrunk"] < 0.75 * spread["raw"]


def test_the_shrinkage_is_the_noise_of_days_over_what_lies_between_members() -> None:
    daily = np.array([[0.10, 0.30, 0.20], [0.05, 0.15, 0.40], [0.00, 0.02, 0.01]])
    apart = daily - daily.mean(axis=0)
    noise = sum(each.var(ddof=1) / 3 for each in apart) / 2
    assert _shrinkage(daily) == pytest.approx(noise / daily.mean(axis=1).var(ddof=1))


def test_members_without_any_skill_count_the_same(truth: np.ndarray) -> None:
    combiner = ICWeights()
    combiner.fit(np.stack([-truth, -2 * truth]), truth)
    np.testing.assert_array_equal(combiner.weights_of(2), [0.5, 0.5])


def test_stacking_without_a_penalty_is_a_regression(scores: np.ndarray, truth: np.ndarray) -> None:
    def standardised(values: np.ndarray) -> np.ndarray:
        return (values - values.mean(1, keepdims=True)) / values.std(1, keepdims=True)

    columns = np.stack([standardised(each).ravel() for each in scores], axis=1)
    for positive in (True, False):
        model = LinearRegression(fit_intercept=False, positive=positive)
        expected = model.fit(columns, standardised(truth).ravel()).coef_
        combiner = Stacking(ridge=0, non_negative=positive)
        combiner.fit(scores, truth)
        np.testing.assert_allclose(combiner.weights_of(4), expected / np.abs(expected).sum(), atol=1e-6)


def test_a_large_penalty_makes_the_weights_equal(scores: np.ndarray, truth: np.ndarray) -> None:
    combiner = Stacking(ridge=1e6)
    combiner.fit(scores, truth)
    np.testing.assert_allclose(combiner.weights_of(4), 0.25, atol=1e-4)


@pytest.mark.parametrize("positive", [True, False])
def test_scores_that_say_nothing_count_the_same_without_a_penalty(truth: np.ndarray, positive: bool) -> None:
    combiner = Stacking(ridge=0, non_negative=positive)
    combiner.fit(np.ones((3, *truth.shape)), truth)
    np.testing.assert_allclose(combiner.weights_of(3), 1 / 3)


def test_a_member_twice_shares_its_weight(scores: np.ndarray, truth: np.ndarray) -> None:
    combiner = Stacking()
    combiner.fit(scores[[0, 0, 1]], truth)
    weights = combiner.weights_of(3)
    assert weights[0] == pytest.approx(weights[1])


def test_mean_quantile_of_one_distribution_is_that_distribution() -> None:
    """Members that give the same scores to other stocks: order of the mean rank, values of the members."""
    values = np.array([0.0, 1.0, 4.0, 9.0, 16.0])
    other = values[[1, 0, 2, 4, 3]]
    found = MeanQuantile().combine(np.stack([[values], [values], [other]]))[0]
    np.testing.assert_allclose(found, values)


def test_mean_quantile_averages_the_spread_of_the_members() -> None:
    narrow, wide = np.arange(7.0), 3 * np.arange(7.0)
    found = MeanQuantile().combine(np.stack([[narrow], [wide]]))[0]
    np.testing.assert_allclose(found, 2 * np.arange(7.0))


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ICWeights(shrinkage=2), "`shrinkage` must lie in .0, 1., found 2"),
        (lambda: Stacking(ridge=-1), "`ridge` must be at least 0, found -1"),
        (lambda: MeanRank().combine(np.zeros((3, 4))), "must be .members, days, stocks., found the shape"),
    ],
)
def test_what_cannot_be(make, message: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(UserError, match=message):
        make()
