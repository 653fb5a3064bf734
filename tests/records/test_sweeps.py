from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.records.sweeps import SweepRecord, drops


def strategy(topk: int, n_drop: int) -> dict[str, Any]:
    return {
        "class": "qlib_ext.strategy.topk_dropout.TopkDropout",
        "kwargs": {"topk": topk, "n_drop": n_drop, "hold_thresh": 2},
    }


@pytest.fixture
def traded(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    backtest(run, workplace, strategy(8, 2))
    return run


def backtest(run: Any, workplace: Any, config: dict[str, Any]) -> None:
    BacktestRecord(recorder=run, strategy=config, backtest={"account": 1e7}, days_per_year=240).generate()


def setup(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("sweeps/setup.json")).read_text())


def test_each_row_is_the_backtest_of_that_setting(traded: Any, workplace: Any, files: Any, read: Any) -> None:
    before = files()
    made = SweepRecord(traded, topk=[12, 4])
    made.generate()
    assert files() - before == {*made.list()}
    table, wealth = read("sweeps/topk.csv"), read("sweeps/topk_wealth.parquet")
    assert [*table.index] == [4, 8, 12]
    assert [*table["n_drop"]] == [1, 2, 3]
    assert [*table["own"]] == [False, True, False]
    for topk, n_drop in ((8, 2), (4, 1), (12, 3)):
        if topk != 8:
            backtest(traded, workplace, strategy(topk, n_drop))
        daily, positions = read("backtest/daily.parquet"), read("backtest/positions.parquet")
        pd.testing.assert_series_equal(
            wealth[str(topk)],
            (1 + daily["return"] - daily["cost"]).cumprod() / (1 + daily["benchmark"]).cumprod(),
            check_names=False,
        )
        metrics = traded.list_metrics()
        for name in (
            "annualised_excess_return",
            "information_ratio",
            "max_drawdown",
            "turnover",
            "annual_cost",
        ):
            assert table.loc[topk, name] == pytest.approx(metrics[f"backtest/{name}"], rel=1e-12), name
        assert table.loc[topk, "stocks"] == pytest.approx(positions.groupby("datetime").size().mean())


def test_more_stocks_than_there_are_are_left_out(traded: Any, read: Any) -> None:
    SweepRecord(traded, topk=[40, 41, 100]).generate()
    assert [*read("sweeps/topk.csv").index] == [8, 40]
    assert setup(traded)["left_out"] == [41, 100]
    assert setup(traded)["stocks_a_day"] == 40


def test_an_empty_list_turns_it_off(traded: Any, files: Any) -> None:
    made = SweepRecord(traded, topk=[])
    before = files()
    made.generate()
    assert files() - before == {*made.list()} == {"sweeps/setup.json"}


def test_a_strategy_without_a_number_of_stocks_is_noted_and_no_failure(traded: Any, files: Any) -> None:
    told = Path(traded.download_artifact("backtest/setup.json"))
    content = json.loads(told.read_text())
    content["strategy"] = {"class": "a.Weights", "kwargs": {"risk": 1}}
    told.write_text(json.dumps(content))
    traded.log_artifact(str(told), "backtest")
    made = SweepRecord(traded)
    before = files()
    made.generate()
    assert files() - before == {*made.list()} == {"sweeps/setup.json"}
    left = json.loads(Path(traded.download_artifact("sweeps/setup.json")).read_text())
    assert "a.Weights, is set by risk" in left["note"]


@pytest.mark.parametrize(
    ("topk", "share", "expected"), [(10, 0.1, 1), (30, 0.1, 3), (5, 0.1, 1), (7, 1.0, 7), (50, 0.0, 0)]
)
def test_drops(topk: int, share: float, expected: int) -> None:
    assert drops(topk, share) == expected


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"topk": 10}, "`topk` must be a list of numbers of stocks, found 10"),
        ({"topk": [10, 0]}, r"`topk\[1\]` must be at least 1, found 0"),
        ({"n_drop_share": 1.5}, r"`n_drop_share` must lie in \[0, 1\], found 1.5"),
    ],
)
def test_wrong_arguments(workplace: Any, arguments: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        SweepRecord(None, **arguments)
