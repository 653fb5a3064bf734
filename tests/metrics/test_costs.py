import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics.costs import after_cost, break_even_bps
from qlib_ext.metrics.risk import cumulative_return

DRAW = np.random.default_rng(4)
GROSS, TURNOVER = DRAW.normal(0.002, 0.01, 250), DRAW.uniform(0.05, 0.3, 250)
INDEX = DRAW.normal(0.0005, 0.01, 250)


class TestAfterCost:
    def test_golden(self):
        np.testing.assert_allclose(after_cost([0.01, 0.02], [1.0, 0.0], 50), [0.005, 0.02])
        np.testing.assert_allclose(after_cost([0.01, 0.02], [2.0, 1.0], 0), [0.01, 0.02])

    def test_checks(self):
        with pytest.raises(UserError, match="`cost_bps` must be at least 0, found -1"):
            after_cost([0.1], [1.0], -1)
        with pytest.raises(UserError, match="`turnover` must be at least 0 on each of the 2 days"):
            after_cost([0.1, 0.1], [1.0, np.nan], 1)
        with pytest.raises(UserError, match="`turnover` must be at least 0 on each of the 2 days"):
            after_cost([0.1, 0.1], [1.0], 1)
        with pytest.raises(UserError, match="`gross - cost` must be at least -1 on every day"):
            after_cost([-0.9], [1.0], 5000)


class TestBreakEven:
    def test_golden(self):
        assert break_even_bps([0.01], [0.5]) == pytest.approx(200, abs=0.01)
        assert break_even_bps([0.01], [0.5], [0.004]) == pytest.approx(120, abs=0.01)

    @settings(deadline=None, max_examples=20)
    @given(times=st.floats(0.2, 3))
    def test_there_nothing_is_left(self, times):
        cost = break_even_bps(GROSS, times * TURNOVER)
        assert abs(cumulative_return(after_cost(GROSS, times * TURNOVER, cost))) < 1e-4
        with_index = break_even_bps(GROSS, times * TURNOVER, INDEX)
        ends = cumulative_return(after_cost(GROSS, times * TURNOVER, with_index))
        assert ends == pytest.approx(cumulative_return(INDEX), abs=1e-4)

    def test_half_the_turnover_bears_twice_the_cost(self):
        assert break_even_bps(GROSS, TURNOVER / 2) == pytest.approx(
            2 * break_even_bps(GROSS, TURNOVER), abs=0.02
        )

    def test_edges(self):
        assert break_even_bps([-0.1], [0.5]) == 0
        assert break_even_bps([0.1], [0.0]) == math.inf
        assert math.isnan(break_even_bps([], []))
