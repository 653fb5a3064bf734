from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.traded_amount import TradedAmount, volume_kind

DAYS, STOCKS = 60, 8


def bars(factor_of: list[float], kind: str, seed: int = 0) -> dict[str, np.ndarray]:
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


def store(root: Path, fields: dict[str, np.ndarray]) -> QlibStore:
    codes = [f"SH60000{k}" for k in range(STOCKS)]
    written = {name: values for name, values in fields.items() if name != "money"}
    return write_store(root, pd.bdate_range("2020-01-01", periods=DAYS), codes, written, {})


class TestVolumeKind:
    @pytest.mark.parametrize("kind", ["raw", "adjusted"])
    @pytest.mark.parametrize(
        "factors",
        [[3.17, 5.9], [0.37, 0.81], [0.9, 1.3, 7.7], [2.0], [0.5], [1.5, 3.0]],
        ids=lambda factors: "-".join(map(str, factors)),
    )
    def test_it_tells_raw_from_adjusted(self, kind: str, factors: list[float]) -> None:
        made = bars(factors, kind)
        volume, factor = (made[name].astype(np.float32) for name in ("volume", "factor"))
        assert volume_kind(volume, factor) == kind

    def test_factors_of_one_say_nothing(self) -> None:
        made = bars([1.0, 1.005], "raw")
        assert volume_kind(made["volume"], made["factor"]) is None

    def test_too_few_or_too_large_volumes_say_nothing(self) -> None:
        made = bars([3.17], "raw")
        assert volume_kind(made["volume"][:5], made["factor"][:5]) is None
        assert volume_kind(made["volume"] * 1e6, made["factor"]) is None

    def test_volumes_that_are_whole_neither_way_say_nothing(self) -> None:
        made = bars([3.17], "raw")
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


class TestTradedAmount:
    @pytest.mark.parametrize(
        ("kind", "formula"), [("raw", "close / factor x volume"), ("adjusted", "close x volume")]
    )
    @pytest.mark.parametrize("said", [True, False], ids=["said", "told by the data"])
    def test_it_is_the_money(self, tmp_path: Path, kind: str, formula: str, said: bool) -> None:
        made = bars([1.0, 3.17, 0.4], kind)
        opened = store(tmp_path / "s", made)
        amount = TradedAmount(opened, opened.instruments(), kind if said else "auto")
        np.testing.assert_allclose(amount.between(10, DAYS), made["money"][10:], rtol=1e-6)
        assert amount.formula == formula

    def test_the_field_amount_goes_first(self, tmp_path: Path) -> None:
        made = bars([3.17], "raw")
        opened = store(tmp_path / "s", made | {"amount": 7 * made["money"]})
        amount = TradedAmount(opened, opened.instruments(), "adjusted")
        np.testing.assert_allclose(amount.between(0, 5), 7 * made["money"][:5], rtol=1e-6)
        assert amount.formula == "amount"

    @settings(max_examples=15)
    @given(after=st.integers(20, DAYS))
    def test_no_later_day_is_looked_at(self, tmp_path_factory: pytest.TempPathFactory, after: int) -> None:
        made = bars([3.17, 0.4], "raw")
        later = {name: values.copy() for name, values in made.items()}
        for values in later.values():
            values[after:] = np.random.default_rng(after).uniform(0.1, 9, values[after:].shape)
        root = tmp_path_factory.mktemp("amount")
        first, second = store(root / "a", made), store(root / "b", later)
        codes = first.instruments()
        np.testing.assert_array_equal(
            TradedAmount(first, codes).between(after - 10, after),
            TradedAmount(second, codes).between(after - 10, after),
        )

    def test_without_a_factor_beside_one_there_is_nothing_to_tell(self, tmp_path: Path) -> None:
        made = bars([1.0], "raw")
        opened = store(tmp_path / "s", made)
        amount = TradedAmount(opened, opened.instruments())
        np.testing.assert_allclose(amount.between(0, DAYS), made["money"], rtol=1e-6)
        assert amount.formula == "close x volume"

    def test_volumes_that_do_not_tell_are_asked_for(self, tmp_path: Path) -> None:
        made = bars([3.17], "raw")
        opened = store(tmp_path / "s", made | {"volume": made["volume"] * 1.37})
        with pytest.raises(UserError, match=r"up to 2020-02-11 do not tell .*: say which, --volume raw or"):
            TradedAmount(opened, opened.instruments()).between(0, 30)
        TradedAmount(opened, opened.instruments(), "raw").between(0, 30)

    def test_a_store_with_nothing_to_compute_it_from(self, tmp_path: Path) -> None:
        made = bars([1.0], "raw")
        opened = store(tmp_path / "s", {"close": made["close"]})
        with pytest.raises(StoreError, match=r"has no `amount` of these stocks, and no `volume`"):
            TradedAmount(opened, opened.instruments())

    def test_an_unknown_kind(self, tmp_path: Path) -> None:
        opened = store(tmp_path / "s", bars([1.0], "raw"))
        with pytest.raises(UserError, match="`volume` must be one of adjusted, auto, raw, found 'lots'"):
            TradedAmount(opened, opened.instruments(), "lots")
