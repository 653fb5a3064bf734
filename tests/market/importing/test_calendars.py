from __future__ import annotations

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing.calendars import exchange_days, exchange_timezone
from qlib_ext.market.store import QlibStore


def days(exchange: str, first: str, last: str) -> list[str]:
    return [str(day.date()) for day in exchange_days(exchange, pd.Timestamp(first), pd.Timestamp(last))]


class TestExchangeDays:
    def test_new_york_was_closed(self) -> None:
        assert days("XNYS", "2001-09-10", "2001-09-18") == ["2001-09-10", "2001-09-17", "2001-09-18"]

    def test_shanghai_has_its_new_year(self) -> None:
        assert days("XSHG", "2010-02-12", "2010-02-22") == ["2010-02-12", "2010-02-22"]

    def test_both_ends_are_included_and_nothing_may_be_between(self) -> None:
        assert days("XNYS", "2000-01-03", "2000-01-03") == ["2000-01-03"]
        assert days("XNYS", "2000-01-01", "2000-01-02") == []

    def test_it_is_the_calendar_of_the_real_store(self, real_store: QlibStore) -> None:
        known = real_store.calendar
        pd.testing.assert_index_equal(exchange_days("XSHG", known[0], known[-1]), known)

    def test_an_unknown_exchange(self) -> None:
        with pytest.raises(UserError, match=r"found 'XNY' \(did you mean XNYS"):
            days("XNY", "2000-01-03", "2000-01-04")

    def test_days_that_nobody_knows_yet(self) -> None:
        with pytest.raises(UserError, match=r"the days of XSHG are known from 1990-12-03 .*--calendar data"):
            days("XSHG", "1980-01-01", "1999-01-01")


def test_time_zones() -> None:
    assert (exchange_timezone("XSHG"), exchange_timezone("XNYS")) == ("Asia/Shanghai", "America/New_York")
