"""Two little runs on a little market, trees and a network, and the bundles of both."""

from __future__ import annotations

import json
import sys
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.market.store import QlibStore
from qlib_ext.tracking.runs import connect
from qlib_ext.verify.bundle import Written, write_bundle
from qlib_ext.workflow import scored
from tests.workflow.little import at_work, little_store, little_task

SEGMENTS = {
    "train": ["2016-01-04", "2016-06-30"],
    "valid": ["2016-07-04", "2016-08-31"],
    "test": ["2016-09-05", "2016-12-28"],
}
RECORDS = ("SignalRecord", "RankingRecord", "BacktestRecord")
NETWORK = {
    "class": "qlib_ext.model.multi_task.MultiTaskModel",
    "kwargs": {
        "backbone": {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": {"hidden_size": 4}},
        "tasks": {"score": {"label": "RETURN", "loss": {"class": "qlib_ext.model.losses.mse.MSE"}}},
        "balancer": {"class": "qlib_ext.model.balancers.single_task.SingleTask"},
        "trainer": {"n_epochs": 1},
        "checkpoint_dir": "checkpoints",
    },
}


@dataclass(frozen=True)
class Bundled:
    """A run on a store, and its bundle."""

    store: QlibStore
    client: MlflowClient
    run: Run
    written: Written

    @property
    def path(self) -> Path:
        return self.written.path


@pytest.fixture(scope="session")
def market(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    return little_store(tmp_path_factory.mktemp("verify_market"))


@pytest.fixture(scope="session")
def bundled(market: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Bundled]:
    """Run a task of these records, with another model where one is given, and bundle it."""

    def made(name: str, task: Mapping[str, Any]) -> Bundled:
        place = tmp_path_factory.mktemp(name)
        with pytest.MonkeyPatch.context() as patch, at_work(place):
            patch.setattr(sys, "excepthook", sys.excepthook)
            patch.setenv("QLIB_EXT_LEDGER", str(place / "trials.jsonl"))
            run_id = scored.run_task(task, market.root, "cn", name)
            client = connect(f"sqlite:///{place / 'mlflow.db'}")
            run = client.get_run(run_id)
            return Bundled(market, client, run, write_bundle(client, run, place / f"{name}.zip"))

    return made


@pytest.fixture(scope="session")
def trees(bundled: Callable[..., Bundled]) -> Bundled:
    return bundled("trees", little_task(SEGMENTS, {}, RECORDS))


@pytest.fixture(scope="session")
def network(bundled: Callable[..., Bundled]) -> Bundled:
    return bundled("network", {**little_task(SEGMENTS, {}, RECORDS[::2]), "model": NETWORK})


def packed(path: Path, files: Mapping[str, bytes]) -> Path:
    """A zip of these files."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def unpacked(path: Path) -> dict[str, bytes]:
    """The files of a zip."""
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def index_of(files: Mapping[str, bytes]) -> dict[str, Any]:
    return json.loads(files["bundle.json"])
