from __future__ import annotations

import gzip
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.replace import locked
from qlib_ext.market.side_data.import_table import ImportedTable, import_table
from qlib_ext.market.side_data.problems import problems
from qlib_ext.market.side_data.release_dates import EVERY
from qlib_ext.market.side_data.side_data import SideData, SideDataError
from qlib_ext.market.store import QlibStore, write_store

REAL_MACRO = Path(__file__).parents[4] / "shared" / "market" / "us" / "macro.csv"
CALENDAR = pd.bdate_range("2020-01-01", "2020-06-30")
CODES = ["SH600000", "SH600004", "SZ000001"]
Bring = Callable[..., ImportedTable]


@pytest.fixture
def store(tmp_path: Path) -> QlibStore:
    return write_store(tmp_path / "store", CALENDAR, CODES, {"close": np.ones((len(CALENDAR), 3))}, {})


@pytest.fixture
def bring(store: QlibStore, tmp_path: Path) -> Bring:
    """`bring(name, lines or frame, file=..., **options)`: write a file and bring it in."""

    def bring(name: str, content: Any, file: str = "mine.csv", **options: Any) -> ImportedTable:
        path = tmp_path / file
        if isinstance(content, pd.DataFrame):
            content.to_parquet(path, index=False)
        elif isinstance(content, bytes):
            path.write_bytes(content)
        else:
            path.write_text("\n".join(content) + "\n", encoding="utf-8")
        return import_table(store.root, name, path, **options)

    return bring


def rows(done: ImportedTable) -> list[tuple[str, ...]]:
    """The table as texts, days as 2020-01-02 and open ends as an empty text."""
    frame = done.table.frame.copy()
    for column in frame:
        if frame[column].dtype.kind == "M":
            frame[column] = frame[column].dt.strftime("%Y-%m-%d").fillna("")
    return [tuple(str(x) for x in row) for row in frame.itertuples(index=False)]


class TestValues:
    LINES = (
        "date,code,total_mv",
        "20200102,600000.SH,5",
        "2020-01-02,1,6",
        "2020-01-03,sh600004,",
        "2020-01-03,1,7",
    )

    def test_a_vendors_table_becomes_one_of_the_store(self, bring: Bring, store: QlibStore) -> None:
        done = bring("market_value", self.LINES)
        assert done.path == store.root / "side" / "market_value.parquet"
        assert rows(done) == [
            ("2020-01-02", "SH600000", "5.0"),
            ("2020-01-02", "SZ000001", "6.0"),
            ("2020-01-03", "SZ000001", "7.0"),
        ]
        assert (done.table.shape, done.table.column) == ("values", "market_value")
        assert "2 codes written as the store does, such as 600000.SH" in done.notes
        assert "1 of 4 rows have no number: left out" in done.notes
        read = SideData(store).read("market_value", "values")
        pd.testing.assert_frame_equal(read.frame, done.table.frame, check_categorical=False)
        assert {x.severity for x in problems(store.root, calendar=CALENDAR, instruments=CODES)} <= {
            "warning",
            "note",
        }

    @pytest.mark.parametrize("file", ["m.csv.gz", "m.tsv", "m.txt", "gbk.csv"])
    def test_kinds_of_text(self, file: str, bring: Bring) -> None:
        text = "\n".join(self.LINES)
        options = {}
        if file == "m.tsv":
            text = text.replace(",", "\t")
        if file == "m.txt":
            text = "\ufeff" + text.replace(",", ";")
        if file == "gbk.csv":
            text = text.replace("date,code,total_mv", "日期,股票代码,总市值")
            options = {"encoding": "gbk"}
        content = text.encode("gbk" if options else "utf-8")
        done = bring(
            "market_value", gzip.compress(content) if file.endswith("gz") else content, file, **options
        )
        assert len(done.table.frame) == 3

    def test_parquet_with_numbers_for_codes(self, bring: Bring) -> None:
        frame = pd.DataFrame({"trade_date": [20200102, 20200103], "ts_code": [600000, 1], "x": [1.5, 2.5]})
        done = bring("size", frame, "m.parquet")
        assert rows(done) == [("2020-01-02", "SH600000", "1.5"), ("2020-01-03", "SZ000001", "2.5")]

    def test_a_column_a_stock(self, bring: Bring) -> None:
        done = bring("market_value", ["date,600000.SH,000001.SZ", "2020-01-02,1,2", "2020-01-03,,4"])
        assert rows(done) == [
            ("2020-01-02", "SH600000", "1.0"),
            ("2020-01-02", "SZ000001", "2.0"),
            ("2020-01-03", "SZ000001", "4.0"),
        ]

    def test_columns_may_be_named_and_left_out(self, bring: Bring) -> None:
        lines = ["when,code,a,b", "2020-01-02,SH600000,1,2"]
        with pytest.raises(UserError, match="must have a column datetime to be a table of values"):
            bring("market_value", lines)
        with pytest.raises(
            UserError, match=r"must tell which column is market_value: `--column market_value=COLUMN`"
        ):
            bring("market_value", lines, columns={"datetime": "when"})
        done = bring("market_value", lines, columns={"datetime": "when", "market_value": "b"})
        assert rows(done) == [("2020-01-02", "SH600000", "2.0")]
        done = bring("market_value", lines, columns={"datetime": "when", "b": ""}, replace=True)
        assert rows(done) == [("2020-01-02", "SH600000", "1.0")]
        with pytest.raises(
            UserError, match=r"`--column market_value=c` must name a column of .* which has when, code, a, b"
        ):
            bring("market_value", lines, columns={"datetime": "when", "market_value": "c"}, replace=True)


class TestSpells:
    def test_spells_as_they_are(self, bring: Bring) -> None:
        lines = [
            "symbol,in_date,out_date,industry",
            "600004.SH,2019-01-01,9999-12-31,801010",
            "600000.SH,2019-01-01,2020-02-03,801780",
            "600000.SH,2020-02-04,,801010",
        ]
        done = bring("industry", lines)
        assert rows(done) == [
            ("SH600000", "2019-01-01", "2020-02-03", "801780"),
            ("SH600000", "2020-02-04", "", "801010"),
            ("SH600004", "2019-01-01", "2261-12-31", "801010"),
        ]

    def test_an_end_may_be_the_first_day_out(self, bring: Bring) -> None:
        lines = ["code,start,end,industry", "1,2020-01-02,2020-02-03,banks", "1,2020-02-03,,steel"]
        assert any("begins before an earlier spell" in note for note in bring("industry", lines).notes)
        done = bring("industry", lines, until="first-day-out", replace=True)
        assert rows(done) == [
            ("SZ000001", "2020-01-02", "2020-02-02", "banks"),
            ("SZ000001", "2020-02-03", "", "steel"),
        ]
        assert not any("begins before" in note for note in done.notes)
        with pytest.raises(UserError, match="`until` is for the ends of spells, found none in"):
            bring("size", TestValues.LINES, until="first-day-out")
        with pytest.raises(UserError, match="`until` must be one of first-day-out, last-day, found 'today'"):
            bring("size", TestValues.LINES, until="today")
        with pytest.raises(
            SideDataError, match="row 1 must have a day such as 2010-01-04 as `end`, found soon"
        ):
            bring("theme", ["code,start,end,theme", "1,2020-01-02,soon,x"], until="first-day-out")

    def test_without_ends_spells_are_open(self, bring: Bring) -> None:
        done = bring("concepts", ["code,start,concept", "SH600000,2020-01-02,5G", "SH600000,2020-01-03,AI"])
        assert rows(done) == [("SH600000", "2020-01-02", "", "5G"), ("SH600000", "2020-01-03", "", "AI")]

    def test_snapshots_hold_until_the_next(self, bring: Bring) -> None:
        lines = [
            "date,code,industry",
            "2020-03-02,SH600000,banks",
            "2020-01-02,SH600000,banks",
            "2020-02-03,SH600000,steel",
            "2020-01-02,SH600004,steel",
            "2020-02-03,SH600004,steel",
            "2020-02-03,SH600004,steel",
            "2020-03-02,SZ000001,steel",
        ]
        done = bring("industry", lines)
        assert rows(done) == [
            ("SH600000", "2020-01-02", "2020-02-02", "banks"),
            ("SH600000", "2020-02-03", "2020-03-01", "steel"),
            ("SH600000", "2020-03-02", "", "banks"),
            ("SH600004", "2020-01-02", "2020-03-01", "steel"),
            ("SZ000001", "2020-03-02", "", "steel"),
        ]
        assert done.notes[0] == (
            "3 snapshots from 2020-01-02 to 2020-03-02: each holds until the next, earlier days have none"
        )
        assert done.notes[1] == "1 of 7 rows repeat another one: counted once"

    def test_snapshots_of_many_concepts_at_once_under_any_name(self, bring: Bring) -> None:
        lines = [
            "date,code,theme",
            "2020-01-02,SH600000,5G",
            "2020-01-02,SH600000,AI",
            "2020-02-03,SH600000,AI",
        ]
        done = bring("themes", lines, shape="spells")
        assert rows(done) == [
            ("SH600000", "2020-01-02", "2020-02-02", "5G"),
            ("SH600000", "2020-01-02", "", "AI"),
        ]

    def test_todays_list_is_refused_for_the_past(self, bring: Bring, store: QlibStore) -> None:
        with pytest.raises(
            UserError, match=r"from when on a stock belongs to its industry: today's list, .* look ahead"
        ):
            bring("industry", ["code,industry", "SH600000,banks"])
        assert not (store.root / "side").exists()


class TestSeries:
    WIDE = ("period,gdp,cpi,rate", "1998Q1,100,50,5", "1998Q2,101,51,", "1998Q3,102,52,6")

    def test_without_release_dates_and_lags_it_is_refused(self, bring: Bring, store: QlibStore) -> None:
        with pytest.raises(
            UserError,
            match=r"figures of gdp, cpi, rate without a release date: .* look ahead.*`--lag gdp=45d`.*"
            r"quarterly \(end\+60d\), monthly \(month\+45d\), rate \(end\+1b\)",
        ):
            bring("macro", self.WIDE)
        with pytest.raises(UserError, match="figures of rate without a release date"):
            bring("macro", self.WIDE, lags={"gdp": "quarterly", "cpi": "monthly"})
        assert not (store.root / "side").exists()

    def test_lags_become_release_dates_and_are_recorded(self, bring: Bring) -> None:
        done = bring("macro", self.WIDE, lags={"gdp": "quarterly", "cpi": "monthly", EVERY: "rate"})
        assert rows(done) == [
            ("cpi", "1998Q1", "50.0", "1998-04-15", "month+45d"),
            ("cpi", "1998Q2", "51.0", "1998-07-16", "month+45d"),
            ("cpi", "1998Q3", "52.0", "1998-10-16", "month+45d"),
            ("gdp", "1998Q1", "100.0", "1998-05-30", "end+60d"),
            ("gdp", "1998Q2", "101.0", "1998-08-29", "end+60d"),
            ("gdp", "1998Q3", "102.0", "1998-11-29", "end+60d"),
            ("rate", "1998Q1", "5.0", "1998-04-01", "end+1b"),
            ("rate", "1998Q3", "6.0", "1998-10-01", "end+1b"),
        ]
        assert "release dates of gdp follow from its periods and the stated lag end+60d" in done.notes
        assert "1 of 9 rows have no number: left out" in done.notes

    def test_release_dates_of_the_source_come_first(self, bring: Bring) -> None:
        lines = [
            "series,period,value,release_date",
            "gdp,2019Q4,1,2020-01-30",
            "gdp,2019Q4,1.5,2020-02-27",
            "gdp,2020Q1,2,",
            "cpi,2020-01,3,2020-02-13",
        ]
        done = bring("macro", lines, lags={EVERY: "60d", "cpi": "15d"})
        assert rows(done) == [
            ("cpi", "2020-01", "3.0", "2020-02-13", ""),
            ("gdp", "2019Q4", "1.0", "2020-01-30", ""),
            ("gdp", "2019Q4", "1.5", "2020-02-27", ""),
            ("gdp", "2020Q1", "2.0", "2020-05-30", "end+60d"),
        ]
        assert "the lag of cpi is not used: all its figures have release dates" in done.notes
        done = bring("macro", [*lines[:3], lines[4]], replace=True)
        assert "stated_lag" not in done.table.frame

    def test_days_that_stand_for_quarters_must_be_said_to(self, bring: Bring) -> None:
        """The figure of 1998-01-01 is that of the quarter that begins there: 60 days later it is not known."""
        lines = ["observation_date,GDPC1", "1998-01-01,1", "1998-04-01,2", "1998-07-01,3"]
        with pytest.raises(
            UserError, match=r"days that lie 90 days apart, such as 1998-01-01: .*`--frequency GDPC1=month`"
        ):
            bring("macro", lines, lags={EVERY: "60d"})
        done = bring("macro", lines, lags={EVERY: "60d"}, frequencies={"GDPC1": "quarter"})
        assert rows(done)[0] == ("GDPC1", "1998Q1", "1.0", "1998-05-30", "end+60d")
        done = bring("macro", lines, lags={EVERY: "60d"}, frequencies={EVERY: "day"}, replace=True)
        assert rows(done)[0] == ("GDPC1", "1998-01-01", "1.0", "1998-03-02", "end+60d")

    @pytest.mark.parametrize(
        "days", [["1998-01-31", "1998-02-27", "1998-03-31"], ["2020-01-02", "2020-01-03", "2020-01-06"]]
    )
    def test_the_ends_of_months_and_true_days_are_taken_as_they_are(
        self, days: list[str], bring: Bring
    ) -> None:
        done = bring("macro", ["period,r", *(f"{day},1" for day in days)], lags={"r": "1b"})
        assert [row[1] for row in rows(done)] == days

    def test_a_single_series_has_the_name_of_the_table(self, bring: Bring) -> None:
        done = bring("cpi", ["date,value", "2020-01,7"], shape="series", lags={EVERY: "monthly"})
        assert rows(done) == [("cpi", "2020-01", "7.0", "2020-02-15", "month+45d")]

    def test_a_lag_tells_that_days_are_periods(self, bring: Bring) -> None:
        lines = ["DATE,DGS3MO", "2020-01-02,1.5", "2020-01-03,1.6"]
        with pytest.raises(UserError, match="they tell no shape"):
            bring("macro", lines)
        assert [row[3] for row in rows(bring("macro", lines, lags={EVERY: "rate"}))] == [
            "2020-01-03",
            "2020-01-06",
        ]

    def test_series_may_be_renamed_and_left_out(self, bring: Bring) -> None:
        done = bring(
            "macro", self.WIDE, columns={"gdp": "", "prices": "cpi", "rate": "rate"}, lags={EVERY: "monthly"}
        )
        assert {row[0] for row in rows(done)} == {"prices", "rate"}

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            (
                {"lags": {"gpd": "60d"}},
                r"`--lag gpd=60d` must name a series of .* \(did you mean gdp\?\), which has gdp",
            ),
            (
                {"lags": {EVERY: "soon"}},
                r"the lag of gdp must be quarterly, monthly, rate, or days .* found 'soon'",
            ),
            ({"lags": {EVERY: "month+10d"}}, r"row 1 \(gdp, 1998-03-11\) is released before its period ends"),
            ({"frequencies": {EVERY: "week"}}, "frequency of gdp` must be one of day, month, quarter, year"),
            (
                {"lags": {EVERY: "60d"}, "shape": "values"},
                "does not say when the figures of a period were announced",
            ),
        ],
    )
    def test_options_are_checked(self, options: dict[str, Any], message: str, bring: Bring) -> None:
        with pytest.raises(UserError, match=message):
            bring("macro", self.WIDE, **options)

    def test_lags_are_for_series(self, bring: Bring) -> None:
        with pytest.raises(
            UserError, match="lags and frequencies are for tables of series, found one of values"
        ):
            bring("market_value", TestValues.LINES, lags={EVERY: "60d"})

    def test_real_macro_figures(self, bring: Bring) -> None:
        if not REAL_MACRO.is_file():
            pytest.skip("the real figures ../shared/market/us/macro.csv are not on this machine")
        lags = {"realgdp": "quarterly", "cpi": "monthly", "unemp": "monthly", "tbilrate": "rate"}
        done = bring("macro", REAL_MACRO.read_bytes(), lags=lags)
        assert len(done.table.frame) == 4 * 47
        first = {row[0]: row for row in rows(done) if row[1] == "1998Q1"}
        assert first["realgdp"][2:4] == ("10103.425", "1998-05-30")
        assert first["unemp"][2:4] == ("4.6", "1998-04-15")
        assert first["tbilrate"][2:4] == ("5.02", "1998-04-01")


class TestStore:
    LINES = ("datetime,instrument,market_value", "2020-06-30,SH600000,5", "2020-06-30,SZ000001,5")

    def test_a_table_is_replaced_only_on_request(self, bring: Bring, store: QlibStore) -> None:
        (store.root / "side").mkdir()
        (store.root / "side" / "market_value.csv").write_text("\n".join(self.LINES))
        (store.root / "side" / "README.md").write_text("mine")
        with pytest.raises(
            UserError, match=r"has side/market_value.csv already: choose another name, or add --replace"
        ):
            bring("market_value", self.LINES)
        bring("market_value", self.LINES, replace=True)
        assert sorted(path.name for path in (store.root / "side").iterdir()) == [
            "README.md",
            "market_value.parquet",
        ]

    def test_the_rest_of_the_store_stays(self, bring: Bring, store: QlibStore) -> None:
        before = store.fingerprint()
        bring("market_value", self.LINES)
        again = bring("market_value", self.LINES, replace=True)
        assert QlibStore(store.root).fingerprint() == before
        assert again.notes == ()
        assert not [path for path in store.root.parent.iterdir() if path.name.startswith(".")]

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (
                ["datetime,instrument,market_value", "2020-06-30,SH600000,-5"],
                "not above 0.* Nothing was written",
            ),
            (
                ["datetime,instrument,market_value", "2020-06-30,SH600009,5"],
                "none of the 1 codes .* has bars",
            ),
            (
                ["datetime,instrument,market_value", "2020-06-30,SH600000,5", "2020-06-30,600000,6"],
                "repeats a stock",
            ),
            (["datetime,instrument,market_value", "2020-06-30 25:00,SH600000,5"], "must have a day"),
            (
                ["datetime,instrument,market_value", "2020-06-30,!,x"],
                "there are 1 other kinds of fault|finite number",
            ),
            (["datetime,instrument,market_value"], "has no rows"),
            (["datetime,instrument,market_value", "2020-06-30,SH600000,"], "no number in any of its rows"),
            (["a,b", "1,2"], "they tell no shape"),
            ([""], "cannot be read"),
        ],
    )
    def test_a_fault_leaves_it_as_it_was(
        self, lines: list[str], message: str, bring: Bring, store: QlibStore
    ) -> None:
        bring("market_value", self.LINES)
        content = (store.root / "side" / "market_value.parquet").read_bytes()
        with pytest.raises(UserError, match=message):
            bring("market_value", lines, replace=True)
        assert (store.root / "side" / "market_value.parquet").read_bytes() == content

    def test_a_store_that_is_being_changed_is_left_alone(self, bring: Bring, store: QlibStore) -> None:
        with locked(store.root), pytest.raises(UserError):
            bring("market_value", self.LINES)
        assert not (store.root / "side").exists()

    @pytest.mark.parametrize(
        ("name", "file", "message"),
        [
            ("../up", "m.csv", "must be made of letters, digits"),
            ("a.b", "m.csv", "must be made of letters, digits"),
            ("size", "m.xlsx", "must be one of .parquet, .csv"),
            ("size", "none", "must be one of .parquet, .csv"),
        ],
    )
    def test_names_are_checked(self, name: str, file: str, message: str, bring: Bring) -> None:
        with pytest.raises(UserError, match=message):
            bring(name, self.LINES, file)

    def test_a_missing_or_unreadable_file(self, bring: Bring, store: QlibStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="found none at"):
            import_table(store.root, "size", tmp_path / "nowhere.csv")
        with pytest.raises(
            UserError, match="is not in the encoding utf-8: name its own, such as `--encoding gbk`"
        ):
            bring("size", "日期,股票代码,市值\n".encode("gbk"))
        with pytest.raises(UserError, match="`encoding` must be one such as utf-8 or gbk, found 'utf-9'"):
            bring("size", self.LINES, encoding="utf-9")
        with pytest.raises(UserError, match="cannot be read"):
            bring("size", b"no parquet", "m.parquet")
        with pytest.raises(UserError, match="cannot be read"):
            bring("size", b"no gzip", "m.csv.gz")

    def test_the_sample_markets_own_tables_come_through(self, sample: Any, tmp_path: Path) -> None:
        root = tmp_path / "store"
        shutil.copytree(sample.store.root, root, copy_function=os.link)
        for name in ("market_value", "industry", "planted_score"):
            source = sample.store.root / "side" / f"{name}.parquet"
            done = import_table(root, name, source, replace=True)
            assert done.notes == ()
            before = SideData(sample.store).read(name).frame
            order = list(before.columns[:2])
            expected = before.sort_values(order, kind="stable", ignore_index=True)
            found = SideData(root).read(name).frame.rename(columns={name: before.columns[-1]})
            pd.testing.assert_frame_equal(found, expected, check_categorical=False)


def test_an_error_names_the_kind_of_error(bring: Bring) -> None:
    with pytest.raises(SideDataError):
        bring("market_value", ["datetime,instrument,market_value", "2020-06-30,SH600000,-5"])
