import math

import numpy as np
import pytest
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics.significance import bootstrap_mean


def persistent(days=300, memory=0.6, seed=0):
    rng = np.random.default_rng(seed)
    daily = rng.normal(size=days)
    for d in range(1, days):
        daily[d] += memory * daily[d - 1]
    return daily + 0.3


def variance_of_the_mean(daily, block):
    """In closed form over all resamples: Politis and Romano (1994), Lemma 1."""
    days, stay = len(daily), 1 - 1 / block
    deviation = daily - daily.mean()
    total = deviation @ deviation / days
    for i in range(1, days):
        weight = (1 - i / days) * stay**i + i / days * stay ** (days - i)
        total += 2 * weight * (deviation[i:] @ deviation[:-i]) / days
    return total / days


class TestBootstrapMean:
    @pytest.mark.parametrize("block", [1, 5, 20])
    def test_width_equals_the_closed_form(self, block):
        daily = persistent()
        low, high = bootstrap_mean(daily, 0.9, block_days=block, draws=20000)
        expected = 2 * stats.norm.ppf(0.95) * math.sqrt(variance_of_the_mean(daily, block))
        assert high - low == pytest.approx(expected, rel=0.04)
        assert (high + low) / 2 == pytest.approx(daily.mean(), abs=0.02 * expected)

    def test_days_drawn_one_by_one_equal_scipy(self):
        daily = persistent(memory=0)
        expected = stats.bootstrap((daily,), np.mean, method="percentile", n_resamples=9999, rng=0)
        found = bootstrap_mean(daily, block_days=1, draws=9999)
        width = expected.confidence_interval.high - expected.confidence_interval.low
        np.testing.assert_allclose(found, expected.confidence_interval, atol=0.05 * width)

    def test_golden(self):
        found = bootstrap_mean([0.02, -0.01, 0.05, 0.03, -0.02, 0.04, 0.01, 0.06, 0.00, -0.03], seed=3)
        np.testing.assert_allclose(found, [0, 0.029], atol=1e-12)

    def test_blocks_make_a_persistent_series_less_certain(self):
        daily = persistent()
        one_by_one, blocks = bootstrap_mean(daily, block_days=1), bootstrap_mean(daily, block_days=15)
        assert np.ptp(blocks) > 1.3 * np.ptp(one_by_one)

    def test_covers_the_mean_as_often_as_it_says(self):
        rng = np.random.default_rng(0)
        hits = 0
        for _ in range(200):
            low, high = bootstrap_mean(rng.normal(size=60), 0.8, draws=300)
            hits += low <= 0 <= high
        assert 0.68 <= hits / 200 <= 0.88

    def test_a_higher_level_is_wider(self):
        daily = persistent()
        inner, outer = bootstrap_mean(daily, 0.8), bootstrap_mean(daily, 0.99)
        assert outer.low < inner.low < daily.mean() < inner.high < outer.high

    def test_scales_and_shifts_with_the_series(self):
        daily = persistent()
        np.testing.assert_allclose(bootstrap_mean(2 * daily + 1), 2 * np.array(bootstrap_mean(daily)) + 1)

    def test_seed(self):
        daily = persistent()
        assert bootstrap_mean(daily, seed=1) == bootstrap_mean(daily, seed=1)
        assert bootstrap_mean(daily, seed=1) != bootstrap_mean(daily, seed=2)

    def test_default_block_is_the_cube_root_of_the_days(self):
        daily = persistent()
        assert bootstrap_mean(daily) == bootstrap_mean(daily, block_days=300 ** (1 / 3))

    def test_days_without_a_value_are_cut_out(self):
        daily = persistent()
        assert bootstrap_mean(np.insert(daily, [0, 100, 300], np.nan)) == bootstrap_mean(daily)

    def test_a_constant_series_is_certain(self):
        np.testing.assert_allclose(bootstrap_mean([0.1] * 9), [0.1, 0.1])

    @pytest.mark.parametrize("daily", [[], [np.nan], [0.1]])
    def test_undefined(self, daily):
        assert all(math.isnan(end) for end in bootstrap_mean(daily))

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"level": 1}, r"`level` must lie in \(0, 1\), found 1"),
            ({"draws": 0}, "`draws` must be at least 1, found 0"),
            ({"seed": -1}, "`seed` must be at least 0, found -1"),
            ({"block_days": 0.5}, "`block_days` must be at least 1, found 0.5"),
        ],
    )
    def test_checks(self, options, message):
        with pytest.raises(UserError, match=message):
            bootstrap_mean([0.1, 0.2], **options)
