"""MLflow's database at its first start: several starts at once, kills, and what is found instead of a database."""

from __future__ import annotations

import os
import shutil
import signal
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import mlflow.store.tracking.sqlalchemy_store  # noqa: F401 - imported once for all forks
import pytest
import sqlalchemy
from mlflow.store.db import utils
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.tracking import database
from qlib_ext.tracking.runs import connect

forks = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs forks")


@pytest.fixture(scope="module", autouse=True)
def made_by_mlflow() -> Iterator[None]:
    """No copy of a database that is there already, as the other tests have it: the making is what is tested here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(utils, "_initialize_tables", utils._initialize_tables.__wrapped__)
        yield


def uri(folder: Path) -> str:
    return f"sqlite:///{folder / 'mlflow.db'}"


def fork(work: Callable[[], object]) -> int:
    process = os.fork()
    if process == 0:
        code = 1
        try:
            work()
            code = 0
        finally:
            os._exit(code)
    return process


def exits(processes: list[int]) -> list[int]:
    return [os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]) for process in processes]


@contextmanager
def moments(pass_: Callable[[str], None]) -> Iterator[None]:
    """Have each statement of the making tell of itself, and each step by which a database gets to its place."""

    def statement(*_: Any) -> None:
        pass_("statement")

    def telling(step: Callable[..., Any]) -> Callable[..., Any]:
        def told(*arguments: Any) -> Any:
            pass_("step")
            found = step(*arguments)
            pass_("step")
            return found

        return told

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", statement)
    with pytest.MonkeyPatch.context() as patch:
        for place, name in ((os, "link"), (os, "fsync"), (database, "_fill"), (database, "_put")):
            patch.setattr(place, name, telling(getattr(place, name)))
        try:
            yield
        finally:
            sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", statement)


@pytest.fixture(scope="module")
def stages(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The folder of a first start as a kill leaves it: at every 40th statement, at every step, and at the end."""
    root = tmp_path_factory.mktemp("stages")
    folder = root / "folder"
    folder.mkdir()
    kept: list[Path] = []
    passed = 0

    def keep(kind: str) -> None:
        nonlocal passed
        passed += 1
        if kind == "step" or passed % 40 == 0:
            kept.append(Path(shutil.copytree(folder, root / f"{passed:05d}")))

    with moments(keep):
        database.prepare(uri(folder))
    assert len(kept) >= 50
    return [*kept, folder]


@pytest.fixture
def quick(stages: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A database that has been made already stands for one that MLflow makes, which takes a second."""
    whole = stages[-1] / "mlflow.db"
    monkeypatch.setattr(database, "_fill", lambda part: shutil.copy(whole, part))


def copied(stage: Path, tmp_path: Path) -> Path:
    folder = tmp_path / stage.name
    shutil.copytree(stage, folder)
    return folder


def serves(folder: Path) -> bool:
    """Whether MLflow takes the database, and nothing else is left."""
    client = MlflowClient(uri(folder))
    run = client.get_run(client.create_run("0").info.run_id)
    return run.info.status == "RUNNING" and [path.name for path in folder.iterdir()] == ["mlflow.db"]


def is_whole(folder: Path) -> bool:
    """Whether the last step of the migration was done, which SQLite's journal may still undo."""
    with closing(sqlite3.connect(folder / "mlflow.db")) as opened:
        names = {name for (name,) in opened.execute("SELECT name FROM sqlite_master")}
        version = (
            opened.execute("SELECT version_num FROM alembic_version").fetchone()
            if "alembic_version" in names
            else None
        )
    return version == (database._head(),)


@forks
class TestAtOnce:
    @pytest.mark.parametrize("starts", [2, 4])
    def test_first_starts_at_once_all_end_well(self, starts: int, tmp_path: Path) -> None:
        def start() -> None:
            database.prepare(uri(tmp_path))
            MlflowClient(uri(tmp_path)).create_run("0")

        assert exits([fork(start) for _ in range(starts)]) == [0] * starts
        assert len(MlflowClient(uri(tmp_path)).search_runs(["0"])) == starts
        assert serves(tmp_path)


class TestKills:
    def test_a_start_after_a_kill_at_any_moment_ends_well(
        self, stages: list[Path], quick: None, tmp_path: Path
    ) -> None:
        names = set()
        for stage in stages:
            folder = copied(stage, tmp_path)
            names |= {path.name for path in folder.iterdir()}
            if (folder / "mlflow.db").exists():
                database.check(uri(folder))  # whole as soon as it is there
            database.prepare(uri(folder))
            assert [path.name for path in folder.iterdir()] == ["mlflow.db"], stage.name
        assert {".mlflow.db.part", ".mlflow.db.lock", "mlflow.db"} <= names
        assert serves(folder)

    @forks
    @pytest.mark.parametrize("moment", [40, 400])
    def test_a_real_kill(
        self, moment: int, quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        passed = 0

        def count(kind: str) -> None:
            nonlocal passed
            passed += 1
            if passed == moment:
                os.kill(os.getpid(), signal.SIGKILL)

        def start() -> None:
            monkeypatch.undo()
            with moments(count):
                database.prepare(uri(tmp_path))

        assert exits([fork(start)]) == [-signal.SIGKILL]
        assert not (tmp_path / "mlflow.db").exists()
        database.prepare(uri(tmp_path))
        assert serves(tmp_path)

    def test_what_mlflow_itself_left_half_made_is_told_and_what_to_delete(
        self, stages: list[Path], quick: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As `mlflow ui` leaves it, or a start of an earlier version of this package."""
        monkeypatch.setattr(database, "QUIET_SECONDS", 0.0)
        told = 0
        for stage in stages[:-1]:
            folder = tmp_path / stage.name
            folder.mkdir()
            for path in stage.glob(".mlflow.db.part*"):
                shutil.copy(path, folder / path.name.removeprefix(".").replace(".part", ""))
            if not (folder / "mlflow.db").exists() or is_whole(folder):
                continue
            told += 1
            for look in (database.prepare, connect):
                with pytest.raises(UserError, match=r"is half made, .* holds no run: delete ") as caught:
                    look(uri(folder))
                left = [*folder.iterdir()]
                assert [path for path in left if str(path) in str(caught.value)] == left
            for path in left:
                path.unlink()
            database.prepare(uri(folder))
            database.check(uri(folder))
        assert told > 30

    def test_one_that_mlflow_is_making_is_waited_for(
        self, stages: list[Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        half = next(path for stage in stages[20:] for path in stage.glob(".mlflow.db.part"))
        shutil.copy(half, tmp_path / "mlflow.db")

        def go_on(seconds: float) -> None:
            shutil.copy(stages[-1] / "mlflow.db", tmp_path / "mlflow.db")

        os.utime(tmp_path / "mlflow.db")
        monkeypatch.setattr(database.time, "sleep", go_on)
        database.check(uri(tmp_path))


class TestFound:
    @pytest.fixture
    def whole(self, stages: list[Path], tmp_path: Path) -> Path:
        return copied(stages[-1], tmp_path)

    @staticmethod
    def of_revision(folder: Path, revision: str) -> None:
        with closing(sqlite3.connect(folder / "mlflow.db")) as opened, opened:
            opened.execute("UPDATE alembic_version SET version_num = ?", (revision,))

    def test_one_of_an_older_mlflow(self, whole: Path) -> None:
        scripts = database._scripts()
        before = scripts.get_revision(scripts.get_heads()[0]).down_revision
        self.of_revision(whole, before)
        with pytest.raises(
            UserError, match=r"is of an older MLflow.*make a copy.*`mlflow db upgrade sqlite:"
        ):
            database.prepare(uri(whole))

    def test_one_of_a_newer_mlflow(self, whole: Path) -> None:
        self.of_revision(whole, "fedcba987654")
        with pytest.raises(UserError, match=r"is of a newer MLflow.*fedcba987654.*install that MLflow"):
            database.prepare(uri(whole))

    def test_something_else(self, tmp_path: Path) -> None:
        (tmp_path / "mlflow.db").write_text(
            "no database, but a text that is long enough to be looked at" * 20
        )
        with pytest.raises(UserError, match="must be a SQLite database of MLflow's, found none"):
            database.prepare(uri(tmp_path))
        (tmp_path / "mlflow.db").unlink()
        (tmp_path / "mlflow.db").mkdir()
        with pytest.raises(UserError, match="must be a file, found something else"):
            database.prepare(uri(tmp_path))

    def test_an_empty_file_as_sqlite_makes_it(self, tmp_path: Path, quick: None) -> None:
        (tmp_path / "mlflow.db").touch()
        database.prepare(uri(tmp_path))
        assert serves(tmp_path)

    def test_a_database_that_is_not_mlflows_is_left_to_it(self, tmp_path: Path) -> None:
        with closing(sqlite3.connect(tmp_path / "mlflow.db")) as other, other:
            other.execute("CREATE TABLE studies (name TEXT)")
        before = (tmp_path / "mlflow.db").read_bytes()
        database.prepare(uri(tmp_path))
        assert (tmp_path / "mlflow.db").read_bytes() == before

    @pytest.mark.parametrize("other", ["http://localhost:5000", "sqlite://", "postgresql://user@host/runs"])
    def test_a_server_has_its_own_to_look_after(self, other: str, tmp_path: Path, monkeypatch: Any) -> None:
        monkeypatch.chdir(tmp_path)
        database.prepare(other)
        assert list(tmp_path.iterdir()) == []


class TestNotWritable:
    def test_a_folder_that_cannot_be_written_is_told_at_once(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(
            UserError, match=r"place of MLflow's database mlflow.db must be a folder that can be"
        ):
            database.prepare(uri(tmp_path / "file"))

    def test_a_file_that_cannot(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "mlflow.db").touch()
        monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK)  # root may write anything
        with pytest.raises(
            UserError, match=r"mlflow.db cannot be written: change its rights, or name a database"
        ):
            database.prepare(uri(tmp_path))
