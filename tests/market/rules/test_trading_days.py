from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.rules.exchange_rules import read_rules
from qlib_ext.market.rules.trading_days import TradingDays, identity, trading_days
from qlib_ext.market.store import QlibStore, write_store
from tests.data.conftest import make_market
from tests.data.untradable import Naive, untradable

CN, US = read_rules("cn"), read_rules("us")


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return untradable(make_market()).write(tmp_path_factory.mktemp("days") / "store")


def codes_of(store: QlibStore) -> list[str]:
    return [code for code in store.instruments() if code.startswith("SH600")]


@pytest.fixture(scope="module")
def found(store: QlibStore) -> TradingDays:
    return trading_days(store, codes_of(store), CN)


def test_against_a_loop(found: TradingDays) -> None:
    naive = Naive(untradable(make_market()))
    days, stocks = found.traded.shape
    for day in range(days):
        for stock in range(stocks):
            traded = naive.traded(day, stock)
            at = naive.at(day, stock) if traded and day else None
            assert found.traded[day, stock] == traded
            if day:  # on the first day of the store nothing is known of the close before
                assert found.upper[day, stock] == (at == "up")
                assert found.lower[day, stock] == (at == "down")
                assert found.tradable[day, stock] == naive.tradable(day, stock)
    for plane in (found.upper, found.lower, found.locked, ~found.traded):
        assert plane[1:].sum() > 10
    assert (found.upper & ~found.locked).sum() > 10


def test_a_day_knows_nothing_of_the_next(found: TradingDays, tmp_path: Path) -> None:
    t = 120
    other = untradable(make_market()).moved(slice(t + 1, None)).write(tmp_path / "store")
    later = trading_days(other, codes_of(other), CN)
    for name in ("traded", "upper", "lower", "locked"):
        np.testing.assert_array_equal(getattr(later, name)[: t + 1], getattr(found, name)[: t + 1])
    assert not np.array_equal(later.upper, found.upper)


def test_of_some_days_the_same_is_said(store: QlibStore, found: TradingDays) -> None:
    part = trading_days(store, codes_of(store), CN, store.calendar[40:90])
    for name in ("traded", "upper", "lower", "locked"):
        np.testing.assert_array_equal(getattr(part, name), getattr(found, name)[40:90])


def test_whether_prices_are_multiples_of_the_tick_is_told_by_the_past(tmp_path: Path) -> None:
    calendar = pd.bdate_range("2018-01-01", periods=12)
    close = np.full((12, 1), 10.25)
    close[4:] = 11.27  # +9.95 %, a fen below the limit
    spells = pd.DataFrame({"instrument": ["SH600000"], "start": calendar[0], "end": calendar[-1]})
    found = []
    for later in (11.27, 11.2735):
        close[6:] = later
        bars = dict.fromkeys(("close", "high", "low"), close)
        bars |= {"volume": np.ones_like(close), "factor": np.ones_like(close)}
        store = write_store(tmp_path / str(later), calendar, ["SH600000"], bars, {"all": spells})
        found.append(trading_days(store, ["SH600000"], CN).upper)
    assert not found[0][4, 0]
    np.testing.assert_array_equal(found[0][:6], found[1][:6])


def test_where_there_are_no_limits_only_suspensions_count(store: QlibStore, found: TradingDays) -> None:
    free = trading_days(store, codes_of(store), US)
    np.testing.assert_array_equal(free.tradable, found.traded)
    assert not free.upper.any()
    assert free.notes == ()


def test_a_stock_of_no_board_has_no_limit_and_a_note_says_so(store: QlibStore, found: TradingDays) -> None:
    both = trading_days(store, [*codes_of(store), "SH000300"], CN)
    np.testing.assert_array_equal(both.upper[:, :-1], found.upper)
    assert not both.upper[:, -1].any()
    assert both.notes[0].startswith(
        "the exchange rules cn name no board for 1 of 13 stocks, such as SH000300: they count"
    )
    with pytest.raises(
        UserError, match="the exchange rules cn name no board for SH000300: add the beginning"
    ):
        trading_days(store, ["SH000300"], CN)


def test_what_decides_it_beside_the_bars(store: QlibStore) -> None:
    assert identity(store, CN) == {"rules": CN.digest, "status": None}
    folder = store.root / "side"
    folder.mkdir()
    rows = {"instrument": ["SH600001"], "start": ["2018-01-01"], "end": ["2018-12-31"], "status": ["ST"]}
    pd.DataFrame(rows).to_csv(folder / "status.csv", index=False)
    try:
        assert identity(store, CN)["status"] is not None
    finally:
        (folder / "status.csv").unlink()
        folder.rmdir()
