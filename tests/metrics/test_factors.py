"""Statistics of many factors on one day, against scipy and numpy one factor at a time."""

import numpy as np
import pytest
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import rank
from qlib_ext.metrics.factors import correlations, group_share, rank_correlations, residuals


def rows(count, stocks=40, missing=0.15, seed=0, decimals=None):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(count, stocks)) + rng.normal(size=stocks)
    values = values if decimals is None else values.round(decimals)
    values[rng.random(values.shape) < missing] = np.nan
    return values


def pairwise(function, x, y):
    found = np.full((len(x), len(y)), np.nan)
    for i, a in enumerate(x):
        for j, b in enumerate(y):
            pair = ~np.isnan(a) & ~np.isnan(b)
            found[i, j] = function(a[pair], b[pair]).statistic
    return found


class TestCorrelations:
    def test_equals_scipy_pair_by_pair(self):
        x, y = rows(5), rows(4, seed=1)
        np.testing.assert_allclose(correlations(x, y), pairwise(stats.pearsonr, x, y), atol=1e-12)

    @pytest.mark.parametrize(("size", "shift"), [(1e-200, 0.0), (1e150, 0.0), (1.0, 1e6)])
    def test_neither_the_size_of_the_values_nor_a_shift_matters(self, size, shift):
        x, y = rows(3), rows(2, seed=1)
        np.testing.assert_allclose(correlations(x * size + shift, y), correlations(x, y), atol=1e-8)

    def test_what_is_constant_over_the_pairs_has_none(self):
        x = np.array([[0.1] * 6, [1.0, 1.0, 1.0, 2.0, 3.0, 4.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
        y = np.array([[1.0, 2.0, 4.0, np.nan, np.nan, np.nan], [np.nan, np.nan, np.nan, np.nan, np.nan, 1.0]])
        found = correlations(x, y)
        assert np.isnan(found[:2]).all()
        assert found[2, 0] > 0.9
        assert np.isnan(found[2, 1])

    def test_a_factor_goes_with_itself(self):
        x = rows(3)
        np.testing.assert_allclose(np.diag(correlations(x, -x)), -1)

    def test_the_stocks_must_be_the_same(self):
        with pytest.raises(UserError, match="of the same stocks, found 3 and 4"):
            correlations(np.zeros((1, 3)), np.zeros((1, 4)))


class TestRankCorrelations:
    @pytest.mark.parametrize("decimals", [None, 0])
    def test_equals_scipy(self, decimals):
        x, y = rows(6, decimals=decimals), rows(1, seed=1, decimals=decimals)
        x[:3] = np.where(np.isnan(x[0]), np.nan, rows(3, missing=0, seed=2))  # some lack the same stocks
        x[:, 7] = np.nan
        np.testing.assert_allclose(
            rank_correlations(x, y[0]), pairwise(stats.spearmanr, x, y)[:, 0], atol=1e-12
        )

    def test_a_day_without_returns(self):
        assert np.isnan(rank_correlations(rows(2), np.full(40, np.nan))).all()


class TestGroupShare:
    def test_equals_adjusted_r_squared_of_a_regression_on_dummies(self):
        values, group = rows(3, missing=0.1), np.arange(40) % 6 - 1
        found = group_share(values, group)
        for row, share in zip(values, found, strict=True):
            there = ~np.isnan(row) & (group >= 0)
            design = (group[there, None] == np.arange(5)).astype(float)
            left = row[there] - design @ np.linalg.lstsq(design, row[there], rcond=None)[0]
            n, spread = there.sum(), ((row[there] - row[there].mean()) ** 2).sum()
            assert share == pytest.approx(1 - (left @ left) / spread * (n - 1) / (n - 5))

    def test_all_of_it_and_none_of_it(self):
        group = np.arange(400) % 4
        assert group_share(group[None] * 2.0, group)[0] == pytest.approx(1)
        assert abs(group_share(rows(1, 400, 0), group)[0]) < 0.05

    def test_what_has_no_spread_or_too_few_stocks_has_none(self):
        assert np.isnan(group_share(np.ones((1, 5)), np.zeros(5, int))[0])
        assert np.isnan(group_share([[1.0, 2.0]], np.arange(2))[0])
        assert np.isnan(group_share(rows(1), np.full(40, -1))[0])


class TestResiduals:
    def test_equals_least_squares_one_factor_at_a_time(self):
        values, exposures, group = rows(5), rows(3, missing=0, seed=1), np.arange(40) % 4 - 1
        values[:2] = np.where(np.isnan(values[0]), np.nan, values[:2])
        found = residuals(values, exposures, group)
        for row, left in zip(values, found, strict=True):
            there = ~np.isnan(row)
            design = np.column_stack([exposures.T, group[:, None] == np.arange(-1, 3)])[there]
            expected = row[there] - design @ np.linalg.lstsq(design, row[there], rcond=None)[0]
            np.testing.assert_allclose(left[there], expected, atol=1e-9)
            assert np.isnan(left[~there]).all()

    def test_a_missing_exposure_is_the_mean(self):
        values, exposures = rows(1, missing=0), rows(1, seed=1)
        filled = np.where(np.isnan(exposures), np.nanmean(exposures), exposures)
        np.testing.assert_allclose(residuals(values, exposures), residuals(values, filled), atol=1e-12)

    def test_nothing_is_left_of_an_exposure(self):
        exposures = rank(rows(2, missing=0))
        found = residuals(np.stack([-3 * exposures[1], exposures[0] ** 3]), exposures)
        assert np.isnan(found[0]).all()
        assert not np.isnan(found[1]).any()

    def test_exposures_that_say_the_same_do_no_harm(self):
        values, exposures = rows(2, missing=0), rows(1, missing=0, seed=1)
        twice = np.concatenate([exposures, 2 * exposures, np.ones((1, 40))])
        np.testing.assert_allclose(residuals(values, twice), residuals(values, exposures), atol=1e-9)

    def test_a_factor_without_values(self):
        assert np.isnan(residuals(np.full((1, 4), np.nan), np.ones((1, 4)))).all()

    def test_a_factor_that_is_the_same_for_all(self):
        assert np.isnan(residuals(np.full((1, 40), 0.1), rows(2))).all()
