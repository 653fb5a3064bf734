"""Days of `recommend`, one by one on a store that grows: their orders are those of the backtest."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from mlflow.tracking import MlflowClient

from benchmarks.daily_year.days import (
    ByList,
    Desk,
    GrowingStore,
    Traded,
    backtest,
    cut,
    differences,
    of_the_evening,
    traded,
)
from qlib_ext.backtest.exchange import Reason
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend import orders
from qlib_ext.recommend.daily_list import exchange_settings
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.tracking.runs import find_run

Cut = Callable[..., QlibStore]
RUN, UNIVERSE = "lightgbm_csi300", "csi300"
DAYS = 9  # of trading
ACCOUNT = 2_000_000.0
SPLIT, DIVIDEND, DELISTED, LEAVES = 4, 3, 5, 4  # days after the first on which these come
TOPK = {
    "class": "qlib_ext.strategy.topk_dropout.TopkDropout",
    "kwargs": {"topk": 8, "n_drop": 3, "hold_thresh": 2},
}


def member(k: int) -> dict[str, Any]:
    optimiser = {"class": "qlib_ext.portfolio.optimisers.top_k.TopK", "kwargs": {"k": k}}
    return {"class": "qlib_ext.portfolio.portfolio.Portfolio", "kwargs": {"optimiser": optimiser}}


# Its members' wealth, the weights that were aimed at and the last rebalance: no holdings tell them.
WEIGHTS = {
    "class": "qlib_ext.strategy.target_weights.TargetWeights",
    "kwargs": {
        "calendar": {
            "class": "qlib_ext.portfolio.calendars.any_of.AnyOf",
            "kwargs": {
                "calendars": [
                    {"class": "qlib_ext.portfolio.calendars.weekly.Weekly"},
                    {"class": "qlib_ext.portfolio.calendars.drift_band.DriftBand", "kwargs": {"band": 0.02}},
                ]
            },
        },
        "portfolio": {
            "class": "qlib_ext.portfolio.online.combination.OnlineCombination",
            "kwargs": {
                "members": {"few": member(3), "many": member(9)},
                "rule": {
                    "class": "qlib_ext.portfolio.online.exponentiated_gradient.ExponentiatedGradient",
                    "kwargs": {"rate": 20.0},
                },
            },
        },
    },
}


@pytest.fixture(scope="module")
def days(newest: QlibStore, trained: QlibStore) -> pd.DatetimeIndex:
    """The last day of the training's store, those that are traded, and one after them, which Qlib needs."""
    return newest.calendar[newest.calendar >= trained.calendar[-1]][: DAYS + 2]


@pytest.fixture(scope="module")
def whole(cut: Cut, trained: QlibStore, days: pd.DatetimeIndex) -> QlibStore:
    """The market up to the last of the days, with all that makes orders fail or change in them."""

    def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
        first = calendar.get_loc(days[0]) + 1
        stocks = [k for k, code in enumerate(codes) if not code.startswith("SH000")]
        draw = np.random.default_rng(2)
        for day in range(first, len(calendar)):
            for k in stocks:
                move = draw.choice([0, 0.1, -0.1, np.nan], p=[0.82, 0.06, 0.06, 0.06])
                if np.isnan(bars["close"][day - 1 : day + 1, k]).any():
                    continue
                if move and np.isfinite(move):  # a close at the price limit
                    by = bars["close"][day - 1, k] * (1 + move) / bars["close"][day, k]
                    for name in {*bars} & {"open", "high", "low", "close", "vwap"}:
                        bars[name][day:, k] *= by
                elif move:
                    for values in bars.values():
                        values[day, k] = np.nan
        for stock in stocks[::3]:
            bars["factor"][first + DIVIDEND :, stock] *= 1.03
        for stock in stocks[1::3]:
            bars["factor"][first + SPLIT :, stock] *= 2.0
        for stock in stocks[2::7]:
            for values in bars.values():
                values[first + DELISTED :, stock] = np.nan
        close = pd.DataFrame(bars["close"])
        bars["change"][first:] = (close / close.ffill().shift() - 1).to_numpy()[first:]

    store = cut(end=days[-1], change=change)
    path = store.root / "instruments" / f"{UNIVERSE}.txt"
    rows = [line.split("\t") for line in path.read_text(encoding="utf-8").splitlines()]
    there = [row for row in rows if pd.Timestamp(row[2]) == days[-1]]
    for row in there[::5]:
        row[2] = f"{days[LEAVES]:%Y-%m-%d}"
    outside = sorted({*store.instruments()} - {row[0] for row in there})
    joining = [code for code in outside if not code.startswith("SH000")][:3]
    rows += [[code, f"{days[LEAVES + 1]:%Y-%m-%d}", f"{days[-1]:%Y-%m-%d}"] for code in joining]
    path.write_text("".join("\t".join(row) + "\n" for row in sorted(rows)), encoding="utf-8")
    return store


@pytest.fixture(scope="module")
def run(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> TrainedRun:
    return TrainedRun.open(client, find_run(client, RUN), tmp_path_factory.mktemp("kept"))


@pytest.fixture(scope="module")
def scores(run: TrainedRun, whole: QlibStore, days: pd.DatetimeIndex) -> pd.Series:
    """Of all days, at once and by the whole market: the run's own, and those after."""
    qlib.init(provider_uri=str(whole.root), region="cn", kernels=1, clear_mem_cache=True)
    dataset = run.dataset({"days": (days[1], days[-2])})
    later = run.model(dataset).predict(dataset, "days").rename("score")
    own = run.artifacts.table("signal/predictions.parquet")["score"]
    return pd.concat([own, later]).dropna().sort_index()


Asked = Callable[..., tuple[Traded, Traded, Desk]]


@pytest.fixture
def asked(
    client: MlflowClient,
    run: TrainedRun,
    whole: QlibStore,
    scores: pd.Series,
    days: pd.DatetimeIndex,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Asked:
    """The days as a backtest has them, and as somebody has them who asks for a list each day."""
    monkeypatch.chdir(tmp_path)

    def both(strategy: dict[str, Any], last: int = DAYS, **how: Any) -> tuple[Traded, Traded, Desk]:
        monkeypatch.setattr(orders, "backtest_settings", lambda run: {"strategy": strategy})
        settings, span = exchange_settings(run), (days[1], days[last])
        tested = backtest(strategy, scores.loc[: span[1]], whole, span, settings, ACCOUNT)
        root = cut(whole, tmp_path / "store", days[0]).root
        rescaled = dict.fromkeys(whole.instruments()[::2], 0.5)  # of which no rounding comes
        store = GrowingStore(whole, root, UNIVERSE, rescaled)
        desk = Desk(store, RUN, tmp_path, client.tracking_uri, **how)
        codes = sorted(scores.index.unique("instrument"))
        return tested, traded(lambda: ByList(desk), whole, codes, span, settings, ACCOUNT), desk

    return both


def test_the_best_stocks(asked: Asked) -> None:
    tested, daily, desk = asked(TOPK)
    assert differences(tested, daily, desk) == []
    book = tested.result.orders
    assert {"sell", "buy"} == {*book.loc[book["sent"], "direction"]}
    assert {Reason.LIMIT_UP, Reason.LIMIT_DOWN, Reason.NO_PRICE} <= {*book["reason"]}


def test_target_weights_of_what_remembers(asked: Asked) -> None:
    tested, daily, desk = asked(WEIGHTS, last=6, remembers=True)
    assert differences(tested, daily, desk) == []
    rebalances = tested.sent["day"].nunique()
    assert 1 < rebalances < 6  # by the week, by drift, and not each day


def test_differences_are_seen(asked: Asked) -> None:
    """Without its memory the strategy does other things, and so does a list of the evening before."""
    tested, daily, desk = asked(WEIGHTS, last=3, evening=True)
    found = differences(tested, daily, desk)
    assert any("the list says" in one for one in found)
    same, of = of_the_evening(desk)
    assert 0 < same < of
