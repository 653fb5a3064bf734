from __future__ import annotations

import copy
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.backtest.decision import Order, OrderDir

from qlib_ext.backtest.shorts import ShortPosition
from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.checks import UserError
from qlib_ext.market.store import write_store
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.calendars.every_n_days import EveryNDays
from qlib_ext.portfolio.constraints.long_short import LongShort
from qlib_ext.portfolio.expected_returns.no_forecast import NoForecast
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.strategy.target_weights import TargetWeights

ONE, OTHER = "SH600000", "SH600001"
DAY = pd.Timestamp("2023-08-21")
CODES = [f"SH60000{number}" for number in range(4)]
BORROWING, ACCOUNT = 0.252, 1e6


def book(
    position: ShortPosition, direction: OrderDir, amount: float, price: float = 10.0, code: str = ONE
) -> None:
    order = Order(code, amount, direction, DAY, DAY)
    position.update_order(order, amount * price, 5.0, price)


class TestPosition:
    def test_a_short_sale_brings_cash_and_changes_no_value_but_for_its_cost(self) -> None:
        position = ShortPosition(1_000.0)
        book(position, OrderDir.SELL, 50)
        assert position.get_stock_amount(ONE) == -50
        assert position.get_cash() == 1_495
        assert position.calculate_value() == 995

    def test_loses_where_the_price_rises(self) -> None:
        position = ShortPosition(1_000.0)
        book(position, OrderDir.SELL, 50)
        position.update_stock_price(ONE, 12.0)
        assert position.calculate_value() == 995 - 100

    def test_a_purchase_covers_it(self) -> None:
        position = ShortPosition(1_000.0)
        book(position, OrderDir.SELL, 50)
        book(position, OrderDir.BUY, 20)
        assert position.get_stock_amount(ONE) == -30
        book(position, OrderDir.BUY, 30)
        assert position.get_stock_list() == []
        assert position.get_cash() == 985

    def test_a_sale_may_cross_zero(self) -> None:
        position = ShortPosition(1_000.0)
        book(position, OrderDir.BUY, 10)
        book(position, OrderDir.SELL, 30)
        assert position.get_stock_amount(ONE) == -20
        book(position, OrderDir.BUY, 20.0)
        assert position.get_stock_price(ONE) == 0

    def test_the_fee_of_a_day_is_of_what_is_short(self) -> None:
        """0.252 a year is a thousandth a day, of 500 short."""
        position = ShortPosition(1_000.0)
        position.borrowing = BORROWING
        book(position, OrderDir.SELL, 50)
        book(position, OrderDir.BUY, 20, code=OTHER)
        cash = position.get_cash()
        position.add_count_all("day")
        assert position.get_cash() == pytest.approx(cash - 0.5)
        assert copy.deepcopy(position).fee() == position.fee()


class Alike(RiskModel):
    days_back = 1

    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        count = len(known.codes)
        return Risk(np.zeros((count, 1)), np.full(count, 1e-4)), []


class ByRank(Optimiser):
    """Half short of the worst two, as much and the net on top long of the best two."""

    def solve(self, problem: Problem) -> Floats:
        rank = problem.known.score.argsort().argsort()
        return np.where(rank < 2, -0.25, 0.25 + problem.invested / 2)


@pytest.fixture(scope="module")
def scores(tmp_path_factory: pytest.TempPathFactory) -> pd.Series:
    """Scores of a market of four stocks, whose store Qlib reads."""
    root: Path = tmp_path_factory.mktemp("market")
    rng = np.random.default_rng(3)
    days = pd.bdate_range("2023-01-02", periods=15)
    change = np.clip(rng.normal(0, 0.02, (15, 4)), -0.05, 0.05).astype("f4")
    close = 20 * np.cumprod(1 + change, axis=0)
    bars = {
        "close": close,
        "change": change,
        "factor": np.ones_like(close),
        "volume": np.full_like(close, 1e7),
    }
    spells = pd.DataFrame({"instrument": CODES, "start": days[0], "end": days[-1]})
    write_store(root, days, CODES, bars, {"all": spells})
    qlib.init(provider_uri=str(root), region="cn", kernels=1)
    index = pd.MultiIndex.from_product([days, CODES], names=["datetime", "instrument"])
    return pd.Series(rng.standard_normal(60), index=index, name="score")


def portfolio() -> Portfolio:
    return Portfolio(
        ByRank(), Alike(), NoForecast(), constraints=[LongShort(gross=2.0, net=0.2, most_short=0.5)]
    )


class TestBacktest:
    @pytest.mark.parametrize("lots", [{}, {"trade_unit": None}], ids=["in lots", "without lots"])
    def test_cash_is_what_trades_and_fees_leave(self, scores: pd.Series, lots: dict[str, None]) -> None:
        days = scores.index.unique("datetime")
        settings = {"rules": "cn", "deal_price": "close", "borrowing": BORROWING, **lots}
        exchange, _ = make_exchange(CODES, days[1], days[-2], settings)
        strategy = TargetWeights(signal=scores, portfolio=portfolio(), calendar=EveryNDays(2))
        done = simulate(strategy, exchange, days[1], days[-2], account=ACCOUNT, benchmark=None)
        cash, charged = ACCOUNT, 0.0
        for day, position in done.held.items():
            trades = (
                done.orders.loc[[day]]
                if day in done.orders.index.unique("datetime")
                else done.orders.iloc[:0]
            )
            signed = np.where(trades["direction"] == "sell", trades["value"], -trades["value"])
            held = done.positions().loc[day]
            fee = -held["value"].clip(upper=0).sum() * BORROWING / 252
            cash += signed.sum() - trades["cost"].sum() - fee
            charged += fee
            assert position.get_cash() == pytest.approx(cash, abs=1e-4)
            assert done.daily["account"][day] == pytest.approx(cash + held["value"].sum(), abs=1e-4)
            weights = held["weight"]
            assert (weights < 0).sum() == 2
            assert weights.sum() == pytest.approx(0.2, abs=0.05)
        assert charged > 0
        assert done.orders["reason"].isna().mean() > 0.9

    def test_fees_lower_the_account(self, scores: pd.Series) -> None:
        days, ends = scores.index.unique("datetime"), []
        for borrowing in (0.0, BORROWING):
            settings = {"rules": "cn", "deal_price": "close", "borrowing": borrowing, "trade_unit": None}
            exchange, _ = make_exchange(CODES, days[1], days[-2], settings)
            strategy = TargetWeights(signal=scores, portfolio=portfolio(), calendar=EveryNDays(20))
            done = simulate(strategy, exchange, days[1], days[-2], account=ACCOUNT, benchmark=None)
            ends.append(done.daily["account"].iloc[-1])
        assert ends[1] == pytest.approx(ends[0] - ACCOUNT * 0.5 * 0.001 * 13, rel=1e-3)


def test_an_account_that_lost_everything_is_told() -> None:
    position = ShortPosition(cash=100.0)
    position._init_stock("SH600000", amount=-10.0, price=10.0)
    strategy = TargetWeights(signal=pd.Series(dtype=float), portfolio=portfolio())
    strategy.common_infra = {"trade_account": SimpleNamespace(current_position=position)}
    with pytest.raises(
        UserError, match="the account has lost everything, with holdings left: its value is 0"
    ):
        strategy._held()


class TestArguments:
    def test_a_strategy_that_sells_short_needs_a_lender(self) -> None:
        strategy = {
            "class": "qlib_ext.strategy.target_weights.TargetWeights",
            "kwargs": {"portfolio": portfolio()},
        }
        with pytest.raises(
            UserError, match="the strategy sells stocks short, and the exchange sells only what is held"
        ):
            BacktestRecord(None, strategy, {"exchange_kwargs": {"rules": "cn"}})
        BacktestRecord(None, strategy, {"exchange_kwargs": {"rules": "cn", "borrowing": 0.08}})

    @pytest.mark.parametrize(
        ("settings", "said"),
        [
            ({"borrowing": 0.08}, "`borrowing` goes with a table of rules"),
            ({"rules": "cn", "borrowing": -1}, r"`borrowing` must lie in \[0, 10\]"),
        ],
    )
    def test_what_is_wrong_is_said(self, settings: dict[str, object], said: str) -> None:
        with pytest.raises(UserError, match=said):
            make_exchange([ONE], DAY, DAY, settings)
