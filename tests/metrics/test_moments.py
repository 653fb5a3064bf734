import math

import numpy as np
import pytest
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.moments import moments, normal_quantiles, positive_share


def daily(seed=0, days=200):
    values = np.random.default_rng(seed).standard_t(4, days) * 0.05 + 0.01
    values[::17] = np.nan
    return values


class TestMoments:
    @pytest.mark.parametrize("size", [1e-150, 1.0, 1e100])
    def test_equals_scipy(self, size):
        values = daily()
        there = values[~np.isnan(values)]
        found = moments(values * size)
        assert found.mean == pytest.approx(there.mean() * size, rel=1e-12)
        assert found.std == pytest.approx(there.std(ddof=1) * size, rel=1e-12)
        assert found.skewness == pytest.approx(stats.skew(there), abs=1e-10)
        assert found.kurtosis == pytest.approx(stats.kurtosis(there), abs=1e-10)

    def test_without_a_spread(self):
        assert np.isnan(moments([])).all()
        one = moments([0.2])
        assert one.mean == 0.2
        assert np.isnan(one[1:]).all()
        assert moments([0.1] * 7)[1] == pytest.approx(0, abs=1e-15)
        assert np.isnan(moments([0.1] * 7)[2:]).all()

    def test_a_series_is_wanted(self):
        with pytest.raises(UserError, match="must be a series"):
            moments([[1.0]])


class TestHitRate:
    def test_golden(self):
        assert positive_share([0.1, -0.1, 0.0, np.nan, 0.2]) == 0.5
        assert math.isnan(positive_share([np.nan]))


class TestNormalQuantiles:
    @pytest.mark.parametrize("count", [1, 2, 7, 972])
    def test_equals_scipy(self, count):
        (expected, _), _ = stats.probplot(np.arange(max(count, 2.0)), fit=True)
        if count > 1:
            np.testing.assert_allclose(normal_quantiles(count), expected, atol=1e-10)
        assert normal_quantiles(count).sum() == pytest.approx(0, abs=1e-9)

    def test_none(self):
        assert normal_quantiles(0).shape == (0,)
