from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.traded_value import traded_money

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
        found = traded_money(store, CODES, volume="raw" if raw else "adjusted")
        assert (found.sure, found.formula) == (True, "amount")
        np.testing.assert_allclose(found.money, bars.money, rtol=1e-6)
        assert f"amounts count {unit:,} in currency" in found.said

    def test_a_unit_that_nobody_uses_is_not_guessed(self, tmp_path: Path, bars: Bars) -> None:
        store = bars.store(tmp_path / "s", volume=bars.shares, amount=bars.money / 7)
        found = traded_money(store, CODES, volume="raw")
        assert not found.sure
        assert "taken to be in currency" in found.said

    def test_amounts_alone(self, tmp_path: Path, bars: Bars) -> None:
        found = traded_money(bars.store(tmp_path / "s", amount=bars.money), CODES)
        assert not found.sure
        np.testing.assert_allclose(found.money, bars.money, rtol=1e-6)


class TestWithoutAmounts:
    def test_raw_shares_go_with_raw_prices(self, tmp_path: Path, bars: Bars) -> None:
        found = traded_money(bars.store(tmp_path / "s", volume=bars.shares), CODES)
        assert (found.sure, found.formula) == (False, "close / factor x volume")
        np.testing.assert_allclose(found.money, bars.money, rtol=1e-6)
        assert "taken to count single shares" in found.said

    def test_adjusted_shares_go_with_adjusted_prices(self, tmp_path: Path, bars: Bars) -> None:
        found = traded_money(bars.store(tmp_path / "s", volume=bars.shares / bars.factor), CODES, "adjusted")
        assert found.formula == "close x volume"
        np.testing.assert_allclose(found.money, bars.money, rtol=1e-6)

    def test_lots_if_the_user_says_so(self, tmp_path: Path, bars: Bars) -> None:
        store = bars.store(tmp_path / "s", volume=bars.shares / 100)
        found = traded_money(store, CODES, "raw", volume_unit=100)
        assert found.sure
        np.testing.assert_allclose(found.money, bars.money, rtol=1e-6)
        assert found.said == "volumes count 100 shares, as the settings say"

    def test_volumes_that_do_not_tell(self, tmp_path: Path, bars: Bars) -> None:
        store = bars.store(tmp_path / "s", volume=bars.shares + 0.37)
        with pytest.raises(UserError, match="do not tell whether they are raw shares or adjusted ones"):
            traded_money(store, CODES)

    def test_neither(self, tmp_path: Path, bars: Bars) -> None:
        with pytest.raises(StoreError, match="no `amount` of these stocks"):
            traded_money(bars.store(tmp_path / "s"), CODES)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [({"volume": "lots"}, "`volume` must be one of"), ({"volume_unit": 0}, "`volume_unit` must be above 0")],
)
def test_wrong_arguments(tmp_path: Path, bars: Bars, arguments: dict[str, Any], message: str) -> None:
    store = bars.store(tmp_path / "s", volume=bars.shares)
    with pytest.raises(UserError, match=message):
        traded_money(store, CODES, **arguments)
