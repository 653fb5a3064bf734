from __future__ import annotations

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.exchange_days import day_of_knowing, exchange_days, exchange_timezone, next_day
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

    @pytest.mark.parametrize(
        ("region", "day", "after"),
        [
            ("cn", "2017-03-10", "2017-03-13"),  # over a week-end
            ("cn", "2017-01-26", "2017-02-03"),  # over the new year
            ("us", "2017-07-03", "2017-07-05"),
            ("tw", "2017-03-10", "2017-03-13"),  # of a region without a calendar, the next weekday
            ("cn", "2200-01-03", "2200-01-06"),  # and so of days that nobody has set yet
        ],
    )
    def test_the_day_after(self, region: str, day: str, after: str) -> None:
        assert next_day(region, pd.Timestamp(day)) == pd.Timestamp(after)

    def test_an_unknown_exchange(self) -> None:
        with pytest.raises(UserError, match=r"found 'XNY' \(did you mean XNYS"):
            days("XNY", "2000-01-03", "2000-01-04")

    def test_days_that_nobody_knows_yet(self) -> None:
        with pytest.raises(UserError, match=r"the days of XSHG are known from 1990-12-03 .*--calendar data"):
            days("XSHG", "1980-01-01", "1999-01-01")


def test_time_zones() -> None:
    assert (exchange_timezone("XSHG"), exchange_timezone("XNYS")) == ("Asia/Shanghai", "America/New_York")


class TestDayOfKnowing:
    def known(self, exchange: str, *moments: str | None) -> list[str]:
        found = day_of_knowing(pd.DatetimeIndex(moments), exchange)
        return [str(day.date()) for day in found]

    def test_what_comes_after_the_close_is_known_the_day_after(self) -> None:
        assert self.known("XSHG", "2020-01-02", "2020-01-02 15:00:00", "2020-01-02 15:00:01") == [
            "2020-01-02",
            "2020-01-02",
            "2020-01-03",
        ]

    def test_a_close_may_be_early(self) -> None:
        """New York closes at 13:00 on the day after Thanksgiving."""
        moments = "2010-11-24 15:00", "2010-11-24 17:00", "2010-11-26 12:59", "2010-11-26 15:00"
        assert self.known("XNYS", *moments) == ["2010-11-24", "2010-11-25", "2010-11-26", "2010-11-27"]

    def test_a_day_without_trading_or_that_nobody_knows_has_the_usual_close(self) -> None:
        moments = "2020-01-04 12:00", "2020-01-05 20:00", "2070-01-01 15:01"
        assert self.known("XSHG", *moments) == ["2020-01-04", "2020-01-06", "2070-01-02"]

    def test_no_time_is_none_after_the_close(self) -> None:
        assert self.known("XNYS", None, "2020-01-02") == ["NaT", "2020-01-02"]
        assert self.known("XSHG", "2070-01-01 15:01") == ["2070-01-02"]
