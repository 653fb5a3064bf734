import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics import relative, risk

FUNCTIONS = [
    relative.beta,
    relative.alpha,
    relative.correlation,
    relative.r_squared,
    relative.tracking_error,
    relative.treynor_ratio,
    relative.up_capture,
    relative.down_capture,
]


def market(days=300, seed=0):
    draw = np.random.default_rng(seed)
    return draw.normal(0.0004, 0.01, days), draw.normal(0.0003, 0.012, days)


class TestLine:
    def test_golden(self):
        index = np.array([0.01, -0.02, 0.03, 0.0])
        assert relative.beta(0.001 + 2 * index, index) == pytest.approx(2)
        assert relative.alpha(0.001 + 2 * index, index, 250) == pytest.approx(0.25)
        assert relative.r_squared(0.001 - 2 * index, index) == pytest.approx(1)
        assert relative.correlation(0.001 - 2 * index, index) == pytest.approx(-1)

    @settings(deadline=None)
    @given(slope=st.floats(-2, 2), level=st.floats(-0.001, 0.001))
    def test_they_follow_a_change_of_the_portfolio(self, slope, level):
        own, index = market()
        changed = level + slope * own
        assert relative.beta(changed, index) == pytest.approx(slope * relative.beta(own, index), abs=1e-12)
        expected = level * 252 + slope * relative.alpha(own, index)
        assert relative.alpha(changed, index) == pytest.approx(expected, abs=1e-12)

    def test_the_index_beside_itself(self):
        _, index = market()
        assert relative.beta(index, index) == pytest.approx(1)
        assert relative.alpha(index, index) == pytest.approx(0, abs=1e-15)
        assert relative.tracking_error(index, index) == 0
        assert relative.treynor_ratio(index, index) == pytest.approx(risk.annualised_return(index))

    def test_the_information_ratio_divides_by_the_tracking_error(self):
        own, index = market()
        mean = (own - index).mean() * 252
        assert risk.information_ratio(own, index) == pytest.approx(mean / relative.tracking_error(own, index))

    @pytest.mark.parametrize("days", [0, 1])
    def test_too_few_days(self, days):
        own, index = market(days)
        for function in FUNCTIONS[:-2]:
            assert math.isnan(function(own, index))

    def test_an_index_that_never_moves(self):
        own, _ = market()
        for function in (relative.beta, relative.alpha, relative.r_squared, relative.treynor_ratio):
            assert math.isnan(function(own, np.full(300, 0.001)))
        assert math.isnan(relative.correlation(np.full(300, 0.001), own))
        assert relative.beta(np.full(300, 0.001), own) == pytest.approx(0)


class TestCapture:
    def test_golden(self):
        index = [0.1, 0.1, -0.1, 0.0]
        mine = [0.05, 0.05, -0.2, 0.7]  # a day on which the index stands still belongs to neither
        assert relative.up_capture(mine, index) == pytest.approx(0.5)
        assert relative.down_capture(mine, index) == pytest.approx(2)

    def test_the_index_captures_itself(self):
        _, index = market()
        assert relative.up_capture(index, index) == pytest.approx(1)
        assert relative.down_capture(index, index) == pytest.approx(1)

    def test_cash_captures_nothing(self):
        _, index = market()
        assert relative.up_capture(np.zeros(300), index) == 0

    def test_without_such_days(self):
        assert math.isnan(relative.up_capture([0.1], [-0.1]))
        assert math.isnan(relative.down_capture([0.1], [0.1]))
        assert math.isnan(relative.up_capture([], []))


@pytest.mark.parametrize("function", FUNCTIONS)
def test_checks(function):
    with pytest.raises(UserError, match="must cover the same days, found 2 and 1"):
        function([0.1, 0.2], [0.1])
    with pytest.raises(UserError, match="`benchmark` must have a finite return"):
        function([0.1, 0.2], [0.1, np.nan])
