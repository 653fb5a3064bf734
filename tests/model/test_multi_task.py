from __future__ import annotations

import copy
import json
import logging
import math
import pickle
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import qlib
import torch
from qlib.data.dataset.handler import DataHandlerLP
from qlib.workflow import R
from safetensors.torch import load_file

from qlib_ext.checks import UserError
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.multi_task import MultiTaskModel, _count_classes, history_frame
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

HANDLER = {
    "class": "qlib_ext.data.handlers.panel.PanelHandler",
    "kwargs": {
        "instruments": "csi300",
        "features": {"class": "qlib_ext.features.alpha360.Alpha360", "kwargs": {"lookback_days": 5}},
        "fit_start_time": "2015-06-01",
        "fit_end_time": "2015-06-30",
        "infer_processors": [{"class": "qlib_ext.data.processors.momentum_line.MomentumLine"}],
        "learn_processors": [{"class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm"}],
    },
}
SEGMENTS = {
    "train": ("2015-06-01", "2015-06-30"),
    "valid": ("2015-07-01", "2015-07-14"),
    "test": ("2015-07-15", "2015-07-24"),
}
LSTM = "qlib_ext.model.backbones.lstm.LSTM"
CQB = "qlib_ext.model.balancers.cqb.CQB"
MSE = "qlib_ext.model.losses.mse.MSE"
RANKING = "qlib_ext.model.losses.approx_ndcg.ApproxNDCG"
CONFIG = {
    "backbone": {"class": LSTM, "kwargs": {"hidden_size": 4, "dropout": 0.3}},
    "tasks": {
        "score": {"label": "RETURN", "loss": {"class": MSE}},
        "momentum": {"label": "MOMENTUM", "loss": {"class": RANKING}},
    },
    "balancer": {"class": CQB, "kwargs": {"window": 1}},
    "trainer": {"n_epochs": 2, "learning_rate": 1e-2},
    "checkpoint_dir": None,
    "device": "cpu",
}


def model(**changes):
    return MultiTaskModel(**{**copy.deepcopy(CONFIG), **changes})


def changed(path, value):
    """The configuration with one entry changed, the path in dots."""
    config = copy.deepcopy(CONFIG)
    *keys, last = path.split(".")
    inner = config
    for key in keys:
        inner = inner[key]
    inner[last] = value
    return config


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    root = tmp_path_factory.mktemp("market") / "sample"
    SampleMarket(seed=3, stocks=40, start="2015-01-01", end="2015-12-31").write(root)
    return root


@pytest.fixture(scope="module")
def dataset(store):
    qlib.init(provider_uri=str(store), region="cn", kernels=1)
    return DailyPanelDataset(handler=HANDLER, segments=SEGMENTS)


@pytest.fixture(scope="module")
def fitted(dataset):
    trained = model()
    trained.fit(dataset)
    return trained


class TestConstructor:
    """Whatever is wrong in the configuration is said before any data are read."""

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("backbone", "LSTM", "`backbone` must be a mapping, found 'LSTM'"),
            ("backbone", {}, "`backbone` must be a mapping with `class`"),
            (
                "backbone.class",
                "torch.nn.LSTM",
                r"`backbone.class` must be a Backbone, found torch\.nn\.LSTM",
            ),
            (
                "backbone.class",
                "qlib_ext.model.backbones.lstm.LTSM",
                "`LTSM` is not in .* .did you mean LSTM",
            ),
            (
                "backbone.kwargs.hidden",
                3,
                "`backbone.kwargs` has no place for `hidden` .did you mean hidden_size",
            ),
            ("tasks", ["score"], r"`tasks` must be a mapping, found \['score'\]"),
            ("tasks", {}, "`tasks` must hold a regression task named `score`, found none"),
            ("tasks", {"scores": {}}, "`tasks` must hold a regression task named `score`, found scores"),
            ("tasks.score.loss.class", RANKING, "the task `score` must be a regression"),
            ("tasks.score.loss.class", MSE + "s", "`tasks.score.loss.class` names no class"),
            ("tasks.score.labels", "RETURN", "`key of tasks.score` must be one of .*, found 'labels'"),
            ("tasks.momentum.head", {"class": LSTM}, "`tasks.momentum.head.kwargs` do not fit LSTM"),
            ("tasks.momentum.classes", 1, "`tasks.momentum.classes` must be at least 2, found 1"),
            ("balancer", None, "`balancer` must be a mapping, found None"),
            ("balancer.class", LSTM, "`balancer.class` must be a Balancer, found"),
            (
                "balancer.kwargs",
                {"b": 6},
                "`balancer.kwargs` has no place for `b`.*; CQB takes beta, decay, window",
            ),
            ("balancer.kwargs", {"window": 0}, "`window` must be at least 1, found 0"),
            ("balancer.kwargs", 6, "`balancer.kwargs` must be a mapping, found 6"),
            (
                "balancer",
                {"class": "qlib_ext.model.balancers.single_task.SingleTask", "kwargs": {"task": "return"}},
                "`task` must be one of momentum, score, found 'return'",
            ),
            ("trainer", 100, "`trainer` must be a mapping, found 100"),
            (
                "trainer.epochs",
                3,
                "`key of trainer` must be one of .*, found 'epochs' .did you mean n_epochs",
            ),
            ("trainer.n_epochs", 0, "`n_epochs` must be at least 1, found 0"),
            (
                "trainer.phases",
                [{"tasks": ["direction"]}, {"tasks": "all"}],
                r"`phases\[0\].tasks` must be one of momentum, score, found 'direction'",
            ),
            (
                "trainer.augmentations",
                [{"class": "qlib_ext.model.augmentations.crop.Corp"}],
                r"`augmentations\[0\].class` names no class: `Corp` .*did you mean Crop",
            ),
            ("seed", -1, "`seed` must be at least 0, found -1"),
            ("seed", "0", "`seed` must be an integer, found '0'"),
            ("device", "gpu", "`device` must be one of auto, cpu, cuda, found 'gpu'"),
            ("resume", "yes", "`resume` must be one of 0, 1, found 'yes'"),
        ],
    )
    def test_messages(self, path, value, message):
        with pytest.raises(UserError, match=message):
            MultiTaskModel(**changed(path, value))

    def test_a_balancer_that_does_not_fit_a_phase(self):
        balancer = {"class": "qlib_ext.model.balancers.single_task.SingleTask"}
        phases = [{"tasks": ["momentum"], "selection": "loss"}, {"tasks": "all"}]
        with pytest.raises(
            UserError,
            match=r"the balancer does not work with phases\[0\] \(momentum\): `task` must be one of momentum, found",
        ):
            model(balancer=balancer, trainer={"phases": phases})
        model(balancer=balancer, trainer={"phases": phases[1:]})

    def test_cuda_where_there_is_none(self, monkeypatch):
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        with pytest.raises(
            UserError, match="`device` is cuda, and this torch finds no CUDA device: use `auto` or `cpu`"
        ):
            model(device="cuda")
        assert model(device="auto").device == "cpu"

    def test_draws_no_random_number(self):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        model()
        assert torch.equal(torch.get_rng_state(), before)

    def test_leaves_the_configuration_alone(self):
        config = copy.deepcopy(CONFIG)
        MultiTaskModel(**config)
        assert config == CONFIG

    def test_a_run_needs_no_trainer_section(self):
        assert vars(model(trainer=None).options)["n_epochs"] == 100


class TestSizes:
    """What the backbone and the heads say of their arguments, at the sizes of the dataset, before any of it is loaded."""

    @pytest.fixture(scope="class")
    def known(self, dataset):
        return DailyPanelDataset.spec(handler=HANDLER, segments=SEGMENTS)

    RESNEXT = "qlib_ext.model.backbones.resnext.ResNeXt"
    MLP = "qlib_ext.model.heads.mlp.MLPHead"

    @pytest.mark.parametrize(
        ("path", "value", "message"),
        [
            ("backbone.kwargs.hidden_size", 0, "`hidden_size` must be at least 1, found 0"),
            (
                "tasks.momentum.head",
                {"class": MLP, "kwargs": {"hidden_size": 0}},
                "`hidden_size` must be at least 1, found 0",
            ),
            ("backbone", {"class": RESNEXT, "kwargs": {"stages": 0}}, "`stages` must be at least 1, found 0"),
            (
                "backbone",
                {"class": RESNEXT, "kwargs": {"stages": 4}},
                "needs a dataset with `lookback_days` of at least 8, found 5",
            ),
        ],
    )
    def test_messages(self, known, dataset, monkeypatch, path, value, message):
        wrong = MultiTaskModel(**changed(path, value))
        with pytest.raises(UserError, match=message):
            wrong.check_before(known)
        monkeypatch.setattr(DailyPanelDataset, "panels", lambda *_: pytest.fail("moved the market first"))
        with pytest.raises(UserError, match=message):
            wrong.fit(dataset)

    def test_what_fits(self, known):
        torch.manual_seed(0)
        before = torch.get_rng_state()
        model(backbone={"class": self.RESNEXT, "kwargs": {"stages": 3}}).check_before(known)
        assert torch.equal(torch.get_rng_state(), before)

    def test_what_is_checked_is_what_is_trained(self, dataset, monkeypatch):
        made = model(trainer={"n_epochs": 1})
        monkeypatch.setattr(Task, "from_config", lambda *_: pytest.fail("a task is built twice"))
        monkeypatch.setattr(
            "qlib_ext.model.multi_task.build", lambda *_, **__: pytest.fail("a balancer, too")
        )
        seen = []
        fit = Trainer.fit
        monkeypatch.setattr(
            Trainer, "fit", lambda self, *a, **k: seen.append(self.balancer) or fit(self, *a, **k)
        )
        for _ in range(2):
            made.fit(dataset)
        assert seen == [made._balancer, made._balancer]

    def test_a_second_fit_is_the_first_again(self, dataset):
        made, again = model(), model()
        made.fit(dataset)
        again.fit(dataset)
        again.fit(dataset)
        pd.testing.assert_frame_equal(again.predict(dataset), made.predict(dataset), check_exact=True)


class TestFitErrors:
    def test_a_reweighter(self, dataset):
        with pytest.raises(UserError, match="`reweighter` must be left out"):
            model().fit(dataset, reweighter=object())

    def test_another_dataset(self):
        with pytest.raises(UserError, match="`dataset` must be a DailyPanelDataset, found DataFrame"):
            model().fit(pd.DataFrame())

    def test_no_validation_segment(self, dataset):
        without = copy.copy(dataset)
        without.segments = {"train": dataset.segments["train"], "test": dataset.segments["test"]}
        with pytest.raises(UserError, match="`segments` must hold `valid`, found train, test"):
            model().fit(without)

    def test_an_unknown_label_names_the_known_ones(self, dataset):
        config = changed("tasks.score.label", "RETURNS")
        with pytest.raises(
            UserError,
            match=r"`tasks.score.label` must be one of the dataset's labels \(RETURN, NEXT_RETURN, MOMENTUM, "
            r"MOMENTUM_PERSISTENCE\), found 'RETURNS' \(did you mean RETURN",
        ):
            MultiTaskModel(**config).fit(dataset)

    def test_a_label_without_classes(self, dataset):
        config = changed("tasks.momentum.label", "NEXT_RETURN")
        with pytest.raises(
            UserError,
            match=r"`tasks.momentum.label` must be a label of classes 0, 1, \.\.\., found -?0\.\d+ in NEXT_RETURN",
        ):
            MultiTaskModel(**config).fit(dataset)

    def test_too_few_classes(self, dataset):
        config = changed("tasks.momentum.classes", 4)
        with pytest.raises(
            UserError,
            match=r"`tasks.momentum.classes` must be at least 5, as MOMENTUM holds the class 4; found 4",
        ):
            MultiTaskModel(**config).fit(dataset)

    def test_predict_before_fit(self, dataset):
        with pytest.raises(RuntimeError, match="the model has no weights yet: call `fit` first"):
            model().predict(dataset)


class TestClasses:
    @staticmethod
    def upto(highest):
        def change(arrays):
            arrays["MOMENTUM"][arrays["MOMENTUM"] > highest] = highest

        return change

    def test_a_class_that_only_validation_holds_counts(self, make_panels):
        """Else the first validation would end the run, after an epoch of training."""
        task = Task.from_config("momentum", CONFIG["tasks"]["momentum"])
        train, valid = make_panels(change=self.upto(2)), make_panels(seed=1)
        assert _count_classes(task, train) == 3
        assert _count_classes(task, train, valid) == 5

    def test_more_classes_than_are_seen(self, make_panels):
        task = Task.from_config("momentum", {**CONFIG["tasks"]["momentum"], "classes": 7})
        assert _count_classes(task, make_panels()) == 7

    def test_no_label_or_one_class_leaves_a_choice_of_two(self, make_panels):
        task = Task.from_config("momentum", CONFIG["tasks"]["momentum"])
        assert _count_classes(task, make_panels(change=self.upto(0))) == 2
        assert _count_classes(task, make_panels(change=lambda arrays: arrays["MOMENTUM"].fill(np.nan))) == 2

    def test_a_label_below_0(self, make_panels):
        task = Task.from_config("momentum", CONFIG["tasks"]["momentum"])
        with pytest.raises(UserError, match=r"must be a label of classes 0, 1, \.\.\., found -1 in MOMENTUM"):
            _count_classes(task, make_panels(change=lambda arrays: arrays["MOMENTUM"].fill(-1)))

    def test_a_label_that_only_training_sees_as_no_class(self, make_panels):
        """A loss would take the whole part for the class, and says nothing."""
        task = Task.from_config("momentum", CONFIG["tasks"]["momentum"])
        panels = make_panels()
        panels._labels["MOMENTUM"] = panels._labels["MOMENTUM"] - 0.5
        with pytest.raises(
            UserError,
            match=r"must be a label of classes 0, 1, \.\.\., found .*\.5 in MOMENTUM as training sees it",
        ):
            _count_classes(task, panels)


class TestPredict:
    def test_a_row_a_stock_and_day_of_the_segment(self, fitted, dataset):
        found = fitted.predict(dataset)
        expected = dataset.prepare("test", col_set="label", data_key=DataHandlerLP.DK_R)
        assert found.index.names == ["datetime", "instrument"]
        assert found.index.is_unique
        assert set(found.index) == set(expected.index)
        days = found.index.get_level_values("datetime")
        assert (days.min(), days.max()) == (pd.Timestamp("2015-07-15"), pd.Timestamp("2015-07-24"))

    def test_columns(self, fitted, dataset):
        found = fitted.predict(dataset)
        assert list(found.columns) == ["score", *(f"momentum_{c}" for c in range(5))]
        assert (found.dtypes == np.float32).all()
        assert np.isfinite(found.to_numpy()).all()
        np.testing.assert_allclose(found.filter(like="momentum").sum(axis=1), 1.0, rtol=1e-5)

    def test_a_second_regression_has_a_column_of_its_name(self, dataset):
        tasks = {"next": {"label": "NEXT_RETURN", "loss": {"class": MSE}}, "score": CONFIG["tasks"]["score"]}
        trained = model(tasks=tasks, trainer={"n_epochs": 1})
        trained.fit(dataset)
        assert list(trained.predict(dataset).columns) == ["score", "next"]

    def test_a_day_alone_has_the_scores_of_its_segment(self, fitted, dataset):
        panel = dataset.panels("test")[3]
        codes = [dataset.instruments[k] for k in panel.instruments]
        expected = fitted.predict(dataset)["score"].loc[panel.date].reindex(codes)
        np.testing.assert_array_equal(fitted.score_day(panel), expected)
        other = replace(panel, features=panel.features.flip(0))
        np.testing.assert_allclose(fitted.score_day(other), expected[::-1], rtol=1e-5)
        with pytest.raises(RuntimeError, match="no weights yet"):
            model().score_day(panel)

    def test_each_stock_has_its_own_score(self, fitted, dataset):
        """Scores are where their (date, instrument) says, worked out stock by stock."""
        found = fitted.predict(dataset)
        panel = dataset.panels("test")[2]
        with torch.no_grad():
            score = fitted._network(panel)["score"]
        for position, column in enumerate(panel.instruments.tolist()):
            row = panel.date, dataset.instruments[column]
            assert found.loc[row, "score"] == pytest.approx(score[position].item(), rel=1e-6)

    def test_any_segment(self, fitted, dataset):
        days = fitted.predict(dataset, "valid").index.get_level_values("datetime")
        assert days.min() == pd.Timestamp("2015-07-01")
        with pytest.raises(UserError, match="`segment` must be one of train, valid, test, found 'tests'"):
            fitted.predict(dataset, "tests")

    def test_says_what_the_best_epoch_measured(self, fitted, dataset):
        score = fitted.predict(dataset, "valid")["score"]
        label = dataset.prepare("valid", col_set="label", data_key=DataHandlerLP.DK_R)["RETURN"]
        both = pd.DataFrame({"score": score, "label": label})
        daily = both.groupby(level="datetime").apply(lambda day: day.corr(method="spearman").iloc[0, 1])
        best = max(fitted.history, key=lambda record: record["valid/rank_ic"])
        assert daily.mean() == pytest.approx(best["valid/rank_ic"], rel=1e-6)

    def test_is_in_float32_after_training_in_bfloat16(self, dataset):
        trained = model(trainer={"n_epochs": 1, "precision": "bfloat16"})
        trained.fit(dataset)
        found = trained.predict(dataset)
        assert (found.dtypes == np.float32).all()
        assert (
            torch.tensor(found["score"].to_numpy()).bfloat16().float().ne(torch.tensor(found["score"])).any()
        )


class TestFit:
    def test_the_test_segment_is_never_read(self, store):
        class Guarded(DailyPanelDataset):
            def panels(self, segment, device="cpu"):
                asked.append(segment)
                if segment == "test":
                    raise AssertionError("the test segment was read in training")
                return super().panels(segment, device)

        asked = []
        qlib.init(provider_uri=str(store), region="cn", kernels=1)
        model().fit(Guarded(handler=HANDLER, segments=SEGMENTS))
        assert asked == ["train", "valid"]

    def test_one_seed_one_result(self, fitted, dataset):
        again, other = model(), model(seed=1)
        torch.rand(5)
        for trained in (again, other):
            trained.fit(dataset)
        expected = fitted.predict(dataset)
        pd.testing.assert_frame_equal(again.predict(dataset), expected, check_exact=True)
        assert (other.predict(dataset)["score"] != expected["score"]).mean() > 0.9
        assert [{k: v for k, v in record.items() if "seconds" not in k} for record in again.history] == [
            {k: v for k, v in record.items() if "seconds" not in k} for record in fitted.history
        ]

    def test_and_the_same_model_may_be_fitted_again(self, fitted, dataset):
        again = model()
        for _ in range(2):
            again.fit(dataset)
        pd.testing.assert_frame_equal(again.predict(dataset), fitted.predict(dataset), check_exact=True)

    def test_tells_each_epoch(self, dataset, caplog):
        with caplog.at_level(logging.INFO, logger="qlib_ext.model"):
            model().fit(dataset)
        assert "training score, momentum on cpu: " in caplog.text
        for epoch in (0, 1):
            assert f"epoch {epoch}: loss train/valid score " in caplog.text
        assert "best epoch" in caplog.text


class TestResume:
    @pytest.fixture
    def kill(self, monkeypatch):
        """Kill the training before a step."""

        def before(count):
            step, steps = Trainer._step, iter(range(10**6))

            def mortal(self, train, position):
                if next(steps) == count:
                    raise KeyboardInterrupt
                return step(self, train, position)

            monkeypatch.setattr(Trainer, "_step", mortal)

        return before

    def interrupted(self, dataset, kill, monkeypatch, tmp_path, epochs, **changes):
        """Leave a checkpoint after `epochs` whole epochs."""
        days = len(dataset.panels("train"))
        kill(epochs * days + 3)
        with pytest.raises(KeyboardInterrupt):
            model(checkpoint_dir=str(tmp_path), **changes).fit(dataset)
        monkeypatch.undo()

    def test_ends_as_the_run_that_was_not_interrupted(
        self, fitted, dataset, kill, monkeypatch, tmp_path, caplog
    ):
        self.interrupted(dataset, kill, monkeypatch, tmp_path, 1)
        resumed = model(checkpoint_dir=str(tmp_path), resume=1)
        with caplog.at_level(logging.INFO, logger="qlib_ext.model"):
            resumed.fit(dataset)
        assert "taking up" in caplog.text
        pd.testing.assert_frame_equal(resumed.predict(dataset), fitted.predict(dataset), check_exact=True)

    @pytest.mark.parametrize(
        "changes",
        [
            {"seed": 1},
            {"backbone": {"class": LSTM, "kwargs": {"hidden_size": 5}}},
            {"trainer": {**CONFIG["trainer"], "learning_rate": 2e-2}},
            {"balancer": {"class": CQB, "kwargs": {"window": 2}}},
            {"tasks": {"score": CONFIG["tasks"]["score"]}},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_leaves_the_checkpoint_of_another_configuration(
        self, dataset, kill, monkeypatch, tmp_path, caplog, changes
    ):
        self.interrupted(dataset, kill, monkeypatch, tmp_path, 1)
        other = model(checkpoint_dir=str(tmp_path), resume=1, **changes)
        with caplog.at_level(logging.INFO, logger="qlib_ext.model"):
            other.fit(dataset)
        assert "no unfinished checkpoint of this configuration and data" in caplog.text
        assert len(list(tmp_path.iterdir())) == 2

    def test_and_that_of_other_data(self, store, dataset, kill, monkeypatch, tmp_path, caplog):
        self.interrupted(dataset, kill, monkeypatch, tmp_path, 1)
        segments = {**SEGMENTS, "train": ("2015-06-02", "2015-06-30")}
        qlib.init(provider_uri=str(store), region="cn", kernels=1)
        other = DailyPanelDataset(handler=HANDLER, segments=segments)
        with caplog.at_level(logging.INFO, logger="qlib_ext.model"):
            model(checkpoint_dir=str(tmp_path), resume=True).fit(other)
        assert "no unfinished checkpoint of this configuration and data" in caplog.text

    def test_leaves_that_of_other_phases_but_for_a_longer_last_one(self, dataset, tmp_path, caplog):
        def run(first, last):
            phases = [{"tasks": ["momentum"], "epochs": first, "selection": "loss"}, {"tasks": "all"}]
            trained = model(
                checkpoint_dir=str(tmp_path), resume=1, trainer={"n_epochs": last, "phases": phases}
            )
            with caplog.at_level(logging.INFO, logger="qlib_ext.model"):
                trained.fit(dataset)
            return len(trained.history)

        assert run(1, 1) == 2
        assert "taking up" not in caplog.text
        assert run(2, 1) == 3
        assert "taking up" not in caplog.text
        assert len(list(tmp_path.iterdir())) == 2
        assert run(1, 2) == 3
        assert len(list(tmp_path.iterdir())) == 2

    def test_takes_up_a_run_of_fewer_epochs(self, fitted, dataset, tmp_path):
        model(checkpoint_dir=str(tmp_path), trainer={**CONFIG["trainer"], "n_epochs": 1}).fit(dataset)
        longer = model(checkpoint_dir=str(tmp_path), resume=1)
        longer.fit(dataset)
        assert len(list(tmp_path.glob("*/*.safetensors"))) == 1
        pd.testing.assert_frame_equal(longer.predict(dataset), fitted.predict(dataset), check_exact=True)


class TestKeptEpochs:
    def test_need_a_place(self):
        with pytest.raises(UserError, match="`keep_epochs` needs a `checkpoint_dir`, found null"):
            model(keep_epochs=True)

    def test_are_asked_of_a_run_that_kept_none_before_it_goes_on(self, dataset, tmp_path):
        given = {"checkpoint_dir": str(tmp_path), "resume": 1}
        model(**given, trainer={**CONFIG["trainer"], "n_epochs": 1}).fit(dataset)
        longer = model(**given, keep_epochs=True, trainer={**CONFIG["trainer"], "n_epochs": 2})
        with pytest.raises(UserError, match=r"found none of epoch 0 in .*start afresh without RESUME=1"):
            longer.fit(dataset)
        assert longer.history == []

    def test_of_a_killed_and_resumed_run_are_all_there(self, store, tmp_path, monkeypatch):
        """The best epoch's weights are the network's, and no other's."""
        monkeypatch.chdir(tmp_path)
        manager = {
            "class": "MLflowExpManager",
            "module_path": "qlib.workflow.expm",
            "kwargs": {"uri": f"sqlite:///{tmp_path}/mlflow.db", "default_exp_name": "model"},
        }
        qlib.init(provider_uri=str(store), region="cn", kernels=1, exp_manager=manager)
        dataset = DailyPanelDataset(handler=HANDLER, segments=SEGMENTS)
        given = {"checkpoint_dir": str(tmp_path / "c"), "keep_epochs": True, "resume": 1}
        model(**given, trainer={**CONFIG["trainer"], "n_epochs": 1}).fit(dataset)
        longer = model(**given, trainer={**CONFIG["trainer"], "n_epochs": 3})
        with R.start(experiment_name="model"):
            longer.fit(dataset)
            recorder = R.get_recorder()
        fetch = partial(recorder.client.download_artifacts, recorder.id)
        epochs = load_file(fetch("training/epochs.safetensors", str(tmp_path)))
        weights = load_file(fetch("training/weights.safetensors", str(tmp_path)))
        names = {name for name in weights if not name.startswith("windows.")}
        assert {*epochs} == {f"{epoch}/{name}" for epoch in range(3) for name in names}
        best = max(record["epoch"] for record in longer.history if record["best"])
        for epoch in range(3):
            same = all(torch.equal(epochs[f"{epoch}/{name}"], weights[name]) for name in names)
            assert same == (epoch == best)
        curve = longer.learning_curve(dataset, fetch("training/epochs.safetensors", str(tmp_path)), "valid")
        table = history_frame(longer.history)
        pd.testing.assert_frame_equal(curve, table[[*curve.columns]], rtol=1e-6)
        assert "valid/loss/momentum" in curve


class TestPickle:
    def test_holds_the_configuration_and_no_weights(self, fitted, dataset):
        loaded = pickle.loads(pickle.dumps(fitted))
        assert loaded.tasks == fitted.tasks
        assert loaded.history == fitted.history
        with pytest.raises(RuntimeError, match="the model has no weights yet: call `fit` first"):
            loaded.predict(dataset)
        assert b"weight_ih_l0" not in pickle.dumps(fitted)

    def test_and_can_be_fitted(self, fitted, dataset):
        loaded = pickle.loads(pickle.dumps(model()))
        loaded.fit(dataset)
        pd.testing.assert_frame_equal(loaded.predict(dataset), fitted.predict(dataset), check_exact=True)


class TestRecorder:
    """What a run leaves behind in MLflow on SQLite."""

    @pytest.fixture(scope="class")
    def run(self, store, tmp_path_factory):
        home = tmp_path_factory.mktemp("mlflow")
        with pytest.MonkeyPatch.context() as patch:
            patch.chdir(home)  # MLflow puts artifacts beside its database, in the working directory
            manager = {
                "class": "MLflowExpManager",
                "module_path": "qlib.workflow.expm",
                "kwargs": {"uri": f"sqlite:///{home}/mlflow.db", "default_exp_name": "model"},
            }
            qlib.init(provider_uri=str(store), region="cn", kernels=1, exp_manager=manager)
            dataset = DailyPanelDataset(handler=HANDLER, segments=SEGMENTS)
            trained = model()
            with R.start(experiment_name="model"):
                trained.fit(dataset)
                recorder = R.get_recorder()
            yield recorder, trained, dataset

    @pytest.fixture
    def artifact(self, run, tmp_path):
        def fetch(name):
            return Path(run[0].client.download_artifacts(run[0].id, f"training/{name}", str(tmp_path)))

        return fetch

    def test_is_the_same_training_as_without(self, run, fitted):
        _, trained, dataset = run
        pd.testing.assert_frame_equal(trained.predict(dataset), fitted.predict(dataset), check_exact=True)

    def test_metrics_of_every_epoch(self, run):
        recorder, trained, _ = run
        logged = recorder.client.get_run(recorder.id).data.metrics
        assert set(logged) == set(trained.history[0]) - {"epoch"}
        for name in logged:
            steps = {m.step: m.value for m in recorder.client.get_metric_history(recorder.id, name)}
            assert steps == {record["epoch"]: record[name] for record in trained.history}

    @pytest.fixture
    def begun(self, run, monkeypatch):
        """The weights with which a training begins; it is not gone on with."""
        monkeypatch.setenv("MLFLOW_TRACKING_URI", run[0].uri)

        def weights(trained):
            caught = {}

            def fit(self, *_, **__):
                caught.update({name: value.clone() for name, value in self.network.state_dict().items()})
                raise KeyboardInterrupt

            monkeypatch.setattr(Trainer, "fit", fit)
            with pytest.raises(KeyboardInterrupt):
                trained.fit(run[2])
            return caught

        return weights

    def test_a_warm_start_begins_from_the_weights_of_the_run(self, run, begun):
        recorder, trained, _ = run
        warm, cold = begun(model(start_from=recorder.id)), begun(model())
        kept = trained._network.state_dict()
        assert all(torch.equal(warm[name], kept[name]) for name in kept)
        assert not all(torch.equal(cold[name], kept[name]) for name in kept)

    @pytest.mark.parametrize(
        ("changes", "message"),
        [
            ({"backbone": {"class": LSTM, "kwargs": {"hidden_size": 5}}}, "do not fit the network"),
            ({"tasks": {"score": CONFIG["tasks"]["score"]}, "balancer": None}, "do not fit the network"),
        ],
    )
    def test_a_warm_start_of_another_network_is_refused(self, run, begun, changes, message):
        if changes.get("balancer", 0) is None:
            changes = changes | {"balancer": {"class": "qlib_ext.model.balancers.equal.EqualWeighting"}}
        with pytest.raises(UserError, match=message):
            begun(model(start_from=run[0].id, **changes))

    def test_from_snapshots_it_begins_with_the_newest(self, run, begun, dataset, monkeypatch, tmp_path):
        """And the snapshots themselves predict again what they predicted."""
        recorder, _, _ = run
        averaging = {"class": "qlib_ext.model.averaging.snapshots.Snapshots", "kwargs": {"cycle": 1}}
        with R.start(experiment_name="model"):
            trained = model(trainer={**CONFIG["trainer"], "n_epochs": 3, "averaging": averaging})
            trained.fit(dataset)
            own = R.get_recorder().id
        folder = recorder.client.download_artifacts(own, "training", str(tmp_path))
        again = model()
        again.restore(folder, dataset)
        pd.testing.assert_frame_equal(again.predict(dataset), trained.predict(dataset), check_exact=True)
        newest = trained._network.members[-1].state_dict()
        warm = begun(model(start_from=own))
        assert all(torch.equal(warm[name], newest[name]) for name in newest)

    def test_an_average_is_in_the_identity_and_none_is_not(self, dataset):
        assert "averaging" not in model()._identity(dataset)["trainer"]
        ema = {"class": "qlib_ext.model.averaging.ema.EMA", "kwargs": {"decay": 0.9}}
        found = model(trainer={"averaging": ema})._identity(dataset)["trainer"]["averaging"]
        assert str(found) == "EMA(decay=0.9)"

    def test_what_a_training_begins_from_is_in_its_identity(self, dataset):
        assert "start_from" not in model()._identity(dataset)
        assert model(start_from="a" * 32)._identity(dataset)["start_from"] == "a" * 32

    def test_tags(self, run):
        recorder = run[0]
        tags = recorder.client.get_run(recorder.id).data.tags
        assert (tags["device"], tags["precision"]) == ("cpu", "float32")

    def test_artifacts(self, run):
        found = {item.path for item in run[0].client.list_artifacts(run[0].id, "training")}
        names = ("history.csv", "history.parquet", "network.json", "weights.safetensors")
        assert found == {f"training/{name}" for name in names}

    def test_history(self, run, artifact):
        table, text = pd.read_parquet(artifact("history.parquet")), pd.read_csv(artifact("history.csv"))
        pd.testing.assert_frame_equal(table, history_frame(run[1].history))
        pd.testing.assert_frame_equal(text, table, rtol=1e-12)
        assert (table["epoch"].dtype, table["best"].dtype) == (np.dtype(int), np.dtype(bool))
        assert table["best"].iloc[0]

    def test_the_weights_give_the_predictions_again_bit_for_bit(self, run, artifact):
        """From the two files alone, without the model that wrote them."""
        _, trained, dataset = run
        description = json.loads(artifact("network.json").read_text())
        tensors = load_file(artifact("weights.safetensors"))
        tasks = [
            replace(Task.from_config(name, config), classes=description["classes"].get(name))
            for name, config in description["tasks"].items()
        ]
        network = MultiTaskNetwork(
            description["backbone"],
            tasks,
            num_features=len(description["fields"]),
            lookback_days=description["lookback_days"],
        )
        features = Alpha360(description["fields"], description["lookback_days"])
        features.median, features.scale = (
            tensors.pop(f"windows.{name}").numpy() for name in ("median", "scale")
        )
        network.load_state_dict(tensors)
        network.eval()
        panels = dataset.panels("test")
        panels.features = features
        expected = trained.predict(dataset)
        with torch.inference_mode():
            predictions = [network(panel) for panel in panels]
            score = torch.cat([prediction["score"] for prediction in predictions])
            momentum = torch.cat([prediction["momentum"].softmax(dim=1) for prediction in predictions])
        assert np.array_equal(score.numpy(), expected["score"].to_numpy())
        assert np.array_equal(momentum.numpy(), expected.filter(like="momentum_").to_numpy())

    @pytest.mark.parametrize("damage", ["a bit", "the end"])
    def test_damaged_weights_are_not_scored_with(self, run, artifact, damage):
        folder = artifact("network.json").parent
        weights = artifact("weights.safetensors")
        model().restore(folder, run[2])
        content = bytearray(weights.read_bytes())
        if damage == "a bit":
            content[-30] ^= 16  # of a number
        else:
            del content[-30:]
        weights.write_bytes(content)
        with pytest.raises(UserError, match=r"the weights in .* cannot be read: .*train the model again"):
            model().restore(folder, run[2])

    def test_the_description(self, run, artifact):
        _, trained, _ = run
        description = json.loads(artifact("network.json").read_text())
        assert description["tasks"] == CONFIG["tasks"]
        assert description["backbone"] == CONFIG["backbone"]
        assert description["classes"] == {"momentum": 5}
        assert description["fields"] == ["close", "open", "high", "low", "vwap", "volume"]
        assert description["lookback_days"] == 5
        best = max(trained.history, key=lambda record: record["valid/score"])
        assert description["best_epoch"] == best["epoch"]


def test_history_frame():
    history = [{"epoch": 0, "valid/ic": 0.1, "best": 1.0}, {"epoch": 1, "valid/ic": math.nan, "best": 0.0}]
    found = history_frame(history)
    assert found["epoch"].tolist() == [0, 1]
    assert found["best"].tolist() == [True, False]
    assert np.isnan(found["valid/ic"].iloc[1])
    phased = history_frame([{**record, "phase": 1.0} for record in history])
    assert phased["phase"].tolist() == [1, 1]
    assert phased["phase"].dtype == int
