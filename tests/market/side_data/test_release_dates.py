from __future__ import annotations

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.side_data.release_dates import LAGS, check_lag, release_days
from qlib_ext.market.side_data.rows import parse_periods


class TestLags:
    @pytest.mark.parametrize(
        ("lag", "period", "released"),
        [
            ("quarterly", "2019Q4", "2020-02-29"),
            ("monthly", "2020-01", "2020-02-15"),
            ("monthly", "2020Q1", "2020-04-15"),
            ("rate", "2020-01-03", "2020-01-06"),  # a Friday
            ("rate", "2020-01-04", "2020-01-06"),  # a Saturday
            ("rate", "2020-01-02", "2020-01-03"),
            ("0d", "2020-01-02", "2020-01-02"),
            ("2b", "2020-01", "2020-02-04"),
            ("start+100d", "2020Q1", "2020-04-10"),
            ("end + 3d", "2020", "2021-01-03"),
        ],
    )
    def test_days(self, lag: str, period: str, released: str) -> None:
        checked = check_lag("x", lag)
        assert check_lag("x", checked) == checked
        (day,) = release_days(parse_periods(pd.Series([period])), checked)
        assert f"{day:%Y-%m-%d}" == released

    @pytest.mark.parametrize(
        "lag", ["", "d", "-3d", "60", "month", "close+3d", "1.5d", "99999d", "end+60d "[::-1]]
    )
    def test_other_words_are_none(self, lag: str) -> None:
        with pytest.raises(UserError, match=f"the lag of x must be {', '.join(LAGS)}"):
            check_lag("x", lag)
