from __future__ import annotations

import datetime as dt
from collections.abc import Sequence
from typing import Any
from zoneinfo import ZoneInfo

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.market.importing.trading_days import DayReader

NEW_YORK, SHANGHAI = "America/New_York", "Asia/Shanghai"


def days(values: Sequence[Any] | pd.Series, timezone: str = NEW_YORK, **options: Any) -> list[str]:
    return [str(day) for day in DayReader(timezone, **options).read(pd.Series(values)).days]


class TestDates:
    @pytest.mark.parametrize(
        "written",
        [
            "2000-01-03",
            "2000/1/3",
            "20000103",
            " 2000-01-03 ",
            20000103,
            20000103.0,
            dt.date(2000, 1, 3),
            dt.datetime(2000, 1, 3),
            pd.Timestamp("2000-01-03"),
        ],
    )
    @pytest.mark.parametrize("timezone", [NEW_YORK, SHANGHAI])
    def test_a_date_is_taken_as_it_stands(self, written: Any, timezone: str) -> None:
        read = DayReader(timezone).read(pd.Series([written]))
        assert (str(read.days[0]), read.taken) == ("2000-01-03", "")

    @pytest.mark.parametrize(
        "written", ["2000-01", "2000", "36528", 36528, "01/03/2000", "soon", "", None, np.nan]
    )
    def test_what_is_no_day_is_missing(self, written: Any) -> None:
        read = days(["2000-01-03", written] if not isinstance(written, float | int) else [20000103, written])
        assert read == ["2000-01-03", "NaT"]

    def test_another_form_is_named(self) -> None:
        assert days(["01/02/2000"], date_format="%m/%d/%Y") == ["2000-01-02"]
        assert days(["01/02/2000"], date_format="%d/%m/%Y") == ["2000-02-01"]
        assert days([20000103], date_format="%Y%m%d") == ["2000-01-03"]
        assert days(["01/02/2000 01:00 +0000"], date_format="%m/%d/%Y %H:%M %z") == ["2000-01-01"]


class TestMoments:
    @pytest.mark.parametrize(
        ("written", "new_york", "shanghai"),
        [
            ("2000-01-03 16:00:00-05:00", "2000-01-03", "2000-01-04"),
            ("2000-07-03T16:00:00-04:00", "2000-07-03", "2000-07-04"),
            ("2000-01-03 16:00:00 -0500", "2000-01-03", "2000-01-04"),
            ("2000-01-03T21:00Z", "2000-01-03", "2000-01-04"),
            ("2000-01-03 07:00:00+00:00", "2000-01-03", "2000-01-03"),
            ("2000-01-02T16:00:00.000Z", "2000-01-02", "2000-01-03"),  # midnight in Shanghai
            (946933200, "2000-01-03", "2000-01-04"),  # 21:00 UTC, the close in New York
            (946933200000, "2000-01-03", "2000-01-04"),
            (946933200000000, "2000-01-03", "2000-01-04"),
            (946933200000000000, "2000-01-03", "2000-01-04"),
            ("946933200", "2000-01-03", "2000-01-04"),
            ("946933200.25", "2000-01-03", "2000-01-04"),
            (pd.Timestamp("2000-01-03 16:00", tz=NEW_YORK), "2000-01-03", "2000-01-04"),
        ],
    )
    def test_the_day_is_that_of_the_exchange(self, written: Any, new_york: str, shanghai: str) -> None:
        assert days([written]) == [new_york]
        assert days([written], SHANGHAI) == [shanghai]

    @given(st.lists(st.integers(int(1.1e8), int(4e9)), min_size=1), st.sampled_from([NEW_YORK, SHANGHAI]))
    def test_epochs_agree_with_the_standard_library(self, seconds: list[int], timezone: str) -> None:
        expected = [str(dt.datetime.fromtimestamp(one, ZoneInfo(timezone)).date()) for one in seconds]
        assert days(seconds, timezone, keep_utc_dates=False) == expected
        assert days([str(one) for one in seconds], timezone, keep_utc_dates=False) == expected

    def test_days_stamped_as_midnight_utc_are_dates(self) -> None:
        stamped = ["2000-01-03T00:00:00Z", "2000-01-04 00:00:00+00:00"]
        read = DayReader(NEW_YORK).read(pd.Series(stamped))
        assert (read.days.astype(str).tolist(), read.taken) == (["2000-01-03", "2000-01-04"], "midnight UTC")
        assert days([946857600]) == ["2000-01-03"]
        assert days([*stamped, "2000-01-05T01:00:00Z"]) == ["2000-01-02", "2000-01-03", "2000-01-04"]
        assert days(stamped, keep_utc_dates=False) == ["2000-01-02", "2000-01-03"]
        assert DayReader(SHANGHAI).read(pd.Series(stamped)).taken == ""  # there it is the same

    def test_a_time_without_a_zone_is_local(self) -> None:
        read = DayReader(NEW_YORK).read(pd.Series(["2000-01-03 16:00:00", "2000-01-04"]))
        assert (read.days.astype(str).tolist(), read.taken) == (["2000-01-03", "2000-01-04"], "local time")

    def test_both_kinds_in_one_column(self) -> None:
        assert days(["2000-01-03T03:00:00Z", "2000-01-03 03:00"]) == ["2000-01-02", "2000-01-03"]


def test_what_was_read_before_does_not_change_what_is_read() -> None:
    reader = DayReader(NEW_YORK)
    columns = [
        ["2000-01-03", "x"],
        ["2000-01-03T00:00:00Z"],
        ["2000-01-03", "2000-01-03T00:00:00Z", "946933200", ""],
    ]
    for column in [*columns, *columns[::-1]]:
        again, fresh = reader.read(pd.Series(column)), DayReader(NEW_YORK).read(pd.Series(column))
        np.testing.assert_array_equal(again.days, fresh.days)
        assert again.taken == fresh.taken
