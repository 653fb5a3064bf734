"""A tiny market, a run on it, and a folder that both lie in, as a notebook would have them."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import qlib_ext.api as qe
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.backbones.lstm import LSTM
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.ranking import RankingRecord
from qlib_ext.records.report import ReportRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.strategy.topk_dropout import TopkDropout


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """With the store `cn` of 24 stocks and eight months."""
    folder = tmp_path_factory.mktemp("notebook")
    SampleMarket(seed=3, stocks=24, start="2015-11-02", end="2016-06-30").write(folder / "cn")
    return folder


@pytest.fixture(scope="session")
def trained(folder: Path) -> qe.Run:
    """A run of objects: an LSTM of one epoch, its scores ranked and traded."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setattr("qlib_ext.report.document.Document.pictures", lambda *_: {})  # they take seconds
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        os.chdir(folder)  # MLflow puts artifacts beside its database, in the working directory
        try:
            model = MultiTaskModel(
                LSTM(num_features=6, lookback_days=60, hidden_size=4),
                {"score": {"label": "RETURN", "loss": MSE()}},
                SingleTask,
                trainer={"n_epochs": 1},
                checkpoint_dir=None,
            )
            traded = partial(
                BacktestRecord,
                strategy=TopkDropout(topk=4, n_drop=1),
                backtest={"exchange_kwargs": {"rules": "cn"}},
            )
            records = [SignalRecord, RankingRecord, traded, ReportRecord]
            data = qe.Store("cn").dataset("csi300")
            return qe.train(model=model, dataset=data, record=records, name="tiny")
        finally:
            os.chdir(before)


@pytest.fixture
def notebook(folder: Path, trained: qe.Run, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder as the working directory, with its MLflow store."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
    monkeypatch.setattr("qlib_ext.report.document.Document.pictures", lambda *_: {})
    return folder


@pytest.fixture
def scores(folder: Path) -> pd.Series:
    """Scores without skill, of all members and days."""
    store = qe.Store(folder / "cn")
    index = store.labels(universe="csi300", start="2016-05-03").index
    return pd.Series(np.random.default_rng(5).normal(size=len(index)), index, name="score")
