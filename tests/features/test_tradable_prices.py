"""No window holds a price at which nobody could trade, whatever the feature set, and nothing follows from a later day."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from qlib_ext.features.alpha158 import Alpha158
from qlib_ext.features.alpha360 import FIELDS, Alpha360
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.daily_bars import DailyBars
from qlib_ext.features.expressions import Expressions
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.tradable_prices import MARK, PRICES, with_tradable_prices
from qlib_ext.features.union import Union
from qlib_ext.market.rules.exchange_rules import read_rules
from qlib_ext.market.store import QlibStore
from tests.data.conftest import UNIVERSE
from tests.data.untradable import Naive, untradable

CN = read_rules("cn")


def sets() -> dict[str, FeatureSet]:
    ranks = Expressions(
        {"RANK": "CSRank($close / Ref($close, 2))", "MARK": "Mean($tradable, 5)"}, 4, normalise="none"
    )
    return {
        "Alpha360": Alpha360(lookback_days=8),
        "Alpha158": Alpha158(["KMID", "ROC5", "STD5", "MAX5", "VWAP0", "CNTP5"], windows=[5]),
        "Expressions": ranks,
        "DailyBars": DailyBars(lookback_days=5),
        "Union": Union([Alpha360(lookback_days=4), ranks]),
    }


def seen(store: QlibStore, lookback_days: int = 8) -> tuple[MarketPanel, MarketPanel, list[str]]:
    """The bars, the same as features see them, and the notes."""
    bars = MarketPanel.load(store, UNIVERSE, FIELDS, empty_days=lookback_days - 1)
    return bars, *with_tradable_prices(bars, store, CN)


def windows(features: FeatureSet, store: QlibStore, last: int) -> list[torch.Tensor]:
    """Of every day, of its rows, fitted on the days up to `last`."""
    bars, market, _ = seen(store)
    features.join(store, bars)
    padded = torch.from_numpy(features.pad(market))
    days = np.arange(len(market.calendar))
    features.fit(market, market.present & (days <= last)[:, None], features.pad(market))
    return [features.gather(padded, day, torch.from_numpy(np.flatnonzero(bars.present[day]))) for day in days]


@pytest.fixture(scope="module")
def market(tiny: Any) -> Any:
    return untradable(tiny)


@pytest.fixture(scope="module")
def traded(market: Any, tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return market.write(tmp_path_factory.mktemp("traded") / "store")


def test_against_a_loop(market: Any, traded: QlibStore) -> None:
    naive = Naive(market)
    bars, found, (*_, note) = seen(traded)
    untraded = 0
    for column, code in enumerate(found.instruments):
        stock, last = market.codes.index(code), None
        for day in range(len(found.calendar)):
            tradable = naive.tradable(day, stock) if day else naive.traded(day, stock)
            last = day if tradable else last
            untraded += bool(bars.present[day, column]) and not tradable
            for field in FIELDS:
                source = last if field in PRICES else day
                expected = np.nan if source is None else market.bars[field][source, stock]
                np.testing.assert_equal(found.field(field)[day, column], np.float32(expected))
            if bars.listed[day, column]:
                assert found.field(MARK)[day, column] == tradable
    share = untraded / bars.present.sum()
    assert 0.02 < share < 0.2
    assert note.startswith(f"windows hold no price at which nobody could trade: on {share:.1%} of the rows")
    np.testing.assert_array_equal(found.present, bars.present)
    np.testing.assert_array_equal(found.listed, bars.listed)


@pytest.mark.parametrize("name", sets())
def test_windows_do_not_see_the_price_of_a_suspended_day(
    name: str, market: Any, traded: QlibStore, tmp_path: Path
) -> None:
    suspended = market.bars["volume"] == 0
    bars = {field: values.copy() for field, values in market.bars.items()}
    draw = np.random.default_rng(1)
    for field in PRICES:
        bars[field][suspended] *= draw.uniform(0.999, 1.001, suspended.sum())
    other = replace(market, bars=bars).write(tmp_path / "store")
    ours, theirs = (windows(sets()[name], store, 119) for store in (traded, other))
    assert seen(traded)[0].values.tobytes() != seen(other)[0].values.tobytes()
    for day, (one, two) in enumerate(zip(ours, theirs, strict=True)):
        assert torch.equal(one, two), day


@pytest.mark.parametrize("name", sets())
def test_a_day_knows_nothing_of_the_next(name: str, market: Any, traded: QlibStore, tmp_path: Path) -> None:
    t = 150
    other = market.moved(slice(t + 1, None)).write(tmp_path / "store")
    ours, theirs = (windows(sets()[name], store, 119) for store in (traded, other))
    assert all(torch.equal(*both) for both in zip(ours[: t + 1], theirs[: t + 1], strict=True))
    assert not all(torch.equal(*both) for both in zip(ours[t + 1 :], theirs[t + 1 :], strict=True))
