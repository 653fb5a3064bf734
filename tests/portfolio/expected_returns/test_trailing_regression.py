"""Slopes against numpy's least squares."""

from dataclasses import replace

import numpy as np
import pytest
from scipy.stats import zscore

from qlib_ext.checks import UserError
from qlib_ext.portfolio.expected_returns.trailing_regression import TrailingRegression, standard_scores
from tests.portfolio.markets import day_of, history_of

HISTORY = replace(history_of(stocks=40, days=200), horizon=(1, 3))


def slopes(known):
    """Day by day, with a constant, of the stocks that have both."""
    for scores, returns in zip(*known.forecastable(), strict=True):
        both = np.isfinite(scores) & np.isfinite(returns)
        z = standard_scores(np.where(both, scores, np.nan)[None])[0][both]
        yield np.polyfit(z, returns[both], 1)[0], z, returns[both] - returns[both].mean()


def test_the_mean_of_daily_slopes() -> None:
    known = day_of(HISTORY)
    expected = np.mean([slope for slope, _, _ in slopes(known)])
    assert TrailingRegression().slope(known) == pytest.approx(expected)
    np.testing.assert_allclose(
        TrailingRegression().estimate(known, None), expected * standard_scores(known.score[None])[0]
    )


def test_the_pooled_slope() -> None:
    known = day_of(HISTORY)
    z, r = (np.concatenate(parts) for parts in list(zip(*slopes(known), strict=True))[1:])
    expected = np.linalg.lstsq(z[:, None], r, rcond=None)[0][0]
    assert TrailingRegression(kind="pooled").slope(known) == pytest.approx(expected)


def test_a_planted_slope_is_found() -> None:
    rng = np.random.default_rng(0)
    scores = rng.standard_normal((200, 40))
    returns = rng.normal(0, 0.01, (200, 40))
    returns[2:] += 0.002 * scores[:-2]
    known = day_of(replace(HISTORY, scores=scores, returns=returns, horizon=(1, 1)))
    assert TrailingRegression().slope(known) == pytest.approx(0.002, abs=3 * 0.01 / np.sqrt(200 * 40))


def test_with_too_few_days_it_says_nothing() -> None:
    known = day_of(HISTORY, length=40)
    assert TrailingRegression(min_days=37).estimate(known, None) is None
    assert TrailingRegression(min_days=36).estimate(known, None) is not None


def test_days_on_which_all_scores_are_equal_do_not_count() -> None:
    scores = HISTORY.scores.copy()
    scores[:100] = 0.1
    known = day_of(replace(HISTORY, scores=scores))
    assert TrailingRegression(min_days=96).slope(known) is not None
    assert TrailingRegression(min_days=97).slope(known) is None


def test_standard_scores_are_scipy_s_before_they_are_cut() -> None:
    scores = np.random.default_rng(0).uniform(size=(5, 40))
    scores[2, 7] = np.nan
    expected = zscore(scores, axis=1, nan_policy="omit")
    np.testing.assert_allclose(standard_scores(scores), expected, rtol=1e-9)
    wild = scores.copy()
    wild[0, 0] = 1e6
    found = standard_scores(wild)[0]
    assert found[0] == pytest.approx(3 * 39 / 40, rel=0.1)
    assert found.mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"kind": "panel"}, "`kind` must be one of daily, pooled"),
        ({"min_days": 0}, "`min_days` must be at least 1"),
        ({"window": 59}, "`window` must be at least 60"),
    ],
)
def test_faults_are_named(kwargs, message) -> None:
    with pytest.raises(UserError, match=message):
        TrailingRegression(**kwargs)
