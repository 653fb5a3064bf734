from __future__ import annotations

import copy
import json
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import qlib
import torch
from mlflow.tracking import MlflowClient
from qlib.model.trainer import task_train

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.model.multi_task import read_weights
from qlib_ext.model.soup import Soup, compare, mean_of, stirred
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.workflow.soup import of_runs
from tests.model.test_multi_task import CONFIG, HANDLER, SEGMENTS, SampleMarket

SIGNAL = {"class": "qlib_ext.records.signal.SignalRecord"}


def task(**changes):
    given = {**copy.deepcopy(CONFIG), **changes}
    return {
        "model": {"class": "qlib_ext.model.multi_task.MultiTaskModel", "kwargs": given},
        "dataset": {
            "class": "qlib_ext.data.dataset.DailyPanelDataset",
            "kwargs": {"handler": copy.deepcopy(HANDLER), "segments": copy.deepcopy(SEGMENTS)},
        },
        "record": [SIGNAL],
    }


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    """A store, and MLflow on it."""
    folder = tmp_path_factory.mktemp("soup")
    SampleMarket(seed=3, stocks=40, start="2015-01-01", end="2015-12-31").write(folder / "store")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)  # MLflow puts artifacts beside its database, in the working directory
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder}/mlflow.db")
        manager = {
            "class": "ExperimentManager",
            "module_path": "qlib_ext.workflow.experiment",
            "kwargs": {"uri": f"sqlite:///{folder}/mlflow.db", "default_exp_name": "soup"},
        }
        qlib.init(provider_uri=str(folder / "store"), region="cn", kernels=1, exp_manager=manager)
        yield folder


@pytest.fixture(scope="module")
def runs(home):
    """Three of one network, by three learning rates, and one of another."""
    made = [
        task_train(task(trainer={"n_epochs": 1, "learning_rate": rate}), "soup").id
        for rate in (1e-3, 3e-2, 1e-2)
    ]
    backbone = copy.deepcopy(CONFIG["backbone"])
    backbone["kwargs"]["hidden_size"] = 5
    return made, task_train(task(backbone=backbone, trainer={"n_epochs": 1}), "soup").id


@pytest.fixture(scope="module")
def client(home):
    return MlflowClient(f"sqlite:///{home}/mlflow.db")


class Guarded(DailyPanelDataset):
    def panels(self, segment, device="cpu"):
        if segment == "test":
            raise AssertionError("the test segment was read in choosing")
        return super().panels(segment, device)


def soup(runs, kind="greedy", **changes):
    kwargs = {name: copy.deepcopy(CONFIG[name]) for name in ("backbone", "tasks")}
    return Soup(runs=runs, kind=kind, device="cpu", **{**kwargs, **changes})


class TestStirred:
    VALUES = (0.3, 0.9, 0.5, 0.1)

    @staticmethod
    def judged(chosen):
        """Means of an even number of networks are worth less than their best."""
        values = [each["w"].item() for each in chosen]
        return max(values) - (0.05 if len(values) % 2 == 0 else 0.0)

    def weights(self):
        return [{"w": torch.tensor(value)} for value in self.VALUES]

    def test_greedy_takes_in_what_does_no_harm(self):
        rows = stirred(self.weights(), self.judged)
        assert [row["member"] for row in rows] == [1, 2, 0, 3]
        assert [row["kept"] for row in rows] == [True, False, False, False]
        rows = stirred(self.weights(), lambda chosen: float(len(chosen)))
        assert all(row["kept"] for row in rows)
        equal = stirred(self.weights(), lambda chosen: 0.2)
        assert [row["kept"] for row in equal] == [True] * 4, "not falling is enough"

    def test_uniform_takes_all_whatever_they_are_worth(self):
        rows = stirred(self.weights(), self.judged, everything=True)
        assert [row["kept"] for row in rows] == [True] * 4
        np.testing.assert_allclose([row["with_it"] for row in rows], [0.9, 0.85, 0.9, 0.85], rtol=1e-6)

    def test_a_network_without_a_figure_comes_last_and_does_not_go_in(self):
        def judge(chosen):
            values = [each["w"].item() for each in chosen]
            return math.nan if 0.3 in [round(value, 4) for value in values] else max(values)

        rows = stirred(self.weights(), judge)
        assert [row["member"] for row in rows] == [1, 2, 3, 0]
        assert [row["kept"] for row in rows] == [True, True, True, False]
        with pytest.raises(UserError, match="no run has a validation RankIC"):
            stirred(self.weights(), lambda chosen: math.nan)


class TestMean:
    def test_of_equal_weights_is_itself(self):
        weights = {"w": torch.randn(50), "count": torch.tensor(7)}
        found = mean_of([weights] * 3)
        assert torch.equal(found["w"], weights["w"])
        assert found["count"] == 7

    def test_of_others_is_their_mean(self):
        first, second = torch.randn(9), torch.randn(9)
        found = mean_of([{"w": first}, {"w": second}])["w"]
        torch.testing.assert_close(found, (first + second) / 2)
        assert found.dtype == torch.float32


class TestFit:
    @pytest.fixture(scope="class")
    def guarded(self, home):
        return Guarded(handler=HANDLER, segments=SEGMENTS)

    @pytest.mark.parametrize("kind", ["greedy", "uniform"])
    def test_the_test_segment_is_not_read_in_choosing(self, runs, guarded, kind):
        made = soup(runs[0], kind)
        made.fit(guarded)
        assert {row["run_id"] for row in made.members} == {*runs[0]}

    def test_runs_of_other_networks_are_refused(self, runs, guarded):
        with pytest.raises(
            UserError, match=r"`backbone` of the run .* must be as the run .* has it.*of one network"
        ):
            soup([*runs[0], runs[1]]).fit(guarded)
        with pytest.raises(UserError, match="`backbone` of this workflow must be as the runs have it"):
            soup(runs[0], backbone={**CONFIG["backbone"], "kwargs": {"hidden_size": 9}}).fit(guarded)

    def test_and_of_other_data(self, runs, home):
        handler = copy.deepcopy(HANDLER)
        handler["kwargs"]["fit_start_time"] = "2015-06-08"
        with pytest.raises(UserError, match="the features must be normalised as those of the run"):
            soup(runs[0]).fit(DailyPanelDataset(handler=handler, segments=SEGMENTS))
        # without a test segment, validation has days that the runs were not chosen by: no label of theirs reaches into it
        less = {name: days for name, days in SEGMENTS.items() if name != "test"}
        with pytest.raises(UserError, match=r"`segments.valid` of this workflow must be as the runs have it"):
            soup(runs[0]).fit(DailyPanelDataset(handler=HANDLER, segments=less))
        with pytest.raises(
            UserError, match="`fingerprint` of the run b must be as the run a has it, '1', found '2'"
        ):
            compare({"fingerprint": "2"}, {"fingerprint": "1"}, "the run b", "as the run a has it")

    def test_before_anything_is_loaded(self, runs, home, monkeypatch):
        spec = DailyPanelDataset.spec(handler=HANDLER, segments=SEGMENTS)
        soup(runs[0]).check_before(spec)
        with pytest.raises(UserError, match="`backbone` of the run"):
            soup([runs[0][0], runs[1]]).check_before(spec)
        monkeypatch.setattr(type(spec.store), "fingerprint", lambda self: "another")
        with pytest.raises(UserError, match="`fingerprint` of this workflow must be as the runs have it"):
            soup(runs[0]).check_before(spec)


class TestRun:
    """What `qlib-ext soup` runs."""

    @pytest.fixture(scope="class")
    def made(self, runs, client):
        recorder = task_train(of_runs(task(), runs[0], "uniform"), "soups")
        return client.get_run(recorder.id)

    def test_its_weights_are_the_mean_of_theirs(self, made, runs, client, tmp_path):
        def weights(run_id):
            folder = Path(client.download_artifacts(run_id, "training", str(tmp_path)))
            return read_weights(folder)[1]

        found = weights(made.info.run_id)
        members = [weights(run_id) for run_id in runs[0]]
        assert found.keys() == members[0].keys()
        for name, value in mean_of(members).items():
            assert torch.equal(found[name], value), name

    def test_it_says_what_went_in(self, made, runs, client, tmp_path):
        path = Path(client.download_artifacts(made.info.run_id, "soup/members.json", str(tmp_path)))
        rows = json.loads(path.read_text())
        assert {row["run_id"] for row in rows} == {*runs[0]}
        assert all(row["kept"] for row in rows)
        assert made.data.tags["soup"] == "uniform, 3 of 3 runs"
        assert made.data.metrics["valid/rank_ic"] == pytest.approx(rows[-1]["with_it"])

    def test_it_is_scored_again_as_any_run(self, made, client, tmp_path):
        """As `qlib-ext recommend` does it."""
        run = TrainedRun.open(client, made, tmp_path)
        days = tuple(pd.Timestamp(day) for day in SEGMENTS["test"])
        dataset = run.dataset({"test": days})
        found = run.model(dataset).predict(dataset)
        expected = run.table("signal/predictions.parquet").loc[found.index]
        np.testing.assert_allclose(found["score"], expected["score"], rtol=1e-5)

    def test_a_run_of_a_soup_may_go_into_another(self, made, runs, home):
        again = soup([made.info.run_id, runs[0][0]])
        assert len(again._read()) == 2


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": "abc"}, "`runs` must be a list of at least two runs, found 'abc'"),
        ({"runs": ["abc", "abc"]}, "`runs` must be a list of at least two runs"),
        ({"kind": "best"}, "`kind` must be one of greedy, uniform, found 'best'"),
    ],
)
def test_messages(changes, message):
    with pytest.raises(UserError, match=message):
        soup(**{"runs": ["abc", "def"], **changes})
