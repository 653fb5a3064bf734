from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from qlib.utils import init_instance_by_config
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.tracking.runs import checked_uri
from qlib_ext.workflow.experiment import ExperimentManager
from qlib_ext.workflow.recorder import Recorder


class TestStore:
    @pytest.mark.parametrize("uri", ["mlruns", "./mlruns", "file:mlruns", "file:///tmp/mlruns", ""])
    def test_the_file_store_is_refused(self, uri: str) -> None:
        with pytest.raises(UserError, match=r"MLflow refuses its file store since 3.13.*sqlite:///mlflow.db"):
            ExperimentManager(uri)

    def test_not_even_where_mlflow_is_told_to_allow_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
        with pytest.raises(UserError, match=r"also where MLFLOW_ALLOW_FILE_STORE is set.*migrate-filestore"):
            checked_uri("mlruns")

    @pytest.mark.parametrize("uri", ["sqlite:///mlflow.db", "http://localhost:5000", "postgresql://u@h/d"])
    def test_databases_and_servers_are_taken(self, uri: str) -> None:
        assert checked_uri(uri) == uri

    def test_a_run_cannot_go_to_a_file_store_either(self, workplace: Any) -> None:
        with pytest.raises(UserError, match="refuses its file store"), R.start(uri="file:mlruns"):
            raise AssertionError("the run must not start")


class TestWrong:
    """Qlib builds the manager before anything can check the workflow."""

    def test_an_unknown_argument(self) -> None:
        with pytest.raises(UserError, match=r"found 'ury' \(did you mean uri\?\)"):
            ExperimentManager(ury="sqlite:///mlflow.db")

    def test_a_class_that_is_misspelt(self) -> None:
        with pytest.raises(
            UserError, match=r"has no class `ExperimentManger` \(did you mean ExperimentManager"
        ):
            init_instance_by_config(
                {"class": "ExperimentManger", "module_path": "qlib_ext.workflow.experiment"}
            )


class TestDeleted:
    def test_a_run_cannot_go_to_a_deleted_experiment(self, workplace: Any) -> None:
        with R.start(experiment_name="gone"):
            pass
        R.exp_manager.client.delete_experiment(
            R.exp_manager.client.get_experiment_by_name("gone").experiment_id
        )
        with pytest.raises(UserError, match=r"the experiment `gone` was deleted.*restore.*another name"):
            R.start_exp(experiment_name="gone")


class TestMoved:
    def test_a_run_does_not_go_to_where_the_project_was(self, workplace: Any) -> None:
        client = R.exp_manager.client
        location = "/a/place/that/is/gone/mlruns/moved"
        client.create_experiment("moved", location)
        (Path.cwd() / "mlruns" / "moved").mkdir(parents=True)
        with pytest.raises(UserError, match=r"`qlib-ext relocate /a/place/that/is/gone/mlruns "):
            R.start_exp(experiment_name="moved")


class TestNotWritable:
    def test_the_place_of_the_artifacts_is_looked_at_before_a_run(self, workplace: Any) -> None:
        (Path.cwd() / "file").touch()
        R.exp_manager.client.create_experiment("astray", f"{Path.cwd()}/file/below")
        with pytest.raises(
            UserError, match=r"place of the run's artifacts must be a folder that can be written"
        ):
            R.start_exp(experiment_name="astray")

    def test_an_outbox_that_cannot_be_written_is_a_warning(
        self, workplace: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        monkeypatch.setenv("MLFLOW_OUTBOX", "/dev/null/x")
        with caplog.at_level("WARNING"):
            R.exp_manager._look_at_outbox()
        assert "should the server go away: MLFLOW_OUTBOX must be a folder that can be written" in caplog.text


class TestRuns:
    def test_a_run_is_named_by_experiment_and_time(self, workplace: Any) -> None:
        with R.start(experiment_name="naming"):
            run_id = R.get_recorder().id
        run = R.exp_manager.client.get_run(run_id)
        assert run.info.run_name.startswith("naming 20")
        assert run.info.status == "FINISHED"

    def test_runs_of_one_second_have_names_of_their_own(self, workplace: Any) -> None:
        names = []
        for _ in range(5):
            with R.start(experiment_name="naming"):
                names.append(R.get_recorder().name)
        assert len(set(names)) == 5

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
            assert isinstance(R.get_recorder(), Recorder)
