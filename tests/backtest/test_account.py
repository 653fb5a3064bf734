from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.backtest.report import PortfolioMetrics

from qlib_ext.backtest.account import DailyAccount, benchmark_returns
from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.market.store import write_store

CALENDAR = pd.bdate_range("2020-01-01", periods=20)
INDEX = "SH000300"


@pytest.fixture(scope="module")
def days(tmp_path_factory: pytest.TempPathFactory) -> pd.DatetimeIndex:
    """The days of a store whose index lacks some closes, and ends early."""
    root = tmp_path_factory.mktemp("store")
    close = np.random.default_rng(0).uniform(90, 110, (20, 1))
    close[[4, 9], 0] = np.nan
    bars = {"close": np.c_[close, close]}
    bars["close"][17:, 0] = np.nan
    write_store(root / "store", CALENDAR, [INDEX, "SH600000"], bars, {})
    qlib.init(provider_uri=str(root / "store"), region="cn", kernels=1)
    return CALENDAR[1:-1]


@pytest.mark.parametrize("last", [15, 20])
def test_the_returns_of_the_index_are_those_that_qlib_reports(days: pd.DatetimeIndex, last: int) -> None:
    days = days[:last]
    theirs = PortfolioMetrics("day", {"benchmark": INDEX, "start_time": days[0], "end_time": days[-1]})
    for day in days:
        theirs.update_portfolio_metrics_record(day, day + pd.Timedelta(hours=23), *[0.0] * 8)
    expected = theirs.generate_portfolio_metrics_dataframe()["bench"]
    found = benchmark_returns(INDEX, days)
    pd.testing.assert_series_equal(found, expected, check_exact=True, check_names=False)
    assert (found == 0).sum() == (4 if last == 15 else 6)


def test_an_account_begins_in_cash() -> None:
    account = DailyAccount(1e6)
    assert isinstance(account.current_position, OrderedPosition)
    assert account.current_position.calculate_value() == 1e6
    assert account.current_position.get_stock_list() == []


def test_its_days_are_reported_without_an_index() -> None:
    account = DailyAccount(1e6)
    account.update_portfolio_metrics(CALENDAR[0], CALENDAR[1])
    report, _ = account.get_portfolio_metrics()
    assert report.loc[CALENDAR[0], "account"] == 1e6
    assert report["bench"].isna().all()
