from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.side_data.problems import problems
from qlib_ext.market.side_data.rows import FAR
from qlib_ext.market.side_data.side_data import SideData, SideDataError, as_of
from tests.market.side_data.conftest import CALENDAR, CODES, Write, industry, market_value


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
