from __future__ import annotations

import os
import shutil
from functools import partial
from pathlib import Path
from types import SimpleNamespace

import mlflow
import pytest
import yaml
from qlib.workflow import R

import qlib_ext.api as qe
from qlib_ext.checks import UserError
from qlib_ext.model.backbones.lstm import LSTM
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.multi_task import MultiTaskModel

TASKS = {"score": {"label": "RETURN", "loss": MSE()}}


class TestTrain:
    def test_an_unknown_variable_is_answered_with_the_nearest(self, notebook: Path) -> None:
        (notebook / "mine.yaml").write_text("qlib_init: {provider_uri: '{{ QLIB_DATA }}'}\ntask: {}\n")
        with pytest.raises(UserError, match=r"has no variable `QLIBDATA` \(did you mean QLIB_DATA\?\)"):
            qe.train("mine.yaml", QLIBDATA="cn")

    @pytest.mark.parametrize(
        ("given", "said"),
        [
            ({}, "must be given a workflow, or `model` and `dataset`"),
            ({"workflow": {}, "model": 1}, "`model` must be left out where a workflow is given"),
            ({"modle": 1}, "no place for `modle`"),
            ({"workflow": {}, "SEED": 1}, "is for the template of a file"),
            ({"workflow": {"qlib_init": {}}}, "must have a `task`"),
            ({"model": MSE, "dataset": {}}, "`store` must be given"),
        ],
    )
    def test_what_does_not_fit_is_one_line(self, notebook: Path, given: dict[str, object], said: str) -> None:
        with pytest.raises(UserError, match=said):
            qe.train(**given)  # type: ignore[arg-type]

    def test_sizes_of_a_backbone_are_held_against_the_data(self, notebook: Path) -> None:
        model = MultiTaskModel(LSTM(num_features=5, lookback_days=60), TASKS, SingleTask())
        with pytest.raises(UserError, match=r"`backbone\.num_features` must be 6, as the dataset has it"):
            qe.train(model=model, dataset=qe.Store("cn").dataset("csi300"))

    def test_a_model_that_was_fitted_is_refused(self, notebook: Path) -> None:
        data = qe.Store("cn").dataset(
            "csi300",
            train=("2016-03-01", "2016-03-11"),
            valid=("2016-04-01", "2016-04-06"),
            test=("2016-05-03", "2016-05-06"),
        )
        model = MultiTaskModel(
            partial(LSTM, hidden_size=2), TASKS, SingleTask, trainer={"n_epochs": 1}, checkpoint_dir=None
        )
        model.fit(data.loaded)
        with pytest.raises(UserError, match=r"found a MultiTaskModel that was fitted, .* make it anew"):
            qe.train(model=model, dataset=data)
        model.history = []  # one that took the weights of a run has none
        with pytest.raises(UserError, match="found a MultiTaskModel that was fitted"):
            qe.train({"task": {"model": model}})

    @pytest.mark.parametrize("said", [False, True])
    def test_a_place_of_its_own_is_for_its_run_alone(
        self, notebook: Path, trained: qe.Run, monkeypatch: pytest.MonkeyPatch, said: bool
    ) -> None:
        session, other = (f"sqlite:///{notebook / name}" for name in ("mlflow.db", "other.db"))
        shutil.copy(notebook / "mlflow.db", notebook / "other.db")

        def train(task: dict[str, object], name: str) -> SimpleNamespace:
            mlflow.set_tracking_uri(R.get_uri())  # as Qlib's recorder does
            return SimpleNamespace(id=trained.id)

        monkeypatch.setattr("qlib_ext.workflow.run.task_train", train)
        manager = {"class": "qlib_ext.workflow.experiment.ExperimentManager", "kwargs": {"uri": other}}
        workflow = {
            "qlib_init": {"provider_uri": "cn", "region": "cn", "exp_manager": manager},
            "task": yaml.safe_load(trained.fetch(["config.yaml"]).text("config.yaml")),
        }
        run = qe.train(workflow, tracking_uri=session if said else None)  # what is said comes first
        assert run.client.tracking_uri == (session if said else other)
        assert os.environ["MLFLOW_TRACKING_URI"] == session
        assert mlflow.get_tracking_uri() == session

    def test_a_class_of_the_notebook_walks_no_way_forward(
        self, notebook: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        import __main__

        monkeypatch.setattr(
            __main__, "Mine", type("Mine", (LSTM,), {"__module__": "__main__"}), raising=False
        )
        monkeypatch.setenv("QLIB_EXT_PACKAGES", "")
        model = MultiTaskModel(partial(__main__.Mine, hidden_size=4), TASKS, SingleTask())
        data = qe.Store("cn").dataset("csi300")
        data.config["kwargs"]["segments"] = {"walk_forward": {}}
        with pytest.raises(UserError, match=r"processes of their own, which do not find __main__\.Mine"):
            qe.train(model=model, dataset=data)


class TestStore:
    def test_it_shows_what_the_command_says(self, notebook: Path) -> None:
        shown = qe.Store("cn")._repr_html_()
        assert "164 trading days" in shown
        assert "csi300" in shown

    def test_a_day_without_trading_is_answered_with_the_nearest(self, notebook: Path) -> None:
        with pytest.raises(UserError, match="2016-05-02; the nearest are 2016-04-29 and 2016-05-03"):
            qe.Store("cn").members("csi300", "2016-05-02")

    def test_a_dataset_has_no_place_for_what_none_takes(self, notebook: Path) -> None:
        with pytest.raises(
            UserError, match=r"no place for `tradeable_prices` \(did you mean tradable_prices\?\)"
        ):
            qe.Store("cn").dataset("csi300", tradeable_prices="cn")


class TestImport:
    def test_it_is_quick_and_quiet(self) -> None:
        import subprocess
        import sys

        code = "import sys, qlib_ext.api; print([m for m in ('qlib', 'torch', 'mlflow', 'matplotlib') if m in sys.modules])"
        ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert (ended.stdout, ended.stderr) == ("[]\n", "")
