"""Made vendors, each with one answer: what the prices are, and that the import finds it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.evidence import FactorEvidence, Steps, as_fraction, is_whole
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.ingest import read_bars

DAYS = pd.bdate_range("2016-01-04", periods=220)
CODES = ("SH600001", "SH600002", "SZ000003", "SZ300004")
EX_DAYS = (40, 90, 150, 200)


class Market:
    """Raw prices in whole cents with four dividends of 2.5 % and one split, and the factor that belongs to them."""

    def __init__(self, seed: int = 3) -> None:
        draws = np.random.default_rng(seed)
        shape = len(DAYS), len(CODES)
        true = np.array([8.0, 15.0, 22.0, 40.0]) * np.exp(draws.normal(0, 0.015, shape).cumsum(axis=0))
        factor = np.ones(shape)
        for day in EX_DAYS:
            factor[day:] *= 1.025
        factor[120:, 1] *= 2.0
        self.factor = factor
        self.close = np.round(true / factor, 2)
        spread = 1 + 0.01 * draws.random(shape)
        self.high, self.low = np.round(self.close * spread, 2), np.round(self.close / spread, 2)
        self.volume = 100.0 * draws.integers(1000, 9000, shape)
        adjusted = self.close * factor
        self.change = np.full(shape, np.nan)
        self.change[1:] = adjusted[1:] / adjusted[:-1] - 1

    def tables(self, by: np.ndarray | float = 1.0, **columns: np.ndarray) -> dict[str, pd.DataFrame]:
        """A table a stock, of prices times `by`."""
        fields = {"open": self.close, "high": self.high, "low": self.low, "close": self.close}
        fields = {name: values * by for name, values in fields.items()} | {"volume": self.volume, **columns}
        dates = DAYS.strftime("%Y-%m-%d")
        return {
            code: pd.DataFrame({"date": dates, **{name: values[:, k] for name, values in fields.items()}})
            for k, code in enumerate(CODES)
        }


@pytest.fixture
def market() -> Market:
    return Market()


def read(folder: Path, tables: dict[str, pd.DataFrame], **options: Any) -> Bars:
    folder.mkdir(exist_ok=True)
    for code, table in tables.items():
        table.to_csv(folder / f"{code}.csv", index=False)
    return read_bars(folder, ImportSettings(calendar="data", **options))


def way(bars: Bars) -> str:
    assert bars.settings is not None
    return bars.settings.adjustment


def note(bars: Bars, *words: str) -> str:
    (found,) = [each for each in bars.notes if all(word in each for word in words)]
    return found


def assert_right(bars: Bars, market: Market) -> None:
    """Returns are those of the adjusted prices, whatever the scale."""
    close = bars.fields["close"].astype(float)
    np.testing.assert_allclose(close[1:] / close[:-1] - 1, market.change[1:], atol=2e-4)


class TestFactor:
    def test_raw_prices_are_adjusted(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(factor=market.factor))
        assert way(bars) == "factor"
        assert_right(bars, market)
        assert not any("adjusted already" in each for each in bars.notes)

    @pytest.mark.parametrize("scale", [1.0, 1 / 8])  # of the first day as 1, say
    def test_adjusted_prices_are_not_adjusted_again(
        self, market: Market, tmp_path: Path, scale: float
    ) -> None:
        by = market.factor * scale
        tables = market.tables(by, factor=by, volume=market.volume / by, change=market.change)
        bars = read(tmp_path / "s", tables)
        assert way(bars) == "adjusted"
        assert_right(bars, market)
        np.testing.assert_allclose(bars.fields["close"] / bars.fields["factor"], market.close, rtol=1e-5)
        said = note(bars, "the prices are adjusted already")
        assert "close / factor on 100%" in said
        assert "`--adjustment factor`" in said

    def test_rounded_to_cents_they_still_show_it(self, market: Market, tmp_path: Path) -> None:
        tables = market.tables(market.factor, factor=market.factor)
        tables = {
            code: table.round({"open": 2, "high": 2, "low": 2, "close": 2}) for code, table in tables.items()
        }
        bars = read(tmp_path / "s", tables)
        assert way(bars) == "adjusted"
        assert "smoother as they are" in note(bars, "the prices are adjusted already")

    def test_a_change_of_raw_closes_does_not_mislead(self, market: Market, tmp_path: Path) -> None:
        change = np.full(market.close.shape, np.nan)
        change[1:] = market.close[1:] / market.close[:-1] - 1
        assert way(read(tmp_path / "s", market.tables(factor=market.factor, change=change))) == "factor"

    def test_raw_volumes_beside_adjusted_prices(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(market.factor, factor=market.factor))
        assert bars.settings is not None
        assert bars.settings.volume == "raw"
        assert "volumes are whole shares" in note(bars, "`--volume adjusted`")
        np.testing.assert_allclose(bars.fields["volume"], market.volume / market.factor, rtol=1e-6)

    def test_what_is_asked_for_is_done_and_doubted(self, market: Market, tmp_path: Path) -> None:
        tables = market.tables(market.factor, factor=market.factor)
        bars = read(tmp_path / "s", tables, adjustment="factor")
        assert way(bars) == "factor"
        assert "`--adjustment adjusted` takes them so" in note(bars, "seem to be adjusted already")

    def test_numbers_that_contradict_each_other_ask(self, market: Market, tmp_path: Path) -> None:
        """Whole cents over the factor alone, and falls on ex-days all the same."""
        by = market.factor * 0.37
        tables = market.tables(factor=by)
        for k, table in enumerate(tables.values()):
            cents = np.round(market.close[:, k] / market.factor[:, k], 2)
            for name in ("open", "high", "low", "close"):
                table[name] = cents * by[:, k]
        with pytest.raises(
            UserError, match=r"raw and adjusted at once: .*`--adjustment factor` if they are raw, or"
        ):
            read(tmp_path / "s", tables)

    def test_a_factor_that_never_moves_says_nothing(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(factor=np.ones_like(market.factor)))
        assert way(bars) == "factor"
        assert not any("nothing shows" in each for each in bars.notes)


class TestAdjustedClose:
    def test_raw_prices(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(adj_close=market.close * market.factor))
        assert way(bars) == "adj_close"
        assert_right(bars, market)

    def test_prices_that_are_adjusted_already_but_the_close(self, market: Market, tmp_path: Path) -> None:
        tables = market.tables(
            market.factor * 1.5, close=market.close, adj_close=market.close * market.factor * 1.5
        )
        with pytest.raises(UserError, match=r"open, high and low are adjusted already.*--column close="):
            read(tmp_path / "s", tables)
        bars = read(tmp_path / "s", tables, columns={"close": "adj_close", "adj_close": ""})
        assert_right(bars, market)

    def test_one_that_is_the_close(self, market: Market, tmp_path: Path) -> None:
        by = market.factor * 0.37
        bars = read(tmp_path / "s", market.tables(by, adj_close=market.close * by))
        assert way(bars) == "adjusted"
        assert "the adjusted close is the close on every day" in note(bars, "adjusted already")
        assert "factor" not in bars.fields

    def test_beside_a_factor_that_says_the_same(self, market: Market, tmp_path: Path) -> None:
        adjusted = market.close * market.factor
        bars = read(tmp_path / "s", market.tables(factor=market.factor, adj_close=adjusted))
        assert way(bars) == "factor"
        assert "'adj_close'" in note(bars, "columns of the source that are not used")
        with pytest.raises(UserError, match="close times factor is not the adjusted close: choose with"):
            read(tmp_path / "s", market.tables(factor=market.factor, adj_close=adjusted * market.factor))


class TestSplitsAndDividendsInColumns:
    def columns(self, market: Market) -> dict[str, np.ndarray]:
        split, dividend = np.zeros_like(market.close), np.zeros_like(market.close)
        split[120, 1] = 2.0
        for day in EX_DAYS:
            dividend[day] = market.close[day - 1] * (1 - 1 / 1.025)
        return {"Stock Splits": split, "Dividends": dividend}

    def test_raw_prices_are_adjusted_by_them(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(**self.columns(market)))
        assert way(bars) == "actions"
        assert_right(bars, market)
        assert "fall with the splits beside them" in note(bars, "the prices are raw")
        assert not {"split", "dividend"} & set(bars.fields)

    def test_adjusted_prices_are_left(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(market.factor, **self.columns(market)))
        assert way(bars) == "adjusted"
        assert_right(bars, market)
        assert "do not fall on the days of the splits" in note(bars, "adjusted already")
        assert "'Stock Splits', 'Dividends'" in note(bars, "columns of the source that are not used")

    def test_splits_that_are_in_the_prices_are_not_applied_again(
        self, market: Market, tmp_path: Path
    ) -> None:
        splits = np.ones_like(market.factor)
        splits[120:, 1] = 2.0
        columns = self.columns(market)
        columns["Dividends"] = columns["Dividends"] * splits  # of the shares of today, as Yahoo has them
        bars = read(tmp_path / "s", market.tables(splits, **columns), adjustment="actions")
        assert_right(bars, market)
        assert "not applied again" in note(bars, "splits are in them already")

    def test_nothing_to_tell_by(self, market: Market, tmp_path: Path) -> None:
        columns = {name: np.zeros_like(values) for name, values in self.columns(market).items()}
        bars = read(tmp_path / "s", market.tables(**columns))
        assert way(bars) == "adjusted"
        assert "`--adjustment actions` applies them" in note(bars, "nothing shows whether")

    def test_without_columns_or_a_table(self, market: Market, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match="--actions FILE`, or its columns in the source with `--column split=NAME`"
        ):
            read(tmp_path / "s", market.tables(), adjustment="actions")


class TestChange:
    @pytest.mark.parametrize(("unit", "decimals"), [(1.0, 6), (100.0, 2)])
    def test_raw_prices_are_adjusted_by_it(
        self, market: Market, tmp_path: Path, unit: float, decimals: int
    ) -> None:
        bars = read(tmp_path / "s", market.tables(pct_chg=np.round(market.change * unit, decimals)))
        assert way(bars) == "change"
        assert_right(bars, market)
        said = note(bars, "the prices are raw", "on 17 of 876 days")
        assert "`--adjustment none`" in said
        assert "`--adjustment adjusted`" in said

    def test_adjusted_prices_fit_it(self, market: Market, tmp_path: Path) -> None:
        bars = read(tmp_path / "s", market.tables(market.factor, pct_chg=market.change * 100))
        assert way(bars) == "adjusted"
        assert_right(bars, market)

    def test_rounded_ones_too(self, market: Market, tmp_path: Path) -> None:
        tables = market.tables(market.factor / market.factor[-1], pct_chg=np.round(market.change * 100, 2))
        prices = ["open", "high", "low", "close"]
        tables = {code: table.assign(**table[prices].round(2)) for code, table in tables.items()}
        assert way(read(tmp_path / "s", tables)) == "adjusted"

    def test_the_exchanges_own_close_of_the_day_before_says_it_too(
        self, market: Market, tmp_path: Path
    ) -> None:
        before = np.round(market.close / (1 + market.change), 2)
        bars = read(tmp_path / "s", market.tables(preclose=before))
        assert way(bars) == "change"
        note(bars, "the prices are raw", "on 17 of 876 days")
        rises = pd.DataFrame(bars.fields["close"]).pct_change().to_numpy()
        np.testing.assert_allclose(rises[1:], market.change[1:], atol=2e-3)
        assert "preclose" not in bars.fields
        bars = read(tmp_path / "s", market.tables(market.factor, preclose=before * market.factor))
        assert way(bars) == "adjusted"
        note(bars, "columns of the source that are not used", "'preclose'")

    def test_without_one(self, market: Market, tmp_path: Path) -> None:
        with pytest.raises(UserError, match=r"`adjustment` change needs a column .* `--column change=NAME`"):
            read(tmp_path / "s", market.tables(), adjustment="change")


class TestSubtraction:
    """Front adjustment by subtraction takes what was given off every earlier price."""

    def tables(self, market: Market, times: float) -> dict[str, pd.DataFrame]:
        given = np.zeros_like(market.close)
        for day in EX_DAYS:
            given[:day] += times * market.close[day - 1] * (1 - 1 / 1.025)
        given[:, 1] *= 0  # its split is no amount
        tables = market.tables(pct_chg=np.round(market.change * 100, 4))
        for k, table in enumerate(tables.values()):
            for name in ("open", "high", "low", "close"):
                table[name] = (table[name] - given[:, k]).round(2)
        return tables

    def test_negative_prices_are_named_as_what_they_are(self, market: Market, tmp_path: Path) -> None:
        with pytest.raises(
            UserError,
            match=r"rows have prices below 0, first SH600001 2016-01-04: that is front adjustment by subtraction.*a factor",
        ):
            read(tmp_path / "s", self.tables(market, 12.0))

    def test_so_are_those_that_are_only_small(self, market: Market, tmp_path: Path) -> None:
        with pytest.raises(
            UserError, match=r"plus an amount: that is front adjustment .*`--adjustment adjusted`"
        ):
            read(tmp_path / "s", self.tables(market, 7.0))
        assert way(read(tmp_path / "s", self.tables(market, 7.0), adjustment="adjusted")) == "adjusted"

    def test_a_typing_error_is_none(self, market: Market, tmp_path: Path) -> None:
        tables = market.tables(market.factor)
        tables[CODES[0]].loc[3, ["open", "high", "low", "close"]] *= -1
        bars = read(tmp_path / "s", tables)
        assert np.isnan(bars.fields["close"][3, 0])


class TestEvidence:
    def test_steps_add_up(self) -> None:
        draws = np.random.default_rng(1)
        raw, adjusted, few = Steps(), Steps(), Steps()
        for _ in range(30):
            growth = draws.normal(0, 0.015, 100)
            steps = np.zeros(99)
            steps[50] = 0.02
            close = 10 * np.exp(growth.cumsum())
            fallen = close * np.exp(-np.concatenate([[0], steps]).cumsum())
            raw.see(fallen, steps)
            adjusted.see(close, steps)
        few.see(close, steps)
        assert (raw.says, adjusted.says, few.says) == ("raw", "adjusted", None)

    def test_units_of_a_change(self) -> None:
        close = np.array([10.0, 11.0, 9.9, 9.9])
        rise = np.array([0.1, -0.1, 0.0])
        np.testing.assert_allclose(as_fraction(rise, close), rise)
        np.testing.assert_allclose(as_fraction(100 * rise, close), rise)

    def test_whole_cents(self) -> None:
        assert is_whole(np.array([10.0, 0.07, 1234.56, 10.005, 3.3333])).tolist() == [True] * 3 + [False] * 2

    def test_nothing_is_said_of_nothing(self) -> None:
        evidence = FactorEvidence()
        evidence.see({"close": np.array([np.nan, 1.0])}, np.array([1.0, 1.0]))
        assert evidence.verdict == (None, "", False)
