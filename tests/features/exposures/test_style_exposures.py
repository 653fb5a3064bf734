"""Exposures against plain loops; nothing of a later day in them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.features.exposures import style_exposures as exposures
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

DAYS, STOCKS = 300, 7


@pytest.fixture(scope="module")
def close() -> np.ndarray:
    draw = np.random.default_rng(0)
    prices = np.exp(draw.normal(0, 0.02, (DAYS, STOCKS)).cumsum(axis=0))
    prices[100:103, 2] = np.nan
    return prices


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    root = tmp_path_factory.mktemp("styles") / "store"
    SampleMarket(seed=3, stocks=20, start="2014-01-01", end="2015-06-30").write(root)
    return QlibStore(root)


class TestPlanes:
    def test_momentum_is_the_year_without_its_last_month(self, close: np.ndarray) -> None:
        found = exposures.momentum(close)
        assert np.isnan(found[:252]).all()
        assert found[260, 1] == pytest.approx(close[239, 1] / close[8, 1] - 1)
        assert exposures.reversal(close)[50, 3] == pytest.approx(close[50, 3] / close[30, 3] - 1)
        assert np.isnan(exposures.daily_returns(close)[100:104, 2]).all()
        assert np.isnan(exposures.momentum(close[:200])).all()

    def test_volatility_is_that_of_the_returns_there_are(self, close: np.ndarray) -> None:
        returns = exposures.daily_returns(close)
        found = exposures.volatility(returns)
        assert found[110, 2] == pytest.approx(np.nanstd(returns[91:111, 2], ddof=1))
        assert np.isnan(found[:10]).all()
        assert not np.isnan(found[10, 0])

    def test_liquidity_is_trading_over_size(self) -> None:
        value = np.full((30, 2), 1e8)
        traded = np.full((30, 2), 1e6)
        traded[:, 1] = 0.0
        found = exposures.liquidity(traded, value)
        assert found[29, 0] == pytest.approx(np.log(0.01))
        assert np.isnan(found[:, 1]).all()
        assert np.isnan(found[8, 0])

    @pytest.mark.parametrize(
        ("call", "message"),
        [
            (
                lambda x: exposures.momentum(x, 20, 20),
                "`skipped_days` must be at most 19, found 20",
            ),
            (lambda x: exposures.volatility(x, 5, 6), "`min_days` must be at most 5, found 6"),
            (lambda x: exposures.standardised(x, x[:2] > 0), "must be of the same days and stocks"),
        ],
    )
    def test_what_cannot_be(self, call: object, message: str) -> None:
        with pytest.raises(UserError, match=message):
            call(np.ones((4, 3)))  # type: ignore[operator]


class TestStandardised:
    def test_the_market_has_none_and_what_is_missing_is_as_the_market(self) -> None:
        draw = np.random.default_rng(1)
        plane, values = draw.normal(5, 3, (4, 50)), np.exp(draw.normal(size=(4, 50)))
        members = np.ones((4, 50), bool)
        members[:, 40:] = False
        plane[2, 3], plane[3], plane[0, 45] = np.nan, 7.0, 1e6
        found = exposures.standardised(plane, members, values)
        assert found[2, 3] == 0
        assert (found[3] == 0).all()
        used = np.where(members & ~np.isnan(plane), values, 0.0)
        np.testing.assert_allclose((found * used).sum(axis=1), 0, atol=1e-9)
        np.testing.assert_allclose(found[:3, :40].std(axis=1), 1, atol=0.05)
        assert found[0, 45] > found[0, :40].max()  # no member is an outlier; it is cut at 3
        equal = exposures.standardised(plane, members)
        np.testing.assert_allclose(equal[:3, :40].mean(axis=1), 0, atol=1e-9)


class TestLoaded:
    def test_a_store_has_all_six_and_no_later_day_is_in_them(self, store: QlibStore) -> None:
        market = MarketPanel.load(store, "csi300", ["close"])
        known = exposures.load_exposures(store, market, "csi300", "SH000300")
        assert tuple(known.planes) == exposures.STYLES
        assert set(known.told) == {*exposures.STYLES, "industry"}
        cut = 300
        past = MarketPanel(
            market.fields,
            market.calendar[:cut],
            market.instruments,
            np.ascontiguousarray(market.values[:, :cut]),
            market.members[:cut],
            (),
        )
        before = exposures.load_exposures(store, past, "csi300", "SH000300")
        for name, plane in before.planes.items():
            np.testing.assert_allclose(plane, known.planes[name][:cut], err_msg=name)
            assert not np.isnan(plane[-1]).all()

    def test_days_in_the_middle_of_a_store_have_their_own(self, store: QlibStore) -> None:
        market = MarketPanel.load(store, "csi300", ["close"])
        first = 30
        part = MarketPanel(
            market.fields,
            market.calendar[first:],
            market.instruments,
            market.values[:, first:],
            market.members[first:],
            (),
        )
        whole, found = (
            exposures.load_exposures(store, each, "csi300", "SH000300") for each in (market, part)
        )
        for name, plane in found.planes.items():
            np.testing.assert_allclose(plane[-1], whole.planes[name][-1], err_msg=name)

    def test_a_store_that_lacks_volumes_says_so(self, store: QlibStore, tmp_path: Path) -> None:
        bare = tmp_path / "bare"
        for path in store.root.rglob("*"):
            if (
                path.is_file()
                and path.name.split(".")[0] not in ("volume", "amount")
                and "side" not in path.parts
            ):
                (bare / path.relative_to(store.root)).parent.mkdir(parents=True, exist_ok=True)
                (bare / path.relative_to(store.root)).write_bytes(path.read_bytes())
        other = QlibStore(bare)
        known = exposures.load_exposures(other, MarketPanel.load(other, "csi300", ["close"]), "csi300")
        assert set(known.planes) == {"beta", "momentum", "volatility", "reversal"}
        assert known.told["size"].startswith("not known: ")
        assert known.told["liquidity"].startswith("not known: ")
        assert known.told["beta"].endswith("the mean of `csi300`, over 60 days")
        assert pd.isna(known.market_value)
