from __future__ import annotations

import gzip
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing import files as sources
from qlib_ext.market.importing.files import day_reader, pieces, scan
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes

US = ImportSettings(region="us")
HEADER = "Date,Open,High,Low,Close,Volume"
ROW = "2000-01-03,1,3,0.5,2,100"
FIELDS = ("open", "high", "low", "close", "volume")


def write(path: Path, *lines: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join(line + "\n" for line in lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(text.encode()))
    else:
        path.write_text(text, encoding="utf-8")
    return path


def read(path: Path, settings: ImportSettings = US) -> tuple[list[tuple[Any, ...]], tuple[str, ...]]:
    """Rows (code, day, open, high, low, close, volume) of a source, and the notes."""
    notes = Notes()
    days = day_reader(settings, "America/New_York")
    rows = [
        (piece.codes[code], str(day), *values)
        for file in scan(path, settings, notes)
        for piece in pieces(file, FIELDS, settings, days, notes)
        for code, day, values in zip(piece.code, piece.days, piece.values.tolist(), strict=True)
    ]
    return rows, notes.sentences()


class TestFiles:
    @pytest.mark.parametrize("name", ["aapl.csv", "AAPL.csv.gz", "aapl.CSV", "aapl.tsv"])
    def test_the_code_is_the_name_of_the_file(self, tmp_path: Path, name: str) -> None:
        tab = "\t" if "tsv" in name else ","
        path = write(tmp_path / name, HEADER.replace(",", tab), ROW.replace(",", tab))
        assert read(path) == ([("AAPL", "2000-01-03", 1, 3, 0.5, 2, 100)], ())

    def test_a_folder_is_read_in_order_and_other_files_are_named(self, tmp_path: Path) -> None:
        for name in ("b.csv", "a.csv.gz", "brk.b.csv"):
            write(tmp_path / name, HEADER, ROW)
        write(tmp_path / "README.txt", "hello")
        strays = (
            ".hidden.csv",
            "._b.csv",
            "b.csv~",
            "~$b.csv",
            ".#b.csv",
            ".b.csv.swp",
            "Thumbs.db",
            ".DS_Store",
        )
        for name in strays:
            write(tmp_path / name, "hello")
        write(tmp_path / "deep" / "c.csv", HEADER, ROW)
        rows, notes = read(tmp_path)
        assert [row[0] for row in rows] == ["A", "B", "BRK.B"]
        assert notes == (
            "1 file of other suffixes: not read (README.txt)",
            "8 files of the desktop or an editor, no data: not read (first .#b.csv; .DS_Store; ._b.csv)",
        )
        every = ImportSettings(region="us", pattern="**/*.csv*")
        assert [row[0] for row in read(tmp_path, every)[0]] == ["A", "B", "BRK.B", "C"]

    @pytest.mark.parametrize("separator", [";", "\t", "|"])
    def test_other_separators(self, tmp_path: Path, separator: str) -> None:
        path = write(tmp_path / "A.csv", HEADER.replace(",", separator), ROW.replace(",", separator))
        assert read(path)[0] == [("A", "2000-01-03", 1, 3, 0.5, 2, 100)]

    def test_a_byte_order_mark_and_chinese(self, tmp_path: Path) -> None:
        header = "日期,股票代码,开盘,最高,最低,收盘,成交量"
        (tmp_path / "bom.csv").write_bytes(f"{header}\n2000-01-03,600000,1,3,0.5,2,100\n".encode("utf-8-sig"))
        (tmp_path / "gbk.csv").write_bytes(f"{header}\n2000-01-03,000001,1,3,0.5,2,100\n".encode("gbk"))
        expected = ("2000-01-03", 1, 3, 0.5, 2, 100)
        assert read(tmp_path / "bom.csv", ImportSettings()) == (
            [("SH600000", *expected)],
            ("1 code without an exchange: given that of the first digits (600000 is SH600000)",),
        )
        gbk = ImportSettings(encoding="gbk")
        assert read(tmp_path / "gbk.csv", gbk)[0] == [("SZ000001", *expected)]
        with pytest.raises(UserError, match=r"gbk.csv` is not in the encoding utf-8: name its own"):
            read(tmp_path / "gbk.csv", ImportSettings())
        with pytest.raises(UserError, match="`encoding` must be one such as utf-8 or gbk, found 'gbkk'"):
            read(tmp_path / "gbk.csv", ImportSettings(encoding="gbkk"))

    def test_a_code_may_be_called_na(self, tmp_path: Path) -> None:
        path = write(tmp_path / "long.csv", f"symbol,{HEADER}", f"NA,{ROW}", f"null,{ROW}")
        assert [row[0] for row in read(path)[0]] == ["NA", "NULL"]

    def test_codes_guessed_from_the_names_of_files_are_told(self, tmp_path: Path) -> None:
        for name in ("600000.csv", "1.csv", "sz.000002.csv"):
            write(tmp_path / name, HEADER, ROW)
        rows, notes = read(tmp_path, ImportSettings())
        assert sorted(row[0] for row in rows) == ["SH600000", "SZ000001", "SZ000002"]
        told = "given that of the first digits (1 is SZ000001; 600000 is SH600000)"
        assert notes == (f"2 codes without an exchange: {told}",)


AAPL, MSFT = (1, 3, 0.5, 2, 100), (5, 6, 4, 5.5, 200)
NAMES = ("Open", "High", "Low", "Close", "Volume")


class TestHeaders:
    """Names of columns on several lines, and lines above them."""

    def expected(self, *codes: str) -> list[tuple[Any, ...]]:
        values = {"AAPL": AAPL, "MSFT": MSFT}
        return [(code, day, *values[code]) for code in codes for day in ("2000-01-03", "2000-01-04")]

    def lines(self, *codes: str, by_code: bool = False) -> list[tuple[str, ...]]:
        """Names, codes, and rows of two days, as `yfinance` and pandas write them."""
        values = {"AAPL": AAPL, "MSFT": MSFT}
        pairs = [(name, code) for name in NAMES for code in codes]
        if by_code:
            pairs = [(name, code) for code in codes for name in NAMES]
        row = [str(values[code][NAMES.index(name)]) for name, code in pairs]
        return [
            tuple(name for name, _ in pairs),
            tuple(code for _, code in pairs),
            *((day, *row) for day in ("2000-01-03", "2000-01-04")),
        ]

    @pytest.mark.parametrize("codes", [("AAPL",), ("AAPL", "MSFT")])
    @pytest.mark.parametrize("by_code", [False, True])
    @pytest.mark.parametrize("day", ["Date", "Datetime", None])
    def test_of_yfinance(
        self, tmp_path: Path, codes: tuple[str, ...], by_code: bool, day: str | None
    ) -> None:
        names, tickers, *rows = self.lines(*codes, by_code=by_code)
        top = [",".join(["Price", *names]), ",".join(["Ticker", *tickers])]
        top = top[::-1] if by_code else top
        closing = [] if day is None else [",".join([day, *[""] * len(names)])]
        path = write(tmp_path / "prices.csv", *top, *closing, *map(",".join, rows))
        assert read(path) == (self.expected(*codes), ())

    def test_without_names_of_the_levels(self, tmp_path: Path) -> None:
        names, tickers, *rows = self.lines("AAPL", "MSFT")
        head = [",".join(["", *names]), ",".join(["", *tickers]), ",".join(["Date", *[""] * len(names)])]
        assert read(write(tmp_path / "prices.csv", *head, *map(",".join, rows)))[0] == self.expected(
            "AAPL", "MSFT"
        )

    def test_tickers_that_are_called_like_a_field(self, tmp_path: Path) -> None:
        names, _, *rows = self.lines("AAPL", by_code=True)
        head = [",".join(["Ticker", *["LOW"] * 5]), ",".join(["Price", *names]), "Date,,,,,"]
        found, _ = read(write(tmp_path / "prices.csv", *head, *map(",".join, rows)))
        assert found == [("LOW", *row[1:]) for row in self.expected("AAPL")]

    def test_a_stock_without_a_bar_on_a_day_has_no_row(self, tmp_path: Path) -> None:
        names, tickers, first, second = self.lines("AAPL", "MSFT")
        second = tuple(
            "" if ticker == "MSFT" else cell for ticker, cell in zip(("", *tickers), second, strict=True)
        )
        head = [",".join(["Price", *names]), ",".join(["Ticker", *tickers]), ",".join(["Date", *[""] * 10])]
        found, notes = read(write(tmp_path / "prices.csv", *head, ",".join(first), ",".join(second)))
        assert (found, notes) == (self.expected("AAPL", "MSFT")[:3], ())

    def test_in_parquet(self, tmp_path: Path) -> None:
        days = pd.DatetimeIndex(["2000-01-03", "2000-01-04"], name="Date")
        names, tickers, *rows = self.lines("AAPL", "MSFT")
        columns = pd.MultiIndex.from_arrays([names, tickers], names=["Price", "Ticker"])
        table = pd.DataFrame([[float(cell) for cell in row[1:]] for row in rows], index=days, columns=columns)
        table.to_parquet(tmp_path / "prices.parquet")
        assert read(tmp_path / "prices.parquet")[0] == self.expected("AAPL", "MSFT")

    def test_a_column_that_a_stock_lacks_is_named(self, tmp_path: Path) -> None:
        head = ["Price,Close,Open", "Ticker,AAPL,AAPL", "Date,,"]
        with pytest.raises(
            UserError, match=r"no column is known to be `high`, `low`, `volume`.*AAPL in `.*prices.csv`"
        ):
            read(write(tmp_path / "prices.csv", *head, "2000-01-03,1,2"))

    def test_lines_above_the_names_are_passed_over_and_told(self, tmp_path: Path) -> None:
        path = write(
            tmp_path / "A.csv", "A Inc. daily, not adjusted", "", "source: a vendor, 2001", HEADER, ROW
        )
        expected = ([("A", "2000-01-03", 1, 3, 0.5, 2, 100)],)
        assert read(path) == (
            *expected,
            ("1 file with lines above the names of its columns: not read (A.csv)",),
        )


class TestNumbers:
    """Numbers as people and spreadsheets write them."""

    def values(self, path: Path, *cells: str, separator: str = ",", **settings: Any) -> list[float]:
        """Cells as volumes, beside prices that have two decimals of either sign, or none."""
        lines = [
            separator.join([f"2000-01-{day:02d}", "1", "3", "1", "2", cell])
            for day, cell in enumerate(cells, 3)
        ]
        rows, _ = read(
            write(path / "A.csv", HEADER.replace(",", separator), *lines),
            ImportSettings(region="us", **settings),
        )
        return [row[-1] for row in rows]

    @pytest.mark.parametrize(
        ("cells", "expected"),
        [
            (('"1,234.5"', '"1,234"', "12"), [1234.5, 1234, 12]),
            (('"1,234,567"', '"8,000"'), [1234567, 8000]),
            (("3.16M", "2.5k", "1.2B", "7"), [3.16e6, 2500, 1.2e9, 7]),
            (("1.2亿", "350.5万", "9"), [1.2e8, 3505000, 9]),
            (('"$1,234.50"', "+3"), [1234.5, 3]),
        ],
    )
    def test_in_a_file_of_commas(self, tmp_path: Path, cells: tuple[str, ...], expected: list[float]) -> None:
        np.testing.assert_allclose(self.values(tmp_path, *cells), expected, rtol=1e-12)

    @pytest.mark.parametrize(
        ("cells", "expected"),
        [
            (("12,5", "1.234,75", "7"), [12.5, 1234.75, 7]),
            (("1.234.567", "12.345"), [1234567, 12345]),
            (("0,125", "1,250"), [0.125, 1.25]),
            (("1.234,5", "3,16M"), [1234.5, 3.16e6]),
        ],
    )
    def test_decimal_commas(self, tmp_path: Path, cells: tuple[str, ...], expected: list[float]) -> None:
        np.testing.assert_allclose(self.values(tmp_path, *cells, separator=";"), expected, rtol=1e-12)

    def test_what_could_be_either_asks(self, tmp_path: Path) -> None:
        cells = ('"1,234"', '"5,678"')
        with pytest.raises(
            UserError, match=r"numbers such as '1,234', .*`--decimal point` .* `--decimal comma`"
        ):
            self.values(tmp_path, *cells)
        assert self.values(tmp_path, *cells, decimal="point") == [1234, 5678]
        assert self.values(tmp_path, *cells, decimal="comma") == [1.234, 5.678]
        with pytest.raises(UserError, match=r"numbers such as '1,234.5' and '7,25'"):
            self.values(tmp_path, '"1,234.5"', '"7,25"')

    def test_brackets_and_percent_signs(self, tmp_path: Path) -> None:
        header = f"{HEADER},change,turn"
        rows = [
            f"2000-01-03,1,3,1,2,5,{change},{turn}"
            for change, turn in (("(1.2%)", "0.5%"), ("3.4%", "(0.25)"))
        ]
        path = write(tmp_path / "A.csv", header, *rows)
        for unit, scale in (("auto", 1.0), ("percent", 100.0)):
            settings = ImportSettings(region="us", columns={"turn": "turn"}, change=unit)
            days = day_reader(settings, "America/New_York")
            (file,) = scan(path, settings, Notes())
            (piece,) = pieces(file, ("change", "turn"), settings, days, Notes())
            expected = [[-0.012 * scale, 0.005], [0.034 * scale, -0.25]]
            np.testing.assert_allclose(piece.values, expected)

    def test_what_is_no_number_stays_none(self, tmp_path: Path) -> None:
        found = self.values(tmp_path, "1.5", "1_5", '"1,23,4"', "1.2.3", "(3", "3)", "M", "12X")
        np.testing.assert_equal(found, [1.5] + [np.nan] * 7)


class TestParquet:
    TABLE = pd.DataFrame(
        {
            "symbol": ["A", "B"],
            "open": [1, 2],
            "high": [3.0, np.nan],
            "low": [0.5, 1.0],
            "close": [2.0, 1.5],
            "volume": pd.array([100, None], dtype="Int64"),
        }
    )
    EXPECTED = (("A", "2000-01-03", 1, 3, 0.5, 2, 100), ("B", "2000-01-04", 2, np.nan, 1, 1.5, np.nan))

    @pytest.mark.parametrize(
        "dates",
        [
            pd.to_datetime(["2000-01-03", "2000-01-04"]),
            pd.to_datetime(["2000-01-03 16:00", "2000-01-04 16:00"]).tz_localize("America/New_York"),
            ["2000-01-03", "2000-01-04"],
            [946933200, 947019600],
        ],
        ids=["dates", "moments", "texts", "epochs"],
    )
    def test_every_kind_of_day(self, tmp_path: Path, dates: Any) -> None:
        self.TABLE.assign(date=dates).to_parquet(tmp_path / "x.parquet")
        np.testing.assert_equal(read(tmp_path / "x.parquet")[0], list(self.EXPECTED))

    @pytest.mark.parametrize("name", [None, "Date"])
    def test_the_day_may_be_the_index(self, tmp_path: Path, name: str | None) -> None:
        index = pd.DatetimeIndex(["2000-01-03", "2000-01-04"], name=name)
        self.TABLE.set_axis(index).to_parquet(tmp_path / "x.pq")
        np.testing.assert_equal(read(tmp_path / "x.pq")[0], list(self.EXPECTED))

    def test_decimals_categories_and_dates(self, tmp_path: Path) -> None:
        table = pa.table(
            {
                "symbol": pa.array(["A", "B"]).dictionary_encode(),
                "date": pa.array(pd.to_datetime(["2000-01-03", "2000-01-04"]).date),
                "open": pa.array([Decimal("1.00"), Decimal("2.00")]),
                "high": pa.array([3.0, None]),
                "low": pa.array([0.5, 1.0], pa.float32()),
                "close": pa.array(["2", "1.5"]),
                "volume": pa.array([100, None], pa.int64()),
            }
        )
        pq.write_table(table, tmp_path / "x.parquet")
        np.testing.assert_equal(read(tmp_path / "x.parquet")[0], list(self.EXPECTED))


class TestChunks:
    @pytest.mark.parametrize("suffix", ["csv", "parquet"])
    def test_a_long_file_is_read_in_pieces(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
    ) -> None:
        table = pd.DataFrame(
            {"code": [f"C{i % 7}" for i in range(50)], "date": "2000-01-03", **dict.fromkeys(FIELDS, 1.0)}
        )
        table["close"] = np.arange(1.0, 51.0)
        path = tmp_path / f"long.{suffix}"
        table.to_csv(path, index=False) if suffix == "csv" else table.to_parquet(path)
        whole = read(path)
        monkeypatch.setattr(sources, "CHUNK_ROWS", 8)
        assert read(path) == whole
        assert [row[5] for row in whole[0]] == list(range(1, 51))

    def test_rows_are_counted_over_the_pieces(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sources, "CHUNK_ROWS", 2)
        path = write(tmp_path / "A.csv", HEADER, ROW, ROW, ROW, ROW.replace("2000-01-03", "soon"))
        with pytest.raises(UserError, match=r"found 'soon' in row 4 of the data \(1 such rows\)"):
            read(path)


class TestBadValues:
    def rows(
        self, tmp_path: Path, *values: str, settings: ImportSettings = US
    ) -> tuple[list[float], tuple[str, ...]]:
        lines = [f"2000-01-{day:02d},1,3,0.5,{value},100" for day, value in enumerate(values, start=3)]
        rows, notes = read(write(tmp_path / "A.csv", HEADER, *lines), settings)
        return [row[5] for row in rows], notes

    def test_what_is_missing_is_no_fault(self, tmp_path: Path) -> None:
        found, notes = self.rows(tmp_path, "2", "", "NA", "nan", "null", "None", "-", "--", "#N/A")
        np.testing.assert_equal(found, [2] + [np.nan] * 8)
        assert notes == ()

    def test_what_cannot_be_is_named_and_made_missing(self, tmp_path: Path) -> None:
        found, notes = self.rows(tmp_path, "2", "inf", "-1", "x", "-inf", "1,5".replace(",", "_"))
        np.testing.assert_equal(found, [2] + [np.nan] * 5)
        (note,) = notes
        assert note == (
            "5 values of `close` that cannot be (no number, infinite or negative): made missing "
            "(first A 2000-01-04 'inf' in A.csv; A 2000-01-05 '-1' in A.csv; A 2000-01-06 'x' in A.csv)"
        )

    def test_or_is_an_error(self, tmp_path: Path) -> None:
        strict = ImportSettings(region="us", bad_values="error")
        with pytest.raises(
            UserError, match=r"found 2 that are not, the first of A 2000-01-04 'inf' in A.csv"
        ):
            self.rows(tmp_path, "2", "inf", "x", settings=strict)

    def test_a_price_of_zero_is_missing(self, tmp_path: Path) -> None:
        found, notes = self.rows(tmp_path, "2", "0", "0.0", "3")
        np.testing.assert_equal(found, [2, np.nan, np.nan, 3])
        assert notes == (
            "2 prices of 0 in `close`: made missing (A 2000-01-04 in A.csv; A 2000-01-05 in A.csv)",
        )

    def test_a_volume_of_zero_is_a_volume(self, tmp_path: Path) -> None:
        rows, notes = read(write(tmp_path / "A.csv", HEADER, "2000-01-03,1,3,0.5,2,0"))
        assert (rows[0][-1], notes) == (0, ())


class TestUnreadable:
    """Each message names the file."""

    @pytest.mark.parametrize(
        ("name", "content", "message"),
        [
            ("A.csv", b"", "is empty"),
            ("A.csv", b"\n\n", "is empty"),
            ("A.csv.gz", b"no gzip", "cannot be read: Not a gzipped file"),
            ("A.csv.gz", gzip.compress(f"{HEADER}\n".encode() + f"{ROW}\n".encode() * 9999)[:-200], "cannot be read"),
            ("A.parquet", b"PAR1 no parquet", "cannot be read"),
            ("A.csv", f"{HEADER}\n{ROW},7\n".encode(), "rows of more fields than its header names"),
            ("A.csv", f"{HEADER}\n{ROW}\n{ROW},7\n".encode(), "cannot be read: .*Expected 6 fields in line 3, saw 7"),
            ("A.csv", f"{HEADER}\n,1,3,0.5,2,100\n".encode(), "must have a day in each row of 'Date'.*found none in row 1"),
            ("A.csv", f"{HEADER}\n3.1.2000,1,3,0.5,2,100\n".encode(), "found '3.1.2000' in row 1.*--date-format"),
            ("A.csv", b"Date,Open\n2000-01-03,1\n", r"the columns of `.*A.csv` are 'Date', 'Open'"),
            ("a b.csv", f"{HEADER}\n{ROW}\n".encode(), r"found 'a b' \(the name of `.*a b.csv`, since it has no column"),
            ("A.csv", f"symbol,{HEADER}\n,{ROW}\n".encode(), "must have a code in each row of 'symbol', found none in row 1"),
            ("A.csv", f"symbol,{HEADER}\na/b,{ROW}\n".encode(), r"found 'a/b' \(in 'symbol' of `.*A.csv`\)"),
        ],
    )  # fmt: skip
    def test_one_file(self, tmp_path: Path, name: str, content: bytes, message: str) -> None:
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=message) as caught:
            read(tmp_path / name)
        assert name in str(caught.value)
        assert "\n" not in str(caught.value)

    def test_one_file_of_many_is_found_before_the_others_are_read(
        self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        write(tmp_path / "A.csv", HEADER, ROW)
        write(tmp_path / "B.csv", HEADER.replace("Close", "Last"), ROW)
        monkeypatch.setattr(sources, "pieces", lambda *_: pytest.fail("read before all were looked at"))
        with pytest.raises(UserError, match=r"no column is known to be `close`.*B\.csv"):
            scan(tmp_path, US, Notes())

    def test_nothing_there(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="found nothing at"):
            read(tmp_path / "nowhere")
        with pytest.raises(UserError, match=r"no file in `.*` ends in one of .csv"):
            read(tmp_path)
        write(tmp_path / "notes.md", "x")
        (tmp_path / "prices").mkdir()
        with pytest.raises(UserError, match=r"ends in one of .*; it holds notes.md, prices/"):
            read(tmp_path)
        with pytest.raises(UserError, match=r"notes.md` must be a file of one of the suffixes"):
            read(tmp_path / "notes.md")
        with pytest.raises(UserError, match=r"matches 'x\*' and ends in"):
            read(tmp_path, ImportSettings(region="us", pattern="x*"))

    def test_csv_and_parquet_together(self, tmp_path: Path) -> None:
        write(tmp_path / "A.csv", HEADER, ROW)
        pd.DataFrame({"x": [1]}).to_parquet(tmp_path / "B.parquet")
        with pytest.raises(
            UserError, match=r"CSV and Parquet files, such as A.csv and B.parquet: .*--pattern '\*.csv'"
        ):
            read(tmp_path)
        assert len(read(tmp_path, ImportSettings(region="us", pattern="*.csv"))[0]) == 1
