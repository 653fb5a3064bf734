"""A real server's application, switched off and on again."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import mlflow.server
import mlflow.server.handlers
import pytest
from mlflow.tracking import MlflowClient
from werkzeug.serving import make_server

from qlib_ext.tracking import availability
from qlib_ext.tracking.buffered_client import BufferedMlflowClient


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
    monkeypatch.setattr(availability, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(availability, "LONGEST_PAUSE", 0.0)
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
