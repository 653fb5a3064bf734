from __future__ import annotations

import errno
import os
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import qlib
from mlflow.tracking import MlflowClient
from qlib.utils.exceptions import LoadObjectError
from qlib.workflow import R
from qlib.workflow.record_temp import SigAnaRecord
from typer.testing import CliRunner

from qlib_ext.checks import UserError
from qlib_ext.cli.main import app
from qlib_ext.tracking import git, outbox
from qlib_ext.tracking.active import end_run
from qlib_ext.tracking.artifacts import read_checksums
from qlib_ext.tracking.outbox import send_all
from qlib_ext.workflow.recorder import Recorder
from tests.tracking.conftest import Server, artifacts, points


class TestLogged:
    def test_parameters_in_lists_are_logged_one_by_one(self, workplace: Any) -> None:
        sections = [{"class": "m.B"}, {"class": "B", "kwargs": {"x": 1}}, {"y": 2}, "z"]
        record = [{"class": "some.module.A", "kwargs": {"at": [10, 20], "sections": sections}}]
        with R.start(experiment_name="naming"):
            recorder = R.get_recorder()
            R.log_params(record=record, seed=0)
        params = {k: v for k, v in recorder.list_params().items() if k != "cmd-sys.argv"}
        assert params == {
            "record.A.class": "some.module.A",
            "record.A.kwargs.at": "[10, 20]",
            "record.A.kwargs.sections.B.class": "m.B",
            "record.A.kwargs.sections.B-2.class": "B",
            "record.A.kwargs.sections.B-2.kwargs.x": "1",
            "record.A.kwargs.sections.2.y": "2",
            "record.A.kwargs.sections.3": "z",
            "seed": "0",
        }

    def test_parameters_are_for_people(self, workplace: Any) -> None:
        with R.start(experiment_name="naming"):
            recorder = R.get_recorder()
            R.log_params(
                test=[date(2017, 1, 1), pd.Timestamp("2020-12-31").date()],
                labels=("RETURN", "x"),
                uri="postgresql://ann:secret@host/mlflow",
                long="x" * 20000,
            )
        params = recorder.list_params()
        assert params["test"] == "[2017-01-01, 2020-12-31]"
        assert params["labels"] == "[RETURN, x]"
        assert params["uri"] == "postgresql://***@host/mlflow"
        assert params["long"] == "x" * 499 + "\N{HORIZONTAL ELLIPSIS}"

    def test_more_parameters_than_mlflow_takes_at_once(self, workplace: Any) -> None:
        with R.start(experiment_name="naming"):
            recorder = R.get_recorder()
            R.log_params(**{f"p{k}": k for k in range(250)})
        assert {recorder.list_params()[f"p{k}"] for k in range(250)} == {str(k) for k in range(250)}

    def test_tags_are_there_before_the_training(
        self, workplace: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git, "commit", lambda: "abc")
        task = {"model": {"class": "LGBModel", "kwargs": {"seed": 3}}, "record": []}
        with R.start(experiment_name="naming"):
            recorder = R.get_recorder()
            recorder.save_objects(task=task)
        expected = {"model": "LGBModel", "method": "LGBModel", "seed": "3", "git_commit": "abc"}
        assert expected.items() <= recorder.list_tags().items()

    def test_a_configuration_is_kept_without_passwords(self, workplace: Any) -> None:
        uri = "postgresql://ann:secret@host/mlflow"
        config = {
            "qlib_init": {"exp_manager": {"kwargs": {"uri": uri}}},
            "at": [1, uri],
            "day": date(2020, 1, 2),
        }
        with R.start(experiment_name="naming"):
            recorder = R.get_recorder()
            recorder.save_objects(config=config)
        hidden = "postgresql://***@host/mlflow"
        assert recorder.load_object("config") == {
            "qlib_init": {"exp_manager": {"kwargs": {"uri": hidden}}},
            "at": [1, hidden],
            "day": date(2020, 1, 2),
        }
        assert config["at"] == [1, uri], "the caller's own stays"

    def test_what_is_not_there_is_told_as_qlib_tells_it(self, workplace: Any) -> None:
        """Qlib's own records look for `sig_analysis/pred.pkl` first, and for `pred.pkl` where that is missing."""
        with R.start(experiment_name="naming"):
            recorder = R.get_recorder()
            recorder.save_objects(**{"pred.pkl": [1, 2]})
            assert SigAnaRecord(recorder).load("pred.pkl") == [1, 2]
            with pytest.raises(LoadObjectError, match=r"no artifact `label\.pkl`"):
                recorder.load_object("label.pkl")

    @pytest.mark.parametrize(
        ("uri", "expected"), [("http://ann:secret@localhost:9", "true"), ("http://localhost:9", None)]
    )
    def test_mlflow_does_not_print_an_address_with_a_password(
        self, uri: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
        Recorder("1", uri)
        assert os.environ.get(name) == expected

    def test_outside_a_repository_git_is_not_asked(
        self, workplace: Any, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(git, "inside_repository", lambda: False)
        with R.start(experiment_name="naming"):
            assert R.get_recorder().list_artifacts() == []

    def test_in_a_repository_changes_are_kept(self, workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(git, "inside_repository", lambda: True)
        monkeypatch.setattr(git, "output", lambda *arguments: " ".join(arguments))
        with R.start(experiment_name="naming"):
            found = R.get_recorder().list_artifacts()
        assert found == ["code_cached.txt", "code_diff.txt", "code_status.txt"]


class TestChecksums:
    @pytest.mark.parametrize("status", ["FINISHED", "FAILED"])
    def test_a_run_keeps_them_however_it_ends(self, workplace: Any, status: str) -> None:
        R.start_exp(experiment_name="naming")
        recorder = R.get_recorder()
        recorder.client.log_text(recorder.id, "{}", "data/summary.json")
        R.end_exp(status)
        assert "data/summary.json" in read_checksums(recorder.client, recorder.id)

    def test_one_that_cannot_ends_as_it_would_without(
        self, workplace: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        def full(run_id: str) -> None:
            raise OSError(errno.ENOSPC, "No space left on device")

        R.start_exp(experiment_name="naming")
        recorder = R.get_recorder()
        monkeypatch.setattr(recorder.client, "log_checksums", full)
        R.end_exp("FINISHED")
        assert recorder.client.get_run(recorder.id).info.status == "FINISHED"
        assert f"the run {recorder.id} keeps no checksums of its files: [Errno 28] No space" in caplog.text


class TestEnd:
    """A whole run of Qlib's, over HTTP."""

    @pytest.fixture
    def at_work(self, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Server:
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("MLFLOW_WAIT_SECONDS", "0")
        manager = {
            "class": "qlib_ext.workflow.experiment.ExperimentManager",
            "kwargs": {"uri": server.uri, "default_exp_name": "team"},
        }
        qlib.init(provider_uri=str(tmp_path), exp_manager=manager)
        return server

    def test_a_run_that_cannot_be_sent_is_kept_and_completed_by_a_command(
        self, at_work: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        closed: list[str] = []
        R.start_exp(experiment_name="team")
        recorder = R.get_recorder()
        run_id = recorder.id
        recorder.on_finished.append(lambda: closed.append(run_id))
        recorder.log_metrics(step=0, loss=1.0)
        at_work.stop()
        recorder.log_metrics(step=1, loss=0.5)
        recorder.client.log_text(run_id, "<html>", "report/report.html")
        with pytest.raises(UserError, match="qlib-ext send"):
            R.end_exp("FINISHED")
        assert not closed  # RESUME=1 can take it up as well
        R.end_exp("FAILED")  # as Qlib does when the process ends: it changes nothing any more

        with pytest.raises(UserError, match=f"{run_id} is still being made by process {os.getpid()}"):
            list(send_all(outbox.outbox_root()))
        monkeypatch.setattr(outbox, "_is_alive", lambda process: False)
        with pytest.raises(UserError, match=r"could not be sent.*it stays in"):
            list(send_all(outbox.outbox_root()))
        at_work.start()
        done = CliRunner().invoke(app, ["send"])
        assert done.exit_code == 0, done.output
        assert f"{run_id}: sent" in done.output
        assert points(at_work, run_id, "loss") == [(0, 1.0), (1, 0.5)]
        assert artifacts(at_work, run_id, "report") == {"report/report.html"}
        assert "report/report.html" in read_checksums(MlflowClient(at_work.uri), run_id)
        info = MlflowClient(at_work.uri).get_run(run_id).info
        assert info.status == "FINISHED"
        assert info.end_time >= info.start_time
        with pytest.raises(UserError, match="holds nothing unsent"):
            list(send_all(outbox.outbox_root()))

    def test_a_run_that_is_sent_in_time_ends_as_ever(self, at_work: Server) -> None:
        closed: list[str] = []
        with R.start(experiment_name="team"):
            recorder = R.get_recorder()
            recorder.on_finished.append(lambda: closed.append("yes"))
            at_work.stop()
            recorder.set_tags(a=1)
            at_work.start()
        assert closed == ["yes"]
        run = MlflowClient(at_work.uri).get_run(recorder.id)
        assert (run.info.status, run.data.tags["a"]) == ("FINISHED", "1")
        assert not outbox.outbox_root().exists() or not list(outbox.outbox_root().iterdir())

    def test_a_run_stopped_while_the_server_is_away_is_killed_there_later(
        self, at_work: Server, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        R.start_exp(experiment_name="team")
        run_id = R.get_recorder().id
        at_work.stop()
        assert end_run("KILLED") == run_id
        at_work.start()
        monkeypatch.setattr(outbox, "_is_alive", lambda process: False)
        assert [sent for sent, _ in send_all(outbox.outbox_root())] == [run_id]
        assert MlflowClient(at_work.uri).get_run(run_id).info.status == "KILLED"

    def test_a_server_that_is_not_there_is_said_before_any_work(self, at_work: Server) -> None:
        at_work.stop()
        with pytest.raises(UserError, match="does not answer"), R.start(experiment_name="team"):
            raise AssertionError("never reached")
