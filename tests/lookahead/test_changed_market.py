"""A changed market is the same up to t in all that was known then, and another one after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.known_field import KnownField
from qlib_ext.features.side_data.macro import Macro
from qlib_ext.lookahead.changed_market import BARS, MEMBERSHIP, ChangedMarkets, remove, write_split
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore, write_store

FIELDS = ("open", "high", "low", "close", "vwap", "volume", "factor")
T, STOP = 140, 150


@pytest.fixture(scope="module")
def markets(store: QlibStore) -> ChangedMarkets:
    return ChangedMarkets(store, seed=1)


@pytest.fixture(scope="module")
def block(markets: ChangedMarkets, tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    """The days from T + 1 to STOP - 1 are others."""
    root = tmp_path_factory.mktemp("changed") / "block"
    markets.write(root, [(T + 1, STOP)])
    return QlibStore(root)


@pytest.fixture(scope="module")
def after(markets: ChangedMarkets, tmp_path_factory: pytest.TempPathFactory, store: QlibStore) -> QlibStore:
    """All days from T + 1 on are others."""
    root = tmp_path_factory.mktemp("changed") / "after"
    markets.write(root, [(T + 1, len(store.calendar))])
    return QlibStore(root)


def bars(store: QlibStore) -> np.ndarray:
    return store.read(FIELDS, store.instruments())


def members(store: QlibStore) -> np.ndarray:
    return store.member_mask("few", store.instruments())


def unequal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return ~((one == other) | (np.isnan(one) & np.isnan(other)))


def industries(store: QlibStore) -> np.ndarray:
    """`[D, S]` names, by plain loops."""
    table = SideData(store).read("industry").frame
    codes = store.instruments()
    found = np.full((len(store.calendar), len(codes)), "", dtype=object)
    for row in table.itertuples():
        end = store.calendar[-1] if pd.isna(row.end) else row.end
        inside = (store.calendar >= row.start) & (store.calendar <= end)
        found[inside, codes.index(row.instrument)] += row.industry
    return found


class TestBars:
    def test_only_the_days_of_the_block_are_others(self, store: QlibStore, block: QlibStore) -> None:
        moved = unequal(bars(store), bars(block)).any(axis=0)
        assert not moved[: T + 1].any()
        assert not moved[STOP:].any()
        assert moved[T + 1 : STOP].mean() > 0.9

    def test_all_days_after_t_are_others(self, store: QlibStore, after: QlibStore) -> None:
        moved = unequal(bars(store), bars(after)).any(axis=0)
        assert not moved[: T + 1].any()
        assert moved[T + 1 :].mean() > 0.9

    def test_bars_go_and_come(self, store: QlibStore, after: QlibStore) -> None:
        gone = [np.isnan(x.read(["close"], x.instruments())[0])[T + 1 :] for x in (store, after)]
        assert (gone[1] & ~gone[0]).any()
        assert (gone[0] & ~gone[1]).any()

    def test_the_same_again(self, markets: ChangedMarkets, after: QlibStore, tmp_path: Path) -> None:
        markets.write(tmp_path / "again", [(T + 1, len(after.calendar))])
        assert QlibStore(tmp_path / "again").fingerprint() == after.fingerprint()


class TestMembership:
    def test_only_the_days_of_the_block_are_others(self, store: QlibStore, block: QlibStore) -> None:
        moved = (members(store) != members(block)).any(axis=1)
        assert not moved[: T + 1].any()
        assert not moved[STOP:].any()
        assert moved[T + 1 : STOP].all()


class TestSideData:
    def test_market_values(self, store: QlibStore, block: QlibStore) -> None:
        one, other = (
            SideData(x).values("market_value", x.calendar, x.instruments(), 9) for x in (store, block)
        )
        moved = unequal(one, other).any(axis=1)
        assert moved[T + 1 : STOP].all()
        assert not moved[: T + 1].any()
        assert not unequal(one, other)[STOP:].any()

    @pytest.mark.parametrize(("name", "field"), [("report", "roe"), ("report", "growth"), ("mood", "score")])
    def test_numbers(
        self, name: str, field: str, store: QlibStore, block: QlibStore, after: QlibStore
    ) -> None:
        planes = []
        for each in (store, block, after):
            market = MarketPanel.load(each, "few", ["close"])
            known = KnownField.read(SideData(each), name, field, market)
            planes.append(known.at(slice(0, len(market.calendar)), np.arange(len(market.instruments)))[0])
        for other, stop in zip(planes[1:], (STOP, len(store.calendar)), strict=True):
            moved = unequal(planes[0], other).any(axis=1)
            assert moved[T + 1 : stop].any()
            assert not moved[: T + 1].any()
            assert not moved[stop:].any()

    def test_industries(self, store: QlibStore, block: QlibStore, after: QlibStore) -> None:
        for other, stop in ((block, STOP), (after, len(store.calendar))):
            moved = (industries(store) != industries(other)).any(axis=1)
            assert moved[T + 1 : stop].all()
            assert not moved[: T + 1].any()
            assert not moved[stop:].any()

    def test_macro_figures_and_their_return(
        self, store: QlibStore, block: QlibStore, after: QlibStore
    ) -> None:
        macro = Macro(series=["cpi"])
        before = macro.load(store).values
        moved = unequal(before, macro.load(after).values).any(axis=1)
        assert not moved[: T + 1].any()
        assert moved[-1]
        moved = unequal(before, macro.load(block).values).any(axis=1)
        assert not moved[: T + 1].any()
        assert not moved[STOP:].any()


class TestSources:
    def test_one_at_a_time(self, store: QlibStore, markets: ChangedMarkets, tmp_path: Path) -> None:
        assert markets.sources == (
            BARS,
            MEMBERSHIP,
            "side/industry",
            "side/macro",
            "side/market_value",
            "side/mood",
            "side/report",
        )
        markets.write(tmp_path / "m", [(T + 1, STOP)], (MEMBERSHIP,))
        other = QlibStore(tmp_path / "m")
        assert not unequal(bars(store), bars(other)).any()
        assert (members(store) != members(other)).any()
        assert (other.root / "side" / "macro.parquet").is_symlink()

    def test_the_store_itself_is_left_alone(
        self, store: QlibStore, markets: ChangedMarkets, tmp_path: Path
    ) -> None:
        before = QlibStore(store.root).fingerprint()
        markets.write(tmp_path / "m", [(3, 9)], (BARS,))
        remove(tmp_path / "m")
        assert QlibStore(store.root).fingerprint() == before


class TestSplit:
    @pytest.mark.parametrize("adjusted", [False, True])
    def test_volumes_of_raw_shares_stay(self, tmp_path: Path, adjusted: bool) -> None:
        """Whole shares beside factors are raw; over the factor they are adjusted, and a split doubles them."""
        draw = np.random.default_rng(0)
        factor = np.repeat([[0.3], [0.7]], 60, axis=0) * np.ones((120, 4))
        shares = draw.integers(100, 9_000, factor.shape).astype(float)
        volume = shares / factor if adjusted else shares
        close = np.full(factor.shape, 8.0)
        codes = [f"SH60000{k}" for k in range(4)]
        calendar = pd.bdate_range("2020-01-01", periods=120)
        write_store(
            tmp_path / "store", calendar, codes, {"close": close, "volume": volume, "factor": factor}, {}
        )
        store = QlibStore(tmp_path / "store")
        write_split(store, tmp_path / "split", seed=0)
        (ours,), (theirs,) = (each.read(["volume"], codes) for each in (store, QlibStore(tmp_path / "split")))
        ratios = {*np.unique(theirs / ours)}
        assert (2.0 in ratios) == adjusted

    def test_half_of_the_shares_are_halved_without_a_digit_lost(
        self, store: QlibStore, tmp_path: Path
    ) -> None:
        write_split(store, tmp_path / "split", seed=0)
        other = QlibStore(tmp_path / "split")
        codes = store.instruments()
        close, volume = store.read(["close", "volume"], codes)
        other_close, other_volume = other.read(["close", "volume"], codes)
        split = ~(unequal(close, other_close).sum(axis=0) == 0)
        assert 0 < split.sum() < len(codes)
        np.testing.assert_array_equal(other_close[:, split] * 2, close[:, split])
        np.testing.assert_array_equal(other_volume[:, split], volume[:, split] * 2)
        np.testing.assert_array_equal(other_close[:, ~split], close[:, ~split])
