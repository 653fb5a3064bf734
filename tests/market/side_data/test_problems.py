from __future__ import annotations

from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from qlib_ext.market.side_data.faults import KINDS
from qlib_ext.market.side_data.problems import problems
from qlib_ext.market.side_data.side_data import SideData, SideDataError
from tests.market.side_data.conftest import CALENDAR, CODES, Write, industry, macro, market_value, table

SEVERITY = {kind.name: kind.severity for kind in KINDS}

# What is planted, and what must be told of it: kind, count, instrument, date, words of the message.
PLANTED: list[tuple[str, str | bytes, str, int, str | None, str | None, str]] = [
    (
        "cpi.parquet",
        b"PAR1 and no more",
        "side-unreadable",
        1,
        None,
        None,
        "`side/cpi.parquet` is no Parquet",
    ),
    ("cpi.csv", b"", "side-unreadable", 1, None, None, "`side/cpi.csv` is no Parquet or CSV table"),
    (
        "size.csv",
        "day,code,size\n",
        "side-unknown-shape",
        1,
        None,
        None,
        "datetime, instrument, size (values)",
    ),
    (
        "market_value.csv",
        "datetime,market_value\n",
        "side-missing-column",
        1,
        None,
        None,
        "no column instrument",
    ),
    ("size.csv", "datetime,instrument\n", "side-missing-column", 1, None, None, "no column size"),
    (
        "cpi.csv",
        "series,period,value\n",
        "side-missing-column",
        1,
        None,
        None,
        "no column release_date, which a table of series needs (series, period, value, release_date): without",
    ),
    ("market_value.csv", market_value(), "side-empty", 1, None, None, "`side/market_value.csv` has no rows"),
    ("us.csv", macro("cpi,1998Q1,,1998-08-01"), "side-empty", 1, None, None, "no number in any of its rows"),
    (
        "market_value.csv",
        market_value("2020-01-02,,5", "2020-01-02,SH600000,5", "2020-01-03, ,5"),
        "side-missing-value",
        2,
        None,
        None,
        "row 1 has no `instrument`",
    ),
    (
        "market_value.csv",
        market_value("2020-01-02,SH600000,5", "2020-13-02,SH600004,5", "soon,SH600004,5"),
        "side-bad-date",
        2,
        None,
        None,
        "row 2 must have a day such as 2010-01-04 as `datetime`, found 2020-13-02 (2 rows are like it)",
    ),
    (
        "market_value.csv",
        market_value("2020-01-02 15:00,SH600000,5"),
        "side-bad-date",
        1,
        None,
        None,
        "found 2020-01-02 15:00; `qlib-ext data side-data` reads times of day",
    ),
    (
        "market_value.csv",
        market_value("2020-01-02,SH600000,5", "2020-01-03,SH600000,much"),
        "side-bad-number",
        1,
        None,
        None,
        "row 2 must have a finite number as `market_value`, found much",
    ),
    (
        "market_value.csv",
        market_value("2020-01-02,SH600000,inf"),
        "side-bad-number",
        1,
        None,
        None,
        "found inf",
    ),
    (
        "market_value.csv",
        market_value("2020-01-02,SH600000,5", "2020-01-03,sh600004,-1", "2020-01-06,SH600004,0"),
        "side-bad-market-value",
        2,
        "SH600004",
        "2020-01-03",
        "row 2 (SH600004, 2020-01-03) has a market value that is not above 0",
    ),
    (
        "market_value.csv",
        market_value("2020-01-06,SH600000,5e6", "2020-01-03,SH600000,5e2", "2020-03-03,SH600000,5e2"),
        "side-market-value-jump",
        1,
        "SH600000",
        "2020-01-06",
        "50 times larger or smaller",
    ),
    (
        "size.csv",
        "datetime,instrument,size\n2020-01-02,SH600000,5\n20200102,sh600000,6\n",
        "side-doubled-row",
        1,
        "SH600000",
        "2020-01-02",
        "row 2 (SH600000, 2020-01-02) repeats a stock and day",
    ),
    (
        "industry.csv",
        industry("SH600000,2020-01-02,2020-03-02,banks", "SH600004,2020-03-02,2020-03-01,steel"),
        "side-reversed-spell",
        1,
        "SH600004",
        "2020-03-02",
        "ends before it begins",
    ),
    (
        "industry.csv",
        industry(
            "SH600000,2020-02-03,,steel", "SH600000,2020-01-02,2020-02-03,banks", "SH600004,2020-01-02,,steel"
        ),
        "side-overlapping-spells",
        1,
        "SH600000",
        "2020-02-03",
        "row 1 (SH600000, 2020-02-03) begins before an earlier spell of the stock has ended",
    ),
    (
        "concepts.csv",
        table(
            "instrument,start,end,concepts",
            "SH600000,2020-01-02,,5G",
            "SH600000,2020-02-03,2020-02-04,5G",
            "SH600000,2020-02-06,2020-02-07,5G",
            "SH600000,2020-02-06,2020-02-07,AI",
            "SH600004,2020-01-02,,5G",
        ),
        "side-overlapping-spells",
        2,
        "SH600000",
        "2020-02-03",
        "of the stock and name has ended (2 rows are like it)",
    ),
    ("us.csv", macro("cpi,1998Q5,1,1998-08-01"), "side-bad-period", 1, None, None, "found 1998Q5"),
    (
        "us.csv",
        macro("cpi,1998Q1,1,1998-05-01", "gdp,1998,1,1999-05-01", "cpi,1998-04,1,1998-05-01"),
        "side-bad-period",
        1,
        "cpi",
        "1998-05-01",
        "row 3 (cpi, 1998-05-01) has a period of another length",
    ),
    (
        "us.csv",
        macro("cpi,1998-01,1,1998-01-31", "cpi,1998-02,1,1998-02-27"),
        "side-released-early",
        1,
        "cpi",
        "1998-02-27",
        "released before its period ends",
    ),
    (
        "us.csv",
        macro("cpi,1998-01,1,1998-02-15", "cpi,1998-01,2,1998-03-15", "cpi,1998M1,1,1998-02-15"),
        "side-doubled-row",
        1,
        "cpi",
        "1998-02-15",
        "row 3 (cpi, 1998-02-15) repeats a series, period and release date",
    ),
    (
        "market_value.csv",
        market_value("2020-06-30,600000.SH,5"),
        "side-no-known-code",
        1,
        "600000.SH",
        None,
        "none of the 1 codes of `market_value` has bars, such as 600000.SH; write codes as the store does, such as SH6",
    ),
    (
        "market_value.csv",
        market_value("2020-06-30,SH600000,5", "2020-06-30,SH600004,5", "2020-06-30,SH600999,5"),
        "side-unknown-code",
        1,
        "SH600999",
        None,
        "1 of the 3 codes",
    ),
    (
        "market_value.csv",
        market_value("2020-06-30,SH600000,5"),
        "side-few-stocks",
        2,
        None,
        None,
        "rows for 1 of the 3 instruments",
    ),
    (
        "market_value.csv",
        market_value("2020-05-29,SH600000,5", "2020-04-29,SZ000001,5"),
        "side-ends-early",
        1,
        None,
        "2020-05-29",
        "ends on 2020-05-29, 32 days before the bars",
    ),
    (
        "market_value.csv",
        market_value("2020-06-30,SH600000,5", "2019-12-31,SZ000001,5", "2020-07-01,SZ000001,5"),
        "side-outside-calendar",
        2,
        None,
        "2019-12-31",
        "2 of the 3 rows of `market_value` lie outside of the calendar, 2020-01-01 to 2020-06-30",
    ),
    (
        "industry.csv",
        industry("SH600000,2010-01-04,2019-12-31,banks", "SZ000001,2021-01-04,,banks"),
        "side-nothing-inside",
        2,
        None,
        "2010-01-04",
        "2 of the 2 rows",
    ),
]


class TestProblems:
    def test_a_store_without_side_data_has_none(self, tmp_path: Path) -> None:
        assert problems(tmp_path) == problems(tmp_path / "nowhere") == []

    @pytest.mark.parametrize(("file", "content", "kind", "count", "instrument", "date", "words"), PLANTED)
    def test_each_fault_is_told_by_its_first_row(
        self,
        file: str,
        content: str | bytes,
        kind: str,
        count: int,
        instrument: str | None,
        date: str | None,
        words: str,
        write: Write,
    ) -> None:
        root = write(file, "")
        (root / "side" / file).write_bytes(content.encode() if isinstance(content, str) else content)
        found = problems(root, calendar=CALENDAR, instruments=CODES)
        (fault,) = [finding for finding in found if finding.kind == kind]
        assert (fault.count, fault.instrument, fault.date) == (count, instrument, date)
        assert (fault.file, fault.severity) == (f"side/{file}", SEVERITY[kind])
        assert words in fault.message
        assert str(root) not in fault.message
        errors = {finding.kind for finding in found if finding.severity == "error"}
        name = file.partition(".")[0]
        if errors - {"side-no-known-code"}:
            with pytest.raises(SideDataError):
                SideData(root).read(name)
        else:
            SideData(root).read(name)

    def test_every_kind_is_planted_here(self) -> None:
        planted = {kind for _, _, kind, *_ in PLANTED}
        assert planted | {"side-two-files"} == set(SEVERITY)

    def test_one_name_has_one_file(self, write: Write) -> None:
        write("size.csv", "datetime,instrument,size\n2020-01-02,SH600000,5\n")
        root = write("size.parquet", pd.read_csv(write("b.csv", market_value()) / "side" / "size.csv"))
        found = [finding for finding in problems(root, ["size"]) if finding.severity == "error"]
        assert [(x.kind, x.count, x.file) for x in found] == [("side-two-files", 2, "side/size.csv")]
        with pytest.raises(
            SideDataError, match=r"`side/size.csv` and `side/size.parquet` are of one name: remove"
        ):
            SideData(root)

    def test_faults_of_several_kinds_in_one_file(self, write: Write) -> None:
        root = write("market_value.csv", market_value("then,,5", "2020-01-02,SH600000,x"))
        assert [x.kind for x in problems(root)] == ["side-bad-date", "side-missing-value", "side-bad-number"]
        with pytest.raises(
            SideDataError, match=r"found then; there are 2 other kinds of fault, .*data check` \(in the"
        ):
            SideData(root).read("market_value")

    def test_a_time_zone_is_refused(self, write: Write) -> None:
        days = pd.DatetimeIndex(["2020-01-02"], tz="Asia/Shanghai")
        root = write("s.parquet", pd.DataFrame({"datetime": days, "instrument": ["SH600000"], "s": [1.0]}))
        (fault,) = problems(root)
        assert fault.kind == "side-bad-date"
        assert "time zone" in fault.message

    def test_figures_of_before_the_bars_are_known_on_their_first_day(self, write: Write) -> None:
        rows = ["cpi,2019-11,1,2019-12-15", "cpi,2019-12,1,2020-01-15"]
        root = write("us.csv", macro(*rows))
        assert problems(root, calendar=CALENDAR) == []
        write("us.csv", macro(*rows, "cpi,2020-06,1,2020-07-15"))
        (note,) = problems(root, calendar=CALENDAR)
        assert (note.kind, note.count, note.date) == ("side-outside-calendar", 1, "2020-07-15")

    def test_only_the_names_asked_for(self, write: Write) -> None:
        write("bad.csv", "nothing\n")
        root = write("size.csv", "datetime,instrument,size\n2020-01-02,SH600000,5\n")
        assert problems(root, ["size"]) == []
        assert [x.file for x in problems(root)] == ["side/bad.csv"]

    def test_other_files_are_left_alone(self, write: Write) -> None:
        for file in ("README.md", "sample.json", ".hidden.csv"):
            root = write(file, "nothing\n")
        assert problems(root) == SideData(root).names() == []

    def test_the_sample_market_has_none(self, sample: Any) -> None:
        store = sample.store
        assert problems(store.root, calendar=store.calendar, instruments=store.instruments()) == []
        side = SideData(store)
        shapes = {name: side.shape(name) for name in side.names()}
        assert shapes == {"industry": "spells", "market_value": "values", "planted_score": "values"}
        assert side.read("planted_score").column == "score"
