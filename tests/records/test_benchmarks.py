from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.config import C

from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics import naive_portfolios as naive
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.benchmarks import BenchmarksRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.report.sections.benchmarks import Benchmarks
from qlib_ext.tracking.artifacts import RunArtifacts
from tests.records.conftest import FIRST, STOCKS


@pytest.fixture
def traded(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": 8, "n_drop": 2}}
    BacktestRecord(recorder=run, strategy=strategy, backtest={"account": 1e7}, days_per_year=240).generate()
    return run


def setup(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("benchmarks/setup.json")).read_text())


def test_the_universe_beside_the_portfolio(traded: Any, read: Any, files: Any) -> None:
    before = files()
    record = BenchmarksRecord(traded, draws=20)
    record.generate()
    assert files() - before == {*record.list()}
    daily, table = read("backtest/daily.parquet"), read("benchmarks/daily.parquet")
    close = np.empty((1, 120, len(STOCKS)), np.float32)
    QlibStore(C.dpm.get_data_uri("day")).read(["close"], STOCKS, out=close)
    expected = (close[0, 1:] / close[0, :-1] - 1).mean(axis=1)[FIRST:]
    np.testing.assert_allclose(table["equal_weight"], expected[: len(daily)], rtol=1e-4, atol=1e-7)
    known = read("benchmarks/estimates.parquet")
    after = (
        np.prod((1 + daily["return"] - daily["cost"]) / (1 + table["equal_weight"])) ** (240 / len(daily)) - 1
    )
    excess = known.loc["benchmarks/equal_weight/annualised_excess_return"]
    assert excess["value"] == pytest.approx(after)
    assert excess["low"] < excess["value"] < excess["high"]
    metrics = traded.list_metrics()
    assert metrics["benchmarks/equal_weight/annualised_excess_return"] == pytest.approx(after)
    summary = read("benchmarks/summary.csv")
    assert [*summary.index] == ["index", "equal_weight", "random"]
    assert summary.loc["index", "excess_with_cost"] == pytest.approx(
        metrics["backtest/annualised_excess_return"]
    )
    assert (table["random/low"] <= table["random/high"]).all()
    assert setup(traded)["random_below"] == 1.0, "the scores know the future"
    assert setup(traded)["missing_members"] == setup(traded)["missing_low"] == 0
    assert "not weighted by value" in setup(traded)["no_value_weight"]


def test_lists_by_chance_pay_what_the_portfolio_paid(traded: Any, read: Any) -> None:
    """Lists of all stocks are the universe itself, less the portfolio's cost."""
    daily, positions = read("backtest/daily.parquet"), read("backtest/positions.parquet")
    held = positions.groupby("datetime").size()
    everything = pd.concat(
        {day: positions.iloc[:1].droplevel("datetime").iloc[[0] * 39] for day in held.index},
        names=["datetime"],
    )
    record = BenchmarksRecord(traded, draws=5)
    load = record.load_table
    record.load_table = lambda path: everything if path == "backtest/positions.parquet" else load(path)  # type: ignore[method-assign]
    record.generate()
    table = read("benchmarks/daily.parquet")
    assert (table["random/high"] - table["random/low"]).iloc[-1] < 0.05
    paid = np.prod(1 + table["equal_weight"] - daily["cost"])
    assert table["random/median"].iloc[-1] == pytest.approx(paid, rel=0.05)
    assert paid < np.prod(1 + table["equal_weight"])


def test_who_was_suspended_before_the_first_day_makes_up_for_it(
    traded: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = MarketPanel.load

    def suspended(*given: Any) -> MarketPanel:
        market = load(*given)
        market.field("close")[FIRST - 3 : FIRST + 6, 0] = np.nan
        market.field("close")[FIRST + 6 :, 0] *= 2
        return market

    monkeypatch.setattr(MarketPanel, "load", suspended)
    BenchmarksRecord(traded, draws=2).generate()
    market = suspended(QlibStore(C.dpm.get_data_uri("day")), "csi300", ["close"])
    expected = naive.weighted_return(naive.held_returns(market.field("close")), market.members)
    daily = read("benchmarks/daily.parquet")
    places = market.calendar.get_indexer(daily.index)
    assert places[0] == FIRST + 1
    np.testing.assert_allclose(daily["equal_weight"], expected[places], atol=1e-12)


def test_lists_by_chance_are_of_the_stocks_scored_the_day_before(
    traded: Any, read: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first list too, where trading begins long after the first scores."""
    record = BenchmarksRecord(traded, draws=2)
    scores, daily = read("signal/predictions.parquet"), read("backtest/daily.parquet").iloc[30:]
    days = scores.index.get_level_values("datetime").unique()
    scores.loc[(days[5:], STOCKS[0]), "score"] = np.nan
    scores = scores.drop(index=days[40])
    changed = {"signal/predictions.parquet": scores, "backtest/daily.parquet": daily}
    load, lists = record.load_table, naive.random_lists
    monkeypatch.setattr(record, "load_table", lambda path: changed[path] if path in changed else load(path))
    asked: list[np.ndarray] = []

    def asked_of(returns: np.ndarray, eligible: np.ndarray, *given: Any, **named: Any) -> np.ndarray:
        asked.append(eligible)
        return lists(returns, eligible, *given, **named)

    monkeypatch.setattr(naive, "random_lists", asked_of)
    record.generate()
    (eligible,) = asked
    for day, found in zip(daily.index, eligible, strict=True):
        newest = max(each for each in days if each < day and each != days[40])
        assert found.tolist() == scores.loc[newest, "score"].reindex(STOCKS).notna().tolist()
    assert not eligible[:, 0].any()


def test_the_section_says_where_the_portfolio_stands(traded: Any, tmp_path: Path) -> None:
    BenchmarksRecord(traded, draws=20).generate()
    for path in Benchmarks.requires:
        traded.download_artifact(path, str(tmp_path))
    page = Benchmarks().render(RunArtifacts(tmp_path))
    assert "Of 20 lists drawn by chance, 100.0% ended below the portfolio" in page
    assert "Universe, equal weight" in page
    assert "has bars of every member" in page
