"""A combination of portfolios, traded."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
import qlib

from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.portfolio.allocation import Allocation
from qlib_ext.portfolio.calendars.every_n_days import EveryNDays
from qlib_ext.portfolio.online.combination import OnlineCombination
from qlib_ext.portfolio.optimisers.top_k import TopK
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.strategy.target_weights import TargetWeights
from tests.strategy.test_target_weights import ONE_FOR_ALL, Alike


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    """Of a little market, which Qlib reads from here on."""
    root = tmp_path_factory.mktemp("market")
    SampleMarket(seed=3, stocks=20, start="2019-01-01", end="2019-07-31").write(root)
    qlib.init(provider_uri=str(root), region="cn", kernels=1, logging_level=40)
    store = QlibStore(root)
    codes = sorted({*store.membership("csi300")["instrument"]} & {*store.instruments()})
    index = pd.MultiIndex.from_product([store.calendar, codes], names=["datetime", "instrument"])
    return pd.Series(np.random.default_rng(0).normal(size=len(index)), index)


def run(scores: pd.Series, allocation: Allocation) -> tuple[BacktestResult, TargetWeights]:
    days, codes = (scores.index.unique(level) for level in ("datetime", "instrument"))
    exchange, _ = make_exchange([*codes], days[60], days[-2], ONE_FOR_ALL)
    strategy = TargetWeights(signal=scores, portfolio=allocation, calendar=EveryNDays(3))
    return simulate(strategy, exchange, days[60], days[-2], account=1e8, benchmark=None), strategy


def test_two_of_the_same_are_one(scores: pd.Series) -> None:
    alone, _ = run(scores, Portfolio(TopK(4), Alike()))
    combined = OnlineCombination(members={name: Portfolio(TopK(4), Alike()) for name in ("one", "other")})
    together, strategy = run(scores, combined)
    pd.testing.assert_frame_equal(together.orders, alone.orders)
    told = strategy.diary.tables()["days"]["told"]
    assert told.str.contains("the combination is one 50.0%, other 50.0%").all()
    regret, bound = combined.regret
    assert abs(regret) < 1e-9 < bound
    assert len(combined.history) > 50
