import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics import distribution as d

series = st.lists(st.floats(-0.5, 0.5).map(lambda x: round(x, 6)), min_size=5, max_size=40)


class TestShape:
    def test_golden(self):
        assert d.skewness([0.0, 0.0, 0.3]) == pytest.approx(math.sqrt(3))
        assert d.excess_kurtosis([0.0, 0.0, 0.0, 0.3]) == pytest.approx(4)

    def test_a_mirror_turns_the_skewness_and_leaves_the_kurtosis(self):
        draw = np.random.default_rng(0).gamma(2, 0.01, 500)
        assert d.skewness(draw) == pytest.approx(-d.skewness(-draw))
        assert d.skewness(draw) > 1
        assert d.excess_kurtosis(draw) == pytest.approx(d.excess_kurtosis(-draw))

    def test_scale_and_place_do_not_matter(self):
        draw = np.random.default_rng(1).standard_t(4, 500) * 0.01
        moved = draw * 1e-9 + 0.1
        assert d.skewness(moved) == pytest.approx(d.skewness(draw), abs=1e-5)
        assert d.excess_kurtosis(moved) == pytest.approx(d.excess_kurtosis(draw), abs=1e-4)

    @pytest.mark.parametrize("returns", [[], [0.1], [0.1, 0.2], [0.1] * 9])
    def test_undefined(self, returns):
        assert math.isnan(d.skewness(returns))
        assert math.isnan(d.excess_kurtosis(returns))


class TestTails:
    def test_golden(self):
        returns = np.arange(-5, 16) / 100  # 21 returns: a share of 0.05 is the second lowest
        assert d.value_at_risk(returns) == pytest.approx(-0.04)
        assert d.conditional_value_at_risk(returns) == pytest.approx(-0.045)
        assert d.tail_ratio(returns) == pytest.approx(0.14 / 0.04)

    @settings(deadline=None)
    @given(returns=series, share=st.floats(0.01, 0.5))
    def test_the_shortfall_lies_beyond_the_quantile(self, returns, share):
        at_risk, shortfall = (
            d.value_at_risk(returns, share),
            d.conditional_value_at_risk(returns, share),
        )
        assert min(returns) - 1e-12 <= shortfall <= at_risk + 1e-12
        assert (np.array(returns) <= at_risk + 1e-12).mean() >= share - 1 / len(returns)

    def test_undefined(self):
        assert math.isnan(d.value_at_risk([]))
        assert math.isnan(d.conditional_value_at_risk([]))
        assert math.isnan(d.tail_ratio([]))
        assert math.isnan(d.tail_ratio([0.0, 0.0, 0.1]))

    def test_the_share(self):
        with pytest.raises(UserError, match=r"`share` must lie in \(0, 1\), found 5"):
            d.value_at_risk([0.1], 5)


class TestGainsAndLosses:
    RETURNS = (0.3, -0.1, 0.0, 0.1, 0.2, -0.3, -0.2, -0.1)

    def test_golden(self):
        assert d.profit_factor(self.RETURNS) == pytest.approx(0.6 / 0.7)
        assert d.omega_ratio(self.RETURNS, 0.1) == pytest.approx(0.3 / 1.2)
        assert d.gain_to_pain(self.RETURNS) == pytest.approx(-0.1 / 0.7)
        assert d.average_gain(self.RETURNS) == pytest.approx(0.2)
        assert d.average_loss(self.RETURNS) == pytest.approx(-0.175)
        assert d.payoff_ratio(self.RETURNS) == pytest.approx(0.2 / 0.175)
        assert d.longest_streak(self.RETURNS) == 2
        assert d.longest_streak(self.RETURNS, losing=True) == 3
        assert (d.best(self.RETURNS), d.worst(self.RETURNS)) == (0.3, -0.3)

    @settings(deadline=None)
    @given(returns=series.filter(lambda values: min(values) < -1e-5))
    def test_the_profit_factor_is_gain_to_pain_and_one(self, returns):
        assert d.profit_factor(returns) == pytest.approx(d.gain_to_pain(returns) + 1, abs=1e-9)

    @settings(deadline=None)
    @given(returns=series.filter(lambda values: len({*values}) > 1))
    def test_omega_is_one_at_the_mean(self, returns):
        assert d.omega_ratio(returns, float(np.mean(returns))) == pytest.approx(1, rel=1e-6)

    def test_without_a_loss(self):
        for returns in ([], [0.1, 0.0]):
            for figure in (d.profit_factor, d.gain_to_pain, d.average_loss, d.payoff_ratio):
                assert math.isnan(figure(returns))
            assert d.longest_streak(returns, losing=True) == 0

    def test_without_a_day(self):
        assert math.isnan(d.best([]))
        assert math.isnan(d.worst([]))
        assert math.isnan(d.average_gain([-0.1]))
        assert math.isnan(d.payoff_ratio([-0.1]))
        assert d.longest_streak([]) == 0


@pytest.mark.parametrize(
    "function",
    [
        d.skewness,
        d.excess_kurtosis,
        d.value_at_risk,
        d.conditional_value_at_risk,
        d.tail_ratio,
        d.omega_ratio,
        d.profit_factor,
        d.gain_to_pain,
        d.average_gain,
        d.average_loss,
        d.payoff_ratio,
        d.longest_streak,
        d.best,
        d.worst,
    ],
)
def test_every_return_must_be_there(function):
    with pytest.raises(UserError, match="finite return on every day, found 1 of 2 days without one"):
        function([0.1, np.nan])
