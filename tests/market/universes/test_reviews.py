from __future__ import annotations

import pandas as pd

from qlib_ext.market.universes.reviews import after_fridays


def test_they_are_the_first_trading_days_after_the_nth_friday() -> None:
    calendar = pd.bdate_range("2020-01-01", "2020-12-31").drop("2020-06-15")
    days = after_fridays(calendar, (6, 12), 2)
    assert [f"{calendar[day]:%m-%d}" for day in days] == ["06-16", "12-14"]  # the Monday, or the day after it
    assert after_fridays(calendar[:100], (1, 12), 3).tolist() == [calendar.get_loc("2020-01-20"), 100]
