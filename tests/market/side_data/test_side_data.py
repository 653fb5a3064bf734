from __future__ import annotations

import datetime as dt
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.side_data.faults import KINDS
from qlib_ext.market.side_data.problems import problems
from qlib_ext.market.side_data.rows import FAR, parse_day, parse_periods
from qlib_ext.market.side_data.side_data import SideData, SideDataError, as_of

SEVERITY = {kind.name: kind.severity for kind in KINDS}
CALENDAR = pd.bdate_range("2020-01-01", "2020-06-30")
CODES = ["SH600000", "SH600004", "SZ000001"]
Write = Callable[..., Path]


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write `<tmp_path>/side/<file>`; rows are CSV lines, or a frame."""

    def write(file: str, content: str | pd.DataFrame) -> Path:
        path = tmp_path / "side" / file
        path.parent.mkdir(exist_ok=True)
        if isinstance(content, str):
            path.write_text(content, encoding="utf-8")
        elif file.endswith(".csv"):
            content.to_csv(path, index=False)
        else:
            content.to_parquet(path)
        return tmp_path

    return write


def table(*lines: str) -> str:
    return "".join(line + "\n" for line in lines)


def market_value(*rows: str) -> str:
    return table("datetime,instrument,market_value", *rows)


def industry(*rows: str) -> str:
    return table("instrument,start,end,industry", *rows)


def macro(*rows: str) -> str:
    return table("series,period,value,release_date", *rows)


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
    ("size.csv", "datetime,size\n", "side-missing-column", 1, None, None, "no column instrument"),
    ("size.csv", "datetime,instrument,a,b\n", "side-missing-column", 1, None, None, "no column size"),
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
        "found 2020-01-02 15:00",
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


class TestReading:
    def test_parquet_and_csv_give_the_same_table(self, write: Write) -> None:
        frame = pd.DataFrame(
            {
                "start": pd.to_datetime(["2020-01-02", "2020-02-03"]),
                "end": pd.to_datetime(["2020-02-02", None]),
                "instrument": ["sh600000", "NAN"],
                "industry": ["01", "NA"],
            }
        )
        write("a.parquet", frame.rename(columns={"industry": "a"}))
        side = SideData(write("b.csv", frame.rename(columns={"industry": "b"})))
        one, other = side.read("a"), side.read("b")
        pd.testing.assert_frame_equal(one.frame, other.frame.rename(columns={"b": "a"}))
        assert one.frame["instrument"].tolist() == ["SH600000", "NAN"]
        assert one.frame["a"].tolist() == ["01", "NA"]
        assert one.frame["end"].isna().tolist() == [False, True]
        assert (one.shape, one.column, other.column) == ("spells", "a", "b")

    def test_keys_may_be_the_index(self, write: Write) -> None:
        index = pd.MultiIndex.from_product([CALENDAR[:2], CODES], names=["datetime", "instrument"])
        side = SideData(write("size.parquet", pd.DataFrame({"size": np.arange(6.0)}, index=index)))
        assert side.shape("size") == side.read("size", "values").shape == "values"
        assert side.read("size").frame["size"].tolist() == list(range(6))

    @pytest.mark.parametrize("end", ["9999-12-31", "2999-12-31", "99991231"])
    def test_an_end_in_the_far_future_is_a_day(self, end: str, write: Write) -> None:
        side = SideData(write("industry.csv", industry(f"SH600000,2020-01-02,{end},banks")))
        assert side.read("industry").frame["end"].tolist() == [FAR]

    def test_any_other_index_is_left_out(self, write: Write) -> None:
        frame = pd.DataFrame(
            {"datetime": ["2020-01-03", "2020-01-02"], "instrument": ["A", "B"], "size": [1.0, 2.0]},
            index=[7, 3],
        )
        table = SideData(write("size.parquet", frame)).read("size").frame
        assert table.index.tolist() == [0, 1]
        assert table["size"].tolist() == [1.0, 2.0]

    def test_a_parquet_file_may_hold_them_as_times(self, write: Write) -> None:
        days = pd.Series(["2020-01-02", "9999-12-31"]).astype("M8[us]")
        frame = pd.DataFrame({"instrument": ["A", "B"], "start": days.iloc[0], "end": days, "a": ["x", "y"]})
        assert SideData(write("a.parquet", frame)).read("a").frame["end"].tolist() == [days.iloc[0], FAR]

    def test_blank_numbers_are_no_rows(self, write: Write) -> None:
        root = write(
            "market_value.csv",
            market_value("2020-01-02,SH600000,", "2020-01-03,SH600000,NA", "2020-01-06,SH600000,7"),
        )
        assert SideData(root).read("market_value").frame["market_value"].tolist() == [7.0]
        assert problems(root) == []

    def test_series_keep_revisions_and_the_stated_lag(self, write: Write) -> None:
        root = write(
            "us.csv",
            "series,period,value,release_date,stated_lag\ngdp,1998q1,1.5,1998-05-30,end+60d\ngdp,1998Q1,1.6,1998-08-30,\n",
        )
        frame = SideData(root).read("us", "series").frame
        assert frame["period"].tolist() == ["1998Q1", "1998Q1"]
        assert frame["value"].tolist() == [1.5, 1.6]
        assert frame["stated_lag"].tolist() == ["end+60d", ""]

    def test_what_is_not_there_is_told_with_the_way_out(self, write: Write) -> None:
        side = SideData(write("market_value.csv", market_value("2020-01-02,SH600000,5")))
        assert "market_value" in side
        assert "industry" not in side
        with pytest.raises(
            SideDataError, match=r"no side data 'market_values' \(did you mean market_value\?\), it has"
        ):
            side.read("market_values")
        with pytest.raises(
            SideDataError, match="`qlib-ext data side-data DIR industry FILE` brings a table in"
        ):
            side.shape("industry")
        with pytest.raises(SideDataError, match=r"must be a table of spells .* found one of values"):
            side.read("market_value", "spells")

    def test_a_shape_is_told_without_reading_rows(self, write: Write) -> None:
        root = write("market_value.csv", market_value("2020-01-02,SH600000,what"))
        assert SideData(root).shape("market_value") == "values"
        write("other.csv", "a,b\n")
        (root / "side" / "broken.parquet").write_bytes(b"PAR1")
        for name in ("other", "broken"):
            with pytest.raises(SideDataError, match=f"side/{name}"):
                SideData(root).shape(name)


class TestFingerprint:
    def test_it_follows_content_and_not_place(
        self, write: Write, tmp_path_factory: pytest.TempPathFactory
    ) -> None:
        root = write("market_value.csv", market_value("2020-01-02,SH600000,5"))
        write("industry.csv", industry("SH600000,2020-01-02,,banks"))
        write("README.md", "one")
        before = SideData(root).fingerprint(), SideData(root).fingerprint(["industry"])
        assert len(set(before)) == 2
        other = tmp_path_factory.mktemp("other")
        (root / "side").rename(other / "side")
        (other / "side" / "README.md").write_text("another")
        assert (SideData(other).fingerprint(), SideData(other).fingerprint(["industry"])) == before
        (other / "side" / "market_value.csv").write_text(market_value("2020-01-02,SH600000,6"))
        assert SideData(other).fingerprint() != before[0]
        assert SideData(other).fingerprint(["industry"]) == before[1]

    def test_an_unknown_name_is_an_error(self, write: Write) -> None:
        with pytest.raises(SideDataError, match="no side data 'b'"):
            SideData(write("a.csv", "datetime,instrument,a\n2020-01-02,SH600000,5\n")).fingerprint(["b"])


def naive_as_of(
    rows: Sequence[tuple[pd.Timestamp, str, float]],
    calendar: pd.DatetimeIndex,
    codes: Sequence[str],
    limit: int,
) -> np.ndarray:
    values = np.full((len(calendar), len(codes)), np.nan, np.float32)
    for i, day in enumerate(calendar):
        for j, code in enumerate(codes):
            known = [(date, number) for date, other, number in rows if other == code and date <= day]
            if known and (day - max(known)[0]).days <= limit:
                values[i, j] = max(known)[1]
    return values


ROWS = st.dictionaries(
    st.tuples(st.integers(-20, 60), st.sampled_from([*CODES, "SH600999"])),
    st.floats(1, 100, width=32),
    max_size=40,
)


class TestValues:
    @given(rows=ROWS, limit=st.integers(0, 30))
    def test_the_newest_number_by_each_day(self, rows: dict[tuple[int, str], float], limit: int) -> None:
        """Days of rows fall on weekends and outside of the calendar, too."""
        calendar = pd.bdate_range("2020-01-01", periods=25)
        listed = [
            (calendar[0] + pd.Timedelta(days=offset), code, number) for (offset, code), number in rows.items()
        ]
        frame = pd.DataFrame(listed, columns=["date", "code", "number"]).astype({"date": "M8[ns]"})
        found = as_of(frame["date"], frame["code"], frame["number"].to_numpy(float), calendar, CODES, limit)
        np.testing.assert_array_equal(found, naive_as_of(listed, calendar, CODES, limit))
        assert found.dtype == np.float32

    def test_a_number_is_known_from_its_day_on_and_for_a_while(self, write: Write) -> None:
        side = SideData(
            write("size.csv", "datetime,instrument,size\n2020-01-04,SH600004,3\n2020-01-08,SH600004,4\n")
        )
        found = side.values(
            "size", CALENDAR[:8], CODES, limit_days=3
        )  # from Wednesday, January 1; the 4th is a Saturday
        nan = np.nan
        np.testing.assert_array_equal(found[:, 1], np.array([nan, nan, nan, 3, 3, 4, 4, 4], np.float32))
        assert np.isnan(found[:, [0, 2]]).all()
        np.testing.assert_array_equal(
            side.values("size", CALENDAR[:8], CODES, limit_days=0)[:, 1],
            [nan, nan, nan, nan, nan, 4, nan, nan],
        )

    def test_the_sample_market_value_is_read_back(self, sample: Any) -> None:
        found = SideData(sample.store).values(
            "market_value", sample.calendar, sample.firms.codes, limit_days=0
        )
        np.testing.assert_array_equal(found, sample.market.market_value.astype(np.float32))

    def test_arguments_are_checked(self, write: Write) -> None:
        side = SideData(write("industry.csv", industry("SH600000,2020-01-02,,banks")))
        with pytest.raises(SideDataError, match="must be a table of values"):
            side.values("industry", CALENDAR, CODES, 5)
        rows = pd.Series(CALENDAR[:1]), pd.Series(CODES[:1]), np.ones(1)
        with pytest.raises(UserError, match="`limit_days` must be at least 0, found -1"):
            as_of(*rows, CALENDAR, CODES, -1)


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
