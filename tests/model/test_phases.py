"""Trainings in phases, with a learning rate that falls and windows that are augmented."""

from __future__ import annotations

import copy
import logging
import math

import numpy as np
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.model import checkpoint
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.balancers.single_task import SingleTask
from qlib_ext.model.balancers.weighted import Weighted
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

LSTM = "qlib_ext.model.backbones.lstm.LSTM"
RESNEXT = "qlib_ext.model.backbones.resnext.ResNeXt"
AUGMENTATIONS = [
    {"class": "qlib_ext.model.augmentations.crop.Crop"},
    {"class": "qlib_ext.model.augmentations.jitter.Jitter", "kwargs": {"sigma": 0.2}},
    {"class": "qlib_ext.model.augmentations.shift.Shift", "kwargs": {"max_days": 1}},
    {"class": "qlib_ext.model.augmentations.scale.Scale"},
]
PHASES = [
    {"tasks": ["momentum"], "epochs": 2, "selection": "loss"},
    {"tasks": ["score"], "epochs": 2},
    {"tasks": "all", "epochs": 3},
]


class Watched(Trainer):
    """A trainer that keeps what a step begins with, may be killed before one, and may be given its scores."""

    script: tuple[float, ...] | None = None
    dies_before_step = -1

    def _step(self, train, position):
        self.seen = getattr(self, "seen", [])
        if len(self.seen) == self.dies_before_step:
            raise KeyboardInterrupt
        self.seen.append(
            {
                "epoch": self.epoch,
                "phase": self.phase.number,
                "learning_rate": self.phase.optimizer.param_groups[0]["lr"],
                "weights": {name: x.clone() for name, x in self.network.state_dict().items()},
                "steps": max([int(s["step"]) for s in self.phase.optimizer.state.values()], default=0),
            }
        )
        return super()._step(train, position)

    def _selection_score(self, record):
        score = super()._selection_score(record)
        return score if self.script is None else self.script[int(record["epoch"])]

    def first(self, phase):
        return next(step for step in self.seen if step["phase"] == phase)


def build(balancer=None, *, script=None, dropout=0.0, seed=0, backbone=None, device="cpu", **options):
    torch.manual_seed(seed)
    tasks = [Task("score", "RETURN", MSE()), Task("momentum", "MOMENTUM", CrossEntropy(), classes=5)]
    lstm = {"class": LSTM, "kwargs": {"hidden_size": 3, "dropout": dropout}}
    network = MultiTaskNetwork(backbone or lstm, tasks, num_features=6, lookback_days=4)
    settings = TrainerOptions.of({"n_epochs": 3, "learning_rate": 1e-2, **options})
    balancer = EqualWeighting() if balancer is None else balancer
    trainer = Watched(network, tasks, balancer, settings, seed=seed, device=torch.device(device))
    trainer.script = script
    return trainer


@pytest.fixture(scope="module")
def train(make_panels):
    return make_panels(days=7)


@pytest.fixture(scope="module")
def valid(make_panels):
    return make_panels(days=5, seed=1)


def without_seconds(history):
    return [{k: v for k, v in record.items() if not k.startswith("seconds/")} for record in history]


def same(one, other):
    return all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def part(weights, word):
    return {name: tensor for name, tensor in weights.items() if word in name}


class TestPhases:
    @pytest.fixture(scope="class")
    def trained(self, train, valid):
        trainer = build(EqualWeighting(weight_decay=0.1), phases=PHASES)
        trainer.fit(train, valid)
        return trainer

    def test_history_marks_the_phase_and_counts_epochs_on(self, trained):
        assert [record["epoch"] for record in trained.history] == list(range(7))
        assert [record["phase"] for record in trained.history] == [0, 0, 1, 1, 2, 2, 2]
        assert {record["learning_rate"] for record in trained.history} == {1e-2}
        for record in trained.history:
            for name in ("train/loss/score", "valid/loss/momentum", "valid/rank_ic", "valid/score"):
                assert math.isfinite(record[name])

    def test_gradients_are_told_of_the_tasks_that_are_trained(self, trained):
        told = [
            {name.rpartition("/")[2] for name in record if name.startswith("gradient/")}
            for record in trained.history
        ]
        assert told == [{"momentum"}] * 2 + [{"score"}] * 2 + [{"score", "momentum", "cosine"}] * 3

    @pytest.mark.parametrize(("phase", "resting"), [(0, "heads.score"), (1, "heads.momentum")])
    def test_the_head_of_a_task_at_rest_stays_to_the_last_bit(self, trained, phase, resting):
        """Neither a step nor the weight decay reaches it; the rest moves."""
        before, after = trained.first(phase)["weights"], trained.first(phase + 1)["weights"]
        for name, tensor in before.items():
            assert torch.equal(after[name], tensor) == (resting in name), name

    def test_a_phase_alone_is_a_training_of_its_task_alone(self, trained, train, valid):
        alone = build(SingleTask("momentum", weight_decay=0.1), n_epochs=2, selection="loss")
        alone.fit(train, valid)
        found, expected = trained.first(1)["weights"], alone.network.state_dict()
        for name, tensor in found.items():
            if "heads.score" not in name:
                torch.testing.assert_close(tensor, expected[name])

    def test_one_phase_of_all_tasks_is_no_phase(self, train, valid):
        plain = build(CQB(window=1), dropout=0.5)
        plain.fit(train, valid)
        phased = build(CQB(window=1), dropout=0.5, n_epochs=9, phases=[{"tasks": "all", "epochs": 3}])
        phased.fit(train, valid)
        assert without_seconds(plain.history) == without_seconds(phased.history)
        assert same(plain.network.state_dict(), phased.network.state_dict())

    def test_each_begins_with_the_best_weights_of_the_one_before(self, train, valid):
        trainer = build(phases=PHASES, script=(0.5, 0.1, 0.2, 0.3, 0.1, 0.9, 0.2))
        trainer.fit(train, valid)
        after_epoch = {}
        for step in trainer.seen:
            after_epoch.setdefault(step["epoch"] - 1, step["weights"])  # the first of an epoch
        assert same(trainer.first(1)["weights"], after_epoch[0])  # epoch 0 was the best, not 1
        assert not same(trainer.seen[7]["weights"], trainer.seen[13]["weights"])
        # phase 2 begins after epoch 3, its best; the training ends with epoch 5 of phase 2
        assert same(trainer.network.state_dict(), after_epoch[5])
        assert [record["best"] for record in trainer.history] == [1, 0, 1, 1, 1, 1, 0]
        assert trainer.phase.best_epoch == 5

    def test_a_better_score_of_an_earlier_phase_counts_for_nothing(self, train, valid):
        trainer = build(phases=PHASES, script=(9.0, 9.0, 9.0, 9.0, 0.1, 0.3, 0.2))
        trainer.fit(train, valid)
        assert (trainer.phase.best_epoch, trainer.phase.best_score) == (5, 0.3)

    def test_each_has_a_patience_of_its_own(self, train, valid):
        phases = [
            {"tasks": ["momentum"], "epochs": 9, "patience": 1, "selection": "loss"},
            {"tasks": "all", "epochs": 9, "patience": 3},
        ]
        trainer = build(phases=phases, script=(0.3, 0.4, 0.1, 0.2, 0.1, 0.1, 0.1, 9.0, 9.0))
        trainer.fit(train, valid)
        assert [record["phase"] for record in trainer.history] == [0, 0, 0, 1, 1, 1, 1]

    def test_each_has_an_optimizer_of_its_own(self, train, valid):
        phases = [{**PHASES[0], "learning_rate": 0.1}, {"tasks": "all", "epochs": 1}]
        trainer = build(phases=phases)
        trainer.fit(train, valid)
        assert [record["learning_rate"] for record in trainer.history] == [0.1, 0.1, 0.01]
        for step in trainer.seen:
            assert step["learning_rate"] == (0.1 if step["phase"] == 0 else 0.01)
        assert [trainer.first(phase)["steps"] for phase in (0, 1)] == [0, 0]
        assert trainer.seen[-1]["steps"] == 6

    def test_and_a_balancer_of_its_own(self, train, valid):
        phases = [{**PHASES[0], "epochs": 4}, {"tasks": "all", "epochs": 3}]
        trainer = build(CQB(window=1), phases=phases)
        history = trainer.fit(train, valid)
        rates = [
            {k.rpartition("/")[2]: v for k, v in record.items() if k.startswith("balance/V/")}
            for record in history
        ]
        assert [set(rate) for rate in rates] == [{"momentum"}] * 4 + [{"score", "momentum"}] * 3
        assert rates[4] == {"score": 1.0, "momentum": 1.0}  # forgotten

    def test_without_a_score_the_phase_is_named(self, train, valid):
        trainer = build(phases=PHASES, script=(0.1, 0.1, math.nan, math.nan, 0.1, 0.1, 0.1))
        with pytest.raises(
            UserError, match=r"no epoch of 2 of phase 1 \(score\) has a validation score, so no weights"
        ):
            trainer.fit(train, valid)

    def test_tells_the_best_epoch_of_each(self, train, valid, caplog):
        with caplog.at_level(logging.INFO, logger="qlib_ext.model.phase_state"):
            build(phases=PHASES, script=(1, 2, 3, 4, 5, 6, 7)).fit(train, valid)
        assert "best epoch of phase 0 (momentum) 1, validation score 2.0000" in caplog.text
        assert "best epoch of phase 2 (score, momentum) 6, validation score 7.0000" in caplog.text

    def test_the_bar_names_the_phase_and_its_best_epoch(self, train, valid):
        told = []

        class Told(Watched):
            def _progress(self):
                told.append(super()._progress())
                return told[-1]

        trainer = build(phases=PHASES[:1] + PHASES[2:], script=(0.2, 0.1, 0.3, 0.4, 0.2))
        trainer.__class__ = Told
        history = trainer.fit(train, valid)
        last = [f"{record['valid/rank_ic']:.4f}" for record in history]
        assert told == [
            "epoch 0 of phase 0",
            f"epoch 1 of phase 0 (valid RankIC {last[0]}, best epoch 0)",
            f"epoch 2 of phase 1 (valid RankIC {last[1]})",
            f"epoch 3 of phase 1 (valid RankIC {last[2]}, best epoch 2)",
            f"epoch 4 of phase 1 (valid RankIC {last[3]}, best epoch 3)",
        ]

    def test_the_order_of_the_days_goes_on(self, train, valid):
        plain = build(n_epochs=3)
        phased = build(phases=[{**PHASES[0], "epochs": 1}, {**PHASES[1], "epochs": 1}, {"tasks": "all"}])
        orders = []
        for trainer in (plain, phased):
            visited = []
            step = trainer._step
            trainer._step = lambda panels, day, step=step, visited=visited: (
                visited.append(day) or step(panels, day)
            )
            trainer.fit(train, valid)
            orders.append(visited)
        assert orders[0] == orders[1][:21]


class TestSelectionByLoss:
    def test_is_minus_the_sum_of_the_trained_tasks_losses(self, train, valid):
        trainer = build(selection="loss", phases=PHASES[:1] + PHASES[2:])
        for record in trainer.fit(train, valid):
            losses = {"momentum": record["valid/loss/momentum"], "score": record["valid/loss/score"]}
            if record["phase"] == 0:
                losses.pop("score")
            assert record["valid/score"] == pytest.approx(-sum(losses.values()), rel=1e-12)

    def test_by_the_weights_of_the_balancer(self, train, valid):
        for balancer, weights in (
            (Weighted({"score": 0.25}), (0.25, 1.0)),
            (SingleTask("score"), (1.0, 0.0)),
            (CQB(), (1.0, 1.0)),
        ):
            (record,) = build(balancer, selection="loss", n_epochs=1).fit(train, valid)
            losses = record["valid/loss/score"], record["valid/loss/momentum"]
            assert record["valid/score"] == pytest.approx(-np.dot(weights, losses), rel=1e-12)

    def test_keeps_the_weights_of_the_lowest(self, train, valid):
        trainer = build(selection="loss", n_epochs=6, learning_rate=0.3)
        history = trainer.fit(train, valid)
        totals = [record["valid/loss/score"] + record["valid/loss/momentum"] for record in history]
        assert trainer.phase.best_epoch == int(np.argmin(totals))
        again = trainer.evaluator.losses(valid, valid.labelled(("RETURN", "MOMENTUM")))
        assert sum(again.values()) == pytest.approx(min(totals), rel=1e-6)


def test_selection_as_the_authors_compares_with_the_first_epoch_of_the_phase(train, valid):
    trainer = build(selection="authors", phases=[{**PHASES[0], "selection": "loss"}, PHASES[2]])
    history = trainer.fit(train, valid)
    first, second = history[2:4]
    assert first["valid/score"] == 0.0
    gains = [
        (second[key] - first[key]) / abs(first[key]) for key in ("valid/rank_ic", "valid/accuracy/momentum")
    ]
    assert second["valid/score"] == pytest.approx(sum(gains))


class TestPlateau:
    def test_lowers_the_learning_rate_of_the_next_epoch(self, train, valid):
        script = (0.5, 0.4, 0.4, 0.6, 0.1, 0.1, 0.1)
        trainer = build(n_epochs=7, plateau={"factor": 0.1, "patience": 1}, script=script)
        history = trainer.fit(train, valid)
        expected = [1e-2, 1e-2, 1e-2, 1e-3, 1e-3, 1e-3, 1e-4]
        assert [record["learning_rate"] for record in history] == pytest.approx(expected)
        in_force = [{step["learning_rate"] for step in trainer.seen if step["epoch"] == e} for e in range(7)]
        assert in_force == [{record["learning_rate"]} for record in history]

    def test_begins_again_with_a_phase(self, train, valid):
        trainer = build(phases=PHASES, plateau={"factor": 0.1, "patience": 0}, script=(1, 0, 1, 0, 1, 0, 0))
        history = trainer.fit(train, valid)
        assert [record["learning_rate"] for record in history] == pytest.approx([1e-2] * 6 + [1e-3])

    def test_without_it_no_learning_rate_is_told(self, train, valid):
        assert "learning_rate" not in build(n_epochs=1).fit(train, valid)[0]


class TestAugmentations:
    """In training only: what is measured and what is predicted is never augmented."""

    def test_measured_is_what_the_days_hold(self, train, valid):
        trainer = build(augmentations=AUGMENTATIONS, n_epochs=2)
        record = trainer.fit(train, valid)[trainer.phase.best_epoch]
        trainer.network.eval()
        for segment, panels in (("train", train), ("valid", valid)):
            days = panels.labelled(("RETURN", "MOMENTUM"))
            with torch.no_grad():
                naive = [
                    [
                        task.daily_loss(trainer.network(panel)[task.name], panel).item()
                        for task in trainer.tasks
                    ]
                    for panel in (panels[int(day)] for day in days)
                ]
            for k, task in enumerate(trainer.tasks):
                expected = np.mean([losses[k] for losses in naive])
                assert record[f"{segment}/loss/{task.name}"] == pytest.approx(expected, rel=1e-5)

    def test_a_step_sees_other_windows_and_the_same_labels(self, train, valid):
        seen = []
        trainer = build(augmentations=AUGMENTATIONS, n_epochs=1)
        trainer.network.register_forward_pre_hook(
            lambda network, given: seen.append(given[0]) if network.training else None
        )
        trainer.fit(train, valid)
        by_date = {panel.date: panel for panel in train}
        assert len(seen) == 7
        for panel in seen:
            plain = by_date[panel.date]
            assert not torch.equal(panel.features, plain.features)
            assert panel.features.shape == plain.features.shape
            for name in ("RETURN", "MOMENTUM"):
                torch.testing.assert_close(
                    panel.labels[name], plain.labels[name], atol=0, rtol=0, equal_nan=True
                )
            assert torch.equal(panel.instruments, plain.instruments)


class TestResume:
    """Killed anywhere in any phase and taken up again, a training ends as the one that was not, bit for bit."""

    @staticmethod
    def trainer(**changes):
        kwargs = {
            "dropout": 0.5,
            "phases": PHASES,
            "plateau": {"factor": 0.5, "patience": 0},
            "augmentations": AUGMENTATIONS,
        }
        return build(CQB(window=1, decay=1e-2), **{**kwargs, **changes})

    @pytest.fixture(scope="class")
    def straight(self, train, valid):
        trainer = self.trainer()
        trainer.fit(train, valid)
        assert len({record["learning_rate"] for record in trainer.history}) > 1
        return trainer

    @pytest.fixture
    def folder(self, tmp_path):
        return CheckpointFolder(tmp_path, {})

    def assert_same(self, one, other):
        assert without_seconds(one.history) == without_seconds(other.history)
        assert (one.epoch, one.phase.number) == (other.epoch, other.phase.number)
        assert one.phase.first_epoch == other.phase.first_epoch
        assert (one.phase.best_epoch, one.phase.best_score) == (
            other.phase.best_epoch,
            other.phase.best_score,
        )
        assert same(one.network.state_dict(), other.network.state_dict())
        states = one.phase.optimizer.state_dict(), other.phase.optimizer.state_dict()
        assert states[0]["param_groups"] == states[1]["param_groups"]
        for index, state in states[0]["state"].items():
            assert same(state, states[1]["state"][index])
        assert one.balancer.report() == other.balancer.report()
        assert one.phase.scheduler.state_dict() == other.phase.scheduler.state_dict()

    # 7 steps an epoch; phases end before the steps 14 and 28
    @pytest.mark.parametrize("step", [5, 13, 14, 15, 24, 28, 41])
    def test_after_a_kill(self, straight, folder, train, valid, step):
        killed = self.trainer()
        killed.dies_before_step = step
        with pytest.raises(KeyboardInterrupt):
            killed.fit(train, valid, folder=folder)
        torch.rand(17)  # whatever came in between
        resumed = self.trainer()
        resumed.fit(train, valid, folder=folder, resume=True)
        assert len(resumed.seen) == 49 - 7 * (step // 7)
        self.assert_same(resumed, straight)

    @pytest.mark.parametrize("lost", ["learning_rate", "plateau", "phase"])
    def test_all_that_is_kept_is_needed(self, straight, folder, train, valid, monkeypatch, lost):
        """Else the tests above would show nothing."""
        killed = self.trainer()
        killed.dies_before_step = 42
        with pytest.raises(KeyboardInterrupt):
            killed.fit(train, valid, folder=folder)
        resumed = self.trainer()
        fresh = resumed._state().values
        load = checkpoint.load

        def lose(path):
            state = load(path)
            state.values[lost] = copy.deepcopy(fresh[lost])
            return state

        monkeypatch.setattr(checkpoint, "load", lose)
        resumed.fit(train, valid, folder=folder, resume=True)
        with pytest.raises(AssertionError):
            self.assert_same(resumed, straight)

    def test_a_longer_last_phase_continues_a_shorter_one(self, straight, folder, train, valid):
        self.trainer(phases=[*PHASES[:2], {"tasks": "all", "epochs": 1}]).fit(train, valid, folder=folder)
        longer = self.trainer()
        longer.fit(train, valid, folder=folder, resume=True)
        assert len(longer.seen) == 14
        self.assert_same(longer, straight)

    def test_one_that_was_stopped_early_in_a_phase_goes_on_to_the_next(self, folder, train, valid):
        phases = [{**PHASES[0], "epochs": 9, "patience": 1}, {"tasks": "all", "epochs": 2}]
        ends = []
        for dies in (None, 14):
            trainer = self.trainer(phases=phases, script=(0.5, 0.1, 0.2, 0.3))
            if dies:
                trainer.dies_before_step = dies
                with pytest.raises(KeyboardInterrupt):
                    trainer.fit(train, valid, folder=folder)
                trainer = self.trainer(phases=phases, script=(0.5, 0.1, 0.2, 0.3))
            trainer.fit(train, valid, folder=folder, resume=dies is not None)
            ends.append(trainer)
        assert [record["phase"] for record in ends[1].history] == [0, 0, 1, 1]
        assert len(ends[1].seen) == 14
        self.assert_same(*ends)

    def test_one_that_is_finished_and_closed_is_not_taken_up(self, folder, train, valid):
        phases = [{**PHASES[0], "epochs": 1}, {"tasks": "all", "epochs": 1}]
        for _ in range(2):
            trainer = self.trainer(phases=phases)
            trainer.fit(train, valid, folder=folder, resume=True)
            assert len(trainer.seen) == 14
            checkpoint.close(trainer.checkpoint_path)


@pytest.mark.parametrize(("backbone", "expected"), [(LSTM, False), (RESNEXT, True)])
def test_convolutions_are_trained_by_gradients_that_repeat(train, valid, backbone, expected):
    found = set()

    class Looking(Watched):
        def _step(self, train, position):
            found.add(torch.backends.cudnn.deterministic)
            return super()._step(train, position)

    config = {"class": backbone, "kwargs": {"hidden_size": 2}}
    trainer = build(backbone=config, n_epochs=1)
    trainer.__class__ = Looking
    trainer.fit(train, valid)
    assert found == {expected}
    assert not torch.backends.cudnn.deterministic


@pytest.mark.parametrize("device", ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"])
@pytest.mark.parametrize("norm", ["group", "batch"])
def test_resnext_in_phases_with_augmentations(make_panels, tmp_path, device, norm):
    """Running statistics of a batch normalisation are part of what is kept and resumed."""
    backbone = {
        "class": RESNEXT,
        "kwargs": {"hidden_size": 8, "cardinality": 4, "width": 8, "stem_channels": 8, "norm": norm},
    }
    segments = make_panels(days=6, device=device), make_panels(days=3, seed=1, device=device)
    phases = [{**PHASES[0], "epochs": 1}, {"tasks": "all", "epochs": 2}]
    options = {"backbone": backbone, "phases": phases, "augmentations": AUGMENTATIONS, "device": device}
    straight = build(CQB(window=1), **options)
    straight.fit(*segments)
    folder = CheckpointFolder(tmp_path, {})
    killed = build(CQB(window=1), **options)
    killed.dies_before_step = 14
    with pytest.raises(KeyboardInterrupt):
        killed.fit(*segments, folder=folder)
    resumed = build(CQB(window=1), **options)
    resumed.fit(*segments, folder=folder, resume=True)
    assert same(straight.network.state_dict(), resumed.network.state_dict())
    losses = [record["train/loss/momentum"] for record in straight.history]
    assert losses[-1] < losses[0]
