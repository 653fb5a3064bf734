from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.importing.adjustment import (
    Actions,
    adjusted,
    choose_adjustment,
    factor_of_actions,
    factor_of_columns,
    read_actions,
)
from qlib_ext.market.importing.files import day_reader
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes

NAN = np.nan
US = ImportSettings(region="us")


def days(*numbers: int) -> np.ndarray:
    return np.array([np.datetime64("2000-01-01") + number for number in numbers])


def actions(*rows: tuple[int, float, float]) -> Actions:
    """Rows (day, split, dividend)."""
    at, split, dividend = zip(*rows, strict=True) if rows else ((), (), ())
    return Actions(days(*at), np.array(split, dtype=float), np.array(dividend, dtype=float))


def factor(close: list[float], *rows: tuple[int, float, float]) -> tuple[list[float], tuple[str, ...]]:
    notes = Notes()
    own = factor_of_actions("A", days(*range(len(close))), np.array(close), actions(*rows), notes)
    return own.tolist(), notes.sentences()


class TestChoice:
    @pytest.mark.parametrize(
        ("fields", "has_actions", "way"),
        [
            ({"factor"}, False, "factor"),
            ({"adj_close"}, False, "adj_close"),
            (set(), True, "actions"),
            (set(), False, "adjusted"),
        ],
    )
    def test_what_is_there_decides(self, fields: set[str], has_actions: bool, way: str) -> None:
        assert (
            choose_adjustment("auto", fields, has_actions)
            == way
            == choose_adjustment(way, fields, has_actions)
        )

    @pytest.mark.parametrize(
        ("adjustment", "fields", "has_actions", "message"),
        [
            ("auto", {"factor", "adj_close"}, False, "more than one way to adjust prices, factor, adj_close"),
            ("auto", {"factor"}, True, "more than one way to adjust prices, factor, actions"),
            ("factor", set(), False, r"needs a column of each file: name it with `--column factor=NAME`"),
            ("adj_close", {"factor"}, False, "--column adj_close=NAME"),
            ("actions", set(), False, "needs a table of splits and dividends"),
            ("adjusted", set(), True, "`--actions` goes with `--adjustment actions`, found adjusted"),
        ],
    )
    def test_what_is_unclear_or_missing(
        self, adjustment: str, fields: set[str], has_actions: bool, message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            choose_adjustment(adjustment, fields, has_actions)


class TestActions:
    def test_a_split(self) -> None:
        assert factor([10, 10, 5, 5], (2, 2, 0)) == ([1, 1, 2, 2], ())

    def test_a_reverse_split(self) -> None:
        assert factor([10, 30], (1, 1 / 3, 0))[0] == pytest.approx([1, 1 / 3])

    def test_a_dividend(self) -> None:
        assert factor([10, 9, 9], (1, 1, 1))[0] == pytest.approx([1, 10 / 9, 10 / 9])

    def test_both_on_a_day_the_dividend_is_of_a_share_before_the_split(self) -> None:
        assert factor([10, 4.5], (1, 2, 1))[0] == pytest.approx([1, 2 * 10 / 9])

    def test_on_a_day_without_a_bar_it_counts_from_the_next_one(self) -> None:
        notes = Notes()
        own = factor_of_actions(
            "A", days(0, 1, 7), np.array([8.0, NAN, 2.0]), actions((3, 2, 0), (5, 1, 1), (6, 1, 1)), notes
        )
        # 8, split: 4, dividends: 3 and 2
        assert own.tolist() == pytest.approx([1, 1, 8 / 2])

    def test_outside_of_the_bars_it_is_noted(self) -> None:
        assert factor([10, 10], (-5, 2, 0), (0, 2, 0), (2, 2, 0), (9, 2, 0)) == (
            [1, 1],
            (
                "2 rows of splits and dividends before the first bar of the stock: not used (A 1999-12-27; A 2000-01-01)",
                "2 rows of splits and dividends after the last bar of the stock: not used (A 2000-01-03; A 2000-01-10)",
            ),
        )

    def test_a_stock_without_any(self) -> None:
        assert factor_of_actions("A", days(0, 1), np.ones(2), None, Notes()).tolist() == [1, 1]

    def test_a_dividend_above_the_price(self) -> None:
        with pytest.raises(
            UserError, match=r"found 10 for A on 2000-01-02, and a close of 9.5: is it per share"
        ):
            factor([9.5, 9], (1, 1, 10))

    @given(
        st.lists(
            st.tuples(
                st.sampled_from([0.1, 0.5, 1.0, 1.5, 2.0, 10.0]), st.floats(0, 0.5), st.floats(-0.3, 0.3)
            ),
            min_size=1,
            max_size=20,
        )
    )
    def test_the_adjusted_return_is_that_of_a_reinvested_share(
        self, path: list[tuple[float, float, float]]
    ) -> None:
        """A holder's shares, one day after the other, from nothing but what a split and a dividend are."""
        close, wealth, shares, table = [100.0], [100.0], 1.0, []
        for day, (split, payout, rise) in enumerate(path, start=1):
            dividend = close[-1] * payout
            opening = (
                close[-1] - dividend
            ) / split  # what a share is worth on the ex-day before anything happens
            cash = shares * dividend
            shares = shares * split + cash / opening
            close.append(opening * (1 + rise))
            wealth.append(shares * close[-1])
            table.append((day, split, dividend))
        own, notes = factor(close, *table)
        np.testing.assert_allclose(np.array(close) * own, wealth, rtol=1e-9)
        assert notes == ()


class TestReadActions:
    def read(self, tmp_path: Path, *lines: str) -> tuple[dict[str, Actions], tuple[str, ...]]:
        path = tmp_path / "actions.csv"
        path.write_text("".join(line + "\n" for line in lines))
        notes = Notes()
        return read_actions(path, US, day_reader(US, "America/New_York"), notes), notes.sentences()

    def test_rows_of_a_day_are_one(self, tmp_path: Path) -> None:
        found, notes = self.read(
            tmp_path,
            "Ex-Date,Ticker,Split,Dividend",
            "2000-02-01,aapl,2,",
            "2000-01-01,AAPL,,0.1",
            "2000-01-01,AAPL,0,0.2",
            "2000-01-01,AAPL,0,0.2",
            "2000-01-01,MSFT,3,0",
        )
        assert sorted(found) == ["AAPL", "MSFT"]
        own = found["AAPL"]
        assert own.days.astype(str).tolist() == ["2000-01-01", "2000-02-01"]
        assert own.split.tolist() == [1, 2]
        assert own.dividend.tolist() == pytest.approx([0.3, 0])
        assert notes == ("1 row of splits and dividends that stood there twice: counted once",)

    def test_one_of_the_two_is_enough(self, tmp_path: Path) -> None:
        found, _ = self.read(tmp_path, "date,code,ratio", "2000-01-01,A,4")
        assert (found["A"].split.tolist(), found["A"].dividend.tolist()) == ([4], [0])

    @pytest.mark.parametrize(
        ("lines", "message"),
        [
            (["date,code", "2000-01-01,A"], "must have a column `split`"),
            (["date,split", "2000-01-01,2"], "no column is known to be `code`"),
            (["date,code,split", "2000-01-01,A,2:1"], "`split` must be a finite number.*'2:1'"),
            (["date,code,dividend", "2000-01-01,A,-2"], "`dividend` that are not negative, found -2 for A on 2000-01-01"),
            (["date,code,dividend"], "holds no rows"),
        ],
    )  # fmt: skip
    def test_what_cannot_be(self, tmp_path: Path, lines: list[str], message: str) -> None:
        with pytest.raises(UserError, match=message):
            self.read(tmp_path, *lines)

    def test_no_file(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="expected a file, found none"):
            read_actions(tmp_path / "x.csv", US, day_reader(US, "America/New_York"), Notes())


class TestFactorOfColumns:
    def of(self, way: str, **values: list[float]) -> tuple[np.ndarray | None, tuple[str, ...]]:
        notes = Notes()
        arrays = {field: np.array(column, dtype=float) for field, column in values.items()}
        return factor_of_columns(
            "A", days(*range(len(arrays["close"]))), arrays, way, notes
        ), notes.sentences()

    def test_none(self) -> None:
        own, notes = self.of("none", close=[1, 2])
        assert (own.tolist(), notes) == ([1, 1], ())  # type: ignore[union-attr]

    def test_unknown(self) -> None:
        assert self.of("adjusted", close=[1, 2]) == (None, ())

    def test_from_an_adjusted_close(self) -> None:
        own, notes = self.of("adj_close", close=[10, 5, 5], adj_close=[5, 5, 5])
        assert (own.tolist(), notes) == ([0.5, 1, 1], ())  # type: ignore[union-attr]

    def test_a_missing_one_is_carried_on(self) -> None:
        own, notes = self.of("factor", close=[1, 1, 1, NAN, 1, 1], factor=[NAN, 2, NAN, NAN, NAN, 3])
        np.testing.assert_equal(own, [NAN, 2, 2, 2, 2, 3])
        assert notes == (
            "2 bars without a factor: that of the bar before taken (A 2000-01-03; A 2000-01-05)",
            "1 bar before the first known factor: prices made missing (A 2000-01-01)",
        )

    def test_an_index_has_none(self) -> None:
        own, notes = self.of("factor", close=[1, 1], factor=[NAN, NAN])
        assert own.tolist() == [1, 1]  # type: ignore[union-attr]
        assert notes == ("1 instrument without any factor: taken as 1 (an index has none) (A)",)

    def test_adjusted_prices_do_not_need_one(self) -> None:
        own, notes = self.of("adjusted", close=[1, 1, 1], factor=[NAN, 2, NAN])
        np.testing.assert_equal(own, [NAN, 2, 2])
        assert notes[1] == "1 bar before the first known factor: left without (A 2000-01-01)"
        np.testing.assert_equal(self.of("adjusted", close=[1, 1], factor=[NAN, NAN]), ([NAN, NAN], ()))


class TestAdjusted:
    VALUES: ClassVar = {
        "close": 8.0,
        "open": 4.0,
        "vwap": 6.0,
        "volume": 100.0,
        "amount": 600.0,
        "adj_close": 2.0,
        "size": 7.0,
    }

    def of(self, way: str, volume: str, own: float | None) -> dict[str, float]:
        values = {field: np.array([value]) for field, value in self.VALUES.items()}
        fields = adjusted(values, way, volume, None if own is None else np.array([own]))
        return {field: float(array[0]) for field, array in fields.items()}

    def test_raw(self) -> None:
        expected = {
            "close": 2,
            "open": 1,
            "vwap": 1.5,
            "volume": 400,
            "amount": 600,
            "size": 7,
            "factor": 0.25,
        }
        assert self.of("factor", "raw", 0.25) == expected
        assert self.of("actions", "raw", 0.25) == expected
        assert self.of("adj_close", "adjusted", 0.25) == expected | {"volume": 100}

    def test_adjusted_already(self) -> None:
        kept = {field: value for field, value in self.VALUES.items() if field != "adj_close"}
        assert self.of("adjusted", "adjusted", None) == kept
        assert self.of("adjusted", "adjusted", 0.25) == kept | {"factor": 0.25}
        assert self.of("adjusted", "raw", 0.25) == kept | {"factor": 0.25, "volume": 400}

    @given(st.floats(1e-3, 1e3))
    def test_price_times_volume_stays_money(self, own: float) -> None:
        fields = self.of("factor", "raw", own)
        assert fields["close"] * fields["volume"] == pytest.approx(800)
        assert fields["vwap"] * fields["volume"] == pytest.approx(fields["amount"])


def test_days_are_read_as_those_of_the_bars() -> None:
    """An ex-day stamped with the close in New York is that day, not the next one in UTC."""
    reader = day_reader(US, "America/New_York")
    assert reader.read(pd.Series(["2000-01-03T21:30:00Z"])).days.astype(str).tolist() == ["2000-01-03"]
