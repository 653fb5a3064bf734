from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.features.side_data.market_value import (
    FirstAvailable,
    MarketValue,
    SideMarketValue,
    TrailingTradedValue,
    Uniform,
    fill,
)
from qlib_ext.market.side_data.side_data import SideDataError
from qlib_ext.market.store import QlibStore, StoreError, write_store
from qlib_ext.market.synthetic.sample import SampleMarket

CODES = ["SH600000", "SH600004", "SZ000001"]
DAYS = 90


def make_store(root: Path, bars: dict[str, np.ndarray]) -> QlibStore:
    return write_store(root, pd.bdate_range("2020-01-01", periods=DAYS), CODES, bars, {})


@pytest.fixture(scope="module")
def sample_market(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    market = SampleMarket(seed=3, stocks=40, start="2014-01-01", end="2014-12-31")
    return market.write(tmp_path_factory.mktemp("sample") / "market")[0]


@pytest.fixture
def bars() -> dict[str, np.ndarray]:
    """Adjusted prices and raw shares; the factor of the first stock leaves 1 on day 40."""
    draw = np.random.default_rng(5)
    factor = np.ones((DAYS, 3))
    factor[40:, 0] = 1.25
    price = 10 * np.exp(draw.normal(0, 0.02, factor.shape).cumsum(axis=0))
    shares = np.floor(draw.uniform(1_000, 100_000, factor.shape))
    shares[20:30, 1] = 0  # carried over a suspension
    price[50:60, 2] = shares[50:60, 2] = np.nan
    factor[50:60, 2] = np.nan
    return {"close": price * factor, "volume": shares, "factor": factor, "amount": price * shares}


def naive_median(amount: np.ndarray, window: int, minimum: int) -> np.ndarray:
    found = np.full(amount.shape, np.nan)
    for day, stock in np.ndindex(amount.shape):
        part = amount[max(0, day - window + 1) : day + 1, stock]
        traded = part[part > 0]
        if len(traded) >= minimum:
            found[day, stock] = np.median(traded)
    return found


class TestTrailingTradedValue:
    @pytest.mark.parametrize(("window", "minimum"), [(20, 20), (20, 5), (60, 20), (1, 1)])
    def test_the_median_of_the_days_with_trading(
        self, window: int, minimum: int, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "s", bars)
        found = TrailingTradedValue(window, minimum).load(store, CODES)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, naive_median(bars["amount"], window, minimum), rtol=1e-6)
        assert np.isnan(found[: minimum - 1]).all()

    @pytest.mark.parametrize("kind", ["raw", "adjusted"])
    @pytest.mark.parametrize("told", [True, False])
    def test_without_amount_it_is_price_times_volume(
        self, kind: str, told: bool, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        amount = bars.pop("amount")
        if kind == "adjusted":
            bars["volume"] = bars["volume"] / bars["factor"]
        bars["factor"][:, 1:] *= 0.8  # so that the days before 40 tell
        bars["close"][:, 1:] *= 0.8
        if kind == "adjusted":
            bars["volume"][:, 1:] /= 0.8
        store = make_store(tmp_path / "s", bars)
        source = TrailingTradedValue(10, 5, volume=kind if told else "auto")
        found, expected = source.load(store, CODES), naive_median(amount, 10, 5)
        if told:
            np.testing.assert_allclose(found, expected, rtol=1e-6)
        else:  # the days before the volumes told are not known
            assert np.isnan(found[:15, 1:]).all()
            np.testing.assert_allclose(found[60:], expected[60:], rtol=1e-6)
            assert not np.isnan(found[70:]).any()

    def test_later_days_never_change_earlier_ones(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        del bars["amount"]
        bars["factor"][1:, 1] = 0.7  # the first 50 volumes with another factor than 1 tell what they are
        first = TrailingTradedValue(20, 5).load(make_store(tmp_path / "a", bars), CODES)
        assert not np.isnan(first[80:, 1]).any()
        for t in (80, 85):
            draw = np.random.default_rng(t)
            moved = {name: values.copy() for name, values in bars.items()}
            for values in moved.values():
                values[t + 1 :] *= draw.uniform(0.5, 2, values[t + 1 :].shape)
            second = TrailingTradedValue(20, 5).load(make_store(tmp_path / f"b{t}", moved), CODES)
            np.testing.assert_array_equal(first[: t + 1], second[: t + 1])
            assert not np.array_equal(first, second, equal_nan=True)

    def test_volumes_that_do_not_tell_are_an_error(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        del bars["amount"]
        bars["volume"] += 0.3
        store = make_store(tmp_path / "s", bars)
        with pytest.raises(UserError, match="set `volume` to raw or adjusted"):
            TrailingTradedValue().load(store, CODES)
        assert not np.isnan(TrailingTradedValue(volume="raw").load(store, CODES)[-1]).any()

    def test_a_store_without_factor_is_raw_and_adjusted_at_once(
        self, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        amount = bars["close"] * bars["volume"]
        store = make_store(tmp_path / "s", {"close": bars["close"], "volume": bars["volume"]})
        np.testing.assert_allclose(
            TrailingTradedValue().load(store, CODES), naive_median(amount, 60, 20), rtol=1e-6
        )

    def test_what_it_needs(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        bare = make_store(tmp_path / "s", {"close": bars["close"]})
        assert TrailingTradedValue().lacks(bare) == "there is neither amount nor close and volume"
        with pytest.raises(StoreError, match="no `volume` to compute it from"):
            TrailingTradedValue().load(bare, CODES)
        for fields in (["amount"], ["close", "volume"]):
            store = make_store(tmp_path / fields[0], {name: bars[name] for name in fields})
            assert TrailingTradedValue().lacks(store) is None

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"window_days": 0}, "`window_days` must be at least 1, found 0"),
            ({"min_days": 0}, "`min_days` must be at least 1, found 0"),
            ({"window_days": 10}, "`window_days` must be at least 20, found 10"),
            ({"volume": "shares"}, "`volume` must be one of adjusted, auto, raw, found 'shares'"),
        ],
    )
    def test_arguments_are_checked(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            TrailingTradedValue(**arguments)

    def test_on_the_sample_market_it_ranks_firms_as_market_value_does(self, sample_market: QlibStore) -> None:
        stocks = sorted(set(sample_market.membership("csi300")["instrument"]))
        real, proxy = (
            source.load(sample_market, stocks) for source in (SideMarketValue(), TrailingTradedValue())
        )
        rank = [pd.Series(real[t]).corr(pd.Series(proxy[t]), method="spearman") for t in (60, 120, 180)]
        assert min(rank) > 0.6


class TestSideMarketValue:
    def test_numbers_are_those_of_the_file_carried_forward(
        self, bars: dict[str, np.ndarray], tmp_path: Path
    ) -> None:
        store = make_store(tmp_path / "s", bars)
        assert SideMarketValue().lacks(store) == "there is no side/market_value.parquet or .csv"
        (store.root / "side").mkdir()
        lines = ["datetime,instrument,market_value", "2020-01-03,SH600000,7", "2020-01-10,SH600004,8"]
        (store.root / "side" / "market_value.csv").write_text("\n".join(lines))
        source = SideMarketValue(limit_days=10)
        assert source.lacks(store) is None
        found = source.load(store, CODES)
        assert np.flatnonzero(found[:, 0] == 7).tolist() == list(range(2, 9))  # to the 13th, a Monday
        assert np.flatnonzero(found[:, 1] == 8).tolist() == list(range(7, 14))
        assert np.isnan(found[:, 2]).all()
        before = source.describe(store)
        assert before["source"] == "side/market_value.csv"
        (store.root / "side" / "market_value.csv").write_text("\n".join(lines).replace("8", "9"))
        assert source.describe(store)["fingerprint"] != before["fingerprint"]

    def test_a_table_of_other_stocks_is_an_error(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        store = make_store(tmp_path / "s", bars)
        (store.root / "side").mkdir()
        (store.root / "side" / "market_value.csv").write_text(
            "datetime,instrument,market_value\n2020-01-03,A,7\n"
        )
        with pytest.raises(StoreError, match="no value of any of the 3 stocks"):
            SideMarketValue().load(store, CODES)


class TestFirstAvailable:
    def test_it_takes_the_best_that_is_there(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        bare = make_store(tmp_path / "bare", {"close": bars["close"]})
        with_bars = make_store(tmp_path / "bars", bars)
        with_side = make_store(tmp_path / "side", bars)
        (with_side.root / "side").mkdir()
        (with_side.root / "side" / "market_value.csv").write_text(
            "datetime,instrument,market_value\n2020-01-03,SH600000,7\n"
        )
        expected = {with_side: SideMarketValue(), with_bars: TrailingTradedValue(), bare: Uniform()}
        reasons = {with_side: 0, with_bars: 1, bare: 2}
        for store, source in expected.items():
            chosen = FirstAvailable()
            np.testing.assert_array_equal(chosen.load(store, CODES), source.load(store, CODES))
            assert chosen.describe(store) == source.describe(store)
            notes = chosen.notes(store)
            assert len(notes) == bool(reasons[store])
            assert sum(note.count("there is") for note in notes) == reasons[store]
        reason = "there is no side/market_value.parquet or .csv; there is neither amount nor close and volume"
        assert chosen.notes(bare) == [f"market values: uniform, since {reason}"]

    def test_a_faulty_file_is_no_missing_file(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        store = make_store(tmp_path / "s", bars)
        (store.root / "side").mkdir()
        (store.root / "side" / "market_value.csv").write_text(
            "datetime,instrument,market_value\n2020-01-03,SH600000,-7\n"
        )
        with pytest.raises(SideDataError, match="not above 0"):
            FirstAvailable().load(store, CODES)

    def test_sources_may_be_given(self, bars: dict[str, np.ndarray], tmp_path: Path) -> None:
        store = make_store(tmp_path / "s", {"close": bars["close"]})
        module = "qlib_ext.features.side_data.market_value"
        given = [
            {"class": f"{module}.SideMarketValue", "kwargs": {"name": "float_value"}},
            {"class": f"{module}.TrailingTradedValue"},
        ]
        chain = FirstAvailable(given)
        reasons = "there is no side/float_value.parquet or .csv; there is neither amount nor close and volume"
        assert chain.lacks(store) == reasons
        with pytest.raises(
            UserError, match=r"no source of market values fits the store .*: there is no side/float"
        ):
            chain.load(store, CODES)
        with pytest.raises(UserError, match="`sources` must name at least one source"):
            FirstAvailable([])
        with pytest.raises(UserError, match="must be a MarketValue"):
            FirstAvailable([{"class": "qlib_ext.market.store.QlibStore", "kwargs": {"root": "."}}])


class TestFill:
    def test_who_has_none_gets_the_days_median(self) -> None:
        nan = np.nan
        values = np.array([[1.0, nan, 3, 10, nan], [nan, nan, nan, 10, nan], [4, 5, 6, 7, 8]])
        present = np.array([[1, 1, 1, 0, 0], [1, 1, 0, 0, 0], [0, 0, 0, 0, 0]], dtype=bool)
        expected = np.array([[1, 2, 3, nan, nan], [1, 1, nan, nan, nan], [nan] * 5], dtype=np.float32)
        found = fill(values, present)
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == np.float32

    @pytest.mark.parametrize("wrong", [0.0, -1.0, np.inf])
    def test_a_source_must_give_positive_numbers(self, wrong: float) -> None:
        with pytest.raises(UserError, match=f"above 0 and finite, found {wrong:g} and 1 others"):
            fill(np.array([[1.0, wrong, np.nan, wrong]]), np.ones((1, 4), dtype=bool))


def test_a_source_of_ones_own_is_one_small_class() -> None:
    class Rank(MarketValue):
        def load(self, store: QlibStore, instruments: Any) -> np.ndarray:
            return np.arange(1, 4, dtype=np.float32)[None]

        def describe(self, store: QlibStore) -> dict[str, Any]:
            return {"source": "rank"}

    source = Rank()
    assert source.lacks(None) is None  # type: ignore[arg-type]
    assert source.notes(None) == []  # type: ignore[arg-type]
