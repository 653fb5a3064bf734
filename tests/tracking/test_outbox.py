"""What a run logs while its MLflow server is away: a real server's application, switched off and on again."""

from __future__ import annotations

import json
import math
import os
import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.exceptions
import mlflow.server
import mlflow.server.handlers
import pytest
import qlib
import requests
from mlflow.entities import Metric, Param, RunTag
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE, TEMPORARILY_UNAVAILABLE
from mlflow.tracking import MlflowClient
from qlib.workflow import R
from typer.testing import CliRunner
from werkzeug.serving import make_server

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.tracking import outbox
from qlib_ext.tracking.outbox import BufferedMlflowClient, Outbox, is_away, send_all, wait_seconds


class Server:
    """MLflow's own application over HTTP, on a database in a folder."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = int(free.getsockname()[1])
        self.uri = f"http://127.0.0.1:{self.port}"
        self.running: Any = None

    def start(self) -> None:
        if self.running is None:
            self.running = make_server("127.0.0.1", self.port, mlflow.server.app, threaded=True)
            threading.Thread(target=self.running.serve_forever, daemon=True).start()

    def stop(self) -> None:
        if self.running is not None:
            self.running.shutdown()
            self.running.server_close()
            self.running = None


@pytest.fixture(scope="module")
def switched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    folder = tmp_path_factory.mktemp("server")
    settings = {
        mlflow.server.BACKEND_STORE_URI_ENV_VAR: f"sqlite:///{folder / 'mlflow.db'}",
        mlflow.server.ARTIFACTS_DESTINATION_ENV_VAR: str(folder / "artifacts"),
        mlflow.server.ARTIFACT_ROOT_ENV_VAR: "mlflow-artifacts:/",
        mlflow.server.SERVE_ARTIFACTS_ENV_VAR: "true",
        "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
        "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in settings.items():
            patch.setenv(name, value)
        patch.setattr(mlflow.server.handlers, "_tracking_store", None)
        patch.setattr(mlflow.server.handlers, "_artifact_repo", None)
        server = Server()
        server.start()
        yield server
        server.stop()


@pytest.fixture
def server(switched: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """The server, up, and outboxes in a folder of their own."""
    monkeypatch.setenv("MLFLOW_OUTBOX", str(tmp_path / "outbox"))
    monkeypatch.setattr(outbox, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(outbox, "LONGEST_PAUSE", 0.0)
    switched.start()
    yield switched
    switched.start()


@pytest.fixture
def client(server: Server) -> BufferedMlflowClient:
    return BufferedMlflowClient(server.uri)


@pytest.fixture
def run_id(client: BufferedMlflowClient) -> str:
    return client.create_run("0").info.run_id


def points(server: Server, run_id: str, name: str) -> list[tuple[int, float]]:
    """(step, value) of a metric, as another client sees them."""
    history = MlflowClient(server.uri).get_metric_history(run_id, name)
    return sorted((point.step, point.value) for point in history)


def artifacts(server: Server, run_id: str, folder: str | None = None) -> set[str]:
    return {item.path for item in MlflowClient(server.uri).list_artifacts(run_id, folder)}


class TestAway:
    def test_what_is_logged_meanwhile_arrives_later_and_once(
        self, server: Server, client: BufferedMlflowClient, run_id: str, tmp_path: Path
    ) -> None:
        file = tmp_path / "table.csv"
        file.write_text("a,b\n")
        for step in range(6):
            if step == 2:
                server.stop()
            if step == 4:
                server.start()
            client.log_batch(run_id, metrics=[Metric("loss", step / 3, 1000 + step, step)])
            if step == 2:
                client.log_param(run_id, "topk", 50)
                client.set_tag(run_id, "universe", "csi300")
                client.log_artifact(run_id, str(file), "data")
                client.log_metric(run_id, "ratio", math.nan, timestamp=5, step=0)
        assert points(server, run_id, "loss") == [(step, step / 3) for step in range(6)]
        ((_, ratio),) = points(server, run_id, "ratio")
        assert math.isnan(ratio)
        data = MlflowClient(server.uri).get_run(run_id).data
        assert (data.params["topk"], data.tags["universe"]) == ("50", "csi300")
        assert artifacts(server, run_id, "data") == {"data/table.csv"}
        assert not (client.root / run_id).exists()

    def test_a_record_reads_what_another_wrote(
        self, server: Server, client: BufferedMlflowClient, run_id: str, tmp_path: Path
    ) -> None:
        client.set_tag(run_id, "backbone", "LSTM")
        for name in ("before", "after"):
            (tmp_path / name).write_text(name)
        client.log_artifact(run_id, str(tmp_path / "before"), "signal")
        server.stop()
        client.log_artifact(run_id, str(tmp_path / "after"), "signal")
        client.log_metric(run_id, "IC", 0.05)
        assert [item.path for item in client.list_artifacts(run_id, "signal")] == [
            "signal/after",
            "signal/before",
        ]
        assert [item.path for item in client.list_artifacts(run_id)] == ["signal"]
        for name in ("before", "after"):
            found = client.download_artifacts(run_id, f"signal/{name}", str(tmp_path / "fetched"))
            assert Path(found).read_text() == name
        run = client.get_run(run_id)
        assert run.data.tags["backbone"] == "LSTM"
        assert run.data.metrics["IC"] == 0.05
        assert client.get_experiment(run.info.experiment_id).name == "Default"

    def test_what_the_server_refuses_is_an_error_and_not_kept(
        self, client: BufferedMlflowClient, run_id: str
    ) -> None:
        client.log_param(run_id, "seed", 0)
        with pytest.raises(mlflow.exceptions.MlflowException, match="seed"):
            client.log_param(run_id, "seed", 1)
        assert not (client.root / run_id).exists()

    def test_an_answer_that_was_lost_doubles_nothing(
        self, server: Server, client: BufferedMlflowClient, run_id: str
    ) -> None:
        batch = [Metric("loss", 0.5, 1234, 3)]
        MlflowClient(server.uri).log_batch(run_id, metrics=batch)  # it arrived, its answer did not
        server.stop()
        client.log_batch(run_id, metrics=batch)
        server.start()
        assert client.deliver(run_id)
        assert points(server, run_id, "loss") == [(3, 0.5)]

    def test_a_try_that_fails_half_way_keeps_the_rest(
        self, server: Server, client: BufferedMlflowClient, run_id: str
    ) -> None:
        client.log_param(run_id, "seed", 0)
        server.stop()
        client.log_metric(run_id, "loss", 1.0, timestamp=1, step=0)
        client.log_batch(run_id, params=[Param("seed", "1")])
        client.log_metric(run_id, "loss", 2.0, timestamp=2, step=1)
        server.start()
        box = Outbox(client.root / run_id)
        with pytest.raises(mlflow.exceptions.MlflowException, match="seed"):
            box.send(client, run_id)
        assert [entry["params"] for entry in box.entries()] == [[["seed", "1"]], []]
        assert points(server, run_id, "loss") == [(0, 1.0)]

    def test_a_line_cut_short_by_a_crash_is_left_out(
        self, server: Server, client: BufferedMlflowClient, run_id: str
    ) -> None:
        server.stop()
        client.log_batch(run_id, tags=[RunTag("a", "1")])
        box = Outbox(client.root / run_id)
        with (box.folder / outbox.LOG).open("a") as file:
            file.write('{"metrics": [], "par')
        assert [entry["tags"] for entry in box.entries()] == [[["a", "1"]]]

    def test_a_server_that_stays_away_is_asked_seldom(
        self, server: Server, client: BufferedMlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(outbox, "FIRST_PAUSE", 1000.0)
        monkeypatch.setattr(outbox, "LONGEST_PAUSE", 1000.0)
        client.set_tag(run_id, "a", "1")
        client._pause = 1000.0
        asked: list[str] = []
        monkeypatch.setattr(client, "_answers", lambda: asked.append("") or False)
        server.stop()
        for step in range(20):
            client.log_metric(run_id, "loss", 1.0, step=step)
        assert not asked
        assert len(Outbox(client.root / run_id).entries()) == 20
        assert not client.deliver(run_id)  # but at the end it is asked at once
        assert asked

    def test_no_password_is_written_down(self, server: Server, tmp_path: Path) -> None:
        client = BufferedMlflowClient(server.uri.replace("://", "://ann:secret@"))
        run_id = client.create_run("0").info.run_id
        client.set_tag(run_id, "a", "1")
        server.stop()
        client.set_tag(run_id, "b", "2")
        written = "".join(file.read_text() for file in (tmp_path / "outbox").rglob("*") if file.is_file())
        assert "secret" not in written
        assert server.uri in written


class TestJudgement:
    @pytest.mark.parametrize(
        ("error", "away"),
        [
            (requests.ConnectionError(), True),
            (requests.Timeout(), True),
            (mlflow.exceptions.MlflowException("API request failed"), True),
            (mlflow.exceptions.MlflowException("busy", TEMPORARILY_UNAVAILABLE), True),
            (mlflow.exceptions.MlflowException("no", INVALID_PARAMETER_VALUE), False),
            (ConnectionRefusedError(), True),
            (FileNotFoundError(), False),
        ],
    )
    def test_who_is_away(self, error: Exception, away: bool) -> None:
        assert is_away(error) is away

    @pytest.mark.parametrize(("status", "away"), [(503, True), (429, True), (500, True), (403, False)])
    def test_by_the_answer(self, status: int, away: bool) -> None:
        reply = requests.Response()
        reply.status_code = status
        assert is_away(requests.HTTPError(response=reply)) is away

    @pytest.mark.parametrize("text", ["soon", "-1", "inf", "nan"])
    def test_the_wait_must_be_seconds(self, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_WAIT_SECONDS", text)
        with pytest.raises(UserError, match=r"MLFLOW_WAIT_SECONDS.*at least 0"):
            wait_seconds()


class TestEnd:
    """A whole run of Qlib's, over HTTP."""

    @pytest.fixture
    def at_work(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_WAIT_SECONDS", "0")
        manager = {
            "class": "qlib_ext.workflow.experiment.ExperimentManager",
            "kwargs": {"uri": server.uri, "default_exp_name": "team"},
        }
        qlib.init(provider_uri=str(tmp_path), exp_manager=manager)
        return server

    def test_a_run_that_cannot_be_sent_is_kept_and_completed_by_a_command(
        self, at_work: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[str] = []
        R.start_exp(experiment_name="team")
        recorder = R.get_recorder()
        run_id = recorder.id
        recorder.on_finished.append(lambda: closed.append(run_id))
        recorder.log_metrics(step=0, loss=1.0)
        at_work.stop()
        recorder.log_metrics(step=1, loss=0.5)
        recorder.client.log_text(run_id, "<html>", "report/report.html")
        with pytest.raises(UserError, match="qlib-ext send"):
            R.end_exp("FINISHED")
        assert not closed  # RESUME=1 can take it up as well
        R.end_exp("FAILED")  # as Qlib does when the process ends: it changes nothing any more

        with pytest.raises(UserError, match=f"{run_id} is still being made by process {os.getpid()}"):
            list(send_all(outbox.outbox_root()))
        monkeypatch.setattr(outbox, "_is_alive", lambda process: False)
        with pytest.raises(UserError, match=r"could not be sent.*it stays in"):
            list(send_all(outbox.outbox_root()))
        at_work.start()
        done = CliRunner().invoke(app, ["send"])
        assert done.exit_code == 0, done.output
        assert f"{run_id}: sent" in done.output
        assert points(at_work, run_id, "loss") == [(0, 1.0), (1, 0.5)]
        assert artifacts(at_work, run_id, "report") == {"report/report.html"}
        info = MlflowClient(at_work.uri).get_run(run_id).info
        assert info.status == "FINISHED"
        assert info.end_time >= info.start_time
        with pytest.raises(UserError, match="holds nothing unsent"):
            list(send_all(outbox.outbox_root()))

    def test_a_run_that_is_sent_in_time_ends_as_ever(self, at_work: Server) -> None:
        closed: list[str] = []
        with R.start(experiment_name="team"):
            recorder = R.get_recorder()
            recorder.on_finished.append(lambda: closed.append("yes"))
            at_work.stop()
            recorder.set_tags(a=1)
            at_work.start()
        assert closed == ["yes"]
        run = MlflowClient(at_work.uri).get_run(recorder.id)
        assert (run.info.status, run.data.tags["a"]) == ("FINISHED", "1")
        assert not outbox.outbox_root().exists() or not list(outbox.outbox_root().iterdir())

    def test_a_run_stopped_while_the_server_is_away_is_killed_there_later(
        self, at_work: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        from qlib_ext.workflow.experiment import _end_run

        R.start_exp(experiment_name="team")
        run_id = R.get_recorder().id
        at_work.stop()
        assert _end_run("KILLED") == run_id
        at_work.start()
        monkeypatch.setattr(outbox, "_is_alive", lambda process: False)
        assert [sent for sent, _ in send_all(outbox.outbox_root())] == [run_id]
        assert MlflowClient(at_work.uri).get_run(run_id).info.status == "KILLED"

    def test_a_server_that_is_not_there_is_said_before_any_work(self, at_work: Server) -> None:
        at_work.stop()
        with pytest.raises(UserError, match="does not answer"), R.start(experiment_name="team"):
            raise AssertionError("never reached")


def test_the_file_of_an_outbox_is_plain_json(tmp_path: Path) -> None:
    box = Outbox(tmp_path / "run")
    box.keep({"metrics": [["loss", "inf", 1, 0]], "params": [], "tags": []}, {"run_id": "run"})
    (line,) = (tmp_path / "run" / outbox.LOG).read_text().splitlines()
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
    assert not box.empty
