import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.metrics import risk

YEAR = 252
series = st.lists(st.floats(-0.5, 0.5), min_size=1, max_size=30)


def market(days=600, seed=0):
    rng = np.random.default_rng(seed)
    benchmark = rng.normal(0.0003, 0.012, days)
    return benchmark + rng.normal(0.0002, 0.004, days), benchmark


class TestReturn:
    def test_golden(self):
        assert risk.cumulative_return([0.1, -0.5, 0.2]) == pytest.approx(1.1 * 0.5 * 1.2 - 1)
        np.testing.assert_allclose(risk.wealth([0.1, -0.5, 0.2]), [1.1, 0.55, 0.66])
        assert risk.annualised_return([0.1, 0.1], periods_per_year=4) == pytest.approx(1.1**4 - 1)

    @settings(deadline=None)
    @given(returns=st.lists(st.floats(-0.02, 0.02), min_size=1, max_size=30))
    def test_the_annual_return_compounds_to_the_same_wealth(self, returns):
        annual = risk.annualised_return(returns)
        assert (1 + annual) ** (len(returns) / YEAR) == pytest.approx(1 + risk.cumulative_return(returns))

    def test_a_constant_daily_return(self):
        assert risk.annualised_return(np.full(77, 0.001)) == pytest.approx(1.001**YEAR - 1)

    def test_a_gain_and_a_loss_of_one_size_lose(self):
        # Summed, as Qlib's default does, they would cancel.
        assert risk.cumulative_return([0.5, -0.5]) == pytest.approx(-0.25)

    def test_a_total_loss(self):
        assert risk.annualised_return([0.1, -1.0, 0.3]) == -1
        assert risk.max_drawdown([0.1, -1.0, 0.3]) == -1

    def test_without_days(self):
        assert risk.cumulative_return([]) == 0
        assert math.isnan(risk.annualised_return([]))


class TestVolatilityAndRatios:
    def test_golden(self):
        assert risk.annualised_volatility([0.01, 0.03, 0.05]) == pytest.approx(0.02 * math.sqrt(YEAR))
        assert risk.sharpe_ratio([0.01, 0.03, 0.05], periods_per_year=4) == pytest.approx(3)
        assert risk.information_ratio([0.02, 0.03, 0.05], [0.01, 0.0, 0.0], 4) == pytest.approx(3)

    def test_the_ratios_are_t_statistics_of_a_year(self):
        returns, benchmark = market()
        root = math.sqrt(YEAR / 600)
        assert risk.sharpe_ratio(returns) == pytest.approx(stats.ttest_1samp(returns, 0).statistic * root)
        expected = stats.ttest_rel(returns, benchmark).statistic * root
        assert risk.information_ratio(returns, benchmark) == pytest.approx(expected)

    def test_leverage_scales_the_volatility_and_leaves_the_ratio(self):
        returns, _ = market()
        assert risk.annualised_volatility(2 * returns) == pytest.approx(
            2 * risk.annualised_volatility(returns)
        )
        assert risk.sharpe_ratio(2 * returns) == pytest.approx(risk.sharpe_ratio(returns))

    @pytest.mark.parametrize("returns", [[], [0.1], [0.1] * 7])
    def test_undefined(self, returns):
        assert math.isnan(risk.sharpe_ratio(returns))
        assert math.isnan(risk.information_ratio(returns, np.zeros(len(returns))))
        assert math.isnan(risk.information_ratio(returns, returns))


class TestDownside:
    def test_golden(self):
        assert risk.downside_deviation([0.1, -0.3, 0.0, -0.4], periods_per_year=4) == pytest.approx(0.5)
        assert risk.sortino_ratio([0.1, -0.3, 0.0, -0.4], periods_per_year=4) == pytest.approx(
            -0.15 * 4 / 0.5
        )
        assert risk.downside_deviation([0.1, 0.2], target=0.2, periods_per_year=2) == pytest.approx(0.1)

    @settings(deadline=None)
    @given(returns=series, target=st.floats(-0.1, 0.1))
    def test_both_sides_of_the_target_are_the_mean_square(self, returns, target):
        below = risk.downside_deviation(returns, target, 1)
        above = risk.downside_deviation(-np.array(returns), -target, 1)
        assert below**2 + above**2 == pytest.approx(np.mean((np.array(returns) - target) ** 2), abs=1e-15)

    def test_undefined(self):
        assert math.isnan(risk.downside_deviation([]))
        assert risk.downside_deviation([0.1, 0.0]) == 0
        for returns in ([], [-0.1], [0.1, 0.2]):
            assert math.isnan(risk.sortino_ratio(returns))


class TestStability:
    def test_a_straight_road(self):
        assert risk.stability(np.full(50, 0.01)) == pytest.approx(1)
        assert risk.stability(np.full(50, -0.01)) == pytest.approx(1)

    def test_noise_bends_it(self):
        draw = np.random.default_rng(0).normal(0.001, 0.01, 300)
        assert risk.stability(draw) < risk.stability(0.3 * (draw - draw.mean()) + 0.001)

    @pytest.mark.parametrize("returns", [[], [0.1], [0.0, 0.0], [0.1, -1.0, 0.2]])
    def test_undefined(self, returns):
        assert math.isnan(risk.stability(returns))


class TestDrawdown:
    @settings(deadline=None)
    @given(returns=series)
    def test_equals_a_loop(self, returns):
        value = peak = 1.0
        expected = []
        for r in returns:
            value *= 1 + r
            peak = max(peak, value)
            expected.append(value / peak - 1)
        np.testing.assert_allclose(risk.drawdown(returns), expected, atol=1e-12)
        assert risk.max_drawdown(returns) == pytest.approx(min(expected), abs=1e-12)

    def test_golden(self):
        np.testing.assert_allclose(risk.drawdown([0.25, -0.2, -0.5, 1.0]), [0, -0.2, -0.6, -0.2])

    def test_a_loss_on_the_first_day_counts(self):
        assert risk.max_drawdown([-0.1, 0.05]) == pytest.approx(-0.1)

    def test_none(self):
        assert risk.max_drawdown([0.01, 0.02]) == 0
        assert risk.max_drawdown([]) == 0


class TestBenchmark:
    def test_golden(self):
        np.testing.assert_allclose(risk.relative_wealth([0.2, 0.0], [0.0, -0.2]), [1.2, 1.5])
        assert risk.annualised_excess_return([0.2, 0.0], [0.0, -0.2], 4) == pytest.approx(1.5**2 - 1)

    def test_relative_wealth_is_the_ratio_of_both(self):
        returns, benchmark = market()
        expected = np.cumprod(1 + returns) / np.cumprod(1 + benchmark)
        np.testing.assert_allclose(risk.relative_wealth(returns, benchmark), expected)
        annual = risk.annualised_excess_return(returns, benchmark)
        assert annual == pytest.approx(expected[-1] ** (YEAR / 600) - 1)

    def test_annual_figures_divide(self):
        returns, benchmark = market()
        both = (1 + risk.annualised_return(returns)) / (1 + risk.annualised_return(benchmark))
        assert risk.annualised_excess_return(returns, benchmark) == pytest.approx(both - 1)

    def test_of_itself_is_nothing(self):
        returns, _ = market()
        assert risk.annualised_excess_return(returns, returns) == 0
        assert risk.max_drawdown(risk.relative_return(returns, returns)) == 0

    def test_against_cash_is_the_return(self):
        returns, _ = market()
        cash = np.zeros_like(returns)
        assert risk.annualised_excess_return(returns, cash) == pytest.approx(risk.annualised_return(returns))

    def test_hit_rate(self):
        assert risk.hit_rate([0.1, 0.0, -0.1, 0.2]) == 0.5
        assert risk.hit_rate([0.1, 0.0, -0.1, 0.2], [0.1, -0.1, 0.0, 0.0]) == 0.5
        assert math.isnan(risk.hit_rate([]))


class TestChecks:
    @pytest.mark.parametrize(
        "function",
        [
            risk.wealth,
            risk.cumulative_return,
            risk.annualised_return,
            risk.annualised_volatility,
            risk.sharpe_ratio,
            risk.downside_deviation,
            risk.sortino_ratio,
            risk.stability,
            risk.drawdown,
            risk.max_drawdown,
            risk.hit_rate,
        ],
    )
    def test_series(self, function):
        with pytest.raises(UserError, match="finite return on every day, found 1 of 2 days without one"):
            function([0.1, np.nan])
        with pytest.raises(UserError, match="`returns` must be at least -1 on every day, found -2"):
            function([0.1, -2.0])
        with pytest.raises(UserError, match=r"`returns` must be a series \[days\], found the shape \(1, 2\)"):
            function([[0.1, 0.2]])

    @pytest.mark.parametrize(
        "function",
        [
            risk.information_ratio,
            risk.relative_return,
            risk.relative_wealth,
            risk.annualised_excess_return,
            risk.hit_rate,
        ],
    )
    def test_benchmark(self, function):
        with pytest.raises(UserError, match="must cover the same days, found 2 and 1"):
            function([0.1, 0.2], [0.1])
        with pytest.raises(UserError, match="`benchmark` must have a finite return"):
            function([0.1, 0.2], [0.1, np.nan])

    def test_a_benchmark_that_loses_everything(self):
        with pytest.raises(UserError, match="`benchmark` must stay above -1"):
            risk.relative_return([0.1], [-1.0])

    def test_periods(self):
        with pytest.raises(UserError, match="`periods_per_year` must be above 0, found 0"):
            risk.annualised_return([0.1], periods_per_year=0)
