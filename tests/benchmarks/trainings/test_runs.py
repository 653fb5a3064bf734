"""What is kept is not run again, and an ensemble only while its members are the same."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from benchmarks.trainings.runs import place, run_ensemble


def keep(folder: Path, name: str, members: list[str], run_id: str = "") -> None:
    place(folder, name).mkdir()
    said = {"name": name, "run_id": run_id, "members": members}
    (place(folder, name) / "run.json").write_text(json.dumps(said))


def test_an_ensemble_of_other_members_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    client = MlflowClient(f"sqlite:///{tmp_path / 'mlflow.db'}")
    ids = {name: client.create_run("0").info.run_id for name in ("A seed 0", "A seed 1")}
    for name, run_id in ids.items():
        keep(tmp_path, name, [], run_id)
    keep(tmp_path, "B seed 0", [], "of a store that is gone")
    keep(tmp_path, "A together", ["A seed 0"])
    asked = []

    def read(_client: MlflowClient, runs: dict[str, str], **_how: object) -> None:
        asked.append(runs)
        raise InterruptedError

    monkeypatch.setattr("benchmarks.trainings.runs.MemberScores.read", read)
    for members in (["A seed 0"], ["A seed 0", "A seed 2"]):  # as kept; one that is not there yet
        run_ensemble("A together", members, tmp_path, client, tmp_path, "x")
    run_ensemble("A together", ["A seed 0", "B seed 0"], tmp_path, client, tmp_path, "x")
    assert "A together waits: the scores of B seed 0 are in another MLflow store" in capsys.readouterr().out
    assert asked == []
    with pytest.raises(InterruptedError):
        run_ensemble("A together", ["A seed 0", "A seed 1"], tmp_path, client, tmp_path, "x")
    assert asked == [ids]
