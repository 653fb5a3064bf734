import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import ndcg_score

from qlib_ext.checks import UserError
from qlib_ext.metrics.ndcg import adaptive_k, ndcg_at, ndcg_by_chance


def market(days=20, stocks=40, seed=0):
    rng = np.random.default_rng(seed)
    relevance = rng.integers(0, 5, (days, stocks)).astype(float)
    return relevance + rng.normal(0, 2, (days, stocks)), relevance


class TestNDCGAt:
    @pytest.mark.parametrize("k", [1, 7, 40, 100])
    def test_equals_scikit_learn(self, k):
        score, relevance = market()
        expected = [
            ndcg_score([2**y - 1], [s], k=k, ignore_ties=True) for s, y in zip(score, relevance, strict=True)
        ]
        np.testing.assert_allclose(ndcg_at(score, relevance, k), expected)

    def test_golden(self):
        # Order by score: classes 2, 0, 3. DCG@2 = 3, ideal 7 + 3 / log2(3).
        found = ndcg_at([[0.9, 0.1, 0.5]], [[2, 3, 0]], 2)
        np.testing.assert_allclose(found, 3 / (7 + 3 / math.log2(3)))

    def test_k_of_each_day(self):
        score, relevance = market(days=3)
        each = [ndcg_at(score[d : d + 1], relevance[d : d + 1], k)[0] for d, k in enumerate([2, 5, 9])]
        np.testing.assert_array_equal(ndcg_at(score, relevance, np.array([2, 5, 9])), each)

    def test_stocks_without_both_values_are_not_there(self):
        score, relevance = market(days=4)
        score[:, 3], relevance[:, 8] = np.nan, np.nan
        kept = np.delete(np.arange(40), [3, 8])
        np.testing.assert_allclose(
            ndcg_at(score, relevance, 10), ndcg_at(score[:, kept], relevance[:, kept], 10)
        )

    def test_the_perfect_order_is_one_and_its_reverse_the_least(self):
        score, relevance = market()
        np.testing.assert_allclose(ndcg_at(relevance, relevance, 10), 1)
        assert (ndcg_at(-relevance, relevance, 10) <= ndcg_at(score, relevance, 10)).all()

    def test_equal_scores_go_by_column(self):
        np.testing.assert_allclose(ndcg_at([[1, 1, 1]], [[1, 2, 4]], 1), 1 / 15)

    def test_undefined_days(self):
        score = [[1.0, 2.0], [np.nan, np.nan], [1.0, 2.0]]
        relevance = [[0.0, 0.0], [1.0, 2.0], [1.0, 2.0]]
        assert np.isnan(ndcg_at(score, relevance, [1, 1, 0])).all()

    def test_a_day_without_columns(self):
        assert np.isnan(ndcg_at(np.empty((2, 0)), np.empty((2, 0)), 3)).all()

    @pytest.mark.parametrize(
        ("k", "message"),
        [(0, "`k` must be at least 1, found 0"), ([1, 2], r"one a day \[1\]"), ([-1], "none negative")],
    )
    def test_k_is_checked(self, k, message):
        with pytest.raises(UserError, match=message):
            ndcg_at([[1.0]], [[1.0]], k)

    def test_relevance_is_checked(self):
        with pytest.raises(UserError, match="`relevance` must be at least 0, found -1"):
            ndcg_at([[1.0]], [[-1.0]], 1)


class TestByChance:
    @pytest.mark.parametrize("k", [1, 7, 40, 100])
    def test_equals_scikit_learn_of_equal_scores(self, k):
        # which is told to take the mean over all orders of equal scores
        _, relevance = market()
        expected = [ndcg_score([2**y - 1], [np.ones_like(y)], k=k) for y in relevance]
        np.testing.assert_allclose(ndcg_by_chance(relevance, k), expected, atol=1e-12)

    def test_equals_the_mean_over_all_orders(self):
        relevance = np.array([3.0, 0, 1, 1])
        every = [ndcg_at([order], [relevance], 2)[0] for order in itertools.permutations(range(4))]
        np.testing.assert_allclose(ndcg_by_chance([[3.0, 0, 1, np.nan, 1]], 2), np.mean(every), atol=1e-12)

    def test_undefined_days_and_k_of_each_day(self):
        relevance = [[0.0, 0.0], [np.nan, np.nan], [1.0, 2.0], [1.0, 2.0]]
        assert np.isnan(ndcg_by_chance(relevance, [1, 1, 0, 2])).tolist() == [True, True, True, False]


class TestAdaptiveK:
    @settings(deadline=None)
    @given(
        counts=st.lists(st.integers(0, 12), min_size=5, max_size=5).filter(any),
        percent=st.integers(1, 100),
    )
    def test_whole_classes_from_the_top_until_there_are_enough(self, counts, percent):
        relevance = np.repeat(np.arange(5.0), counts)
        total = len(relevance)
        k = adaptive_k(relevance[None], percent / 100)[0]
        sums = [sum(counts[level:]) for level in range(5)]
        assert k == min(s for s in sums if 100 * s >= percent * total and s > 0)

    def test_golden(self):
        # 35 stocks: ceil(0.2 * 35) = 7, although 0.2 * 35 > 7 in floating point.
        assert adaptive_k([np.repeat([4.0, 3.0, 0.0], [7, 20, 8])])[0] == 7
        assert adaptive_k([np.repeat([4.0, 3.0, 0.0], [6, 20, 9])])[0] == 26

    def test_missing_classes_do_not_count(self):
        assert adaptive_k([[4.0, np.nan, 3.0, np.nan, np.nan]], 0.5).tolist() == [1]

    def test_days_are_apart(self):
        _, relevance = market()
        each = [adaptive_k(day[None])[0] for day in relevance]
        np.testing.assert_array_equal(adaptive_k(relevance), each)

    def test_a_day_without_classes_is_zero(self):
        assert adaptive_k([[np.nan, np.nan], [2.0, np.nan]]).tolist() == [0, 1]

    @pytest.mark.parametrize("share", [0, -0.1, 1.1])
    def test_share_is_checked(self, share):
        with pytest.raises(UserError, match=r"`share` must lie in \(0, 1\], found"):
            adaptive_k([[1.0]], share)
