from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import mlflow
import pytest

from qlib_ext.tracking import ledger
from tests.tracking.test_ledger import trial


@pytest.fixture
def run(
    command: Callable[..., tuple[int, str, str]], monkeypatch: pytest.MonkeyPatch
) -> Callable[..., tuple[int, str, str]]:
    monkeypatch.delenv(
        "MLFLOW_TRACKING_URI", raising=False
    )  # which MLflow sets wherever a test tells it a store
    return lambda *arguments: command("ledger", *arguments)


def test_trials_are_shown_and_what_was_taken_out_is_told(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    store = tmp_path / "store"
    path = ledger.ledger_path(store)
    entries = [ledger.enter(path, trial(what))[0] for what in "ab"]
    status, out, _ = run(str(store))
    assert status == 0
    assert "2 trials in" in out
    assert run(str(store), "--csv")[1].splitlines()[2].startswith("2,2026-01-02T03:04:05+00:00,b,")

    uri = f"sqlite:///{tmp_path}/mlflow.db"
    client = mlflow.MlflowClient(uri)
    experiment = client.create_experiment("x", artifact_location=str(tmp_path / "mlruns"))
    runs = [
        client.create_run(experiment, tags={ledger.TAG: entry.tag(path)}).info.run_id for entry in entries
    ]
    client.create_run(experiment)
    assert run(str(store), "--tracking-uri", uri)[0] == 0
    path.write_text(path.read_text(encoding="utf-8").splitlines(keepends=True)[0], encoding="utf-8")
    status, _, err = run(str(store), "--tracking-uri", uri)
    assert status == 1
    assert runs[1] in err
    path.write_text(path.read_text(encoding="utf-8").replace("0.05", "0.5"), encoding="utf-8")
    status, _, err = run(str(store))
    assert status == 2
    assert "line 1 of the ledger" in err


def test_a_store_that_is_not_there_is_no_clean_ledger(
    run: Callable[..., tuple[int, str, str]], tmp_path: Path
) -> None:
    status, _, err = run(str(tmp_path / "stroe"))
    assert status == 2
    assert "expected a store at" in err
    (tmp_path / "store").mkdir()
    assert run(str(tmp_path / "store"))[0] == 0
