import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics import drawdowns as d
from qlib_ext.metrics import risk

series = st.lists(st.floats(-0.5, 0.5).map(lambda x: round(x, 3)), min_size=1, max_size=40)


class TestSpells:
    def test_golden(self):
        returns = [0.1, -0.5, 0.2, 1.0, -0.1, 0.2, 0.1, -0.3, 0.1]
        falls = d.drawdowns(returns)
        assert [fall[1:] for fall in falls] == [(0, 1, 3, 2), (6, 7, None, 2), (3, 4, 5, 1)]
        np.testing.assert_allclose([fall.depth for fall in falls], [-0.5, -0.3, -0.1])

    def test_one_that_begins_with_the_first_day(self):
        (fall,) = d.drawdowns([-0.1, -0.1, 0.5])
        assert fall[1:] == (-1, 1, 2, 2)
        assert fall.depth == pytest.approx(-0.19)

    def test_of_equal_ones_the_earlier_comes_first(self):
        falls = d.drawdowns([-0.5, 1.0, -0.5, 1.0])
        assert [fall.trough for fall in falls] == [0, 2]

    def test_none(self):
        assert d.drawdowns([]) == []
        assert d.drawdowns([0.1, 0.0, 0.2]) == []

    @settings(deadline=None)
    @given(returns=series)
    def test_they_are_the_days_below_a_peak(self, returns):
        falls = d.drawdowns(returns)
        below = risk.drawdown(returns)
        assert sum(fall.days for fall in falls) == (below < 0).sum()
        for fall in falls:
            end = len(returns) if fall.recovery is None else fall.recovery
            assert fall.days == end - fall.peak - 1
            assert below[fall.peak + 1 : end].min() == fall.depth == below[fall.trough]
            assert fall.peak < fall.trough < end
            if fall.recovery is not None:
                assert below[fall.recovery] == 0
        assert sorted(falls) == falls
        assert min((fall.depth for fall in falls), default=0) == risk.max_drawdown(returns)

    def test_every_return_must_be_there(self):
        with pytest.raises(UserError, match="finite return on every day"):
            d.drawdowns([0.1, np.nan])


class TestFigures:
    RETURNS = (0.0, -0.5, 1.0, -0.25, 0.0)  # drawdowns 0, -0.5, 0, -0.25, -0.25

    def test_golden(self):
        assert d.average_drawdown(self.RETURNS) == pytest.approx(-0.375)
        assert d.longest_drawdown(self.RETURNS) == 2
        assert d.ulcer_index(self.RETURNS) == pytest.approx(math.sqrt(0.375 / 5))
        assert d.calmar_ratio(self.RETURNS, 5) == pytest.approx(-0.25 / 0.5)
        assert d.martin_ratio(self.RETURNS, 5) == pytest.approx(-0.25 / math.sqrt(0.375 / 5))
        assert d.recovery_factor(self.RETURNS) == pytest.approx(-0.25 / 0.5)

    @settings(deadline=None)
    @given(returns=series)
    def test_the_ulcer_lies_between_nothing_and_the_deepest(self, returns):
        assert 0 <= d.ulcer_index(returns) <= -risk.max_drawdown(returns) + 1e-15
        assert risk.max_drawdown(returns) <= d.average_drawdown(returns) <= 0

    def test_without_a_fall(self):
        assert d.average_drawdown([0.1]) == 0
        assert d.longest_drawdown([0.1]) == 0
        assert d.ulcer_index([0.1]) == 0
        assert math.isnan(d.ulcer_index([]))
        for figure in (d.calmar_ratio, d.martin_ratio, d.recovery_factor):
            assert math.isnan(figure([0.1]))
            assert math.isnan(figure([]))
