"""What lies on disk until the server takes it."""

from __future__ import annotations

import json
from pathlib import Path

import mlflow.exceptions
import pytest
from mlflow.entities import Param, RunTag

from qlib_ext.tracking import outbox
from qlib_ext.tracking.buffered_client import BufferedMlflowClient
from qlib_ext.tracking.outbox import Outbox
from tests.tracking.conftest import Server, points


class TestOutbox:
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

    def test_its_file_is_plain_json(self, tmp_path: Path) -> None:
        box = Outbox(tmp_path / "run")
        box.keep({"metrics": [["loss", "inf", 1, 0]], "params": [], "tags": []}, {"run_id": "run"})
        (line,) = (tmp_path / "run" / outbox.LOG).read_text().splitlines()
        json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))
        assert not box.empty
