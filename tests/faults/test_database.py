"""MLflow's database while it is locked, and on a disk that is full: real locks, and SQLite's own errors."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import qlib
import sqlalchemy
from mlflow.tracking import MlflowClient
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.tracking import availability, outbox
from qlib_ext.tracking.outbox import Outbox, send_all

EXPERIMENT = "faults"
NO_LIMIT = 4294967294
MOST_PAGES = [NO_LIMIT]  # of a database, as `full` sets it


@pytest.fixture
def database(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, empty_database: Path) -> Iterator[Path]:
    """Qlib and MLflow at work on a database of their own, which waits for no lock and is asked again at once."""

    def prepare(connection: Any, cursor: Any, statement: str, *others: Any) -> tuple[str, Any]:
        if not statement.startswith("PRAGMA"):
            cursor.connection.execute(f"PRAGMA max_page_count = {MOST_PAGES[0]}")
        return statement.replace("busy_timeout = 20000", "busy_timeout = 0"), others[0]

    sqlalchemy.event.listen(sqlalchemy.Engine, "before_cursor_execute", prepare, retval=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MLFLOW_OUTBOX", str(tmp_path / "outbox"))
    monkeypatch.setenv("MLFLOW_WAIT_SECONDS", "0")
    monkeypatch.setattr(availability, "FIRST_PAUSE", 0.0)
    monkeypatch.setattr(availability, "LONGEST_PAUSE", 0.0)
    path = tmp_path / "mlflow.db"
    path.write_bytes(empty_database.read_bytes())
    manager = {
        "class": "qlib_ext.workflow.experiment.ExperimentManager",
        "kwargs": {"uri": f"sqlite:///{path}", "default_exp_name": EXPERIMENT},
    }
    qlib.init(provider_uri=str(tmp_path), exp_manager=manager)
    yield path
    sqlalchemy.event.remove(sqlalchemy.Engine, "before_cursor_execute", prepare)


@contextmanager
def locked(path: Path) -> Iterator[None]:
    """Another program writes, and lets nobody read meanwhile."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN EXCLUSIVE")
        try:
            yield
        finally:
            other.execute("ROLLBACK")


@contextmanager
def full(path: Path) -> Iterator[None]:
    """SQLite may not add a page to its file: what it says then is what it says of a disk without room."""
    MOST_PAGES[0] = 1  # at least it takes what the file has
    try:
        yield
    finally:
        MOST_PAGES[0] = NO_LIMIT


Fault = Callable[[Path], Any]
each_fault = pytest.mark.parametrize("fault", [locked, full])


def log_much(recorder: Any) -> None:
    """More than fits into the pages that the database has."""
    for step in range(30):
        recorder.log_metrics(step=step, **{f"loss/{k}": step + k / 7 for k in range(20)})


def losses(path: Path, run_id: str) -> list[float]:
    history = MlflowClient(f"sqlite:///{path}").get_metric_history(run_id, "loss/3")
    return [point.value for point in sorted(history, key=lambda point: point.step)]


class TestStart:
    @pytest.mark.parametrize("fault", [locked])
    def test_no_run_is_started_and_one_line_says_why(self, database: Path, fault: Fault) -> None:
        with R.start(experiment_name=EXPERIMENT):
            pass
        with (
            fault(database),
            pytest.raises(UserError, match=r"no run can be started in sqlite:.*database is locked"),
        ):
            R.start_exp(experiment_name=EXPERIMENT)
        with R.start(experiment_name=EXPERIMENT):
            run_id = R.get_recorder().id
        assert MlflowClient(f"sqlite:///{database}").get_run(run_id).info.status == "FINISHED"


class TestMeanwhile:
    @each_fault
    def test_nothing_is_lost_and_all_arrives_once(self, database: Path, fault: Fault, tmp_path: Path) -> None:
        with R.start(experiment_name=EXPERIMENT):
            recorder = R.get_recorder()
            recorder.log_metrics(step=99, other=1.0)
            with fault(database):
                log_much(recorder)
                recorder.set_tags(universe="csi300")
                assert not Outbox(tmp_path / "outbox" / recorder.id).empty
        assert losses(database, recorder.id) == [step + 3 / 7 for step in range(30)]
        run = MlflowClient(f"sqlite:///{database}").get_run(recorder.id)
        assert (run.info.status, run.data.tags["universe"]) == ("FINISHED", "csi300")
        assert not (tmp_path / "outbox" / recorder.id).exists()

    @each_fault
    def test_a_record_reads_what_another_wrote(self, database: Path, fault: Fault) -> None:
        with R.start(experiment_name=EXPERIMENT):
            recorder = R.get_recorder()
            client, run_id = recorder.client, recorder.id
            client.log_text(run_id, "before", "signal/before.txt")
            with fault(database):
                log_much(recorder)
                client.log_text(run_id, "after", "signal/after.txt")
                found = [item.path for item in client.list_artifacts(run_id, "signal")]
                assert found == ["signal/after.txt", "signal/before.txt"]
                for name in ("before", "after"):
                    assert Path(client.download_artifacts(run_id, f"signal/{name}.txt")).read_text() == name
                assert client.get_run(run_id).data.metrics["loss/3"] == 29 + 3 / 7
                assert client.get_experiment(recorder.experiment_id).name == EXPERIMENT
        stored = MlflowClient(f"sqlite:///{database}").list_artifacts(run_id, "signal")
        assert [item.path for item in stored] == ["signal/after.txt", "signal/before.txt"]


class TestEnd:
    @each_fault
    def test_a_run_that_ends_meanwhile_is_kept_and_completed_by_the_command(
        self, database: Path, fault: Fault, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[str] = []
        R.start_exp(experiment_name=EXPERIMENT)
        recorder = R.get_recorder()
        recorder.log_metrics(step=99, other=1.0)
        recorder.on_finished.append(lambda: closed.append("yes"))
        with fault(database):
            log_much(recorder)
            with pytest.raises(UserError, match="qlib-ext send"):
                R.end_exp("FINISHED")
        R.end_exp("FAILED")  # as Qlib does when the process ends: it changes nothing any more
        assert not closed
        monkeypatch.setattr(outbox, "_is_alive", lambda process: False)
        assert [sent for sent, _ in send_all(tmp_path / "outbox")] == [recorder.id]
        assert losses(database, recorder.id) == [step + 3 / 7 for step in range(30)]
        assert MlflowClient(f"sqlite:///{database}").get_run(recorder.id).info.status == "FINISHED"

    def test_one_that_can_be_kept_nowhere_has_failed_and_says_so(
        self, database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        (tmp_path / "outbox").write_text("no folder")
        closed: list[str] = []
        R.start_exp(experiment_name=EXPERIMENT)
        recorder = R.get_recorder()
        recorder.on_finished.append(lambda: closed.append("yes"))
        with locked(database):
            with pytest.raises(
                UserError, match=r"cannot be kept in .*make room or name another folder by MLFLOW_OUTBOX"
            ):
                recorder.log_metrics(step=0, loss=1.0)
            with pytest.raises(UserError, match=r"cannot be kept in .*take the run up with RESUME=1"):
                R.end_exp("FINISHED")
        R.end_exp("FAILED")  # as Qlib does when the process ends: it changes nothing any more
        assert not closed
        assert MlflowClient(f"sqlite:///{database}").get_run(recorder.id).info.status != "FINISHED"
