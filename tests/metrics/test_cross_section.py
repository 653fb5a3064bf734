import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import icir, newey_west_t, normal_scores, pearson, rank, spearman


def market(days=40, stocks=30, missing=0.15, seed=0, decimals=None):
    """Two correlated matrices with holes; a few decimals make ties."""
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(days, stocks))
    y = 0.3 * x + rng.normal(size=(days, stocks))
    if decimals is not None:
        x, y = x.round(decimals), y.round(decimals)
    x[rng.random(x.shape) < missing] = np.nan
    y[rng.random(y.shape) < missing] = np.nan
    return x, y


def day_by_day(function, x, y):
    out = []
    for a, b in zip(x, y, strict=True):
        pair = ~np.isnan(a) & ~np.isnan(b)
        out.append(function(a[pair], b[pair]).statistic)
    return np.array(out)


# Few distinct values, so that ties, constants and NaN meet often.
matrices = arrays(
    np.float64,
    st.tuples(st.integers(1, 4), st.integers(0, 8)),
    elements=st.sampled_from([np.nan, -2.0, -0.1, 0.0, 0.1, 0.3, 1e6]),
)


class TestPearson:
    def test_equals_scipy(self):
        x, y = market()
        np.testing.assert_allclose(pearson(x, y), day_by_day(stats.pearsonr, x, y), atol=1e-12)

    @pytest.mark.parametrize("size", [1e-200, 1e-30, 1.0, 1e150])
    def test_the_size_of_the_values_does_not_matter(self, size):
        x, y = market(days=5)
        np.testing.assert_allclose(pearson(x * size, y), pearson(x, y), atol=1e-9)

    def test_a_shift_does_not_matter(self):
        x, y = market(days=5)
        np.testing.assert_allclose(pearson(x + 1000, y), pearson(x, y), atol=1e-9)

    def test_a_constant_that_rounds_is_constant(self):
        assert np.isnan(pearson(np.full((1, 7), 0.1), np.arange(7.0)[None])).all()

    def test_an_infinite_value_leaves_its_day_undefined(self):
        x, y = market(days=3, missing=0)
        x[1, 4] = np.inf
        assert np.isnan(pearson(x, y)).tolist() == [False, True, False]


class TestSpearman:
    @pytest.mark.parametrize("decimals", [None, 0, 1])
    def test_equals_scipy(self, decimals):
        x, y = market(decimals=decimals)
        np.testing.assert_allclose(spearman(x, y), day_by_day(stats.spearmanr, x, y), atol=1e-12)

    def test_ranks_are_taken_among_the_pairs(self):
        # With the stock that has no return, the ranks would be 1, 3, 4 and the correlation below 1.
        score = np.array([[1.0, 2.0, 3.0, 4.0]])
        value = np.array([[1.0, np.nan, 2.0, 3.0]])
        np.testing.assert_allclose(spearman(score, value), 1.0)

    def test_a_rising_transform_does_not_matter(self):
        x, y = market(days=5)
        np.testing.assert_allclose(spearman(np.exp(x), y**3), spearman(x, y), atol=1e-12)


@pytest.mark.parametrize("correlation", [pearson, spearman])
class TestCorrelation:
    @settings(deadline=None)
    @given(data=st.data())
    def test_bounds_symmetry_and_undefined_days(self, correlation, data):
        x = data.draw(matrices)
        y = data.draw(arrays(np.float64, x.shape, elements=st.sampled_from([np.nan, -1.0, 0.0, 0.7])))
        found = correlation(x, y)
        assert found.shape == (len(x),)
        np.testing.assert_allclose(found, correlation(y, x), atol=1e-12)
        assert (np.abs(found[~np.isnan(found)]) <= 1).all()
        for day, (a, b) in enumerate(zip(x, y, strict=True)):
            pair = ~np.isnan(a) & ~np.isnan(b)
            defined = pair.sum() >= 2 and np.ptp(a[pair]) > 0 and np.ptp(b[pair]) > 0
            assert np.isnan(found[day]) == (not defined)

    def test_of_itself_is_one(self, correlation):
        x, _ = market(days=5)
        np.testing.assert_allclose(correlation(x, x), 1.0)
        np.testing.assert_allclose(correlation(x, -x), -1.0)

    def test_takes_float32(self, correlation):
        x, y = market(days=5)
        np.testing.assert_allclose(correlation(x.astype("f4"), y.astype("f4")), correlation(x, y), atol=1e-6)

    def test_shapes_must_agree(self, correlation):
        with pytest.raises(UserError, match=r"one shape \[days, stocks\], found \(2, 3\) and \(2, 4\)"):
            correlation(np.zeros((2, 3)), np.zeros((2, 4)))

    def test_a_series_is_no_matrix(self, correlation):
        with pytest.raises(UserError, match=r"`x` must be a matrix \[days, stocks\], found the shape \(3,\)"):
            correlation(np.zeros(3), np.zeros(3))


class TestRank:
    @settings(deadline=None)
    @given(x=matrices)
    def test_equals_scipy(self, x):
        found = rank(x)
        for row, expected in zip(found, x, strict=True):
            there = ~np.isnan(expected)
            np.testing.assert_array_equal(np.isnan(row), ~there)
            np.testing.assert_array_equal(row[there], stats.rankdata(expected[there]))

    def test_infinities_are_the_ends(self):
        np.testing.assert_array_equal(rank([[np.inf, 0.0, -np.inf, np.nan]]), [[3, 2, 1, np.nan]])

    def test_leaves_its_input_alone(self):
        x, _ = market(days=3)
        before = x.copy()
        rank(x)
        np.testing.assert_array_equal(x, before)


class TestNormalScores:
    def test_equals_scipy(self):
        x, _ = market(decimals=1)
        for values, found in zip(x, normal_scores(x), strict=True):
            there = ~np.isnan(values)
            ranks = stats.rankdata(values[there])
            np.testing.assert_allclose(found[there], stats.norm.ppf((ranks - 0.5) / there.sum()), rtol=1e-12)
            assert np.isnan(found[~there]).all()

    def test_their_mean_is_that_of_the_distribution(self):
        found = normal_scores(market(missing=0.0, stocks=500)[0])
        np.testing.assert_allclose(found.mean(axis=1), 0, atol=1e-12)
        np.testing.assert_allclose(found.std(axis=1), 1, atol=0.01)

    def test_no_stock_has_none(self):
        assert np.isnan(normal_scores(np.full((2, 3), np.nan))).all()


class TestInformationRatio:
    def test_golden(self):
        assert icir([0.01, 0.03, np.nan, 0.05]) == pytest.approx(1.5)

    def test_equals_the_t_test_without_the_root_of_the_days(self):
        daily = np.random.default_rng(0).normal(0.02, 0.1, 50)
        assert icir(daily) == pytest.approx(stats.ttest_1samp(daily, 0).statistic / math.sqrt(50))

    @pytest.mark.parametrize("daily", [[], [np.nan], [0.1], [0.1, np.nan], [0.1] * 7])
    def test_undefined(self, daily):
        assert math.isnan(icir(daily))


class TestNeweyWestT:
    daily = np.array([0.02, -0.01, 0.05, 0.03, -0.02, 0.04, 0.01, 0.06, 0.00, -0.03])

    def test_golden(self):
        # statsmodels 0.15: OLS(daily, 1).fit(cov_type="HAC", cov_kwds={"maxlags": 2}).tvalues
        assert newey_west_t(self.daily, 2) == pytest.approx(2.32845158, abs=1e-8)

    def test_default_lags(self):
        assert newey_west_t(self.daily) == newey_west_t(self.daily, math.floor(4 * 0.1 ** (2 / 9)))

    def test_overlapping_returns_count_twice_their_lags(self):
        assert newey_west_t(self.daily, span_days=4) == newey_west_t(self.daily, 6)
        assert newey_west_t(self.daily, span_days=1) == newey_west_t(self.daily)
        with pytest.raises(UserError, match="`span_days` must be at least 1"):
            newey_west_t(self.daily, span_days=0)

    @pytest.mark.parametrize("lags", [0, 1, 4, 9, 30])
    def test_equals_a_double_loop(self, lags):
        days, mean = len(self.daily), self.daily.mean()
        long_run = 0.0
        for d in range(days):
            for e in range(days):
                weight = max(0.0, 1 - abs(d - e) / (lags + 1))
                long_run += weight * (self.daily[d] - mean) * (self.daily[e] - mean) / days
        assert newey_west_t(self.daily, lags) == pytest.approx(mean / math.sqrt(long_run / days))

    def test_without_lags_it_is_the_t_test_with_the_divisor_of_the_days(self):
        t = stats.ttest_1samp(self.daily, 0).statistic
        assert newey_west_t(self.daily, 0) == pytest.approx(t * math.sqrt(10 / 9))

    def test_persistence_makes_the_mean_less_certain(self):
        rng = np.random.default_rng(3)
        daily = rng.normal(size=500)
        for d in range(1, 500):
            daily[d] += 0.6 * daily[d - 1]
        daily += 0.2
        assert abs(newey_west_t(daily)) < 0.8 * abs(newey_west_t(daily, 0))

    def test_days_without_a_value_are_cut_out(self):
        holes = np.insert(self.daily, [0, 4, 10], np.nan)
        assert newey_west_t(holes, 3) == newey_west_t(self.daily, 3)

    @pytest.mark.parametrize("daily", [[], [0.1], [0.1, 0.1, 0.1]])
    def test_undefined(self, daily):
        assert math.isnan(newey_west_t(daily))

    def test_lags_are_checked(self):
        with pytest.raises(UserError, match="`lags` must be at least 0, found -1"):
            newey_west_t(self.daily, -1)

    def test_a_matrix_is_no_series(self):
        with pytest.raises(UserError, match=r"`daily` must be a series \[days\], found the shape \(2, 2\)"):
            newey_west_t(np.zeros((2, 2)))
