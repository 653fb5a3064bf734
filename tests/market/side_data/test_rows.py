from __future__ import annotations

import datetime as dt

import numpy as np
import pandas as pd
import pytest

from qlib_ext.market.side_data.rows import FAR, parse_day, parse_periods


class TestPeriods:
    @pytest.mark.parametrize(
        ("text", "canonical", "frequency", "start", "end"),
        [
            ("1998", "1998", "Y", "1998-01-01", "1998-12-31"),
            (1998, "1998", "Y", "1998-01-01", "1998-12-31"),
            ("1998Q3", "1998Q3", "Q", "1998-07-01", "1998-09-30"),
            ("1998-q3", "1998Q3", "Q", "1998-07-01", "1998-09-30"),
            ("1998-02", "1998-02", "M", "1998-02-01", "1998-02-28"),
            ("1998M2", "1998-02", "M", "1998-02-01", "1998-02-28"),
            ("1998-02-03", "1998-02-03", "D", "1998-02-03", "1998-02-03"),
            (pd.Timestamp("1998-02-03"), "1998-02-03", "D", "1998-02-03", "1998-02-03"),
        ],
    )
    def test_forms(self, text: object, canonical: str, frequency: str, start: str, end: str) -> None:
        (row,) = parse_periods(pd.Series([text])).itertuples(index=False)
        assert (row.text, row.frequency) == (canonical, frequency)
        assert (row.start, row.end) == (pd.Timestamp(start), pd.Timestamp(end))

    def test_periods_follow_each_other_by_one(self) -> None:
        table = parse_periods(pd.Series(["1998Q3", "1998Q4", "1999Q1", None, "1998Q4"]))
        assert np.diff(table["ordinal"].to_numpy()[:3]).tolist() == [1, 1]
        assert table["frequency"].isna().tolist() == [False, False, False, True, False]

    @pytest.mark.parametrize(
        "text", ["", "98Q1", "1998Q5", "1998-13", "Q1 1998", "0001", "9999Q1", 19980.5, None]
    )
    def test_other_text_is_none(self, text: object) -> None:
        assert parse_periods(pd.Series([text], dtype=object))["frequency"].isna().all()


class TestDays:
    @pytest.mark.parametrize(
        "word",
        [
            "2020-01-02",
            " 20200102",
            "2020/1/2",
            "2020.01.02",
            "2020-01-02 00:00:00",
            "2020-01-02T00:00",
            20200102,
            20200102.0,
            np.int64(20200102),
            np.datetime64("2020-01-02"),
            dt.date(2020, 1, 2),
            dt.datetime(2020, 1, 2),
        ],
    )
    def test_forms(self, word: object) -> None:
        assert parse_day(word) == pd.Timestamp("2020-01-02")

    @pytest.mark.parametrize(
        "word",
        [
            "02/01/2020",
            "2020-01/02",
            "2020112",
            "2020-01-02T01:00",
            "2020-01-02Z",
            "2020-01-02 00:00+08:00",
            "2020-02-30",
            "0001-01-01",
            "",
            43832,
            1.5,
            np.nan,
            True,
            b"2020-01-02",
            dt.datetime(2020, 1, 2, 15),
            pd.Timestamp("2020-01-02", tz="UTC"),
        ],
    )
    def test_other_words_are_none(self, word: object) -> None:
        assert pd.isna(parse_day(word))

    @pytest.mark.parametrize(
        "word",
        ["9999-12-31", "99991231", 99991231, dt.date(9999, 12, 31), dt.datetime(9999, 12, 31), "2300-01-01"],
    )
    def test_the_far_future_is_one_day(self, word: object) -> None:
        assert parse_day(word) == FAR
