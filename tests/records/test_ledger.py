from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from qlib.config import C
from qlib.workflow import R

from qlib_ext.metrics.significance import deflated_sharpe_ratio
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.tracking import ledger


@pytest.fixture(autouse=True)
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(ledger.VARIABLE, str(tmp_path / "trials.jsonl"))
    return tmp_path / "trials.jsonl"


@pytest.fixture
def scored(run: Any, workplace: Any, model: Any) -> Any:
    SignalRecord(recorder=run, model=model, dataset=workplace).generate()
    return run


def trade(run: Any, topk: int) -> None:
    strategy = {"class": "qlib_ext.strategy.topk_dropout.TopkDropout", "kwargs": {"topk": topk, "n_drop": 2}}
    BacktestRecord(recorder=run, strategy=strategy, backtest={"account": 1e7}, days_per_year=240).generate()


def summary(run: Any) -> dict[str, Any]:
    return json.loads(Path(run.download_artifact("ledger/summary.json")).read_text())


def test_each_new_look_is_a_trial(scored: Any, path: Path, read: Any) -> None:
    LedgerRecord(scored).generate()
    assert summary(scored)["trials"] == 1
    for topk in (8, 12):
        trade(scored, topk)
        LedgerRecord(scored).generate()
    LedgerRecord(scored).generate()  # the same again
    known = ledger.entries(path)
    assert [entry.trial.ratio is None for entry in known] == [True, False, False]
    assert {entry.trial.run_id for entry in known} == {scored.id}
    assert known[0].trial.first == f"{read('signal/predictions.parquet').index[0][0]:%Y-%m-%d}"
    found, daily = summary(scored), read("backtest/daily.parquet")
    excess = daily["return"] - daily["cost"] - daily["benchmark"]
    ratios = np.array([entry.trial.ratio for entry in known[1:]])
    assert ratios[1] == pytest.approx(excess.mean() / excess.std())
    assert (found["entry"], found["trials"], found["traded"]) == (3, 3, 2)
    assert found["deflated"] == pytest.approx(deflated_sharpe_ratio(excess, ratios))
    assert found["ratio"] == pytest.approx(ratios[1] * np.sqrt(240))
    assert [*read("ledger/trials.csv").index] == [1, 2, 3]
    assert scored.list_tags()[ledger.TAG] == known[2].tag(path)


def test_a_ledger_that_is_not_whole_is_told_and_stops_no_run(scored: Any, path: Path) -> None:
    path.write_text("no line\n")
    LedgerRecord(scored).generate()
    assert "line 1 of the ledger" in summary(scored)["problem"]
    assert ledger.TAG not in scored.list_tags()
    assert path.read_text() == "no line\n"


def test_a_run_without_the_record_is_entered_at_its_end(workplace: Any, model: Any, path: Path) -> None:
    with R.start(experiment_name="records"):
        recorder = R.get_recorder()
        recorder.save_objects(task={"model": {}, "dataset": {}})
        SignalRecord(recorder=recorder, model=model, dataset=workplace).generate()
        assert not path.exists()
    assert [entry.trial.run_id for entry in ledger.entries(path)] == [recorder.id]
    assert pd.read_csv(recorder.download_artifact("ledger/trials.csv"))["run_id"].tolist() == [recorder.id]
    assert Path(C.dpm.get_data_uri("day")).name == "store"
