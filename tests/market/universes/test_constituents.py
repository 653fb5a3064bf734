from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.codes import code_in_store
from qlib_ext.market.store import QlibStore, write_store
from qlib_ext.market.universes.constituents import read_constituents

CALENDAR = pd.bdate_range("2020-01-01", "2020-03-31")
CODES = ["SH600000", "SH600004", "SH600006", "SZ000001"]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    close = np.full((len(CALENDAR), len(CODES)), 5.0)
    return write_store(tmp_path_factory.mktemp("store") / "cn", CALENDAR, CODES, {"close": close}, {})


def rows(universe: object) -> list[tuple[str, str, str]]:
    table = universe.spells  # type: ignore[attr-defined]
    return [
        (code, f"{start:%Y-%m-%d}", f"{end:%Y-%m-%d}") for code, start, end in table.itertuples(index=False)
    ]


class TestSpelled:
    @pytest.mark.parametrize(
        "code",
        [
            "SH600000",
            "sh600000",
            "600000.SH",
            "600000.ss",
            "600000.XSHG",
            "sh.600000",
            " 600000 ",
        ],
    )
    def test_the_stores_own(self, code: str) -> None:
        assert code_in_store(code, {"SH600000"}) == "SH600000"

    def test_codes_of_the_store_go_first(self) -> None:
        assert code_in_store("brk.b", {"BRK.B", "A"}) == "BRK.B"
        assert code_in_store("000300", {"000300", "SH600000"}) == "000300"

    def test_unknown_ones_get_the_same_spelling(self) -> None:
        assert code_in_store("600999.SH", {"SH600000"}) == "SH600999"
        assert code_in_store("1", {"SH600000"}) == "SZ000001"
        assert code_in_store("aapl", {"MSFT"}) == "AAPL"

    def test_a_shortened_code_is_the_one_that_the_store_has(self) -> None:
        assert code_in_store("000300", {"SH000300", "SH600000"}) == "SH000300"
        assert (
            code_in_store("000001", {"SH000001", "SZ000001"}) == "SZ000001"
        )  # the stock, where both are there
        assert code_in_store("600163.0", {"SH600163"}) == "SH600163"
        assert code_in_store("1.0", {"SZ000001"}) == "SZ000001"


class TestSpells:
    def test_rows_open_ends_and_spellings(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "members.csv"
        file.write_text(
            "code,from,to\n600000.SH,2020-01-06,2020-01-31\nsh.600004,2020-02-03,\n000001,20200302,20200313\n"
        )
        found = read_constituents(store, "mine", file, size=3)
        assert rows(found) == [
            ("SH600000", "2020-01-06", "2020-01-31"),
            ("SH600004", "2020-02-03", "2020-03-31"),
            ("SZ000001", "2020-03-02", "2020-03-13"),
        ]
        assert (found.size, found.notes) == (3, ())
        assert found.rule == "spells of membership read from members.csv"
        assert found.command == "qlib-ext data universe DIR mine --constituents members.csv --size 3"

    def test_weekends_move_inwards(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text("code,from,to\nSH600000,2020-01-04,2020-01-12\nSH600004,2020-01-11,2020-01-12\n")
        found = read_constituents(store, "mine", file)
        assert rows(found) == [("SH600000", "2020-01-06", "2020-01-10")]
        assert found.notes == ("1 of 2 spells hold no trading day: left out",)

    def test_the_first_day_out(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text("con_code,in_date,out_date\n600000.SH,20200106,20200203\n")
        found = read_constituents(store, "mine", file, until="first-day-out")
        assert rows(found) == [("SH600000", "2020-01-06", "2020-01-31")]
        assert "--until first-day-out" in found.command

    def test_overlaps_are_merged_and_neighbours_joined(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text(
            "code,from,to\nSH600000,2020-01-06,2020-02-14\nSH600000,2020-02-10,2020-02-28\n"
            "SH600004,2020-01-06,2020-01-10\nSH600004,2020-01-13,2020-01-17\n"
        )
        found = read_constituents(store, "mine", file)
        assert rows(found) == [
            ("SH600000", "2020-01-06", "2020-02-28"),
            ("SH600004", "2020-01-06", "2020-01-17"),
        ]
        assert found.notes == ("1 of 2 codes have spells that overlap: merged",)

    def test_days_outside_the_calendar(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text(
            "code,from,to\nSH600000,2005-01-01,9999-12-31\nSH600004,2005-01-01,2006-01-01\nSZ000001,2021-01-01,\n"
            "SH600006,2020-03-02,2020-03-06\n"
        )
        found = read_constituents(store, "mine", file)
        assert rows(found) == [
            ("SH600000", "2020-01-01", "2020-03-31"),
            ("SH600006", "2020-03-02", "2020-03-06"),
        ]
        assert found.notes == (
            "2 of 4 spells lie wholly outside the calendar: left out",
            "1 of 4 spells reach beyond the calendar: cut to 2020-01-01 to 2020-03-31",
        )

    def test_codes_without_bars_stay_and_are_counted(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text("code,from,to\nSH600000,2020-01-06,\nSH600999,2020-01-06,2020-01-10\n")
        found = read_constituents(store, "mine", file)
        assert ("SH600999", "2020-01-06", "2020-01-10") in rows(found)
        assert found.notes == ("1 of 2 codes have no bars, such as SH600999: they stay in the list",)

    def test_parquet_with_days_and_numbers(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.parquet"
        pd.DataFrame(
            {
                "stock": [600000, 1],
                "from": pd.to_datetime(["2020-01-06", "2020-02-03"]),
                "to": pd.to_datetime(["2020-01-31", None]),
            }
        ).to_parquet(file)
        found = read_constituents(store, "mine", file, columns={"code": "stock"})
        assert rows(found) == [
            ("SH600000", "2020-01-06", "2020-01-31"),
            ("SZ000001", "2020-02-03", "2020-03-31"),
        ]

    @pytest.mark.parametrize("separator", [",", ";", "\t"])
    def test_separators(self, store: QlibStore, tmp_path: Path, separator: str) -> None:
        file = tmp_path / "m.txt"
        lines = ["code,from,to", "SH600000,2020-01-06,2020-01-31", "SH600004,2020-01-06,2020-01-31"]
        file.write_text("\n".join(lines).replace(",", separator))
        assert len(rows(read_constituents(store, "mine", file))) == 2


class TestSurvivors:
    """A list in which nobody ever leaves is one of those who are there today."""

    SAID = "no member ever leaves from 2018-01-01 to 2019-12-31: a list"

    @pytest.fixture(scope="class")
    def long(self, tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
        days = pd.bdate_range("2018-01-01", "2019-12-31")
        close = np.full((len(days), len(CODES)), 5.0)
        return write_store(tmp_path_factory.mktemp("store") / "cn", days, CODES, {"close": close}, {})

    @pytest.mark.parametrize(
        ("table", "said"),
        [
            ("code,from,to\n600000,2018-01-01,\n600004,2018-06-01,\n", f"{SAID} of survivors alone"),
            ("date,code\n2018-01-01,600000\n2018-01-01,600004\n", f"{SAID} of one date of survivors alone"),
            ("code,from,to\n600000,2018-01-01,\n600004,2018-06-01,2019-03-01\n", None),
            ("code,from,to\n600000,2019-06-01,\n600004,2019-06-01,\n", None),  # too short to tell
        ],
    )
    def test_are_told(self, long: QlibStore, tmp_path: Path, table: str, said: str | None) -> None:
        (tmp_path / "list.csv").write_text(table)
        notes = read_constituents(long, "mine", tmp_path / "list.csv").notes
        assert [note.startswith(said or " ") for note in notes if "survivors" in note] == [True] * (
            said is not None
        )


class TestSnapshots:
    EXPECTED = (
        ("SH600000", "2020-01-06", "2020-02-28"),
        ("SH600004", "2020-01-06", "2020-01-31"),
        ("SH600006", "2020-02-03", "2020-03-31"),
        ("SZ000001", "2020-03-02", "2020-03-31"),
    )

    def test_each_holds_until_the_next(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text(
            "date,code,weight\n2020-01-04,600000.SH,1\n2020-01-04,600004.SH,1\n2020-02-03,600000.SH,1\n"
            "2020-02-03,600006.SH,1\n2020-03-02,600006.SH,1\n2020-03-02,000001.SZ,1\n"
        )
        found = read_constituents(store, "mine", file)
        assert rows(found) == [*self.EXPECTED]
        assert found.rule == "dated snapshots read from m.csv"
        assert found.notes == ()

    @pytest.mark.parametrize("head", ["code\n", ""], ids=["with a head", "without"])
    def test_a_file_for_each_date(self, store: QlibStore, tmp_path: Path, head: str) -> None:
        folder = tmp_path / "snapshots"
        folder.mkdir()
        (folder / "2020-01-04.csv").write_text(head + "600000.SH\n600004.SH\n")
        (folder / "index_20200203.csv").write_text(head + "600000.SH\n600006.SH\n")
        (folder / "2020.03.02.txt").write_text(head + "600006.SH\n000001.SZ\n")
        (folder / "README.md").write_text("not a list")
        for stray in ("._2020-01-04.csv", "~$2020-03-02.txt", ".2020-01-04.csv.swp", "Thumbs.db"):
            (folder / stray).write_bytes(b"\0\5\x16\7")
        assert rows(read_constituents(store, "mine", folder)) == [*self.EXPECTED]

    def test_what_is_left_out_is_noted(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        lines = ["2019-06-03,SH600004", "2019-12-02,SH600000", "2020-02-01,SH600006", "2020-02-02,SH600004"]
        lines += ["2020-02-02,SH600004", "2021-01-04,SZ000001"]
        file.write_text("date,code\n" + "\n".join(lines))
        found = read_constituents(store, "mine", file)
        assert rows(found) == [
            ("SH600000", "2020-01-01", "2020-01-31"),
            ("SH600004", "2020-02-03", "2020-03-31"),
        ]
        assert found.notes == (
            "1 of 5 snapshots lie after the calendar: left out",
            "1 of 5 snapshots are followed by another before the next trading day: left out",
            "2 of 5 snapshots lie before the calendar: the last of them holds on its first day",
            "1 of 6 rows repeat another one: counted once",
        )


class TestRefusals:
    @pytest.mark.parametrize(
        ("content", "message"),
        [
            ("code,from,to\nSH600000,2020-02-01,2020-01-01\n", "end before it begins, found SH600000 from 2020-02-01 to 2020-01-01 in row 1"),
            ("code,from,to\nSH600000,soon,\n", "`from` must be a day such as 2015-06-15, found 'soon' in row 1"),
            ("code,from,to\nSH600000,2020-01-01,\nSH600004,,\n", "`from` must be a day .* found nothing in row 2"),
            ("date,code\n,SH600000\n", "`date` must be a day such as 2015-06-15, found nothing in row 1"),
            ("code,from,to\n,2020-01-01,\n", "must have a code in each row, found none in row 1"),
            ("code,weight\nSH600000,1\n", "must have columns for code, from and to, or for date and code; found code, weight"),
            ("code,from,to\n", "must name at least one member, found none"),
            ("code,from,to\nSH600000,2030-01-01,\n", "names no member on any day from 2020-01-01 to 2020-03-31"),
            ("code,from,to\nAAPL,2020-01-02,\n", "none of the 1 codes .* has bars .* found AAPL, expected codes such as SH600000"),
        ],
        ids=range(9),
    )  # fmt: skip
    def test_content(self, store: QlibStore, tmp_path: Path, content: str, message: str) -> None:
        file = tmp_path / "m.csv"
        file.write_text(content)
        with pytest.raises(UserError, match=message):
            read_constituents(store, "mine", file)

    def test_files(self, store: QlibStore, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="expected a file or a folder of constituents, found nothing at"):
            read_constituents(store, "mine", tmp_path / "none.csv")
        with pytest.raises(UserError, match="must hold a file of constituents for each date"):
            read_constituents(store, "mine", tmp_path)
        (tmp_path / "m.xlsx").write_text("")
        with pytest.raises(UserError, match=r"must be one of \.csv"):
            read_constituents(store, "mine", tmp_path / "m.xlsx")
        (tmp_path / "m.parquet").write_text("no parquet")
        with pytest.raises(UserError, match=r"m\.parquet` cannot be read: "):
            read_constituents(store, "mine", tmp_path / "m.parquet")
        (tmp_path / "snap").mkdir()
        (tmp_path / "snap" / "first.csv").write_text("code\n600000\n")
        with pytest.raises(UserError, match=r"has its date in its name, such as 2015-06-15\.csv"):
            read_constituents(store, "mine", tmp_path / "snap")
        (tmp_path / "snap" / "first.csv").rename(tmp_path / "snap" / "2020-01-01.csv")
        (tmp_path / "snap" / "20200101.csv").write_text("code\n600000\n")
        with pytest.raises(UserError, match="must hold one snapshot a date, found 2020-01-01"):
            read_constituents(store, "mine", tmp_path / "snap")

    def test_arguments(self, store: QlibStore, tmp_path: Path) -> None:
        file = tmp_path / "m.csv"
        file.write_text("code,from,to\nSH600000,2020-01-01,\n")
        with pytest.raises(UserError, match="`until` must be one of first-day-out, last-day"):
            read_constituents(store, "mine", file, until="end")
        with pytest.raises(UserError, match=r"found no 'cod' \(did you mean code\?\)"):
            read_constituents(store, "mine", file, columns={"code": "cod"})
        with pytest.raises(UserError, match="`columns` must be one of code, date, from, to"):
            read_constituents(store, "mine", file, columns={"weight": "code"})
        with pytest.raises(UserError, match="`size` must be at least 1"):
            read_constituents(store, "mine", file, size=0)
