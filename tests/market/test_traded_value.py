from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.traded_value import TradedValue, value_in_currency, volume_kind

CODES = ["SH600000", "SH600001", "SH600002"]
DAYS = 60


class Bars:
    """Three stocks with raw prices and shares, whose prices are adjusted by factors of 0.8 to 3."""

    def __init__(self) -> None:
        draw = np.random.default_rng(2)
        self.raw = 10 * np.exp(np.cumsum(draw.normal(0, 0.02, (DAYS, 3)), axis=0))
        self.shares = draw.integers(10_000, 200_000, (DAYS, 3)).astype(float)
        self.factor = np.tile([0.8, 1.3, 3.0], (DAYS, 1))
        self.money = self.raw * self.shares

    def store(self, root: Path, **fields: Any) -> QlibStore:
        calendar = pd.bdate_range("2020-01-01", periods=DAYS)
        bars = {"close": self.raw * self.factor, "factor": self.factor} | fields
        return write_store(root, calendar, CODES, bars, {})


@pytest.fixture
def bars() -> Bars:
    return Bars()


class TestWithAmounts:
    @pytest.mark.parametrize("shares", [1, 100])
    @pytest.mark.parametrize("unit", [1, 1000, 10_000])
    @pytest.mark.parametrize("raw", [True, False])
    def test_volumes_tell_the_unit_of_the_amount(
        self, tmp_path: Path, bars: Bars, shares: int, unit: int, raw: bool
    ) -> None:
        volume = bars.shares / shares / (1 if raw else bars.factor)
        store = bars.store(tmp_path / "s", volume=volume, amount=bars.money / unit)
        found = value_in_currency(store, CODES, volume="raw" if raw else "adjusted")
        assert (found.sure, found.formula) == (True, "amount")
        np.testing.assert_allclose(found.value, bars.money, rtol=1e-6)
        assert f"amounts count {unit:,} in currency" in found.said

    def test_a_unit_that_nobody_uses_is_not_guessed(self, tmp_path: Path, bars: Bars) -> None:
        store = bars.store(tmp_path / "s", volume=bars.shares, amount=bars.money / 7)
        found = value_in_currency(store, CODES, volume="raw")
        assert not found.sure
        assert "taken to be in currency" in found.said

    def test_amounts_alone(self, tmp_path: Path, bars: Bars) -> None:
        found = value_in_currency(bars.store(tmp_path / "s", amount=bars.money), CODES)
        assert not found.sure
        np.testing.assert_allclose(found.value, bars.money, rtol=1e-6)


class TestWithoutAmounts:
    def test_raw_shares_go_with_raw_prices(self, tmp_path: Path, bars: Bars) -> None:
        found = value_in_currency(bars.store(tmp_path / "s", volume=bars.shares), CODES)
        assert (found.sure, found.formula) == (False, "close / factor x volume")
        np.testing.assert_allclose(found.value, bars.money, rtol=1e-6)
        assert "taken to count single shares" in found.said

    def test_adjusted_shares_go_with_adjusted_prices(self, tmp_path: Path, bars: Bars) -> None:
        found = value_in_currency(
            bars.store(tmp_path / "s", volume=bars.shares / bars.factor), CODES, "adjusted"
        )
        assert found.formula == "close x volume"
        np.testing.assert_allclose(found.value, bars.money, rtol=1e-6)

    def test_lots_if_the_user_says_so(self, tmp_path: Path, bars: Bars) -> None:
        store = bars.store(tmp_path / "s", volume=bars.shares / 100)
        found = value_in_currency(store, CODES, "raw", volume_unit=100)
        assert found.sure
        np.testing.assert_allclose(found.value, bars.money, rtol=1e-6)
        assert found.said == "volumes count 100 shares, as the settings say"

    def test_volumes_that_do_not_tell(self, tmp_path: Path, bars: Bars) -> None:
        store = bars.store(tmp_path / "s", volume=bars.shares + 0.37)
        with pytest.raises(UserError, match="do not tell whether they are raw shares or adjusted ones"):
            value_in_currency(store, CODES)

    def test_neither(self, tmp_path: Path, bars: Bars) -> None:
        with pytest.raises(StoreError, match="no `amount` of these stocks"):
            value_in_currency(bars.store(tmp_path / "s"), CODES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"volume": "lots"}, "`volume` must be one of"), ({"volume_unit": 0}, "`volume_unit` must be above 0")],
)
def test_wrong_arguments(tmp_path: Path, bars: Bars, arguments: dict[str, Any], message: str) -> None:
    store = bars.store(tmp_path / "s", volume=bars.shares)
    with pytest.raises(UserError, match=message):
        value_in_currency(store, CODES, **arguments)


STOCKS = 8


def drawn(factor_of: list[float], kind: str, seed: int = 0) -> dict[str, np.ndarray]:
    """Bars of stocks whose factor takes these values in turn, and the money that they were traded for."""
    draw = np.random.default_rng(seed)
    factor = np.repeat(np.resize(factor_of, DAYS)[:, None], STOCKS, axis=1)
    raw_close = draw.uniform(5, 50, (DAYS, STOCKS))
    raw_volume = np.round(draw.lognormal(10, 1, (DAYS, STOCKS)))
    return {
        "close": raw_close * factor,
        "factor": factor,
        "volume": raw_volume if kind == "raw" else raw_volume / factor,
        "money": raw_close * raw_volume,
    }


def written(root: Path, fields: dict[str, np.ndarray]) -> QlibStore:
    codes = [f"SH60000{k}" for k in range(STOCKS)]
    fields_of_store = {name: values for name, values in fields.items() if name != "money"}
    return write_store(root, pd.bdate_range("2020-01-01", periods=DAYS), codes, fields_of_store, {})


class TestVolumeKind:
    @pytest.mark.parametrize("kind", ["raw", "adjusted"])
    @pytest.mark.parametrize(
        "factors",
        [[3.17, 5.9], [0.37, 0.81], [0.9, 1.3, 7.7], [2.0], [0.5], [1.5, 3.0]],
        ids=lambda factors: "-".join(map(str, factors)),
    )
    def test_it_tells_raw_from_adjusted(self, kind: str, factors: list[float]) -> None:
        made = drawn(factors, kind)
        volume, factor = (made[name].astype(np.float32) for name in ("volume", "factor"))
        assert volume_kind(volume, factor) == kind

    def test_factors_of_one_say_nothing(self) -> None:
        made = drawn([1.0, 1.005], "raw")
        assert volume_kind(made["volume"], made["factor"]) is None

    def test_too_few_or_too_large_volumes_say_nothing(self) -> None:
        made = drawn([3.17], "raw")
        assert volume_kind(made["volume"][:5], made["factor"][:5]) is None
        assert volume_kind(made["volume"] * 1e6, made["factor"]) is None

    def test_volumes_that_are_whole_neither_way_say_nothing(self) -> None:
        made = drawn([3.17], "raw")
        assert volume_kind(made["volume"] + 0.3, made["factor"]) is None

    def test_the_real_store_has_raw_shares(self, real_store: QlibStore) -> None:
        """Independently of whole numbers: an index counts the shares of its members, and they are no more."""
        codes = [code for code in real_store.instruments() if not code.startswith("SH000")]
        volume, factor = real_store.read(["volume", "factor"], codes).astype(float)
        assert volume_kind(volume, factor) == "raw"
        members = real_store.member_mask("csi300", codes)
        index = real_store.read(["volume"], ["SH000300"])[0, :, 0]
        share = np.where(members, np.nan_to_num(volume), 0).sum(axis=1) / index
        as_adjusted = np.where(members, np.nan_to_num(volume * factor), 0).sum(axis=1) / index
        assert 0.7 < np.median(share) < 1
        assert np.median(as_adjusted) > 5


class TestTradedValue:
    @pytest.mark.parametrize(
        ("kind", "formula"), [("raw", "close / factor x volume"), ("adjusted", "close x volume")]
    )
    @pytest.mark.parametrize("said", [True, False], ids=["said", "told by the data"])
    def test_it_is_the_money(self, tmp_path: Path, kind: str, formula: str, said: bool) -> None:
        made = drawn([1.0, 3.17, 0.4], kind)
        opened = written(tmp_path / "s", made)
        amount = TradedValue(opened, opened.instruments(), kind if said else "auto")
        np.testing.assert_allclose(amount.between(10, DAYS), made["money"][10:], rtol=1e-6)
        assert amount.formula == formula

    def test_the_field_amount_goes_first(self, tmp_path: Path) -> None:
        made = drawn([3.17], "raw")
        opened = written(tmp_path / "s", made | {"amount": 7 * made["money"]})
        amount = TradedValue(opened, opened.instruments(), "adjusted")
        np.testing.assert_allclose(amount.between(0, 5), 7 * made["money"][:5], rtol=1e-6)
        assert amount.formula == "amount"

    @settings(max_examples=15)
    @given(after=st.integers(20, DAYS))
    def test_no_later_day_is_looked_at(self, tmp_path_factory: pytest.TempPathFactory, after: int) -> None:
        made = drawn([3.17, 0.4], "raw")
        later = {name: values.copy() for name, values in made.items()}
        for values in later.values():
            values[after:] = np.random.default_rng(after).uniform(0.1, 9, values[after:].shape)
        root = tmp_path_factory.mktemp("amount")
        first, second = written(root / "a", made), written(root / "b", later)
        codes = first.instruments()
        np.testing.assert_array_equal(
            TradedValue(first, codes).between(after - 10, after),
            TradedValue(second, codes).between(after - 10, after),
        )

    def test_without_a_factor_beside_one_there_is_nothing_to_tell(self, tmp_path: Path) -> None:
        made = drawn([1.0], "raw")
        opened = written(tmp_path / "s", made)
        amount = TradedValue(opened, opened.instruments())
        np.testing.assert_allclose(amount.between(0, DAYS), made["money"], rtol=1e-6)
        assert amount.formula == "close x volume"

    def test_volumes_that_do_not_tell_are_asked_for(self, tmp_path: Path) -> None:
        made = drawn([3.17], "raw")
        opened = written(tmp_path / "s", made | {"volume": made["volume"] * 1.37})
        with pytest.raises(UserError, match=r"up to 2020-02-11 do not tell .*: set `volume` to raw or"):
            TradedValue(opened, opened.instruments()).between(0, 30)
        TradedValue(opened, opened.instruments(), "raw").between(0, 30)

    def test_a_store_with_nothing_to_compute_it_from(self, tmp_path: Path) -> None:
        made = drawn([1.0], "raw")
        opened = written(tmp_path / "s", {"close": made["close"]})
        with pytest.raises(StoreError, match=r"has no `amount` of these stocks, and no `volume`"):
            TradedValue(opened, opened.instruments())

    def test_an_unknown_kind(self, tmp_path: Path) -> None:
        opened = written(tmp_path / "s", drawn([1.0], "raw"))
        with pytest.raises(UserError, match="`volume` must be one of adjusted, auto, raw, found 'lots'"):
            TradedValue(opened, opened.instruments(), "lots")
