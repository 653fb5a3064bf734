"""Projects that are moved and copied with their database: where artifacts are looked for, and the way out."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest
from mlflow import MlflowClient
from typer.testing import CliRunner

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.tracking.artifacts import stored
from qlib_ext.tracking.place import check_place, relocate

WANTED = ["data/told.txt"]


class Project:
    """A folder with a database, and one run with an artifact beside it."""

    def __init__(self, folder: Path, template: Path) -> None:
        folder.mkdir()
        shutil.copy(template, folder / "mlflow.db")
        before = Path.cwd()
        os.chdir(folder)  # MLflow notes the working directory
        try:
            client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
            experiment = client.create_experiment("main", f"{folder}/mlruns/1")
            self.run_id = client.create_run(experiment).info.run_id
            client.log_text(self.run_id, "hello", WANTED[0])
        finally:
            os.chdir(before)


def client_of(folder: Path) -> MlflowClient:
    return MlflowClient(f"sqlite:///{folder}/mlflow.db")


def check(folder: Path) -> None:
    """What is asked before a new run begins."""
    client = client_of(folder)
    check_place(client, "main", client.get_experiment_by_name("main").artifact_location)


@pytest.fixture
def old(tmp_path: Path) -> Path:
    return tmp_path / "old"


@pytest.fixture
def made(old: Path, empty_database: Path) -> Project:
    return Project(old, empty_database)


def test_a_project_that_stays_is_left_alone(made: Project, old: Path) -> None:
    check(old)
    assert stored(client_of(old), made.run_id, WANTED) == WANTED


class TestMoved:
    @pytest.fixture
    def new(self, made: Project, old: Path, tmp_path: Path) -> Path:
        return old.rename(tmp_path / "new")

    def test_it_is_said_where_artifacts_were_looked_for_and_where_they_lie(
        self, made: Project, old: Path, new: Path
    ) -> None:
        with pytest.raises(UserError) as told:
            stored(client_of(new), made.run_id, WANTED)
        assert f"looked for in {old}/mlruns/1/{made.run_id}/artifacts, which is not there" in str(told.value)
        assert f"`qlib-ext relocate {old}/mlruns {new}/mlruns`" in str(told.value)

    def test_a_new_run_does_not_make_the_old_folder_again(self, new: Path, old: Path) -> None:
        with pytest.raises(UserError, match=r"the experiment `main` keeps its artifacts in .*relocate"):
            check(new)
        assert not old.exists()

    @pytest.mark.parametrize("told", ["{old}", "{new}/../old"])
    def test_the_command_mends_both(
        self, told: str, made: Project, old: Path, new: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{new}/mlflow.db")
        done = CliRunner().invoke(
            app, ["relocate", f"{told.format(old=old, new=new)}/mlruns", f"{new}/mlruns"]
        )
        assert done.exit_code == 0, done.output
        assert "The artifacts of 1 run are looked for" in done.output
        check(new)
        assert stored(client_of(new), made.run_id, WANTED) == WANTED

    def test_without_its_artifacts_the_way_is_named(self, made: Project, old: Path, new: Path) -> None:
        (new / "mlruns").rename(new.parent / "elsewhere")
        with pytest.raises(UserError, match=r"bring the folder back, or name .*relocate .*old/mlruns NEW"):
            stored(client_of(new), made.run_id, WANTED)


class TestCopied:
    def test_a_new_run_does_not_write_into_the_original(
        self, made: Project, old: Path, tmp_path: Path
    ) -> None:
        shutil.copytree(old, tmp_path / "copy")
        with pytest.raises(UserError, match="before the project was moved or copied"):
            check(tmp_path / "copy")
        check(old)

    def test_a_database_elsewhere_is_no_copy(self, made: Project, old: Path, tmp_path: Path) -> None:
        """A database for several projects, whose artifacts lie where each was begun."""
        central = tmp_path / "central"
        central.mkdir()
        (old / "mlflow.db").rename(central / "mlflow.db")
        check(central)
        assert stored(client_of(central), made.run_id, WANTED) == WANTED


class TestRelocate:
    @pytest.mark.parametrize(
        ("new", "message"), [("nowhere", "found no folder at"), ("old", "nothing in sqlite.* lies below")]
    )
    def test_wrong_folders(self, made: Project, old: Path, tmp_path: Path, new: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            relocate(f"sqlite:///{old}/mlflow.db", tmp_path / "unknown", tmp_path / new)

    def test_a_folder_that_only_begins_alike_stays(self, made: Project, old: Path, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="lies below"):
            relocate(f"sqlite:///{old}/mlflow.db", old / "mlru", tmp_path)

    def test_a_server_keeps_its_own(self, tmp_path: Path) -> None:
        with pytest.raises(UserError, match="the server's to change"):
            relocate("http://localhost:9", tmp_path, tmp_path)
