import math

import numpy as np
import pytest
from arch.bootstrap import StationaryBootstrap

from qlib_ext.checks import UserError
from qlib_ext.metrics import risk
from qlib_ext.metrics.bootstrap import bootstrap_intervals, overlapping_block, span_of, stationary_days
from qlib_ext.metrics.significance import bootstrap_mean


def returns(days=400, seed=0):
    return np.random.default_rng(seed).normal(0.0005, 0.01, days)


class TestDays:
    def test_blocks_have_the_length_that_is_asked_for(self):
        drawn = stationary_days(500, block_days=8, draws=400)
        assert drawn.shape == (400, 500)
        new = (np.diff(drawn, axis=1) % 500 != 1).mean()
        assert new == pytest.approx(1 / 8, abs=0.004)

    def test_every_day_is_drawn_as_often(self):
        counts = np.bincount(stationary_days(50, draws=4000).ravel(), minlength=50)
        assert counts.std() / counts.mean() < 0.05

    def test_blocks_of_one_day_are_independent_draws(self):
        drawn = stationary_days(300, block_days=1, draws=300)
        assert (np.diff(drawn, axis=1) % 300 == 1).mean() == pytest.approx(1 / 300, abs=0.002)

    def test_the_seed_decides(self):
        first = stationary_days(30, draws=5, seed=1)
        np.testing.assert_array_equal(first, stationary_days(30, draws=5, seed=1))
        assert (first != stationary_days(30, draws=5, seed=2)).any()

    def test_they_are_those_of_a_plain_loop(self):
        rng, drawn = np.random.default_rng(4), stationary_days(40, block_days=3, draws=7, seed=4)
        day = rng.integers(40, size=7)
        for k in range(40):
            np.testing.assert_array_equal(drawn[:, k], day)
            jump = rng.random(7) < 1 / 3
            day = np.where(jump, rng.integers(40, size=7), (day + 1) % 40)
        drawn[:] = 0  # nobody else's
        assert stationary_days(40, block_days=3, draws=7, seed=4).any()


class TestIntervals:
    def test_of_the_mean_they_are_those_of_bootstrap_mean(self):
        values = returns()
        low, high = bootstrap_intervals(np.mean, values, draws=500, seed=3)
        np.testing.assert_allclose([low, high], bootstrap_mean(values, draws=500, seed=3), rtol=1e-12)

    def test_of_the_sharpe_ratio_they_agree_with_arch(self):
        values = returns(800)
        low, high = bootstrap_intervals(risk.sharpe_ratio, values, block_days=9, draws=4000)
        other = StationaryBootstrap(9, values, seed=np.random.default_rng(1))
        expected = other.conf_int(risk.sharpe_ratio, reps=4000, method="percentile")[:, 0]
        np.testing.assert_allclose([low, high], expected, atol=0.08)  # a width of 2: the error of drawing

    def test_they_cover_as_often_as_they_say(self):
        inside = 0
        for seed in range(150):
            low, high = bootstrap_intervals(
                np.mean, returns(120, seed), level=0.8, draws=150, block_days=1, seed=seed
            )
            inside += low <= 0.0005 <= high
        assert inside / 150 == pytest.approx(0.8, abs=0.1)

    def test_several_figures_share_the_days_that_are_drawn(self):
        values = returns()
        low, high = bootstrap_intervals(
            lambda x, y: (np.mean(x), np.mean(x - y)), values, values - 0.001, draws=50
        )
        np.testing.assert_allclose([low[1], high[1]], 0.001)  # the difference is the same on every day
        np.testing.assert_allclose(low[0], bootstrap_intervals(np.mean, values, draws=50)[0])

    def test_a_figure_without_a_value(self):
        low, high = bootstrap_intervals(lambda x: (math.nan, np.mean(x)), returns(), draws=20)
        assert math.isnan(low[0])
        assert math.isnan(high[0])
        assert low[1] < high[1]

    def test_too_few_days(self):
        low, high = bootstrap_intervals(lambda x: (np.sum(x), 1.0), [0.1])
        assert np.isnan([*low, *high]).all()

    def test_checks(self):
        with pytest.raises(UserError, match=r"must all be \[days\] of one length, found \(2,\), \(3,\)"):
            bootstrap_intervals(np.dot, [1.0, 2.0], [1.0, 2.0, 3.0])
        with pytest.raises(UserError, match=r"`level` must lie in \(0, 1\), found 1"):
            bootstrap_intervals(np.mean, [1.0, 2.0], level=1)
        with pytest.raises(UserError, match="`block_days` must be at least 1, found 0"):
            stationary_days(5, block_days=0)
        for values in ([1.0, 2.0], [1.0]):  # a wrong argument is one where nothing is drawn too
            with pytest.raises(UserError, match="`draws` must be at least 1, found 0"):
                bootstrap_intervals(np.mean, values, draws=0)
        with pytest.raises(UserError, match="`days` must be at least 1, found 0"):
            stationary_days(0)


class TestOverlappingReturns:
    @pytest.mark.parametrize(
        ("days", "span", "expected"),
        [(1000, 1, None), (1000, 3, 10), (1000, 20, 40), (30, 20, 30), (0, 20, None)],
    )
    def test_blocks_are_twice_as_long_as_what_a_value_looks_at(self, days, span, expected):
        assert overlapping_block(days, span) == (None if expected is None else pytest.approx(expected))

    def test_the_interval_of_overlapping_returns_is_nearly_as_wide_as_it_should_be(self):
        days, span = 1000, 20
        draw = np.random.default_rng(0)
        ratios = {1: [], span: []}
        for _ in range(12):
            values = np.convolve(draw.normal(size=days + span - 1), np.full(span, 1 / span), mode="valid")
            for of in ratios:
                low, high = bootstrap_mean(values, draws=300, block_days=overlapping_block(days, of))
                ratios[of].append((high - low) / (2 * 1.96 / math.sqrt(days)))
        assert 0.8 < np.mean(ratios[span]) < 1.0  # 0.92 by the formula, for long series
        assert np.mean(ratios[1]) < 0.8

    def test_what_does_not_fit_is_said(self):
        with pytest.raises(UserError, match="`span_days` must be at least 1, found 0"):
            overlapping_block(10, 0)


def test_days_of_a_label_by_hand() -> None:
    described = {"RETURN": {"span": 1}, "RETURN20": {"span": 20}}
    assert span_of("RETURN", described) == 1
    assert span_of("RETURN20", described) == span_of("MOMENTUM", described) == span_of(None, described) == 20
    assert span_of("RETURN", {}) == 1
