import numpy as np
import pandas as pd
import pytest
from alphalens.performance import factor_rank_autocorrelation, quantile_turnover
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.quantiles import quantile_groups
from qlib_ext.metrics.stability import group_turnover, rank_autocorrelation, top_turnover


def scores(days=30, stocks=24, missing=0.0, seed=0):
    """A score that changes slowly."""
    rng = np.random.default_rng(seed)
    walk = rng.normal(size=(days, stocks)).cumsum(axis=0)
    walk[rng.random(walk.shape) < missing] = np.nan
    return walk


def series(values, name):
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-01-01", periods=len(values)), range(values.shape[1])], names=["date", "asset"]
    )
    return pd.Series(values.ravel(), index=index, name=name).dropna()


class TestAutocorrelation:
    @pytest.mark.parametrize("lag", [1, 5])
    def test_equals_alphalens_where_the_same_stocks_are_there(self, lag):
        score = scores()
        expected = factor_rank_autocorrelation(series(score, "factor").to_frame(), period=lag)
        np.testing.assert_allclose(rank_autocorrelation(score, lag), expected, atol=1e-12)

    def test_ranks_are_taken_among_the_stocks_of_both_days(self):
        score = scores(missing=0.2)
        found = rank_autocorrelation(score)
        assert np.isnan(found[0])
        for day in range(1, len(score)):
            both = ~np.isnan(score[day]) & ~np.isnan(score[day - 1])
            expected = stats.spearmanr(score[day, both], score[day - 1, both]).statistic
            assert found[day] == pytest.approx(expected, abs=1e-12)

    def test_a_stock_of_one_day_moves_alphalens_and_not_ours(self):
        score = np.array([[1.0, 2, 3, 4, np.nan], [1.0, 2, 4, 3, 2.5]])
        assert rank_autocorrelation(score)[1] == pytest.approx(0.8)  # ranks 1 2 3 4 and 1 2 4 3
        theirs = factor_rank_autocorrelation(series(score, "factor").to_frame()).iloc[1]
        assert theirs == pytest.approx(stats.pearsonr([1, 2, 3, 4], [1, 2, 5, 4]).statistic)
        assert theirs != pytest.approx(0.8, abs=0.01)

    def test_more_lag_than_days(self):
        assert np.isnan(rank_autocorrelation(scores(days=3), 3)).all()


class TestTopTurnover:
    @pytest.mark.parametrize(("n", "lag"), [(1, 1), (5, 1), (5, 3), (50, 1)])
    def test_equals_sets(self, n, lag):
        score = scores(missing=0.1)
        best = [{*np.argsort(-day)[: min(n, (~np.isnan(day)).sum())]} for day in score]
        expected = [np.nan] * lag
        expected += [len(now - before) / len(now) for now, before in zip(best[lag:], best, strict=False)]
        np.testing.assert_allclose(top_turnover(score, n, lag), expected, atol=1e-12)

    def test_ends(self):
        score = np.array([[1.0, 2, 3], [1.0, 2, 3], [3.0, 2, 1], [np.nan] * 3, [1.0, 2, 3]])
        np.testing.assert_array_equal(top_turnover(score, 1), [np.nan, 0, 1, np.nan, np.nan])

    def test_arguments(self):
        with pytest.raises(UserError, match="`n` must be at least 1, found 0"):
            top_turnover(scores(), 0)
        with pytest.raises(UserError, match="`lag` must be at least 1, found 0"):
            top_turnover(scores(), 1, 0)


class TestGroupTurnover:
    @pytest.mark.parametrize("lag", [1, 4])
    def test_equals_alphalens(self, lag):
        groups = quantile_groups(scores(missing=0.1), 4)
        found = group_turnover(groups, 4, lag)
        for k in range(4):
            expected = quantile_turnover(series(groups, "factor_quantile"), k, lag)
            np.testing.assert_allclose(found[:, k], expected, atol=1e-12)

    def test_an_empty_group_has_none(self):
        found = group_turnover([[0.0, 0.0], [0.0, 1.0], [1.0, 1.0]], 2)
        np.testing.assert_array_equal(found, [[np.nan, np.nan], [0.0, np.nan], [np.nan, 0.5]])
