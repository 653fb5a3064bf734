"""A team's MLflow server as its compose file starts it, without Docker: a process with passwords that dies and returns."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jinja2
import mlflow.exceptions
import pandas as pd
import pytest
import requests
import yaml
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.tracking.runs import connect

ROOT = Path(__file__).parent.parent
COMPOSE = yaml.safe_load((ROOT / "docker" / "compose.team.yaml").read_text(encoding="utf-8"))
CHIEF, CHIEF_PASSWORD = "chief", "a-password-of-the-test"
ANN, ANN_PASSWORD = "ann", "another-password-of-the-test"
LIMIT = 1500.0  # seconds until a wait is given up: a machine under load is slow, a hang is a fault
EPOCHS = 12


class Server:
    """The command of the compose file, on SQLite and in a folder."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.folder = folder
        self.process: subprocess.Popen[bytes] | None = None
        ini = (ROOT / "docker" / "basic_auth.ini").read_text(encoding="utf-8")
        line = next(line for line in ini.splitlines() if line.startswith("database_uri"))
        (folder / "basic_auth.ini").write_text(
            ini.replace(line, f"database_uri = sqlite:///{folder}/auth.db")
        )

    def start(self) -> None:
        """Start it, and wait until it answers."""
        given = COMPOSE["services"]["mlflow"]["environment"]
        environment = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_")}
        environment |= {
            key: value for key, value in given.items() if key.startswith("MLFLOW_") and "$" not in str(value)
        }
        environment |= {
            "MLFLOW_BACKEND_STORE_URI": f"sqlite:///{self.folder}/mlflow.db",
            "MLFLOW_AUTH_CONFIG_PATH": str(self.folder / "basic_auth.ini"),
            "MLFLOW_AUTH_ADMIN_USERNAME": CHIEF,
            "MLFLOW_AUTH_ADMIN_PASSWORD": CHIEF_PASSWORD,
            "MLFLOW_FLASK_SERVER_SECRET_KEY": "a-key-of-the-test",
        }
        command = [sys.executable, "-m", *COMPOSE["services"]["mlflow"]["command"]]
        own = {
            "--host": "127.0.0.1",
            "--port": str(self.port),
            "--artifacts-destination": str(self.folder / "artifacts"),
        }
        command = [_with(option, own) for option in command]
        with (self.folder / "server.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, env=environment, cwd=self.folder, stdout=log, stderr=log, start_new_session=True
            )
        until(self.answers, lambda: f"the server did not start: {self.log()}")

    def answers(self) -> bool:
        assert self.process is not None
        assert self.process.poll() is None, self.log()
        try:
            return requests.get(f"{self.uri}/health", timeout=5).ok
        except requests.RequestException:
            return False

    def kill(self) -> None:
        """Kill it and its workers, as a power cut does."""
        if self.process is not None:
            os.killpg(self.process.pid, signal.SIGKILL)  # its own group, since it leads a session
            self.process.wait()
            self.process = None

    def log(self) -> str:
        return (self.folder / "server.log").read_text(errors="replace")[-3000:]


def _with(option: str, own: dict[str, str]) -> str:
    name, sign, _ = option.partition("=")
    return f"{name}={own[name]}" if sign and name in own else option


def until(condition: Callable[[], Any], message: Callable[[], str]) -> Any:
    """Wait for a condition; what it gives is returned."""
    begun = time.monotonic()
    while time.monotonic() - begun < LIMIT:
        found = condition()
        if found:
            return found
        time.sleep(0.1)
    raise AssertionError(message())


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    pytest.importorskip("flask_wtf", reason="MLflow's authentication needs it: pip install 'Flask-WTF<2'")
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("market") / "tiny"
    SampleMarket(seed=3, stocks=20, start="2016-01-04", end="2017-03-31").write(root)
    return root


@pytest.fixture
def chief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", CHIEF)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", CHIEF_PASSWORD)


@pytest.fixture
def ann(server: Server, chief: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """A user whom the chief has made."""
    from mlflow.server.auth.client import AuthServiceClient

    users = AuthServiceClient(server.uri)
    try:
        users.get_user(ANN)
    except mlflow.exceptions.MlflowException:
        users.create_user(ANN, ANN_PASSWORD)
    monkeypatch.setenv("MLFLOW_TRACKING_USERNAME", ANN)
    monkeypatch.setenv("MLFLOW_TRACKING_PASSWORD", ANN_PASSWORD)


def _workflow(folder: Path) -> Path:
    """The workflow of a single task, on the months of the little market and with a few of its records."""
    text = (ROOT / "workflows" / "stl_csi300.yaml").read_text(encoding="utf-8")
    config = yaml.safe_load(jinja2.Template(text).render(os.environ | {"QLIB_DATA": "{{ QLIB_DATA }}"}))
    task = config["task"]
    segments = {
        "train": ["2016-04-01", "2016-09-30"],
        "valid": ["2016-10-10", "2016-12-31"],
        "test": ["2017-01-01", "2017-12-31"],
    }
    task["dataset"]["kwargs"]["segments"] = segments
    begin, end = segments["train"]
    task["dataset"]["kwargs"]["handler"]["kwargs"] |= {"fit_start_time": begin, "fit_end_time": end}
    task["model"]["kwargs"]["backbone"]["kwargs"]["hidden_size"] = 8
    task["model"]["kwargs"]["trainer"]["n_epochs"] = EPOCHS
    config["qlib_init"]["exp_manager"]["kwargs"]["uri"] = "{{ MLFLOW_TRACKING_URI }}"
    kept = ("SignalRecord", "RankingRecord", "BacktestRecord", "ReportRecord")
    task["record"] = [record for record in task["record"] if record["class"].endswith(kept)]
    sections = ("cumulative_return.CumulativeReturn", "provenance.Provenance")
    shown = [{"class": f"qlib_ext.report.sections.{section}"} for section in sections]
    task["record"][-1]["kwargs"] = {"sections": shown}
    path = folder / "workflow.yaml"
    path.write_text(yaml.safe_dump(config), encoding="utf-8")
    return path


class TestDoor:
    def test_who_has_no_password_is_refused(self, server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
        for name in ("MLFLOW_TRACKING_USERNAME", "MLFLOW_TRACKING_PASSWORD"):
            monkeypatch.delenv(name, raising=False)
        asked = f"{server.uri}/api/2.0/mlflow/experiments/search"
        assert requests.post(asked, json={"max_results": 1}, timeout=300).status_code == 401
        wrong = requests.post(asked, json={"max_results": 1}, auth=(CHIEF, "guess"), timeout=300)
        assert wrong.status_code == 401
        assert requests.get(server.uri, timeout=300).status_code == 401
        with pytest.raises(UserError, match="authenticated"):
            connect(server.uri)

    def test_a_user_whom_the_chief_made_gets_in(self, server: Server, ann: None) -> None:
        assert connect(server.uri).search_experiments()[0].name == "Default"


class TestRun:
    def test_a_training_outlives_the_server_and_the_run_is_whole(
        self, server: Server, ann: None, market: Path, tmp_path: Path
    ) -> None:
        given = {
            "QLIB_DATA": market,
            "MLFLOW_TRACKING_URI": server.uri,
            "MLFLOW_TRACKING_USERNAME": ANN,
            "MLFLOW_TRACKING_PASSWORD": ANN_PASSWORD,
            "MLFLOW_WAIT_SECONDS": LIMIT,
            "MLFLOW_HTTP_REQUEST_TIMEOUT": 300,  # of a machine under load
            "OMP_NUM_THREADS": 1,
        }
        environment = {**os.environ, **{name: str(value) for name, value in given.items()}}
        command = [sys.executable, "-m", "qlib.cli.run", str(_workflow(tmp_path))]
        with (tmp_path / "run.log").open("wb") as log:
            training = subprocess.Popen(command, cwd=tmp_path, env=environment, stdout=log, stderr=log)
        try:
            said = (tmp_path / "run.log").read_text

            def first_epoch() -> str | None:
                assert training.poll() is None, said()[-3000:]
                client = MlflowClient(server.uri)
                experiment = client.get_experiment_by_name("stl_csi300")
                runs = [] if experiment is None else client.search_runs([experiment.experiment_id])
                return next((run.info.run_id for run in runs if "valid/ic" in run.data.metrics), None)

            run_id = until(first_epoch, said)
            server.kill()
            kept = tmp_path / "mlflow_outbox" / run_id / "unsent.jsonl"
            until(kept.is_file, said)
            server.start()
            assert training.wait(LIMIT) == 0, said()[-3000:]
        finally:
            training.kill()
        assert "does not answer" in said()
        assert "answers again" in said()
        assert not kept.exists()

        client = MlflowClient(server.uri)
        run = client.get_run(run_id)
        assert run.info.status == "FINISHED"
        assert run.data.params["model.kwargs.trainer.n_epochs"] == str(EPOCHS)
        assert run.data.tags["universe"] == "csi300"
        for name in ("train/loss/score", "valid/loss/score", "valid/ic", "seconds/train"):
            steps = [point.step for point in client.get_metric_history(run_id, name)]
            assert sorted(steps) == [*range(EPOCHS)], name
        assert {"IC", "RankIC", "backtest/sharpe_ratio"} <= set(run.data.metrics)
        files = {
            item.path
            for folder in ("signal", "training", "report")
            for item in client.list_artifacts(run_id, folder)
        }
        assert {
            "signal/predictions.parquet",
            "training/weights.safetensors",
            "training/history.parquet",
            "report/report.html",
        } <= files
        (local,) = (tmp_path / "reports" / "runs").glob("*/report.html")
        there = Path(client.download_artifacts(run_id, "report/report.html", str(tmp_path)))
        assert there.read_bytes() == local.read_bytes()
        history = pd.read_parquet(
            client.download_artifacts(run_id, "training/history.parquet", str(tmp_path))
        )
        logged = {point.step: point.value for point in client.get_metric_history(run_id, "valid/ic")}
        assert logged == pytest.approx(
            dict(zip(history["epoch"], history["valid/ic"], strict=True)), nan_ok=True
        )
        described = json.loads(
            Path(client.download_artifacts(run_id, "data/summary.json", str(tmp_path))).read_text()
        )
        assert run.data.tags["data_fingerprint"] == described["fingerprint"]
