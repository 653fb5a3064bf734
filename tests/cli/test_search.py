"""`qlib-ext search`, whose trainings are made in this process."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from mlflow.tracking import MlflowClient

from qlib_ext.lock import exclusive
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.workflow.read import read_workflow
from tests.workflow.search.conftest import LEAVES, SPACE, Trained, database, store, trained, workflow

__all__ = ["database", "store", "trained", "workflow"]

Command = Callable[..., tuple[int, str, str]]


@pytest.fixture
def space(tmp_path: Path, database: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copy(database, tmp_path / "mlflow.db")
    monkeypatch.setattr(sys, "excepthook", sys.excepthook)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{tmp_path}/mlflow.db")
    (tmp_path / "space.yaml").write_text(yaml.safe_dump({**SPACE, "rungs": [{}]}), encoding="utf-8")
    return tmp_path / "space.yaml"


def runs_of(folder: Path) -> list[Any]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    found = client.get_experiment_by_name("little search")
    return [] if found is None else client.search_runs([found.experiment_id])


def test_it_searches_goes_on_and_writes_what_can_be_run(
    command: Command, workflow: Path, space: Path, trained: Trained, tmp_path: Path
) -> None:
    status, out, err = command("search", workflow, "--space", space, "--trials", 2)
    assert status == 0, err
    assert "trial 0: RankIC " in err
    assert "2 configurations tried: 2 on the last rung" in out
    assert "No day of the test segment was read" in out
    folder = tmp_path / "reports/search/space"
    assert {"search.html", "trials.csv", "best.yaml", "study.db"} <= {path.name for path in folder.iterdir()}
    best = read_workflow(folder / "best.yaml", {})
    assert best["task"]["dataset"]["kwargs"]["segments"].keys() == {"train", "valid", "test"}
    assert best["task"]["record"] == read_workflow(workflow)["task"]["record"]
    status, out, err = command("check", folder / "best.yaml")
    assert status == 0, out + err

    status, out, err = command("search", workflow, "--space", space, "--trials", 3)
    assert status == 0, err
    assert len(trained) == 3
    runs = runs_of(tmp_path)
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    assert len(parents) == 1, "all calls are one run"
    assert {run.data.tags["mlflow.parentRunId"] for run in runs if run not in parents} == {
        parents[0].info.run_id
    }
    assert {run.info.status for run in parents} == {"FINISHED"}


def test_ctrl_c_ends_it_and_its_run_as_killed(
    command: Command,
    workflow: Path,
    space: Path,
    trained: Trained,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def stopped(self: Processes, training: Any, settings: Any) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(Processes, "train", stopped)
    status, _, err = command("search", workflow, "--space", space, "--trials", 2)
    assert status == 130
    assert "Interrupted; the same command goes on from here." in err
    assert [run.info.status for run in runs_of(tmp_path)] == ["KILLED"]
    assert (tmp_path / "reports/search/space/search.html").exists()


@pytest.mark.parametrize(
    ("words", "changes", "message"),
    [
        ([], {}, "a search needs an end: give `--trials N`, `--hours H` or both"),
        (["--trials", 1], {"space": {LEAVES: {"int": [5, 2]}}}, "an empty range"),
        (
            ["--trials", 1],
            {"space": {"num_leaves": {"int": [2, 5]}}},
            "`space.num_leaves` must name a value below",
        ),
    ],
)
def test_what_is_wrong_is_one_line(
    command: Command, workflow: Path, space: Path, words: list[Any], changes: dict[str, Any], message: str
) -> None:
    space.write_text(yaml.safe_dump({**SPACE, **changes}), encoding="utf-8")
    status, _, err = command("search", workflow, "--space", space, *words)
    assert status == 2
    assert message in err
    assert len(err.strip().splitlines()) == 1


def test_two_do_not_open_a_folder_at_once(
    command: Command, workflow: Path, space: Path, trained: Trained, tmp_path: Path
) -> None:
    folder = tmp_path / "reports/search/space"
    folder.mkdir(parents=True)
    with exclusive(folder / "search.lock"):
        status, _, err = command("search", workflow, "--space", space, "--trials", 1)
    assert status == 2
    assert "searches in reports/search/space at this moment" in err
    assert [*folder.iterdir()] == []


def test_without_optuna_it_says_what_to_install(
    command: Command, workflow: Path, space: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "optuna", None)
    status, _, err = command("search", workflow, "--space", space, "--trials", 1)
    assert status == 2
    assert "pip install 'qlib-ext[search]'" in err
