from __future__ import annotations

from pathlib import Path

from mlflow import MlflowClient

from qlib_ext.tracking.artifacts import RunArtifacts


class TestPasswords:
    def test_where_a_run_lies_and_how_it_was_called_are_told_without_them(self, tmp_path: Path) -> None:
        client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db?password=secret")
        run = client.create_run(client.create_experiment("x"))
        client.log_param(run.info.run_id, "cmd-sys.argv", "qrun a.yaml http://ann:secret@host:5000")
        info = RunArtifacts.download(client, run.info.run_id, [], tmp_path / "run").info
        assert info["tracking_uri"] == f"sqlite:///{tmp_path}/mlflow.db?password=***"
        assert info["command"] == "qrun a.yaml http://***@host:5000"
