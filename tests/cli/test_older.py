"""What the commands say of a run of version 0.1."""

from __future__ import annotations

from pathlib import Path

import pytest
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.cli.older import tell_of_older
from qlib_ext.recommend.trained import TrainedRun

CONFIG = "model: {}\ndataset: {}\nrecord: [{class: qlib_ext.record.signal.SignalRecord}]\n"


@pytest.fixture(scope="module")
def client(tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    return MlflowClient(f"sqlite:///{tmp_path_factory.mktemp('older')}/mlflow.db")


def finished(client: MlflowClient, folder: Path, record: str, files: dict[str, str]) -> Run:
    """A run with one record in its parameters."""
    experiment = client.create_experiment(str(folder), artifact_location=str(folder / "artifacts"))
    run_id = client.create_run(experiment, run_name="mine").info.run_id
    client.log_param(run_id, "record.A.class", record)
    client.log_metric(run_id, "audit/errors", 0)
    for path, text in files.items():
        client.log_text(run_id, text, path)
    client.set_terminated(run_id, "FINISHED")
    return client.get_run(run_id)


class TestTold:
    def test_a_run_of_01_is_told_of_in_one_line(
        self, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        run = finished(client, tmp_path, "qlib_ext.record.audit.AuditRecord", {"data/audit.json": "{}"})
        tell_of_older(client, [run])
        assert capsys.readouterr().err == (
            "Made by a version before 0.2: mine. What has another name since then is not read: "
            "artifact `data/audit.json` is `data/quality.json` now; metrics `audit/...` are `quality/...` now\n"
        )

    def test_a_run_of_today_is_not(
        self, client: MlflowClient, tmp_path: Path, capsys: pytest.CaptureFixture[str]
    ) -> None:
        tell_of_older(client, [finished(client, tmp_path, "qlib_ext.records.quality.QualityRecord", {})])
        assert capsys.readouterr().err == ""


class TestRecommend:
    def test_its_names_are_told_with_the_way_out(self, client: MlflowClient, tmp_path: Path) -> None:
        files = {"config.yaml": CONFIG, "data/summary.json": "{}"}
        files |= {"training/weights.safetensors": "", "training/network.json": "{}"}
        run = finished(client, tmp_path, "qlib_ext.record.signal.SignalRecord", files)
        said = (
            r"made by a version before 0.2:.*`qlib_ext.records.signal.SignalRecord` since 0.2; train it again"
        )
        with pytest.raises(UserError, match=said):
            TrainedRun.open(client, run, tmp_path / "opened")
