import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.metrics.periods import compounded, period_starts
from qlib_ext.metrics.risk import cumulative_return


class TestCompounded:
    def test_golden(self):
        days = ["2019-12-30", "2019-12-31", "2020-01-02", "2020-03-02"]
        months, returns = compounded(days, [0.1, 0.1, -0.5, 0.2], "month")
        assert [*map(str, months)] == ["2019-12", "2020-01", "2020-03"]  # no day in February: no row
        np.testing.assert_allclose(returns, [0.21, -0.5, 0.2])
        years, returns = compounded(days, [0.1, 0.1, -0.5, 0.2], "year")
        assert [*map(str, years)] == ["2019", "2020"]
        np.testing.assert_allclose(returns, [0.21, -0.4])

    @settings(deadline=None, max_examples=30)
    @given(days=st.integers(1, 400), start=st.dates(min_value=pd.Timestamp("1990-01-01").date()))
    def test_periods_compound_to_the_whole(self, days, start):
        calendar = pd.date_range(str(start), periods=days, freq="D", unit="s")
        returns = np.random.default_rng(days).normal(0, 0.01, days)
        for period in ("month", "year"):
            assert cumulative_return(compounded(calendar, returns, period)[1]) == pytest.approx(
                cumulative_return(returns)
            )

    def test_without_days(self):
        periods, returns = compounded([], [], "month")
        assert len(periods) == len(returns) == 0

    def test_checks(self):
        with pytest.raises(UserError, match="must have one length, found 1 and 2"):
            compounded(["2020-01-01"], [0.1, 0.1], "month")
        with pytest.raises(UserError, match="`period` must be one of month, year, found 'months'"):
            compounded(["2020-01-01"], [0.1], "months")
        with pytest.raises(UserError, match="`days` must rise from day to day"):
            compounded(["2020-01-02", "2020-01-01"], [0.1, 0.1], "month")
        with pytest.raises(UserError, match="finite return on every day"):
            compounded(["2020-01-02"], [np.nan], "month")


def test_starts():
    periods, starts = period_starts(["2019-12-31", "2020-01-02", "2020-01-03", "2020-02-03"], "month")
    assert [*map(str, periods)] == ["2019-12", "2020-01", "2020-02"]
    assert [*starts] == [0, 1, 3]
