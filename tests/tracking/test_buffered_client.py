"""What a run logs while its MLflow server is away."""

from __future__ import annotations

import math
from pathlib import Path

import mlflow.exceptions
import pytest
from mlflow.entities import Metric
from mlflow.tracking import MlflowClient

from qlib_ext.tracking import availability
from qlib_ext.tracking.buffered_client import BufferedMlflowClient
from qlib_ext.tracking.outbox import Outbox
from tests.tracking.conftest import Server, artifacts, points


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

    def test_a_server_that_stays_away_is_asked_seldom(
        self, server: Server, client: BufferedMlflowClient, run_id: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(availability, "FIRST_PAUSE", 1000.0)
        monkeypatch.setattr(availability, "LONGEST_PAUSE", 1000.0)
        client._backoff.succeed()
        client.set_tag(run_id, "a", "1")
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
