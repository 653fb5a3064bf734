"""Orders of a run that trades target weights: those of its backtest, on days that its calendar takes and on others."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow.tracking import MlflowClient

from qlib_ext.market.store import QlibStore
from qlib_ext.recommend import orders
from qlib_ext.recommend.recommendation import Recommendation, recommend
from qlib_ext.workflow import scored

Cut = Callable[..., QlibStore]
DUE, NOT_DUE = pd.Timestamp("2017-03-10"), pd.Timestamp("2017-03-14")  # a Friday, a Tuesday
PORTFOLIO: dict[str, Any] = {
    "calendar": {"class": "qlib_ext.portfolio.calendars.weekly.Weekly"},
    "portfolio": {
        "optimiser": {
            "class": "qlib_ext.portfolio.optimisers.skfolio.Skfolio",
            "kwargs": {
                "method": {
                    "class": "skfolio.optimization.MeanRisk",
                    "kwargs": {"objective_function": "MAXIMIZE_UTILITY", "risk_aversion": 5},
                }
            },
        },
        "expected_returns": {
            "class": "qlib_ext.portfolio.expected_returns.grinold.GrinoldAlpha",
            "kwargs": {"min_days": 5, "floor": -0.1},
        },
        "constraints": [
            {
                "class": "qlib_ext.portfolio.constraints.weight_bounds.WeightBounds",
                "kwargs": {"most": 0.2},
            },
            {"class": "qlib_ext.portfolio.constraints.max_turnover.MaxTurnover", "kwargs": {"most": 0.3}},
        ],
    },
}


@pytest.fixture(scope="module")
def store(cut: Cut) -> QlibStore:
    """On the days after the two, nothing moves."""

    def change(bars: dict[str, np.ndarray], calendar: pd.DatetimeIndex, codes: list[str]) -> None:
        for day in calendar.get_indexer([DUE, NOT_DUE]):
            for name, values in bars.items():
                values[day + 1] = 0.0 if name == "change" else values[day]

    return cut(end="2017-03-31", change=change)


@pytest.fixture(scope="module")
def files(store: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Scores up to the store's end, and those of them up to the first of the two days: a run's, and newer ones."""
    codes = [code for code in store.instruments() if not code.startswith("SH000")]
    days = store.calendar[store.calendar >= "2017-02-06"]
    drawn = np.random.default_rng(5).standard_normal((len(days), len(codes)))
    table = pd.DataFrame(drawn, days, codes).rename_axis("date")
    folder = tmp_path_factory.mktemp("scores")
    table.to_csv(folder / "all.csv")
    table.loc[: DUE - pd.Timedelta(days=3)].to_csv(folder / "older.csv")
    return folder / "all.csv", folder / "older.csv"


@pytest.fixture(scope="module")
def workplace(client: MlflowClient, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", client.tracking_uri)
        patch.setattr(scored, "BEFORE_TRADING", scored.BEFORE_TRADING[:1])
        patch.setattr(scored, "AFTER_TRADING", ())
        os.chdir(tmp_path_factory.mktemp("weights"))
        yield
        os.chdir(before)


@pytest.fixture(scope="module")
def run(store: QlibStore, files: tuple[Path, Path], workplace: None) -> str:
    return made(files[0], store)


def made(file: Path, store: QlibStore) -> str:
    """A run that trades the scores of a file, without the records that nobody asks here."""
    traded = {
        "strategy": {"class": "qlib_ext.strategy.target_weights.TargetWeights", "kwargs": PORTFOLIO},
        "backtest": {"account": 2e6, "exchange_kwargs": {"deal_price": "close", "rules": "cn"}},
    }
    task = scored.of_file(file, store, universe="csi300", portfolio=traded)
    return scored.run_task(task, store.root, "cn", "weights")


@pytest.fixture(scope="module")
def held(client: MlflowClient, store: QlibStore, run: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the accounts of the backtest lie, a file a day."""
    positions, daily = (
        pd.read_parquet(client.download_artifacts(run, f"backtest/{name}.parquet"))
        for name in ("positions", "daily")
    )
    folder = tmp_path_factory.mktemp("accounts")
    for day in (DUE, NOT_DUE):
        rows = positions.loc[day]
        bars = store.read(["factor"], [*rows.index])[0, : store.calendar.get_loc(day) + 1].astype(float)
        factor = pd.DataFrame(bars).ffill().iloc[-1].to_numpy()
        lines = [f"{code},{round(n):d}" for code, n in zip(rows.index, rows["amount"] * factor, strict=True)]
        cash = f"CASH,{float(daily.loc[day, 'cash'])!r}"
        (folder / f"{day:%Y-%m-%d}.csv").write_text(
            "\n".join(["code,shares", *lines, cash]), encoding="utf-8"
        )
    return folder


@pytest.fixture(scope="module")
def ask(
    client: MlflowClient, store: QlibStore, files: tuple[Path, Path], held: Path
) -> Callable[[str, pd.Timestamp], Recommendation]:
    def asked(run: str, day: pd.Timestamp) -> Recommendation:
        date = f"{day:%Y-%m-%d}"
        return recommend(client, run, store.root, date=date, current=held / f"{date}.csv", scores=files[0])

    return asked


Ask = Callable[[str, pd.Timestamp], Recommendation]


def check_orders(found: Recommendation, client: MlflowClient, run: str, store: QlibStore) -> None:
    """They are those of the backtest on the day after."""
    book = pd.read_parquet(client.download_artifacts(run, "backtest/orders.parquet"))
    next_day = store.calendar[store.calendar.get_loc(found.day) + 1]
    expected = book[book["sent"]].loc[next_day]
    assert found.orders is not None
    sent = found.orders[found.orders["side"].isin(["SELL", "BUY"])]
    assert {"SELL", "BUY"} == set(sent["side"])
    assert [*sent["instrument"]] == [*expected.index]
    assert [*sent["side"].str.lower()] == [*expected["direction"]]
    assert sent["shares"].to_numpy() == pytest.approx(expected["lots_filled"].to_numpy() * 100, abs=1e-3)
    assert sent["reason"].str.contains("target").all()


def test_on_a_day_of_the_calendar_orders_are_those_of_the_backtest(
    client: MlflowClient, store: QlibStore, run: str, ask: Ask
) -> None:
    check_orders(ask(run, DUE), client, run, store)


def test_what_a_file_scores_between_the_run_and_the_day_is_looked_back_at(
    client: MlflowClient, store: QlibStore, files: tuple[Path, Path], run: str, ask: Ask
) -> None:
    check_orders(ask(made(files[1], store), DUE), client, run, store)


def test_on_any_other_day_nothing_is_traded_and_that_is_told(run: str, ask: Ask) -> None:
    found = ask(run, NOT_DUE)
    assert found.orders is not None
    assert set(found.orders["side"]) == {"KEEP"}
    assert found.orders["reason"].str.contains("not rebalanced on this day").all()
    assert "the calendar does not rebalance on 2017-03-15: nothing is traded" in found.notes


def test_a_calendar_that_remembers_is_taken_as_due(
    run: str, ask: Ask, monkeypatch: pytest.MonkeyPatch
) -> None:
    drift = {"class": "qlib_ext.portfolio.calendars.drift_band.DriftBand", "kwargs": {"band": 0.9}}
    settings = {
        "strategy": {
            "class": "qlib_ext.strategy.target_weights.TargetWeights",
            "kwargs": {**PORTFOLIO, "calendar": drift},
        }
    }
    monkeypatch.setattr(orders, "backtest_settings", lambda run: settings)
    found = ask(run, NOT_DUE)
    assert found.orders is not None
    assert "BUY" in set(found.orders["side"])
    assert any("DriftBand goes by the last rebalance" in note for note in found.notes)


def test_after_the_newest_day_of_a_week_comes_the_next_one(
    client: MlflowClient, cut: Cut, files: tuple[Path, Path], held: Path, run: str, ask: Ask
) -> None:
    ends = cut(end=DUE)  # of Monday nothing is known
    date = f"{DUE:%Y-%m-%d}"
    found = recommend(client, run, ends.root, date=date, current=held / f"{date}.csv", scores=files[0])
    assert found.orders is not None
    assert "BUY" in set(found.orders["side"])


def test_targets_that_come_to_no_lot_are_told(
    client: MlflowClient, store: QlibStore, files: tuple[Path, Path], run: str
) -> None:
    found = recommend(client, run, store.root, date=f"{DUE:%Y-%m-%d}", cash=5_000.0, scores=files[0])
    assert found.orders is not None
    assert any(
        re.search(r"\d+ targets? came to no whole lot: \d.*% of the account", note) for note in found.notes
    )
