from __future__ import annotations

import logging
import math
import os
import re

import numpy as np
import pytest
import torch
from scipy import stats

from qlib_ext.checks import UserError
from qlib_ext.model import checkpoint
from qlib_ext.model.balancers.base import Aggregator
from qlib_ext.model.balancers.cagrad import CAGrad
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.losses.base import Loss
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

MLP = {"class": "qlib_ext.model.heads.mlp.MLPHead", "kwargs": {"hidden_size": 4, "dropout": 0.3}}
DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def two_tasks(head=MLP):
    return [
        Task("score", "RETURN", MSE()),
        Task("momentum", "MOMENTUM", CrossEntropy(), head=head, classes=5),
    ]


def build(
    balancer=None,
    *,
    kind=Trainer,
    tasks=None,
    seed=0,
    dropout=0.0,
    hidden_size=4,
    device="cpu",
    backbone=None,
    **options,
):
    """A small trainer, seeded as the model seeds it."""
    torch.manual_seed(seed)
    tasks = two_tasks() if tasks is None else tasks
    lstm = {
        "class": "qlib_ext.model.backbones.lstm.LSTM",
        "kwargs": {"hidden_size": hidden_size, "dropout": dropout},
    }
    network = MultiTaskNetwork(backbone or lstm, tasks, num_features=6, lookback_days=4)
    return kind(
        network,
        tasks,
        EqualWeighting() if balancer is None else balancer,
        TrainerOptions.of({"n_epochs": 2, "learning_rate": 1e-2, **options}),
        seed=seed,
        device=torch.device(device),
    )


@pytest.fixture(scope="module")
def train(make_panels):
    return make_panels(days=9)


@pytest.fixture(scope="module")
def valid(make_panels):
    return make_panels(days=6, seed=1)


def scores(trainer, panels):
    """Scores and class predictions of every day, from the network as it stands."""
    trainer.network.eval()
    with torch.no_grad():
        found = [trainer.network(panel) for panel in panels]
    return [x["score"].numpy() for x in found], [x["momentum"].argmax(dim=1).numpy() for x in found]


def same_bits(one, other):
    assert one.keys() == other.keys()
    for name, tensor in one.items():
        assert tensor.dtype == other[name].dtype
        assert torch.equal(tensor, other[name]), name


def without_seconds(history):
    """Epochs without what differs from run to run; NaN, which is equal to nothing, as a word."""
    return [
        {k: v if v == v else "nan" for k, v in record.items() if not k.startswith("seconds/")}
        for record in history
    ]


def assert_same(one, other):
    """Two trainers stand at the same point, bit for bit."""
    assert without_seconds(one.history) == without_seconds(other.history)
    assert (one.epoch, one.phase.best_epoch, one.phase.best_score) == (
        other.epoch,
        other.phase.best_epoch,
        other.phase.best_score,
    )
    same_bits(one.network.state_dict(), other.network.state_dict())
    same_bits(one.phase.best_weights, other.phase.best_weights)
    states = [trainer.phase.optimizer.state_dict()["state"] for trainer in (one, other)]
    assert states[0].keys() == states[1].keys()
    for index in states[0]:
        same_bits(states[0][index], states[1][index])
    balancers = [trainer.balancer.state() for trainer in (one, other)]
    same_bits(balancers[0][0], balancers[1][0])
    assert balancers[0][1] == balancers[1][1]
    assert one.balancer.report() == other.balancer.report()


class Sum(Aggregator):
    """Equal weighting by way of the jacobian."""

    def aggregate(self, jacobian):
        return jacobian.sum(dim=0)


class Killed(Exception):
    pass


class Mortal(Trainer):
    """A trainer that is killed before a step, counted over all epochs."""

    dies_before_step = -1

    def _step(self, train, position):
        self.steps = getattr(self, "steps", 0) + 1
        if self.steps - 1 == self.dies_before_step:
            raise Killed
        return super()._step(train, position)


class Scripted(Trainer):
    """A trainer whose validation scores are given."""

    script: tuple[float, ...] = ()

    def _selection_score(self, record):
        return self.script[int(record["epoch"])]


class TestStep:
    def test_the_way_of_the_jacobian_is_one_backward_pass(self, train):
        """Gradients of shared parameters and heads, assembled task by task, are those of the sum."""
        together, apart = build(EqualWeighting()), build(Sum())
        for trainer in (together, apart):
            trainer.network.eval()  # no dropout: both see the same network
            trainer._step(train, 4)
        expected = dict(together.network.named_parameters())
        for name, parameter in apart.network.named_parameters():
            assert parameter.grad.abs().sum() > 0, name
            torch.testing.assert_close(parameter.grad, expected[name].grad, atol=1e-7, rtol=1e-5)
            torch.testing.assert_close(parameter, expected[name])

    def test_and_stays_so_over_epochs(self, train, valid):
        tasks = two_tasks(head={"class": "qlib_ext.model.heads.linear.LinearHead"})
        together, apart = build(EqualWeighting(), tasks=tasks), build(Sum(), tasks=tasks)
        for trainer in (together, apart):
            trainer.fit(train, valid)
        expected = together.network.state_dict()
        for name, value in apart.network.state_dict().items():
            torch.testing.assert_close(value, expected[name], atol=1e-4, rtol=1e-3)

    def test_cqb_reaches_the_shared_parameters_and_the_logarithm_the_heads(self, train):
        trainer, naive = build(CQB(decay=0.0)), build()
        trainer.network.eval()
        trainer._step(train, 4)
        panel = train[4]
        naive.network.eval()
        predictions = naive.network(panel)
        logs = [torch.log(task.daily_loss(predictions[task.name], panel) + 1e-8) for task in naive.tasks]
        shared = list(naive.network.backbone.parameters())
        flat = [
            torch.cat([g.flatten() for g in torch.autograd.grad(log, shared, retain_graph=True)])
            for log in logs
        ]
        norms = [g.norm() for g in flat]
        expected = max(norms) * sum(g / norm for g, norm in zip(flat, norms, strict=True))
        found = torch.cat([parameter.grad.flatten() for parameter in trainer.network.backbone.parameters()])
        torch.testing.assert_close(found, expected, atol=1e-7, rtol=1e-4)
        for task, log in zip(naive.tasks, logs, strict=True):
            head = list(naive.network.heads[task.name].parameters())
            gradients = torch.autograd.grad(log, head, retain_graph=True)
            for parameter, gradient in zip(
                trainer.network.heads[task.name].parameters(), gradients, strict=True
            ):
                torch.testing.assert_close(parameter.grad, gradient)

    @pytest.mark.parametrize("weight_decay", [0.0, 0.1])
    def test_is_adam_with_coupled_l2_as_the_balancer_says(self, train, weight_decay):
        trainer, naive = build(EqualWeighting(weight_decay)), build()
        for group in trainer.phase.optimizer.param_groups:
            group["weight_decay"] = trainer.balancer.weight_decay
        moments = {name: (0.0, 0.0) for name, _ in naive.network.named_parameters()}
        trainer.network.eval()
        naive.network.eval()
        for step, position in enumerate([3, 5], start=1):
            trainer._step(train, position)
            panel = train[position]
            predictions = naive.network(panel)
            loss = sum(task.daily_loss(predictions[task.name], panel) for task in naive.tasks)
            parameters = dict(naive.network.named_parameters())
            gradients = torch.autograd.grad(loss, list(parameters.values()))
            with torch.no_grad():
                for (name, parameter), gradient in zip(parameters.items(), gradients, strict=True):
                    g = gradient + weight_decay * parameter
                    m = 0.9 * moments[name][0] + 0.1 * g
                    v = 0.999 * moments[name][1] + 0.001 * g**2
                    moments[name] = m, v
                    parameter -= 1e-2 * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
        for name, parameter in trainer.network.named_parameters():
            torch.testing.assert_close(
                parameter, dict(naive.network.named_parameters())[name], atol=1e-5, rtol=1e-4
            )

    def test_the_decay_of_the_balancer_is_in_force_in_its_epoch(self, train, valid):
        class Watched(Trainer):
            def _step(self, train, position):
                decays.append(self.phase.optimizer.param_groups[0]["weight_decay"])
                return super()._step(train, position)

        decays = []
        trainer = build(CQB(window=1), kind=Watched, n_epochs=4)
        history = trainer.fit(train, valid)
        by_epoch = np.reshape(decays, (4, 9))
        assert (by_epoch == by_epoch[:, :1]).all()
        assert by_epoch[:, 0].tolist() == [record["balance/weight_decay"] for record in history]
        assert len(set(by_epoch[:, 0])) > 2

    def test_a_task_without_weight_teaches_nothing(self, train, valid):
        trainer = build(SingleTask("score"))
        before = {name: x.clone() for name, x in trainer.network.state_dict().items()}
        trainer.fit(train, valid)
        trained = trainer.network.state_dict()
        for name, value in before.items():
            assert torch.equal(trained[name], value) == ("momentum" in name)

    def test_one_task_alone_trains(self, train, valid):
        history = build(CQB(window=1), tasks=two_tasks()[:1]).fit(train, valid)
        assert "gradient/norm/score" in history[0]
        assert "gradient/cosine" not in history[0]
        assert "valid/accuracy/momentum" not in history[0]

    def test_parameters_that_are_frozen_or_not_used(self, train, valid):
        """A backbone may hold some; they stay as they are, or have the gradient 0."""
        trainer = build()
        backbone = trainer.network.backbone
        backbone.unused = torch.nn.Parameter(torch.ones(3))
        backbone.rnn.bias_hh_l0.requires_grad_(False)
        frozen = backbone.rnn.bias_hh_l0.clone()
        again = Trainer(
            trainer.network, trainer.tasks, Sum(), trainer.options, seed=0, device=torch.device("cpu")
        )
        again.fit(train, valid)
        assert torch.equal(backbone.rnn.bias_hh_l0, frozen)
        assert torch.equal(backbone.unused, torch.ones(3))


class TestEpoch:
    @staticmethod
    def orders(train, valid, seed, kind=Trainer):
        class Watched(kind):
            def _step(self, train, position):
                visited.append(position)
                return super()._step(train, position)

        visited = []
        build(kind=Watched, seed=seed, n_epochs=3).fit(train, valid)
        return np.reshape(visited, (3, -1)).tolist()

    def test_visits_each_day_once_in_an_order_of_the_seed(self, train, valid):
        first, again, other = (self.orders(train, valid, seed) for seed in (0, 0, 1))
        for order in first + other:
            assert sorted(order) == list(range(9))
        assert first == again
        assert len({tuple(order) for order in first + other}) == 6

    def test_days_without_two_labels_of_a_task_are_left_out_and_counted(self, make_panels, valid, caplog):
        def change(arrays):
            arrays["RETURN"][2] = np.nan
            arrays["MOMENTUM"][4, 1:] = np.nan  # one is not enough
            arrays["present"][6, 1:] = False

        train = make_panels(days=9, change=change)
        with caplog.at_level(logging.INFO, logger="qlib_ext.model.trainer"):
            orders = self.orders(train, valid, seed=0)
        assert sorted(orders[0]) == [0, 1, 3, 5, 7, 8]
        assert "3 of 9 training days lack a task's labels and are left out" in caplog.text

    def test_no_day_is_left(self, make_panels, train, valid):
        def without(arrays):
            arrays["MOMENTUM"][:] = np.nan

        bare = make_panels(change=without)
        with pytest.raises(UserError, match="no training day has labels for every task"):
            build().fit(bare, valid)
        with pytest.raises(UserError, match="no validation day has labels for every task"):
            build(kind=Mortal).fit(train, bare)

    def test_no_validation_day_is_found_before_training(self, make_panels, train):
        def without(arrays):
            arrays["MOMENTUM"][:] = np.nan

        trainer = build(kind=Mortal)
        trainer.dies_before_step = 0
        with pytest.raises(UserError, match="no validation day"):
            trainer.fit(train, make_panels(change=without))

    def test_record(self, train, valid):
        seen = []
        history = build(CQB(window=1), n_epochs=3).fit(train, valid, on_epoch=seen.append)
        assert history == seen
        assert [record["epoch"] for record in history] == [0, 1, 2]
        assert set(history[0]) == {
            "epoch",
            *(f"{segment}/loss/{task}" for segment in ("train", "valid") for task in ("score", "momentum")),
            *(f"valid/{name}" for name in ("ic", "rank_ic", "accuracy/momentum", "score")),
            *(f"balance/{name}/{task}" for name in ("V", "beta") for task in ("score", "momentum")),
            "balance/weight_decay",
            "gradient/norm/score",
            "gradient/norm/momentum",
            "gradient/cosine",
            "seconds/train",
            "seconds/evaluate",
            "best",
        }
        assert all(isinstance(value, (int, float)) for record in history for value in record.values())

    def test_a_balancer_of_weights_is_looked_at_and_not_disturbed(self, train, valid, monkeypatch):
        """The gradients of single tasks are logged, and the weights are those of a training that took none."""
        looked = build(EqualWeighting(), n_epochs=2)
        record = looked.fit(train, valid)[0]
        assert {name for name in record if name.startswith("gradient")} == {
            "gradient/norm/score",
            "gradient/norm/momentum",
            "gradient/cosine",
        }
        assert record["gradient/norm/score"] > 0
        assert -1 <= record["gradient/cosine"] <= 1
        blind = build(EqualWeighting(), n_epochs=2)
        monkeypatch.setattr(
            Trainer, "_jacobian", lambda self, transformed, keep_graph: transformed.new_ones(2, 3)
        )
        blind.fit(train, valid)
        for name, value in looked.network.state_dict().items():
            assert torch.equal(blind.network.state_dict()[name], value)

    def test_the_balancer_hears_both_losses_of_every_epoch(self, train, valid):
        class Listening(EqualWeighting):
            def end_epoch(self, train, valid):
                heard.append((train, valid))

        heard = []
        history = build(Listening()).fit(train, valid)
        for record, (train_losses, valid_losses) in zip(history, heard, strict=True):
            for task in ("score", "momentum"):
                assert record[f"train/loss/{task}"] == train_losses[task]
                assert record[f"valid/loss/{task}"] == valid_losses[task]

    def test_v_in_the_record_is_the_one_in_force(self, train, valid):
        history = build(CQB(window=1), n_epochs=4).fit(train, valid)
        for task in ("score", "momentum"):
            assert [record[f"balance/V/{task}"] for record in history[:2]] == [1.0, 1.0]
            for epoch in (2, 3):
                change = [
                    history[epoch - 1][f"{segment}/loss/{task}"]
                    - history[epoch - 2][f"{segment}/loss/{task}"]
                    for segment in ("valid", "train")
                ]
                expected = change[0] / change[1] if change[1] < 0 else history[epoch - 1][f"balance/V/{task}"]
                assert history[epoch][f"balance/V/{task}"] == pytest.approx(expected)


class TestSelection:
    def test_the_best_weights_are_restored(self, train, valid):
        kept = {}

        def keep(record):
            kept[record["epoch"]] = {name: x.clone() for name, x in trainer.network.state_dict().items()}

        trainer = build(kind=Scripted, n_epochs=5)
        trainer.script = (0.1, 0.3, 0.4, 0.2, 0.4)
        history = trainer.fit(train, valid, on_epoch=keep)
        assert trainer.phase.best_epoch == 2
        assert [record["best"] for record in history] == [1.0, 1.0, 1.0, 0.0, 0.0]
        same_bits(trainer.network.state_dict(), kept[2])
        assert not torch.equal(kept[2]["heads.score.linear.weight"], kept[4]["heads.score.linear.weight"])

    def test_they_score_what_the_record_says(self, train, valid):
        trainer = build(n_epochs=6, learning_rate=0.05)
        history = trainer.fit(train, valid)
        best = max(history, key=lambda record: record["valid/rank_ic"])
        assert trainer.phase.best_epoch == best["epoch"]
        predicted, _ = scores(trainer, valid)
        rank_ic = []
        for panel, score in zip(valid, predicted, strict=True):
            label = panel.raw_labels["RETURN"].numpy()
            rank_ic.append(stats.spearmanr(score, label, nan_policy="omit").statistic)
        assert best["valid/rank_ic"] == pytest.approx(np.mean(rank_ic), rel=1e-6)

    @pytest.mark.parametrize(
        ("script", "patience", "epochs", "best"),
        [
            ((0.1, 0.3, 0.2, 0.3, 0.9), 2, 4, 1),  # equal is not better
            ((0.1, 0.3, 0.2, 0.31, 0.2, 0.2, 0.9), 2, 6, 3),
            ((0.5, 0.1, 0.9), 1, 2, 0),
            ((0.1, 0.2, 0.3, 0.4), 1, 4, 3),
            ((math.nan, 0.1, math.nan, math.nan, 0.9), 2, 4, 1),
            ((math.nan, math.nan, math.nan, -0.3), 4, 4, 3),
        ],
    )
    def test_stops_after_patience_epochs_without_a_better_score(
        self, train, valid, script, patience, epochs, best
    ):
        trainer = build(kind=Scripted, n_epochs=len(script), patience=patience)
        trainer.script = script
        history = trainer.fit(train, valid)
        assert len(history) == epochs
        assert trainer.phase.best_epoch == best

    def test_the_authors_score(self, train, valid):
        history = build(n_epochs=4, selection="authors").fit(train, valid)
        first = history[0]
        for record in history:
            rank_ic, accuracy = record["valid/rank_ic"], record["valid/accuracy/momentum"]
            expected = (rank_ic - first["valid/rank_ic"]) / abs(first["valid/rank_ic"])
            expected += (accuracy - first["valid/accuracy/momentum"]) / abs(first["valid/accuracy/momentum"])
            assert record["valid/score"] == pytest.approx(expected)
        assert history[0]["valid/score"] == 0.0

    def test_without_any_score_no_weights_are_handed_back(self, make_panels, train):
        """All returns equal on every validation day: no order to compare with."""

        def level(arrays):
            arrays["RETURN"][:] = 0.01

        valid = make_panels(change=level)
        trainer = build(n_epochs=3)
        with pytest.raises(
            UserError, match="no epoch of 3 has a validation score, so no weights can be chosen"
        ):
            trainer.fit(train, valid)
        assert all(math.isnan(record["valid/score"]) and not record["best"] for record in trainer.history)

    def test_nor_when_the_scores_are_all_equal(self, train, valid):
        trainer = build(n_epochs=2, learning_rate=1e-12)
        torch.nn.init.zeros_(trainer.network.heads["score"].linear.weight)
        with pytest.raises(UserError, match="all scores or all labels"):
            trainer.fit(train, valid)


class Negative(Loss):
    def forward(self, pred, target):
        return -pred.square().mean() - 1


class TestNotFinite:
    def test_a_step_names_the_day_and_the_task(self, make_panels, valid, tmp_path):
        def infinite(arrays):
            arrays["RETURN"][4, 0] = np.inf

        folder = CheckpointFolder(tmp_path, {})
        build(n_epochs=1).fit(make_panels(days=9), valid, folder=folder)
        (path,) = folder.folder.glob("*.safetensors")
        before = path.read_bytes()
        resumed = build(n_epochs=3)
        with pytest.raises(
            FloatingPointError,
            match=r"a loss is not finite on 2020-01-07 in epoch 1 \(score inf, momentum [0-9.]+\): lower `learning_rate`",
        ):
            resumed.fit(make_panels(days=9, change=infinite), valid, folder=folder, resume=True)
        assert list(folder.folder.glob("*.safetensors")) == [path]
        assert path.read_bytes() == before

    @pytest.mark.parametrize("balancer", [EqualWeighting, CAGrad])
    def test_is_told_before_what_it_leads_to(self, make_panels, valid, balancer):
        """Losses are read many at a time: what a later step, or the balancer, makes of them comes after."""

        def infinite(arrays):
            arrays["RETURN"][:, 0] = np.inf

        class Visiting(Trainer):
            def _step(self, train, position):
                visited.append(train.dates[position])
                return super()._step(train, position)

        visited = []
        with pytest.raises(FloatingPointError) as told:
            build(balancer(), kind=Visiting).fit(make_panels(days=9, change=infinite), valid)
        assert f"a loss is not finite on {visited[0]:%Y-%m-%d} in epoch 0" in str(told.value)

    def test_the_last_step_of_an_epoch_does_not_reach_the_checkpoint(self, make_panels, valid, tmp_path):
        """Its own loss was finite; the weights that it made are not."""
        train = make_panels(days=1)
        folder = CheckpointFolder(tmp_path, {})
        trainer = build(n_epochs=3)
        trainer.phase.optimizer.param_groups[0]["lr"] = 1e30  # more than the options allow
        with pytest.raises(
            FloatingPointError,
            match=r"loss of task score on `train` is not finite after epoch 0 .*: lower `learning_rate`",
        ):
            trainer.fit(train, valid, folder=folder)
        assert not list(folder.folder.iterdir())

    def test_a_loss_that_the_balancer_cannot_take(self, train, valid):
        tasks = [Task("score", "RETURN", Negative()), *two_tasks()[1:]]
        with pytest.raises(
            FloatingPointError, match=r"CQB makes a loss not finite on .*losses of at least 0"
        ):
            build(CQB(), tasks=tasks).fit(train, valid)
        build(EqualWeighting(), tasks=tasks, n_epochs=1).fit(train, valid)


class TestResume:
    """A killed run that is taken up again ends as the one that was not, bit for bit."""

    @staticmethod
    def trainer(kind=Mortal, **changes):
        kwargs = {"n_epochs": 6, "dropout": 0.5, "hidden_size": 3, **changes}
        return build(CQB(window=1, decay=1e-2), kind=kind, **kwargs)

    @pytest.fixture(scope="class")
    def straight(self, train, valid):
        trainer = self.trainer()
        trainer.fit(train, valid)
        return trainer

    @pytest.fixture
    def folder(self, tmp_path):
        return CheckpointFolder(tmp_path, {"a": "configuration"})

    @pytest.mark.parametrize("lost", ["network", "optimizer", "balancer", "random"])
    def test_all_that_is_kept_is_needed(self, straight, train, valid, folder, monkeypatch, lost):
        """Else the tests below would show nothing: what a resumed run loses changes how it ends."""
        self.trainer(n_epochs=3).fit(train, valid, folder=folder)
        resumed = self.trainer()
        load = checkpoint.load
        fresh = resumed._state()
        fresh.tensors["optimizer"] = {}
        torch.manual_seed(1)
        fresh.tensors["random"] = checkpoint.random_state(torch.device("cpu"))

        def lose(path):
            state = load(path)
            state.tensors[lost] = {name: x.clone() for name, x in fresh.tensors[lost].items()}
            if lost == "balancer":
                state.values["balancer"] = fresh.values["balancer"]
            return state

        monkeypatch.setattr(checkpoint, "load", lose)
        resumed.fit(train, valid, folder=folder, resume=True)
        with pytest.raises(AssertionError):
            assert_same(resumed, straight)

    @pytest.mark.parametrize(
        "step",
        [
            pytest.param(27, id="between epochs"),
            pytest.param(28, id="after one step"),
            pytest.param(31, id="in the middle"),
            pytest.param(53, id="before the last step"),
        ],
    )
    def test_after_a_kill(self, straight, folder, train, valid, step):
        killed = self.trainer()
        killed.dies_before_step = step
        with pytest.raises(Killed):
            killed.fit(train, valid, folder=folder)
        torch.rand(17)  # whatever came in between
        resumed = self.trainer()
        resumed.fit(train, valid, folder=folder, resume=True)
        assert resumed.steps == 54 - 9 * (step // 9)
        assert_same(resumed, straight)

    def test_the_best_weights_of_before_are_kept(self, folder, train, valid):
        ends = []
        for stops in [(6,), (4, 6)]:
            for n_epochs in stops:
                trainer = self.trainer(kind=Scripted, n_epochs=n_epochs)
                trainer.script = (0.1, 0.9, 0.2, 0.2, 0.2, 0.2)
                trainer.fit(train, valid, folder=folder, resume=n_epochs == 6)
            ends.append(trainer)
        assert_same(*ends)

    def test_after_two_kills(self, straight, folder, train, valid):
        for step in (13, 20):
            killed = self.trainer()
            killed.dies_before_step = step
            with pytest.raises(Killed):
                killed.fit(train, valid, folder=folder, resume=True)
        resumed = self.trainer()
        resumed.fit(train, valid, folder=folder, resume=True)
        assert_same(resumed, straight)
        assert len(list(folder.folder.glob("*.safetensors"))) == 1

    def test_after_an_interruption_from_the_keyboard_in_the_record(self, straight, folder, train, valid):
        def interrupt(record):
            if record["epoch"] == 3:
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            self.trainer().fit(train, valid, folder=folder, on_epoch=interrupt)
        resumed = self.trainer()
        resumed.fit(train, valid, folder=folder, resume=True)
        assert_same(resumed, straight)

    def test_from_the_first_epoch_when_there_is_no_checkpoint_yet(
        self, straight, folder, train, valid, caplog
    ):
        killed = self.trainer()
        killed.dies_before_step = 4
        with pytest.raises(Killed):
            killed.fit(train, valid, folder=folder)
        resumed = self.trainer()
        with caplog.at_level(logging.INFO, logger="qlib_ext.model.trainer"):
            resumed.fit(train, valid, folder=folder, resume=True)
        assert "no unfinished checkpoint of this configuration and data" in caplog.text
        assert_same(resumed, straight)

    def test_a_longer_run_continues_a_shorter_one(self, straight, folder, train, valid):
        self.trainer(n_epochs=3).fit(train, valid, folder=folder)
        longer = self.trainer()
        longer.fit(train, valid, folder=folder, resume=True)
        assert longer.steps == 27
        assert_same(longer, straight)

    def test_a_run_that_came_to_its_end_is_not_taken_up(self, straight, folder, train, valid):
        for _ in range(2):
            trainer = self.trainer()
            trainer.fit(train, valid, folder=folder, resume=True)
            assert trainer.steps == 54
            checkpoint.close(trainer.checkpoint_path)
        assert len(list(folder.folder.glob("*.safetensors"))) == 2

    def test_one_that_fell_after_its_training_has_nothing_left_to_train(self, straight, folder, train, valid):
        self.trainer().fit(train, valid, folder=folder)
        again = self.trainer()
        again.fit(train, valid, folder=folder, resume=True)
        assert not hasattr(again, "steps")
        assert_same(again, straight)
        assert len(list(folder.folder.glob("*.safetensors"))) == 1

    def test_a_closed_run_that_is_to_be_longer_is_open_again(self, folder, train, valid):
        shorter = self.trainer(n_epochs=3)
        shorter.fit(train, valid, folder=folder)
        checkpoint.close(shorter.checkpoint_path)
        longer = self.trainer()
        longer.dies_before_step = 10
        with pytest.raises(Killed):
            longer.fit(train, valid, folder=folder, resume=True)
        assert not list(folder.folder.glob("*.closed"))

    def test_nor_one_that_stopped_early(self, folder, train, valid):
        for n_epochs in (4, 8):
            trainer = self.trainer(kind=Scripted, n_epochs=n_epochs, patience=2)
            trainer.script = (0.2, 0.1, 0.1, 0.9, 0.9, 0.9, 0.9, 0.9)
            seen = []
            trainer.fit(train, valid, folder=folder, resume=True, on_epoch=seen.append)
            assert [record["epoch"] for record in seen] == [0, 1, 2]
            checkpoint.close(trainer.checkpoint_path)
        assert len(list(folder.folder.glob("*.safetensors"))) == 2

    def test_patience_counts_on(self, folder, train, valid):
        trainer = self.trainer(kind=Scripted, n_epochs=2, patience=3)
        trainer.script = (0.2, 0.1)
        trainer.fit(train, valid, folder=folder)
        trainer = self.trainer(kind=Scripted, n_epochs=9, patience=3)
        trainer.script = (0.2, 0.1, 0.1, 0.1, 0.9)
        assert len(trainer.fit(train, valid, folder=folder, resume=True)) == 4
        assert trainer.phase.best_epoch == 0

    def test_how_long_the_rest_takes_at_most_is_told_once(self, train, valid, caplog, monkeypatch):
        monkeypatch.setattr("qlib_ext.model.trainer.WORTH_TELLING", 0.0)
        with caplog.at_level(logging.INFO, logger="qlib_ext.model.trainer"):
            build(n_epochs=3).fit(train, valid)
        (told,) = [each for each in caplog.messages if each.startswith("An epoch took")]
        assert re.match(r"An epoch took \d+ s: 2 more take \d+ s at most, and fewer where", told)

    @pytest.mark.parametrize(("cbwr", "told"), [("", True), ("AUTO,STRICT", False)])
    def test_another_number_of_threads_is_told(self, folder, train, valid, caplog, monkeypatch, cbwr, told):
        monkeypatch.setenv("MKL_CBWR", cbwr)
        self.trainer(n_epochs=1).fit(train, valid, folder=folder)
        threads = torch.get_num_threads()
        for number in (threads, threads + 1):
            torch.set_num_threads(number)
            try:
                self.trainer(n_epochs=2).fit(train, valid, folder=folder, resume=True)
            finally:
                torch.set_num_threads(threads)
            expected = told and number != threads
            assert (f"goes on with {number}: sums may differ in their last bits" in caplog.text) is expected
            self.trainer(n_epochs=1).fit(train, valid, folder=folder)

    def test_epochs_of_the_past_are_told_again(self, folder, train, valid):
        before, after = [], []
        self.trainer(n_epochs=2).fit(train, valid, folder=folder, on_epoch=before.append)
        self.trainer(n_epochs=3).fit(train, valid, folder=folder, resume=True, on_epoch=after.append)
        assert after[:2] == before
        assert [record["epoch"] for record in after] == [0, 1, 2]

    def test_without_being_asked_a_run_is_fresh(self, folder, train, valid):
        self.trainer(n_epochs=2).fit(train, valid, folder=folder)
        fresh = self.trainer(n_epochs=3)
        fresh.fit(train, valid, folder=folder)
        assert fresh.steps == 27
        assert len(list(folder.folder.glob("*.safetensors"))) == 2

    def test_a_checkpoint_a_epoch_in_one_file(self, folder, train, valid):
        found = []

        def look(record):
            found.append([checkpoint.load(path).epoch for path in folder.folder.glob("*.safetensors")])

        self.trainer(n_epochs=3).fit(train, valid, folder=folder, on_epoch=look)
        assert found == [[], [1], [2]]

    def test_another_process_does_not_take_up_what_this_one_trains(self, folder, train, valid):
        told = []

        def start_another(record):
            process = os.fork()
            if process == 0:
                code = 1
                try:
                    with pytest.raises(
                        UserError, match=f"process {os.getppid()} on .* trains the checkpoint"
                    ):
                        self.trainer(n_epochs=2).fit(train, valid, folder=folder, resume=True)
                    code = 0
                finally:
                    os._exit(code)
            told.append(os.waitstatus_to_exitcode(os.waitpid(process, 0)[1]))

        self.trainer(n_epochs=2).fit(
            train, valid, folder=folder, on_epoch=lambda record: record["epoch"] and start_another(record)
        )
        assert told == [0]

    def test_weights_that_were_never_best_yet(self, folder, train, valid):
        """A checkpoint without best weights: every epoch so far had no score."""
        trainer = self.trainer(kind=Scripted, n_epochs=1)
        trainer.script = (math.nan,)
        with pytest.raises(UserError, match="no epoch of 1 has a validation score"):
            trainer.fit(train, valid, folder=folder)
        trainer = self.trainer(kind=Scripted, n_epochs=2)
        trainer.script = (math.nan, 0.1)
        assert len(trainer.fit(train, valid, folder=folder, resume=True)) == 2
        assert trainer.phase.best_epoch == 1


class TestReproducible:
    def test_one_seed_one_result(self, train, valid):
        runs = []
        for seed in (3, 3, 4):
            runs.append(build(CQB(window=1), seed=seed, dropout=0.5))
            runs[-1].fit(train, valid)
        first, again, other = runs
        assert_same(again, first)
        pairs = zip(first.network.state_dict().values(), other.network.state_dict().values(), strict=True)
        assert not any(torch.equal(x, y) for x, y in pairs)


class TestPrecision:
    def test_bfloat16_is_for_the_backbone_alone(self, train, valid):
        seen = set()
        trainer = build(CQB(window=1), precision="bfloat16")
        trainer.network.register_forward_hook(
            lambda module, arguments, predictions: seen.update(x.dtype for x in predictions.values())
        )
        history = trainer.fit(train, valid)
        assert seen == {torch.float32}
        assert {x.dtype for x in trainer.network.parameters()} == {torch.float32}
        assert {x.dtype for s in trainer.phase.optimizer.state.values() for x in s.values()} == {
            torch.float32
        }
        exact = build(CQB(window=1)).fit(train, valid)
        for name in ("train/loss/score", "valid/loss/momentum"):
            assert history[1][name] != exact[1][name]
            assert history[1][name] == pytest.approx(exact[1][name], rel=0.1)

    def test_and_resumes_bit_for_bit(self, train, valid, tmp_path):
        folder = CheckpointFolder(tmp_path, {})
        kwargs = {"precision": "bfloat16", "dropout": 0.5}
        straight = build(CQB(window=1), n_epochs=3, **kwargs)
        straight.fit(train, valid)
        build(CQB(window=1), n_epochs=2, **kwargs).fit(train, valid, folder=folder)
        resumed = build(CQB(window=1), n_epochs=3, **kwargs)
        resumed.fit(train, valid, folder=folder, resume=True)
        assert_same(resumed, straight)


@pytest.mark.parametrize("device", DEVICES)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_on_every_device(make_panels, tmp_path, device, precision):
    train, valid = make_panels(days=9, device=device), make_panels(days=6, seed=1, device=device)
    folder = CheckpointFolder(tmp_path, {})
    for n_epochs in (1, 2):
        trainer = build(CQB(window=1), device=device, precision=precision, n_epochs=n_epochs, dropout=0.5)
        history = trainer.fit(train, valid, folder=folder, resume=True)
    assert len(history) == 2
    assert all(math.isfinite(value) for record in history for value in record.values())
    assert all(x.device.type == device for x in trainer.network.parameters())


def test_learns(make_panels):
    """The made market's score says something about the return; a few epochs find it."""
    history = build(CQB(window=1), n_epochs=5, learning_rate=3e-2, hidden_size=8).fit(
        make_panels(days=25, stocks=15), make_panels(days=15, stocks=15, seed=1)
    )
    assert history[-1]["train/loss/score"] < history[0]["train/loss/score"]
    assert max(record["valid/rank_ic"] for record in history) > 0.3
