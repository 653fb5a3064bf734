"""Since when a row was known, and which of several rows of a day counts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.side_data.import_table import ImportedTable, import_table
from qlib_ext.market.side_data.known_rows import exchange_of, known_days
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore, write_store

CALENDAR = pd.bdate_range("2020-01-01", "2020-06-30")
CODES = ["SH600000", "SH600004"]


@pytest.fixture
def store(tmp_path: Path) -> QlibStore:
    return write_store(tmp_path / "store", CALENDAR, CODES, {"close": np.ones((len(CALENDAR), 2))}, {})


def bring(store: QlibStore, *lines: str, name: str = "mine", **options: Any) -> ImportedTable:
    path = store.root.parent / "mine.csv"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return import_table(store.root, name, path, replace=True, **options)


def rows(done: ImportedTable) -> list[tuple[Any, ...]]:
    """The table, days as 01-02 and codes by their last digit."""
    frame = done.table.frame.assign(datetime=done.table.frame["datetime"].dt.strftime("%m-%d"))
    if "instrument" in frame:
        frame["instrument"] = frame["instrument"].astype(str).str[-1].astype(int)
    return [tuple(row) for row in frame.itertuples(index=False)]


class TestTimes:
    NEWS = (
        "time,code,score,source",
        "2020-01-02 09:30:00,600000,1,a",
        "2020-01-02 14:59:59,600000,2,b",
        "2020-01-02 15:00:01,600000,3,a",
        "2020-01-03T11:00,600000,5,a",
        "2020-01-03 20:15,600004,7,a",
    )

    def test_what_comes_after_the_close_counts_for_the_next_day(self, store: QlibStore) -> None:
        done = bring(store, *self.NEWS)
        assert rows(done) == [("01-02", 0, 2.0), ("01-03", 0, 5.0), ("01-04", 4, 7.0)]
        assert "left out, as they hold no number: source" in done.notes
        assert "2 of 5 rows came after the close of XSHG: known on the next day" in done.notes
        assert "2 rows were known on the same day as another: the newest counts" in done.notes
        assert SideData(store).fields("mine") == ["score"]

    def test_their_mean_may_count(self, store: QlibStore) -> None:
        done = bring(store, *self.NEWS, several="mean")
        assert rows(done) == [("01-02", 0, 1.5), ("01-03", 0, 4.0), ("01-04", 4, 7.0)]

    def test_another_exchange_closes_at_another_time(self, store: QlibStore) -> None:
        done = bring(store, *self.NEWS, exchange="XNYS")
        assert rows(done)[0] == ("01-02", 0, 3.0)

    def test_moments_are_those_of_the_exchange(self) -> None:
        column = pd.Series(
            ["2020-01-02T06:59:00Z", "2020-01-02 07:01:00+00:00", "2020-01-02", "20200103", "soon", ""]
        )
        days, _ = known_days(column, "XSHG", "it")
        found = [None if pd.isna(day) else f"{day:%m-%d}" for day in days]
        assert found == ["01-02", "01-03", "01-02", "01-03", None, None]
        short = pd.Series(["20200102T0659Z", "20200102T070100Z", "20200102T150100+0800", "20200102 1459"])
        assert list(known_days(short, "XSHG", "it")[0].dt.day) == [2, 3, 3, 2]
        aware = pd.Series(pd.to_datetime(column[:2], format="ISO8601", utc=True))
        assert list(known_days(aware, "XSHG", "it")[0]) == list(days[:2])
        with pytest.raises(UserError, match=r"it has times of day.*say it, such as `--exchange XSHG`"):
            known_days(column, None, "it")

    def test_days_without_a_time_may_be_after_the_close(self, store: QlibStore) -> None:
        lines = "date,code,x", "2020-01-02,600000,1", "2020-01-03 09:00,600004,2"
        assert rows(bring(store, *lines)) == [("01-02", 0, 1.0), ("01-03", 4, 2.0)]
        assert rows(bring(store, *lines, after_close=True)) == [("01-03", 0, 1.0), ("01-03", 4, 2.0)]

    def test_figures_of_series_may_have_times_as_well(self, store: QlibStore) -> None:
        lines = "period,published,cpi", "2019-12,2020-01-09 09:30,1", "2020-01,2020-02-10 18:00,2"
        released = bring(store, *lines, name="macro").table.frame["release_date"]
        assert list(released.dt.strftime("%m-%d")) == ["01-09", "02-11"]

    def test_the_exchange_is_that_of_the_import_or_the_codes(self, store: QlibStore) -> None:
        assert exchange_of(store) == "XSHG"
        for settings, exchange in (({"region": "us"}, "XNYS"), ({"exchange": "XHKG"}, "XHKG"), ([], "XSHG")):
            pd.Series({"settings": settings}).to_json(store.root / "import.json")
            assert exchange_of(store) == exchange


class TestReports:
    LINES = (
        "ts_code,ann_date,end_date,roe,debt",
        "600000.SH,20200330,20191231,1,5",
        "600000.SH,20200330,20200331,2,",  # the quarter, with the year: it is that of the same day
        "600000.SH,20200420,20191231,9,6",  # restates a year that is past
        "600000.SH,20200422,20200331,3,7",  # and the quarter
    )

    def test_the_latest_period_counts_as_last_restated(self, store: QlibStore) -> None:
        done = bring(store, *(line.replace("20200330,20200331", "20200401,20200331") for line in self.LINES))
        nan = np.nan
        expected = [("03-30", 0, 1, 5), ("04-01", 0, 2, nan), ("04-20", 0, nan, 6), ("04-22", 0, 3, 7)]
        np.testing.assert_equal(rows(done), expected)
        assert "1 figures are of an earlier period than one that was known by then: left out" in done.notes

    def test_two_periods_of_one_day(self, store: QlibStore) -> None:
        lines = [line.replace("20200330", "20200402") for line in self.LINES[:3]]
        assert rows(bring(store, *lines)) == [("04-02", 0, 2.0, 5.0)]

    def test_no_mean_of_two_periods(self, store: QlibStore) -> None:
        lines = "code,ann_date,end_date,roe", *(f"600000,20200402,{x}" for x in ("20191231,9", "20200331,2"))
        assert rows(bring(store, *lines, several="mean")) == [("04-02", 0, 2.0)]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (LINES, r"row 2 \(SH600000, 2020-03-30\) is known before its period ends"),
            (
                ("code,period,roe", "600000,2019Q4,1"),
                r"does not say when the figures of a period were announced.*--column release_date=COLUMN",
            ),
            (
                ("code,date,roe", *(f"600000,{day},1" for day in ("2019-09-30", "2019-12-31", "2020-03-31"))),
                r"lie 92 days apart, such as 2019-09-30.*or say `--shape values`",
            ),
            (
                ("code,ann_date,end_date,roe", *["600000,2020-02-03,2019-12-31,1"] * 2),
                "repeats a stock and moment.*`--several mean`",
            ),
            (("code,ann_date,end_date,roe", "600000,2020-02-03,soon,1"), "must have a period such as"),
            (("code,date,PE(TTM)", "600000,2020-02-03,1"), r"`--column PE_TTM=PE\(TTM\)`"),
            (("code,date,name", "600000,2020-02-03,bank"), "has no column with numbers"),
            (
                ("code,date,roe", "600000,2020-02-03,1", "600004,2020-02-03,x"),
                "must have a finite number as `roe`",
            ),
        ],
    )
    def test_what_would_look_ahead_or_is_no_table(
        self, lines: tuple[str, ...], message: str, store: QlibStore
    ) -> None:
        with pytest.raises(UserError, match=message):
            bring(store, *lines)
        assert "mine" not in SideData(store)

    def test_days_may_be_those_of_knowing_though_they_are_few(self, store: QlibStore) -> None:
        lines = "code,date,rating", "600000,2020-01-31,1", "600000,2020-03-31,2", "600000,2020-06-30,3"
        assert len(rows(bring(store, *lines, shape="values"))) == 3


class TestMarket:
    def test_numbers_of_the_whole_market_by_their_publication(self, store: QlibStore) -> None:
        done = bring(store, "published,fear,greed", "2020-01-02 16:00,1,2", "2020-01-06 10:00,,4")
        assert done.table.shape == "market"
        np.testing.assert_equal(rows(done), [("01-03", 1, 2), ("01-06", np.nan, 4)])
        assert SideData(store).fields("mine") == ["fear", "greed"]

    def test_a_date_alone_must_be_said_to_be_that_of_knowing(self, store: QlibStore) -> None:
        lines = "date,fear", "2020-01-02,1", "2020-01-03,2"
        with pytest.raises(UserError, match=r"tell no shape.*market for values of the whole market"):
            bring(store, *lines)
        assert rows(bring(store, *lines, shape="market")) == [("01-02", 1), ("01-03", 2)]
        with pytest.raises(UserError, match="repeats a day"):
            bring(store, *lines, "2020-01-03,4", shape="market")


def test_options_of_values_are_for_values(store: QlibStore) -> None:
    with pytest.raises(UserError, match="are for tables of values, found one of spells"):
        bring(store, "code,start,industry", "600000,2020-01-02,bank", several="mean")
    with pytest.raises(UserError, match="`several` must be one of mean, newest"):
        bring(store, "code,date,x", "600000,2020-01-02,1", several="first")
