import numpy as np
import pytest
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import pearson, spearman
from qlib_ext.metrics.decay import half_life, lagged_correlation


def market(days=25, stocks=20, missing=0.15, seed=0):
    rng = np.random.default_rng(seed)
    score, ret = rng.normal(size=(2, days, stocks))
    score[rng.random(score.shape) < missing] = np.nan
    ret[rng.random(ret.shape) < missing] = np.nan
    return score, ret


@pytest.mark.parametrize(("ranks", "oracle"), [(False, stats.pearsonr), (True, stats.spearmanr)])
def test_equals_scipy_pair_by_pair(ranks, oracle):
    score, ret = market()
    lags = [0, 1, 3, 20]
    found = lagged_correlation(score, ret, lags, ranks=ranks)
    assert found.shape == (4, 25)
    for row, lag in enumerate(lags):
        for day in range(25):
            if day + lag >= 25:
                assert np.isnan(found[row, day])
                continue
            pair = ~np.isnan(score[day]) & ~np.isnan(ret[day + lag])
            expected = oracle(score[day, pair], ret[day + lag, pair]).statistic
            assert found[row, day] == pytest.approx(expected, abs=1e-10)


def test_lag_0_is_the_daily_ic():
    score, ret = market()
    np.testing.assert_array_equal(lagged_correlation(score, ret, [0])[0], pearson(score, ret))
    np.testing.assert_array_equal(lagged_correlation(score, ret, [0], ranks=True)[0], spearman(score, ret))


def test_a_score_that_knows_one_later_day_shows_at_its_lag_alone():
    ret = np.random.default_rng(1).normal(size=(40, 60))
    score = np.full_like(ret, np.nan)
    score[:-3] = ret[3:]
    found = np.nanmean(lagged_correlation(score, ret, range(6)), axis=1)
    assert found[3] == pytest.approx(1)
    assert np.abs(np.delete(found, 3)).max() < 0.1


def test_a_gap_in_a_stocks_rows_is_not_closed():
    rng = np.random.default_rng(2)
    ret = rng.normal(size=(6, 8))
    score = np.full_like(ret, np.nan)
    score[0] = ret[2]
    whole = lagged_correlation(score, ret, [2])[0, 0]
    ret[1] = np.nan  # away the day between: day 2 is still two days on
    assert lagged_correlation(score, ret, [2])[0, 0] == whole == pytest.approx(1)
    ret[2] = np.nan
    assert np.isnan(lagged_correlation(score, ret, [2])[0, 0])


def test_more_lags_than_days():
    score, ret = market(days=3)
    assert np.isnan(lagged_correlation(score, ret, [3, 50])).all()


@pytest.mark.parametrize("lag", [-1, 1.5])
def test_lags_are_whole_numbers_from_0(lag):
    with pytest.raises(UserError, match="`lags` must be"):
        lagged_correlation(*market(), [lag])


@pytest.mark.parametrize(
    ("decay", "days"),
    [
        ([0.04, 0.03, 0.02, 0.01], 2),
        ([-0.04, -0.03, -0.021, -0.01], 3),
        ([0.04, -0.01, 0.04], 1),
        ([0.04, 0.05, 0.03], np.inf),
        ([0.04, np.nan, 0.01], 2),
        ([np.nan, 0.01], np.nan),
        ([0.0, 0.01], np.nan),
        ([], np.nan),
    ],
)
def test_half_life(decay, days):
    np.testing.assert_equal(half_life(decay), days)
