"""The oracle is a store of the sample market: written out as a vendor would, its bars must come back."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.ingest import read_bars

PRICES = ["open", "high", "low", "close", "vwap"]
FIELDS = [*PRICES, "volume", "amount", "factor", "change"]
INDEX = "SH000300"
NAN = np.nan


@dataclasses.dataclass(frozen=True)
class Vendor:
    """Raw bars of a dozen stocks and an index, a row a bar, and the adjusted ones that must come of them."""

    raw: pd.DataFrame  # code, date, raw prices, shares, currency, factor, change, adj_close
    expected: dict[str, np.ndarray]  # [D, S]
    calendar: pd.DatetimeIndex
    codes: tuple[str, ...]


@pytest.fixture(scope="module")
def vendor(sample: Any) -> Vendor:
    store = sample.store
    days = store.calendar[:300]
    closes = store.read(["close"], store.instruments())[0, :300]
    listed = [
        code
        for code, close in zip(store.instruments(), closes.T, strict=True)
        if np.isfinite(close).sum() > 99
    ]
    codes = tuple(sorted([*[code for code in listed if not code.startswith("SH000")][:12], INDEX]))
    bars = dict(zip(FIELDS, store.read(FIELDS, codes)[:, :300].astype(float), strict=True))
    day, stock = np.nonzero(np.isfinite(bars["close"]))
    raw = pd.DataFrame({"code": np.array(codes)[stock], "date": days[day].strftime("%Y-%m-%d")})
    for field in FIELDS:
        values = bars[field][day, stock]
        factor = bars["factor"][day, stock]
        raw[field] = values / factor if field in PRICES else values * factor if field == "volume" else values
    raw["adj_close"] = bars["close"][day, stock]
    return Vendor(raw, bars, days, codes)


def one_file_a_stock(folder: Path, table: pd.DataFrame, suffix: str = ".csv") -> Path:
    folder.mkdir(exist_ok=True)
    for code, rows in table.groupby("code"):
        rows.drop(columns="code").to_csv(folder / f"{code}{suffix}", index=False)
    return folder


def read(source: Path, **options: Any) -> Bars:
    return read_bars(source, ImportSettings(**options))


def assert_fields(
    bars: Bars, vendor: Vendor, *fields: str, scale: dict[str, np.ndarray] | None = None
) -> None:
    assert bars.instruments == vendor.codes
    pd.testing.assert_index_equal(bars.calendar, vendor.calendar)
    for field in fields:
        expected = vendor.expected[field] * (1 if scale is None else scale[field])
        np.testing.assert_allclose(bars.fields[field], expected, rtol=2e-6, err_msg=field)


RAW = ["code", "date", "open", "high", "low", "close", "volume", "amount"]


class TestAdjustment:
    """Whatever the source gives to adjust by, the adjusted bars are the same."""

    def test_factor(self, vendor: Vendor, tmp_path: Path) -> None:
        source = one_file_a_stock(tmp_path / "s", vendor.raw[[*RAW, "factor"]])
        bars = read(source, benchmarks=(INDEX,))
        assert_fields(bars, vendor, "open", "high", "low", "close", "volume", "amount", "factor")
        stocks = [code != INDEX for code in vendor.codes]
        np.testing.assert_allclose(
            bars.fields["vwap"][:, stocks], vendor.expected["vwap"][:, stocks], rtol=2e-6
        )
        assert bars.settings is not None
        assert (bars.settings.adjustment, bars.settings.volume) == ("factor", "raw")

    def test_adjusted_close(self, vendor: Vendor, tmp_path: Path) -> None:
        bars = read(one_file_a_stock(tmp_path / "s", vendor.raw[[*RAW, "adj_close"]], ".csv.gz"))
        assert_fields(bars, vendor, "open", "high", "low", "close", "volume", "amount", "factor")

    def test_splits_and_dividends(self, vendor: Vendor, tmp_path: Path) -> None:
        rows = []
        for code, bars in vendor.raw.groupby("code"):
            step = bars["factor"].to_numpy()[1:] / bars["factor"].to_numpy()[:-1]
            for position in np.flatnonzero(np.abs(step - 1) > 1e-5):
                price = bars["close"].to_numpy()[position]
                split = 2.0 if step[position] > 1.5 else 1.0
                dividend = price * (1 - split / step[position])  # of S * P / (P - D)
                rows.append((bars["date"].to_numpy()[position + 1], code, split, max(dividend, 0.0)))
        assert len(rows) > 5
        pd.DataFrame(rows, columns=["ex_date", "code", "split", "dividend"]).to_csv(
            tmp_path / "actions.csv", index=False
        )
        source = one_file_a_stock(tmp_path / "s", vendor.raw[RAW])
        found = read_bars(source, ImportSettings(), actions=tmp_path / "actions.csv")
        first = vendor.expected["factor"][np.isfinite(vendor.expected["factor"]).argmax(axis=0), range(13)]
        scale = {"factor": 1 / first, "close": 1 / first, "high": 1 / first, "volume": first}
        assert_fields(found, vendor, "factor", "close", "high", "volume", scale=scale)

    def test_adjusted_as_it_is(self, vendor: Vendor, tmp_path: Path) -> None:
        adjusted = vendor.raw.assign(
            **{field: vendor.raw[field] * vendor.raw["factor"] for field in PRICES},
            volume=vendor.raw["volume"] / vendor.raw["factor"],
        )
        source = one_file_a_stock(tmp_path / "s", adjusted[RAW])
        bars = read(source)
        assert_fields(bars, vendor, "open", "high", "low", "close", "volume", "amount")
        assert "factor" not in bars.fields
        assert bars.notes[0].startswith("prices taken as adjusted already")
        assert not any("taken as adjusted" in note for note in read(source, adjustment="adjusted").notes)

        one_file_a_stock(source, adjusted[[*RAW, "factor"]])
        assert_fields(read(source, adjustment="adjusted"), vendor, "close", "volume", "factor")

    @pytest.mark.parametrize("adjusted", [False, True])
    def test_what_a_factor_belongs_to_is_seen_from_the_prices(self, tmp_path: Path, adjusted: bool) -> None:
        draws = np.random.default_rng(4)
        days = pd.bdate_range("2000-01-24", periods=10).strftime("%Y-%m-%d").tolist()
        folder = tmp_path / "s"
        folder.mkdir()
        for stock in range(12):
            factor = np.where(np.arange(10) < 4, 1.0, 2.0)
            close = 10 * np.exp(draws.normal(0, 0.02, 10).cumsum()) / (1.0 if adjusted else factor)
            table = rows(days, Close=close.tolist()).assign(factor=factor)
            table.to_csv(folder / f"S{stock}.csv", index=False)
        bars = read(folder, region="us")
        assert bars.settings is not None
        assert bars.settings.adjustment == ("adjusted" if adjusted else "factor")
        said = "the prices are adjusted already: on 12 days with a step of the factor the closes are smoother as they are"
        assert any(note.startswith(said) for note in bars.notes) == adjusted
        wrong = "factor" if adjusted else "adjusted"
        (note,) = [
            note for note in read(folder, region="us", adjustment=wrong).notes if "the prices seem" in note
        ]
        assert f"and were taken as {'raw' if adjusted else 'adjusted'}: on 12 days" in note
        assert f"`--adjustment {'adjusted' if adjusted else 'factor'}` takes them so" in note
        right = "adjusted" if adjusted else "factor"
        assert not [
            note for note in read(folder, region="us", adjustment=right).notes if "prices seem" in note
        ]

    def test_raw_as_it_is(self, vendor: Vendor, tmp_path: Path) -> None:
        bars = read(one_file_a_stock(tmp_path / "s", vendor.raw[RAW]), adjustment="none")
        scale = {"close": 1 / vendor.expected["factor"], "volume": vendor.expected["factor"]}
        assert_fields(bars, vendor, "close", "volume", scale=scale)
        assert set(np.unique(bars.fields["factor"][np.isfinite(bars.fields["close"])])) == {1}

    def test_volume_of_another_kind(self, vendor: Vendor, tmp_path: Path) -> None:
        table = vendor.raw.assign(volume=vendor.raw["volume"] / vendor.raw["factor"])
        source = one_file_a_stock(tmp_path / "s", table[[*RAW, "factor"]])
        assert_fields(read(source, volume="adjusted"), vendor, "close", "volume")
        with pytest.raises(
            UserError, match="a raw volume of adjusted prices can only be adjusted by a factor"
        ):
            read(source, adjustment="adjusted", volume="raw", columns={"factor": ""})


class TestChange:
    def test_it_is_made_of_the_closes(self, vendor: Vendor, tmp_path: Path) -> None:
        bars = read(one_file_a_stock(tmp_path / "s", vendor.raw[[*RAW, "factor"]]))
        close = pd.DataFrame(vendor.expected["close"])
        expected = close.apply(lambda column: column.dropna().pct_change().reindex(close.index))
        np.testing.assert_allclose(bars.fields["change"], expected, atol=1e-6)

    def test_the_sources_own_in_percent(self, vendor: Vendor, tmp_path: Path) -> None:
        table = vendor.raw.assign(pct_chg=vendor.raw["change"] * 100, change=vendor.raw["close"] * 0.01)
        bars = read(one_file_a_stock(tmp_path / "s", table[[*RAW, "factor", "change", "pct_chg"]]))
        assert_fields(bars, vendor, "change")
        assert bars.settings is not None
        assert bars.settings.change == "percent"


class TestLayouts:
    """However the rows are spread over files, the bars are the same."""

    def test_every_layout(self, vendor: Vendor, tmp_path: Path) -> None:
        table = vendor.raw[[*RAW, "factor"]]
        whole = read(one_file_a_stock(tmp_path / "stocks", table))
        table.to_parquet(tmp_path / "long.parquet")
        table.sample(frac=1, random_state=1).to_csv(tmp_path / "shuffled.csv.gz", index=False)
        (tmp_path / "months").mkdir()
        for month, rows in table.groupby(table["date"].str[:7]):
            rows.to_csv(tmp_path / "months" / f"{month}.csv", index=False)
        dotted = table.assign(code=table["code"].str[2:] + "." + table["code"].str[:2].str.lower())
        dotted.to_parquet(tmp_path / "dotted.parquet")
        for source in ("long.parquet", "shuffled.csv.gz", "months", "dotted.parquet"):
            bars = read(tmp_path / source)
            assert bars.instruments == whole.instruments, source
            assert bars.notes == whole.notes, source
            for field, values in whole.fields.items():
                np.testing.assert_array_equal(bars.fields[field], values, err_msg=f"{source} {field}")

    def test_the_settings_that_come_back_read_alike(self, vendor: Vendor, tmp_path: Path) -> None:
        table = vendor.raw.assign(volume=vendor.raw["volume"] / 100, amount=vendor.raw["amount"] / 1000)
        table = table[[*RAW, "factor"]]
        bars = read(one_file_a_stock(tmp_path / "s", table), benchmarks=("000300.sh",))
        settings = bars.settings
        assert settings is not None
        assert (settings.volume_unit, settings.amount_unit) == (100, 1000)
        assert (settings.exchange, settings.benchmarks, settings.change) == ("XSHG", (INDEX,), "computed")
        again = read_bars(tmp_path / "s", settings)
        assert again.settings == settings
        for field, values in bars.fields.items():
            np.testing.assert_array_equal(again.fields[field], values)
        # Rows of one day tell nothing by themselves.
        last = read_bars(
            one_file_a_stock(tmp_path / "last", table[table["date"] == table["date"].max()]), settings
        )
        for field in ("close", "volume", "amount"):
            np.testing.assert_array_equal(last.fields[field][-1], bars.fields[field][-1])

    def test_progress(self, vendor: Vendor, tmp_path: Path) -> None:
        source = one_file_a_stock(tmp_path / "s", vendor.raw[[*RAW, "factor"]])
        calls: list[tuple[int, int, str]] = []
        read_bars(source, ImportSettings(), progress=lambda *call: calls.append(call))
        assert calls == [(i, 13, f"{code}.csv") for i, code in enumerate(vendor.codes, start=1)]

    def test_another_field_is_taken_as_it_stands(self, vendor: Vendor, tmp_path: Path) -> None:
        table = vendor.raw[[*RAW, "factor"]].assign(TurnoverRate=vendor.raw["volume"] * 1e-9)
        source = one_file_a_stock(tmp_path / "s", table)
        bars = read(source, columns={"turnover_rate": "TurnoverRate"})
        factor = vendor.expected["factor"]
        np.testing.assert_allclose(
            bars.fields["turnover_rate"], vendor.expected["volume"] * factor * 1e-9, rtol=1e-6
        )
        assert "turnover_rate" not in read(source).fields

    def test_columns_that_only_some_files_have(self, vendor: Vendor, tmp_path: Path) -> None:
        source = one_file_a_stock(tmp_path / "s", vendor.raw[[*RAW, "factor"]])
        path = source / f"{vendor.codes[3]}.csv"
        pd.read_csv(path).drop(columns="amount").to_csv(path, index=False)
        bars = read(source)
        assert np.isnan(bars.fields["amount"][:, 3]).all()
        assert f"1 file without a column of `amount`, which others have ({path.name})" in bars.notes
        pd.read_csv(path).drop(columns="factor").to_csv(path, index=False)
        assert read(source).settings.adjustment == "adjusted"  # type: ignore[union-attr]
        with pytest.raises(UserError, match="needs a column of each file"):
            read(source, adjustment="factor")


DAYS = ["2000-01-03", "2000-01-04", "2000-01-05", "2000-01-06", "2000-01-07"]


def rows(days: list[str] = DAYS, **columns: list[Any]) -> pd.DataFrame:
    """Bars of one stock that say nothing."""
    plain = {"Date": days, "Open": 1.0, "High": 2.0, "Low": 0.5, "Close": 1.5, "Volume": 100}
    return pd.DataFrame(plain | columns, index=range(len(days)))


def tiny(tmp_path: Path, tables: dict[str, pd.DataFrame], **options: Any) -> Bars:
    folder = tmp_path / "tiny"
    folder.mkdir(exist_ok=True)
    for code, table in tables.items():
        table.to_csv(folder / f"{code}.csv", index=False)
    return read(folder, region="us", adjustment="adjusted", **options)


class TestDays:
    def test_the_day_is_that_of_the_exchange(self, tmp_path: Path) -> None:
        moments = [f"{day}T21:00:00Z" for day in DAYS]
        bars = tiny(tmp_path, {"A": rows(moments, Close=[1, 2, 3, 4, 5])})
        assert bars.calendar.strftime("%Y-%m-%d").tolist() == DAYS
        with pytest.raises(
            UserError, match="1 of 5 rows are of days on which XNYS did not trade, such as A 2000-01-08"
        ):
            tiny(tmp_path, {"A": rows(moments)}, timezone="Asia/Shanghai")

    def test_midnight_utc_is_a_date_unless_a_zone_is_named(self, tmp_path: Path) -> None:
        table = {"A": rows([f"{day}T00:00:00Z" for day in DAYS])}
        bars = tiny(tmp_path, table)
        assert bars.calendar.strftime("%Y-%m-%d").tolist() == DAYS
        assert any(note.startswith("1 file with days stamped as midnight UTC") for note in bars.notes)
        with pytest.raises(UserError, match="A 2000-01-02"):
            tiny(tmp_path, table, timezone="America/New_York")

    def test_rows_of_closed_days_are_named_and_left_out(self, tmp_path: Path) -> None:
        days = pd.bdate_range("2000-01-03", "2000-12-29").strftime("%Y-%m-%d").tolist()  # 9 holidays, of 260
        closed = ["2000-01-17", "2000-02-21"]
        table = rows([day for day in days if day in closed or pd.Timestamp(day) > pd.Timestamp("2000-02-21")])
        table = table[
            ~table["Date"].isin(
                ["2000-04-21", "2000-05-29", "2000-07-04", "2000-09-04", "2000-11-23", "2000-12-25"]
            )
        ]
        bars = tiny(tmp_path, {"A": table})
        assert (
            "2 rows of days on which XNYS did not trade: left out (A 2000-01-17; A 2000-02-21)" in bars.notes
        )
        assert not set(closed) & set(bars.calendar.strftime("%Y-%m-%d"))
        assert np.isfinite(bars.fields["close"]).sum() == len(table) - 2

    def test_the_days_of_the_data(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(["2000-01-07", "2000-01-08", "2000-01-10"])}, calendar="data")
        assert bars.calendar.strftime("%Y-%m-%d").tolist() == ["2000-01-07", "2000-01-08", "2000-01-10"]
        assert "1 day of the data on a weekend: kept as trading days (2000-01-08)" in bars.notes

    def test_missing_days_and_gaps_are_counted(self, tmp_path: Path) -> None:
        tables = {"A": rows([DAYS[0], DAYS[1], DAYS[4]]), "B": rows([DAYS[1], DAYS[3], DAYS[4]])}
        bars = tiny(tmp_path, tables)
        assert bars.calendar.strftime("%Y-%m-%d").tolist() == DAYS
        assert "1 day on which XNYS traded without a row in the data (2000-01-05)" in bars.notes
        (gaps,) = [note for note in bars.notes if "between the first and the last close" in note]
        assert gaps.startswith("3 days without a close")
        assert gaps.endswith("(A 2000-01-05; A 2000-01-06; B 2000-01-05)")

    def test_another_exchange(self, tmp_path: Path) -> None:
        table = {"A": rows(["2000-12-22", "2000-12-27", "2000-12-28"])}
        assert len(tiny(tmp_path, table).calendar) == 4
        london = tiny(tmp_path, table, exchange="XLON")
        assert len(london.calendar) == 3  # closed on the 25th and 26th
        with pytest.raises(UserError, match="`exchange` must be a name in exchange_calendars"):
            tiny(tmp_path, table, exchange="LONDON")


class TestDuplicates:
    def tables(self, second: float) -> dict[str, pd.DataFrame]:
        return {"A": rows([*DAYS, DAYS[2]], Close=[1, 2, 1.5, 2, 2, second])}

    def test_equal_rows_are_one(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, self.tables(1.5))
        assert bars.fields["close"][:, 0].tolist() == [1, 2, 1.5, 2, 2]
        assert "1 row that stood there twice: taken once (A 2000-01-05)" in bars.notes

    def test_contradicting_rows_are_an_error(self, tmp_path: Path) -> None:
        message = r"A must have one row a day, found rows on 2000-01-05 that contradict each other \(close 1.5 and 1.7\)"
        with pytest.raises(UserError, match=message):
            tiny(tmp_path, self.tables(1.7))

    @pytest.mark.parametrize(("which", "close"), [("first", 1.5), ("last", 1.7)])
    def test_or_one_of_them(self, tmp_path: Path, which: str, close: float) -> None:
        bars = tiny(tmp_path, self.tables(1.7), duplicates=which)
        assert bars.fields["close"][2, 0] == np.float32(close)
        assert (
            f"1 row that contradict another of the same stock and day: the {which} taken (A 2000-01-05)"
            in bars.notes
        )

    def test_a_stock_in_two_files(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(DAYS[:3]), "a": rows(DAYS[2:])})
        assert (bars.instruments, int(np.isfinite(bars.fields["close"]).sum())) == (("A",), 5)

    def test_bars_of_less_than_a_day(self, tmp_path: Path) -> None:
        hours = [f"{day} {hour}:00" for day in DAYS for hour in (10, 11, 12)]
        with pytest.raises(UserError, match=r"Are these bars of less than a day\?"):
            tiny(tmp_path, {"A": rows(hours, Close=list(range(1, 16)))})


class TestValues:
    def test_zeros_in_prices_are_missing_and_counted(self, tmp_path: Path) -> None:
        bars = tiny(
            tmp_path, {"A": rows(Open=[0, 0, 1, 1, 1], High=[0, 2, 2, 2, 2]), "B": rows(Low=[1, 1, 1, 0, 1])}
        )
        np.testing.assert_array_equal(bars.fields["open"][:, 0], [NAN, NAN, 1, 1, 1])
        np.testing.assert_array_equal(bars.fields["high"][:, 0], [NAN, 2, 2, 2, 2])
        np.testing.assert_array_equal(bars.fields["low"][:, 1], [1, 1, 1, NAN, 1])
        assert (
            "2 prices of 0 in `open`: made missing (A 2000-01-03 in A.csv; A 2000-01-04 in A.csv)"
            in bars.notes
        )
        assert "1 price of 0 in `low`: made missing (B 2000-01-06 in B.csv)" in bars.notes

    def test_a_wrong_column_is_no_dirt(self, tmp_path: Path) -> None:
        table = rows(Close=["1.5", "x", "y", "2", "2"])
        with pytest.raises(
            UserError, match=r"`close` must be finite numbers .* found 2 of 5 that are not: A 2000-01-04 'x'"
        ):
            tiny(tmp_path, {"A": table})

    def test_a_column_that_can_be_left_out(self, tmp_path: Path) -> None:
        table = rows(Change=["up", "up", "down", "up", "same"])
        with pytest.raises(
            UserError, match=r"`change` must be finite numbers .* `--column change=` leaves it out"
        ):
            tiny(tmp_path, {"A": table})
        assert (
            tiny(tmp_path, {"A": table}, columns={"change": ""}).fields["change"][1:, 0].tolist() == [0] * 4
        )

    def test_missing_values_are_counted(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(Open=[NAN, 0, 1, 1, 1], Volume=[NAN, 1, 1, 1, NAN])})
        assert "1 value of `open` missing in the source" in bars.notes
        assert "2 values of `volume` missing in the source" in bars.notes

    def test_days_without_volume(self, tmp_path: Path) -> None:
        table = {"A": rows(Volume=[1, 0, 0, 1, 1])}
        kept = tiny(tmp_path, table)
        assert np.isfinite(kept.fields["close"]).all()
        (note,) = [note for note in kept.notes if "volume of 0" in note]
        assert note.startswith("2 bars with a volume of 0: kept")
        assert note.endswith("(A 2000-01-04; A 2000-01-05)")
        left = tiny(tmp_path, table, zero_volume="suspended")
        assert np.isnan(left.fields["close"][:, 0]).tolist() == [False, True, True, False, False]
        assert (
            "2 rows with a volume of 0: suspended days, left out (A 2000-01-04; A 2000-01-05)" in left.notes
        )

    def test_a_close_without_volume_is_a_day_without_trade(self, tmp_path: Path) -> None:
        tables = {
            "A": rows(Volume=[1, NAN, NAN, 1, 1]),
            "B": rows(Volume=[NAN] * 5),
            "C": rows(Volume=[1] * 5),
        }
        kept = tiny(tmp_path, tables)
        np.testing.assert_array_equal(kept.fields["volume"][:, 0], [1, 0, 0, 1, 1])
        assert np.isnan(kept.fields["volume"][:, 1]).all()  # an index may have none at all
        said = "2 rows with a close and no volume: days without trade, as with a volume of 0 (A 2000-01-04; A 2000-01-05)"
        assert said in kept.notes
        left = tiny(tmp_path, tables, zero_volume="suspended")
        assert np.isnan(left.fields["close"][:, 0]).tolist() == [False, True, True, False, False]

    def test_money_or_a_status_says_that_it_was_traded(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(Volume=[1, NAN, 1, 1, 1]).assign(amount=1.5)})
        assert np.isnan(bars.fields["volume"][1, 0])
        bars = tiny(tmp_path, {"A": rows(Volume=[1, NAN, 1, 1, 1]).assign(tradestatus=1)})
        assert np.isnan(bars.fields["volume"][1, 0])

    @pytest.mark.parametrize(
        ("column", "values"),
        [
            ("tradestatus", [1, 0, 0, 1, 1]),
            ("交易状态", ["交易", "停牌", "停牌", "交易", "交易"]),
            ("paused", [0, 1, 1, 0, 0]),
            ("is_suspended", ["False", "True", "True", "False", "False"]),
            ("是否停牌", ["否", "停牌", "是", "否", "否"]),
        ],
    )
    def test_a_status_says_which_days_are_suspended(
        self, tmp_path: Path, column: str, values: list[Any]
    ) -> None:
        table = rows(Volume=[1, NAN, 0, 1, 1]).assign(**{column: values}, amount=[1.5, NAN, NAN, 1.5, 1.5])
        bars = tiny(tmp_path, {"A": table})
        assert set(bars.fields) == {"open", "high", "low", "close", "vwap", "volume", "amount", "change"}
        np.testing.assert_array_equal(bars.fields["volume"][:, 0], [1, 0, 0, 1, 1])
        assert bars.fields["amount"][1, 0] == 0
        assert any(
            note.startswith("1 row that a status column calls suspended: days without trade (A 2000-01-04")
            for note in bars.notes
        )

    def test_a_status_that_the_volume_contradicts(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows().assign(tradestatus=[1, 0, 1, 1, 1])})
        assert bars.fields["volume"][1, 0] == 100
        assert (
            "1 row that a status column calls suspended and that have a volume: kept as traded (A 2000-01-04)"
            in bars.notes
        )

    def test_every_column_that_is_not_used_is_named(self, tmp_path: Path) -> None:
        table = rows().assign(preclose=1.5, turn=0.3, isST=0, tradestatus=1, adjustflag=3)
        bars = tiny(tmp_path, {"A": table, "B": rows().assign(amplitude=0.1)})
        assert (
            "columns of the source that are not used: 'preclose', 'turn', 'isST', 'adjustflag', 'amplitude' (`--column "
            "NAME=COLUMN` imports one as a field of its own)"
        ) in bars.notes
        assert "turnover" in tiny(tmp_path, {"A": table, "B": table}, columns={"turnover": "turn"}).fields

    def test_fields_that_a_source_does_not_have(self, tmp_path: Path) -> None:
        table = {"A": rows()[["Date", "Close"]]}
        nothing = dict.fromkeys(["open", "high", "low", "volume"], "")
        bars = tiny(tmp_path, table, columns=nothing)
        assert set(bars.fields) == {"close", "change"}
        with pytest.raises(UserError, match="no column is known to be `open`, `high`, `low`, `volume`"):
            tiny(tmp_path, table)

    def test_empty_files(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(), "B": rows([])})
        assert bars.instruments == ("A",)
        assert "1 file without rows (B.csv)" in bars.notes
        with pytest.raises(UserError, match="the source has no rows"):
            tiny(tmp_path, {"A": rows([])})

    def test_an_instrument_without_a_close(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(), "B": rows(Close=[NAN] * 5)})
        assert "1 instrument without any close (B)" in bars.notes
        with pytest.raises(UserError, match="no close on any trading day: is `close` the right column"):
            tiny(tmp_path, {"A": rows(Close=[NAN] * 5)})

    def test_a_field_without_a_value(self, tmp_path: Path) -> None:
        bars = tiny(tmp_path, {"A": rows(Open=[0] * 5)})
        assert "open" not in bars.fields
        assert "no `open`: it has no value on any day" in bars.notes

    def test_actions_of_stocks_without_bars(self, tmp_path: Path) -> None:
        (tmp_path / "tiny").mkdir()
        rows().to_csv(tmp_path / "tiny" / "A.csv", index=False)
        (tmp_path / "actions.csv").write_text("date,code,split\n2000-01-05,A,2\n2000-01-05,B,2\n")
        settings = ImportSettings(region="us")
        bars = read_bars(tmp_path / "tiny", settings, actions=tmp_path / "actions.csv")
        assert "1 instrument with splits or dividends but no bars: not used (B)" in bars.notes
        assert bars.fields["factor"][:, 0].tolist() == [1, 1, 2, 2, 2]
        assert bars.fields["close"][:, 0].tolist() == [1.5, 1.5, 3, 3, 3]
        assert bars.fields["volume"][:, 0].tolist() == [100, 100, 50, 50, 50]
