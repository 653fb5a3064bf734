"""Orders of the next day: those that a backtest of it sends, where the next day is what is assumed of it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from mlflow.tracking import MlflowClient
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.daily_list import backtest_settings, exchange_settings
from qlib_ext.recommend.recommendation import recommend
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.records.backtest import completed
from qlib_ext.tracking.runs import find_run

Cut = Callable[..., QlibStore]
RUN = "mimstocr_csi300"
DAY = pd.Timestamp("2017-03-15")
ACCOUNT = 2_000_000.0


@pytest.fixture(scope="module")
def run(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return TrainedRun.open(client, find_run(client, RUN), tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def still(cut: Cut) -> QlibStore:
    """The store, but that on the trading day after `DAY` nothing moves."""

    def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
        day = calendar.get_loc(DAY)
        for name, values in bars.items():
            values[day + 1] = 0.0 if name == "change" else values[day]

    return cut(end="2017-03-31", change=change)


@pytest.fixture(scope="module")
def backtest(run: TrainedRun, still: QlibStore) -> BacktestResult:
    """The run's strategy from its first scored day to the one after `DAY`."""
    qlib.init(provider_uri=str(still.root), region="cn", kernels=1)
    scores = run.artifacts.table("signal/predictions.parquet")["score"]
    days = still.calendar
    first = days[days.searchsorted(scores.index.get_level_values("datetime").min(), side="right")]
    last = days[days.get_loc(DAY) + 1]
    codes = sorted(scores.index.unique("instrument"))
    settings = backtest_settings(run)
    assert settings is not None
    exchange, _ = make_exchange(codes, first, last, exchange_settings(run))
    strategy = build(settings["strategy"], BaseStrategy, name="strategy", signal=scores)
    return simulate(strategy, exchange, first, last, account=ACCOUNT, benchmark="SH000300")


@pytest.fixture(scope="module")
def account(backtest: BacktestResult, still: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The account of the backtest at the close of `DAY`, as a file."""
    held = backtest.positions().loc[DAY]
    codes = [*held.index]
    known = still.read(["factor"], codes)[0, : still.calendar.get_loc(DAY) + 1].astype(float)
    factor = pd.DataFrame(known).ffill().iloc[-1]  # of a suspended stock, the last
    rows = [
        f"{code},{round(amount * by):d},{days:.0f}"
        for code, amount, by, days in zip(codes, held["amount"], factor, held["days_held"], strict=True)
    ]
    path = tmp_path_factory.mktemp("account") / "held.csv"
    cash = float(backtest.daily.loc[DAY, "cash"])
    path.write_text("\n".join(["code,shares,days_held", *rows, f"CASH,{cash!r},"]), encoding="utf-8")
    return path


class TestOrders:
    def test_they_are_those_of_the_backtest(
        self, client: MlflowClient, still: QlibStore, backtest: BacktestResult, account: Path
    ) -> None:
        next_day = still.calendar[still.calendar.get_loc(DAY) + 1]
        expected = backtest.orders[backtest.orders["sent"]].loc[next_day]
        found = recommend(client, RUN, still.root, date=f"{DAY:%Y-%m-%d}", current=account).orders
        assert found is not None
        sent = found[found["side"].isin(["SELL", "BUY"])]
        assert {"SELL", "BUY"} == set(sent["side"])
        assert [*sent["instrument"]] == [*expected.index]
        assert [*sent["side"].str.lower()] == [*expected["direction"]]
        assert sent["shares"].to_numpy() == pytest.approx(
            (expected["lots_filled"] * 100).to_numpy(), abs=1e-3
        )
        purchases = sent[sent["side"] == "BUY"]["shares"].to_numpy()
        assert (purchases % 100 == 0).all()
        value = found.set_index("instrument")["value"]
        assert value[expected.index].to_numpy() == pytest.approx(expected["value"].to_numpy(), rel=1e-3)

    def test_every_holding_is_sold_or_stays_with_a_reason(
        self, client: MlflowClient, still: QlibStore, account: Path
    ) -> None:
        held = pd.read_csv(account, index_col="code")["shares"].drop("CASH")
        orders = recommend(client, RUN, still.root, date=f"{DAY:%Y-%m-%d}", current=account).orders
        assert orders is not None
        ours = orders[orders["side"].isin(["SELL", "KEEP"])].set_index("instrument")["shares"]
        assert ours.sort_index().to_dict() == held.sort_index().to_dict()
        for row in orders.itertuples():
            assert row.reason
            if row.side == "KEEP":
                assert any(
                    why in row.reason for why in ("among the best 6", "sells 2 a day at most", "suspended")
                )

    def test_with_cash_alone_the_best_are_bought(self, client: MlflowClient, newest: QlibStore) -> None:
        found = recommend(client, RUN, newest.root, cash=600_000.0)
        assert found.orders is not None
        free = found.listed[found.listed["rank"].notna()].head(6)
        free = free[~free["suspended"]]
        bought = found.orders[found.orders["side"] == "BUY"]
        assert [*bought["instrument"]] == [*free.index]
        assert (bought["value"] <= 600_000 * 0.95 / 6).all()
        assert (bought["value"] + 100 * bought["price"] > 600_000 * 0.95 / 6 * 0.999).all()  # not a lot fewer

    def test_no_index_is_asked_for(self, client: MlflowClient, newest: QlibStore, tmp_path: Path) -> None:
        with_index = recommend(client, RUN, newest.root, cash=600_000.0).orders
        root = tmp_path / "store"
        shutil.copytree(newest.root, root)
        shutil.rmtree(root / "features" / "sh000300")
        everything = root / "instruments" / "all.txt"
        lines = everything.read_text(encoding="utf-8").splitlines(keepends=True)
        everything.write_text("".join(line for line in lines if "SH000300" not in line), encoding="utf-8")
        without = recommend(client, RUN, root, cash=600_000.0).orders
        pd.testing.assert_frame_equal(without, with_index)

    def test_a_limit_of_today_says_nothing_of_tomorrow(
        self, client: MlflowClient, newest: QlibStore, cut: Cut, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Without exchange rules a mark in `change` makes a limit.
        monkeypatch.setattr("qlib_ext.recommend.daily_list.exchange_settings", lambda run: completed({}))
        best = recommend(client, RUN, newest.root).listed.index[0]

        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            bars["change"][-1, codes.index(best)] = 0.1  # a mark alone: the scores do not see it

        found = recommend(client, RUN, cut(change=change).root, cash=1e6)
        assert found.orders is not None
        assert found.listed.loc[best, "limit_up"]
        assert found.orders["instrument"].iloc[0] == best

    def test_what_is_suspended_stays_and_what_left_the_universe_goes(
        self, client: MlflowClient, newest: QlibStore, cut: Cut, tmp_path: Path
    ) -> None:
        listed = recommend(client, RUN, newest.root).listed.dropna(subset="rank")
        worst, second = listed.index[-1], listed.index[-2]
        outside = sorted(
            set(newest.instruments()) - set(listed.index) - {"SH000300", "SH000016", "SH000903", "SH000905"}
        )
        close = newest.read(["close"], outside)[0, -1]
        left = next(code for code, price in zip(outside, close, strict=True) if price > 0)

        def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
            for values in bars.values():
                values[-1, codes.index(worst)] = np.nan

        best = [*listed.index[:5]]
        rows = [f"{code},1000" for code in (*best, worst, left)]
        path = tmp_path / "held.csv"
        path.write_text("\n".join(["code,shares", *rows, "CASH,0"]), encoding="utf-8")
        found = recommend(client, RUN, cut(change=change).root, current=path)
        assert found.orders is not None
        rows_of = found.orders.set_index("instrument")
        assert rows_of.loc[left, "side"] == "SELL"
        assert rows_of.loc[left, "reason"] == "not in the universe"
        assert rows_of.loc[worst, "side"] == "KEEP"
        assert "suspended" in rows_of.loc[worst, "reason"]
        assert rows_of.loc[worst, "price"] > 0  # its last close
        assert second not in rows_of.index or rows_of.loc[second, "side"] == "BUY"

    def test_cash_that_buys_no_lot_is_told(self, client: MlflowClient, newest: QlibStore) -> None:
        found = recommend(client, RUN, newest.root, cash=100.0)
        assert found.orders is not None
        assert set(found.orders["side"]) == {"SKIP"}
        assert found.orders["reason"].str.contains("does not buy a lot|suspended").all()

    def test_holdings_that_are_too_young(
        self, client: MlflowClient, newest: QlibStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        settings: dict[str, Any] = {
            "strategy": {
                "class": "qlib_ext.strategy.topk_dropout.TopkDropout",
                "kwargs": {"topk": 2, "n_drop": 2, "hold_thresh": 5},
            }
        }
        monkeypatch.setattr("qlib_ext.recommend.orders.backtest_settings", lambda run: settings)
        listed = recommend(client, RUN, newest.root).listed
        listed = listed[listed["rank"].notna() & ~listed["suspended"]]
        young, old = listed.index[-1], listed.index[-2]
        path = tmp_path / "held.csv"
        path.write_text(f"code,shares,days_held\n{young},100,2\n{old},100,\nCASH,0,\n", encoding="utf-8")
        found = recommend(client, RUN, newest.root, current=path)
        assert found.orders is not None
        rows = found.orders.set_index("instrument")
        assert (rows.loc[young, "side"], rows.loc[old, "side"]) == ("KEEP", "SELL")
        assert "holding threshold" in rows.loc[young, "reason"]
        assert any("where `days_held` is not given" in note for note in found.notes)

    @pytest.mark.parametrize("given", [{"on_the_day": True}, {"memory": Path("memory.json")}])
    def test_what_goes_with_orders_wants_an_account(
        self, client: MlflowClient, given: dict[str, Any]
    ) -> None:
        with pytest.raises(UserError, match="goes with orders, and there is no account"):
            recommend(client, RUN, **given)

    def test_the_day_of_the_trade_must_be_in_the_store(self, client: MlflowClient, newest: QlibStore) -> None:
        last = f"{newest.calendar[-1]:%Y-%m-%d}"
        with pytest.raises(
            UserError, match=f"needs the day of the trade in the store, found none after {last}"
        ):
            recommend(client, RUN, newest.root, date=last, cash=1e6, on_the_day=True)

    def test_a_strategy_that_remembers_nothing_says_so(
        self, client: MlflowClient, newest: QlibStore, tmp_path: Path
    ) -> None:
        found = recommend(client, RUN, newest.root, cash=1e6, memory=tmp_path / "memory.json")
        assert "TopkDropout goes by the holdings alone: `--memory` keeps nothing of it" in found.notes
        assert found.memory is not None
        assert found.memory.days == {}

    def test_a_run_without_a_strategy(
        self, client: MlflowClient, newest: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("qlib_ext.recommend.orders.backtest_settings", lambda run: None)
        with pytest.raises(UserError, match="has no strategy to send orders by"):
            recommend(client, RUN, newest.root, cash=1.0)
