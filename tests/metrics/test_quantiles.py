import math

import numpy as np
import pandas as pd
import pytest
from alphalens.performance import compute_mean_returns_spread, mean_return_by_quantile
from alphalens.utils import quantize_factor
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.quantiles import group_means, monotonicity, quantile_groups, spread


def market(days=30, stocks=47, missing=0.1, seed=0):
    """Scores and returns with holes in the same places."""
    rng = np.random.default_rng(seed)
    score, ret = rng.normal(size=(2, days, stocks))
    hole = rng.random(score.shape) < missing
    score[hole] = ret[hole] = np.nan
    return score, 0.01 * ret


def factor_data(score, ret):
    """The table that alphalens works on."""
    index = pd.MultiIndex.from_product(
        [pd.bdate_range("2020-01-01", periods=len(score)), range(score.shape[1])], names=["date", "asset"]
    )
    return pd.DataFrame({"1D": ret.ravel(), "factor": score.ravel()}, index=index).dropna()


def halved(means, groups):
    """The spread of alphalens, which since 0.5 is half of the difference."""
    difference, _ = compute_mean_returns_spread(means, groups, 1)
    return difference["1D"]


class TestGroups:
    @pytest.mark.parametrize("groups", [2, 5, 10])
    def test_equals_alphalens(self, groups):
        score, ret = market()
        found = quantile_groups(score, groups)
        expected = quantize_factor(factor_data(score, ret), quantiles=groups)
        np.testing.assert_array_equal(found[~np.isnan(score)], expected - 1)
        np.testing.assert_array_equal(np.isnan(found), np.isnan(score))

    @settings(max_examples=50, deadline=None)
    @given(st.integers(2, 40), st.integers(2, 12))
    def test_sizes_differ_by_at_most_one(self, stocks, groups):
        found = quantile_groups(np.random.default_rng(stocks).permutation(stocks)[None] * 1.0, groups)
        sizes = np.bincount(found[0].astype(int), minlength=groups)
        assert np.ptp(sizes) <= 1
        assert sizes.sum() == stocks

    @settings(max_examples=50, deadline=None)
    @given(st.lists(st.sampled_from([0.0, 0.1, 0.2, 0.3, 1.0]), min_size=1, max_size=20), st.integers(2, 6))
    def test_equal_scores_stay_together_and_order_is_kept(self, scores, groups):
        found = quantile_groups([scores], groups)[0]
        if len(set(scores)) == 1:
            assert np.isnan(found).all()
            return
        for a, g in zip(scores, found, strict=True):
            for b, h in zip(scores, found, strict=True):
                assert (a == b) <= (g == h)
                assert (a < b) <= (g <= h)
        assert set(found) <= set(range(groups))

    def test_ties_go_by_their_mean_place_where_qcut_goes_by_the_lowest(self):
        score = np.array([0.0, 1, 1, 1, 1, 1, 1, 2, 3, 4])
        # Six equal scores fill places 1 to 6 of 0 ... 9: their middle is 3.5, of five groups the second.
        assert quantile_groups(score[None], 5)[0].tolist() == [0, 1, 1, 1, 1, 1, 1, 3, 4, 4]
        with pytest.raises(ValueError, match="must be unique"):
            pd.qcut(score, 5, labels=False)
        # Folding the groups that end at one score leaves fewer groups, of other numbers on other days.
        assert pd.qcut(score, 5, labels=False, duplicates="drop").max() == 2

    def test_the_end_of_a_group_is_decided_in_whole_numbers(self):
        # Place 6 of 0 ... 10 is exactly the end of the third of five groups: it belongs to it, whatever the scores.
        # `pandas.qcut` rounds that end, and which way depends on the scores.
        for score in (np.arange(11.0), np.linspace(0, 0.1, 11), np.arange(11) / 7 - 0.3):
            assert quantile_groups(score[None], 5)[0].tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3, 4, 4]

    def test_fewer_stocks_than_groups(self):
        assert quantile_groups([[0.3, 0.1, 0.2]], 5).tolist() == [[4, 0, 2]]
        assert quantile_groups([[0.3, 0.1]], 5).tolist() == [[4, 0]]

    def test_one_stock_and_none_have_no_group(self):
        assert np.isnan(quantile_groups([[0.3, np.nan], [np.nan, np.nan]], 2)).all()
        assert quantile_groups(np.empty((2, 0)), 3).shape == (2, 0)

    def test_one_group_is_none(self):
        with pytest.raises(UserError, match="`groups` must be at least 2, found 1"):
            quantile_groups([[1.0, 2.0]], 1)


class TestMeans:
    @pytest.mark.parametrize("groups", [3, 5])
    def test_equals_alphalens(self, groups):
        score, ret = market(seed=1)
        table = factor_data(score, ret)
        table["factor_quantile"] = quantize_factor(table, quantiles=groups)
        expected, _ = mean_return_by_quantile(table, by_date=True, demeaned=False)
        theirs = np.full_like(score, np.nan)
        theirs[~np.isnan(score)] = table["factor_quantile"] - 1
        means = group_means(theirs, ret, groups)
        np.testing.assert_allclose(means, expected["1D"].unstack("factor_quantile"), atol=1e-12)
        np.testing.assert_allclose(spread(means) / 2, halved(expected, groups), atol=1e-12)

    def test_the_spread_is_that_of_one_unit_bought_and_one_sold(self):
        # The highest group earns 3%, the lowest 1%: 2%. alphalens 0.5 invests half a unit in each and has 1%.
        score, ret = np.array([[1.0, 2, 3]]), np.array([[0.01, 0.02, 0.03]])
        assert spread(group_means(quantile_groups(score, 3), ret, 3))[0] == pytest.approx(0.02)
        table = factor_data(score, ret).assign(factor_quantile=[1, 2, 3])
        expected, _ = mean_return_by_quantile(table, by_date=True, demeaned=False)
        assert halved(expected, 3).iloc[0] == pytest.approx(0.01)

    def test_a_stock_without_a_return_leaves_its_place_in_the_order(self):
        # alphalens drops it first and then splits the rest: its groups know which returns will be there.
        score, ret = np.array([[1.0, 2, 3, 4]]), np.array([[0.01, 0.02, 0.03, np.nan]])
        np.testing.assert_allclose(group_means(quantile_groups(score, 2), ret, 2), [[0.015, 0.03]])

    def test_an_empty_group_has_none(self):
        means = group_means([[0, 2, np.nan]], [[0.1, 0.2, 0.3]], 3)
        np.testing.assert_array_equal(means, [[0.1, np.nan, 0.2]])
        assert spread(means)[0] == pytest.approx(0.1)

    def test_nor_have_empty_groups_at_the_ends_of_the_days(self):
        means = group_means(
            [[1, np.nan], [np.nan, np.nan], [0, 1]], [[0.1, 0.2], [0.3, 0.4], [0.5, np.nan]], 3
        )
        nan = np.nan
        np.testing.assert_array_equal(means, [[nan, 0.1, nan], [nan, nan, nan], [0.5, nan, nan]])

    def test_what_is_no_group(self):
        with pytest.raises(UserError, match="`group` must hold the groups 0 to 1, or NaN, found 2"):
            group_means([[0.0, 2.0]], [[0.1, 0.1]], 2)

    def test_a_spread_needs_two_groups(self):
        with pytest.raises(UserError, match="at least two groups"):
            spread([[0.1]])


class TestMonotonicity:
    def test_equals_scipy(self):
        for seed in range(5):
            means = np.random.default_rng(seed).normal(size=7).round(1)
            expected = stats.spearmanr(np.arange(7), means).statistic
            assert monotonicity(means) == pytest.approx(expected, abs=1e-12)

    def test_ends(self):
        assert monotonicity([0.1, 0.2, 0.7]) == pytest.approx(1)
        assert monotonicity([0.1, np.nan, -0.7]) == pytest.approx(-1)
        assert math.isnan(monotonicity([]))
        assert math.isnan(monotonicity([0.1, 0.1]))
