from __future__ import annotations

import os
import subprocess
import sys
from datetime import date
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from mlflow.tracking import MlflowClient
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.tracking import git
from qlib_ext.tracking.runs import checked_uri, keep_to_ourselves
from qlib_ext.workflow import experiment
from qlib_ext.workflow.experiment import ExperimentManager

ROOT = Path(__file__).parents[2]

# A process that ends in the middle of a run, as `qrun` would.
PROGRAM = """
import os, signal, sys
import qlib
from qlib.workflow import R
from qlib_ext.checks import UserError

uri, store, how = sys.argv[1:]
manager = {"class": "qlib_ext.workflow.experiment.ExperimentManager", "kwargs": {"uri": uri, "default_exp_name": "x"}}
qlib.init(provider_uri=store, region="cn", exp_manager=manager)
with R.start(experiment_name=how):
    if how == "user":
        raise UserError("`topk` must be at least 1, found 0")
    os.kill(os.getpid(), getattr(signal, how))
"""


def ended(workplace: Any, tmp_path: Path, how: str) -> tuple[subprocess.CompletedProcess[str], str]:
    """The process, and the status of its run."""
    home = Path.cwd()
    uri = f"sqlite:///{home}/mlflow.db"
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, uri, str(home / "store"), how],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,  # no repository: git has nothing to say there
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    client = MlflowClient(uri)
    (run,) = client.search_runs([client.get_experiment_by_name(how).experiment_id])
    return done, run.info.status


class TestStore:
    @pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:mlruns", "file:///tmp/mlruns", ""])
    def test_the_file_store_is_refused(self, uri: str) -> None:
        with pytest.raises(UserError, match=r"MLflow refuses its file store since 3.13.*sqlite:///mlflow.db"):
            ExperimentManager(uri)

    @pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://localhost:5000", "postgresql://u@h/d"])
    def test_databases_and_servers_are_taken(self, uri: str) -> None:
        assert checked_uri(uri) == uri

    def test_a_run_cannot_go_to_a_file_store_either(self, workplace: Any) -> None:
        with pytest.raises(UserError, match="refuses its file store"), R.start(uri="file:mlruns"):
            raise AssertionError("the run must not start")


class TestRuns:
    def test_a_run_is_named_by_experiment_and_time(self, workplace: Any) -> None:
        with R.start(experiment_name="naming"):
            run_id = R.get_recorder().id
        run = R.exp_manager.client.get_run(run_id)
        assert run.info.run_name.startswith("naming 20")
        assert run.info.status == "FINISHED"

    def test_mlflows_page_knows_what_kind_of_experiment_it_is(self, workplace: Any) -> None:
        with R.start(experiment_name="kind"):
            pass
        tags = R.exp_manager.client.get_experiment_by_name("kind").tags
        assert tags["mlflow.experimentKind"] == "custom_model_development"

    def test_a_name_of_the_users_stays(self, workplace: Any) -> None:
        with R.start(experiment_name="naming", recorder_name="mine"):
            assert R.get_recorder().name == "mine"

    def test_a_run_can_be_taken_up_again(self, workplace: Any) -> None:
        with R.start(experiment_name="naming"):
            first = R.get_recorder().id
        with R.start(experiment_name="naming", recorder_id=first, resume=True):
            assert R.get_recorder().id == first
            assert isinstance(R.get_recorder(), experiment.Recorder)

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

    @pytest.mark.parametrize(
        ("uri", "expected"), [("http://ann:secret@localhost:9", "true"), ("http://localhost:9", None)]
    )
    def test_mlflow_does_not_print_an_address_with_a_password(
        self, uri: str, expected: str | None, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        name = "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT"
        monkeypatch.setenv(name, "")  # so that it is put back
        monkeypatch.delenv(name)
        experiment.Recorder("1", uri)
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


class TestEnds:
    def test_a_users_mistake_is_one_message(self, workplace: Any, tmp_path: Path) -> None:
        done, status = ended(workplace, tmp_path, "user")
        assert status == "FAILED"
        assert done.returncode == 1
        assert "Traceback" not in done.stderr + done.stdout
        assert done.stderr.count("`topk` must be at least 1, found 0") == 1
        assert "usage: git" not in done.stderr

    def test_a_stopped_run_is_killed(self, workplace: Any, tmp_path: Path) -> None:
        done, status = ended(workplace, tmp_path, "SIGTERM")
        assert status == "KILLED"
        assert done.returncode != 0
        assert "is marked KILLED" in done.stderr

    def test_an_interrupted_run_is_killed(self, workplace: Any, capsys: pytest.CaptureFixture[str]) -> None:
        R.start_exp(experiment_name="interrupted")
        recorder = R.get_recorder()
        hook = experiment._Excepthook(previous=None)
        hook(KeyboardInterrupt, KeyboardInterrupt(), None)
        assert recorder.client.get_run(recorder.id).info.status == "KILLED"
        assert R.exp_manager.active_experiment is None
        assert recorder.id in capsys.readouterr().err

    def test_any_other_error_is_left_to_qlib(self) -> None:
        seen = []
        hook = experiment._Excepthook(previous=lambda *error: seen.append(error))
        error = TypeError("boom")
        hook(TypeError, error, None)
        assert seen == [(TypeError, error, None)]

    def test_the_hook_is_put_once_over_qlibs(self, workplace: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        def qlibs(*error: object) -> None:
            raise AssertionError

        monkeypatch.setattr(sys, "excepthook", qlibs)
        for _ in range(2):
            with R.start(experiment_name="hooks"):
                assert isinstance(sys.excepthook, experiment._Excepthook)
                assert sys.excepthook.previous is qlibs


class TestTelemetry:
    @pytest.mark.parametrize(("given", "expected"), [(None, "true"), ("false", "false")])
    def test_it_is_off_unless_asked_for(
        self, given: str | None, expected: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        if given is None:
            monkeypatch.delenv("MLFLOW_DISABLE_TELEMETRY")
        else:
            monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", given)
        keep_to_ourselves()
        assert os.environ["MLFLOW_DISABLE_TELEMETRY"] == expected
        monkeypatch.setenv("MLFLOW_DISABLE_TELEMETRY", "true")  # what the manager set is undone with the test
