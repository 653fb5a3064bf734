from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.cli import main as cli
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket


@pytest.fixture
def command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> Callable[..., tuple[int, str, str]]:
    """Exit status, stdout and stderr of `qlib-ext` with these arguments, in the folder `tmp_path` of a new shell."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "")  # noted, so that it is put back as it was
    monkeypatch.delenv("MLFLOW_TRACKING_URI")  # MLflow leaves there what an earlier test in this process used

    def called(*arguments: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["qlib-ext", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            cli.main()
        return int(caught.value.code or 0), *capsys.readouterr()

    return called


@dataclass(frozen=True)
class Evaluated:
    """A file of scores that `qlib-ext evaluate` has judged, and what it said."""

    store: QlibStore
    scores: Path
    client: MlflowClient
    run: Run
    out: str


@pytest.fixture(scope="session")
def evaluated(tmp_path_factory: pytest.TempPathFactory) -> Evaluated:
    """Scores without skill on a sample market, in a file that has more days and stocks than are traded."""
    folder, before = tmp_path_factory.mktemp("evaluated"), Path.cwd()
    SampleMarket(seed=3, stocks=20, start="2015-11-02", end="2016-05-31").write(folder / "store")
    store = QlibStore(folder / "store")
    codes = sorted(store.membership("csi300")["instrument"].unique())
    days = store.calendar[80:]
    table = pd.DataFrame(
        np.random.default_rng(5).normal(size=(len(days), len(codes))).astype(np.float32), days, codes
    )
    table.loc[days[-1] + pd.Timedelta(days=1)] = 0.0
    table.rename_axis(index="date").to_csv(folder / "scores.csv")
    uri = f"sqlite:///{folder}/mlflow.db"
    words = ["evaluate", folder / "scores.csv", "--store", folder / "store", "--universe", "csi300"]
    words += ["--topk", 4, "--n-drop", 1, "--name", "mine"]
    shown = io.StringIO()
    with pytest.MonkeyPatch.context() as patch, contextlib.redirect_stdout(shown):
        patch.setenv("MLFLOW_TRACKING_URI", uri)
        patch.setattr(sys, "argv", ["qlib-ext", *map(str, words)])
        patch.setattr(sys, "excepthook", sys.excepthook)
        patch.setattr("qlib_ext.report.document.Document.pictures", lambda *_: {})  # they take seconds
        os.chdir(folder)  # MLflow puts artifacts beside its database, in the working directory
        with pytest.raises(SystemExit) as caught:
            cli.main()
        os.chdir(before)
    assert not caught.value.code, shown.getvalue()
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name("mine").experiment_id])
    return Evaluated(store, folder / "scores.csv", client, run, shown.getvalue())
