"""What holds for every average of weights, in a training and for itself."""

from __future__ import annotations

import inspect

import pytest
import torch

from qlib_ext.config.build import classes_in, dotted
from qlib_ext.model import averaging
from qlib_ext.model.averaging.base import Averaging, RunningAverage
from qlib_ext.model.averaging.ema import EMA
from qlib_ext.model.averaging.snapshots import Snapshots
from qlib_ext.model.averaging.swa import SWA
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.checkpoint import CheckpointFolder, by_epoch, kept_epochs, load
from tests.model.test_trainer import Killed, Mortal, assert_same, build, same_bits, without_seconds

KINDS = {
    "EMA": (EMA, {"decay": 0.8}),
    "SWA": (SWA, {"start": 1, "learning_rate": 0.02}),
    "Snapshots": (Snapshots, {"cycle": 2, "members": 2}),
}
RESNEXT = {
    "class": "qlib_ext.model.backbones.resnext.ResNeXt",
    "kwargs": {
        "norm": "batch",
        "hidden_size": 4,
        "width": 4,
        "cardinality": 2,
        "stages": 1,
        "stem_channels": 4,
    },
}
PHASES = [
    {"tasks": ["momentum"], "epochs": 2, "selection": "loss"},
    {"tasks": "all", "epochs": 4},
]
each_kind = pytest.mark.parametrize("kind", KINDS)


def config(kind, **changes):
    found, kwargs = KINDS[kind]
    return {"class": dotted(found), "kwargs": {**kwargs, **changes}}


def trained(
    train, valid, averaging=None, *, kind=Mortal, balancer=None, fit=None, dies_before_step=-1, **options
):
    """A trainer at its end, or where it was killed."""
    given = {"n_epochs": 4, "dropout": 0.4, "hidden_size": 3, **options}
    trainer = build(CQB(window=1) if balancer is None else balancer, kind=kind, averaging=averaging, **given)
    trainer.dies_before_step = dies_before_step
    try:
        trainer.fit(train, valid, **(fit or {}))
    except Killed:
        assert dies_before_step >= 0
    return trainer


@pytest.fixture(scope="module")
def train(make_panels):
    return make_panels(days=6)


@pytest.fixture(scope="module")
def valid(make_panels):
    return make_panels(days=4, seed=1)


def test_every_average_is_held_to_the_laws():
    found = {kind for kind in classes_in(averaging, Averaging) if not inspect.isabstract(kind)}
    assert found - {Averaging, RunningAverage} == {kind for kind, _ in KINDS.values()}


@each_kind
class TestTraining:
    @pytest.mark.parametrize("phases", [None, PHASES], ids=["one phase", "two phases"])
    def test_resumed_is_uninterrupted_bit_for_bit(self, kind, train, valid, tmp_path, phases):
        """Killed in the middle of an epoch in which there is an average already, in a phase and in the next."""
        given = {"averaging": config(kind), "phases": phases}
        straight = trained(train, valid, **given)
        folder = CheckpointFolder(tmp_path, {})
        for step in (8, 10):
            fit = {"folder": folder, "resume": True}
            killed = trained(train, valid, **given, fit=fit, dies_before_step=step)
        assert killed.epoch == 2
        torch.rand(3)
        resumed = trained(train, valid, **given, fit=fit)
        assert_same(resumed, straight)
        same_bits(resumed.phase.averaging.tensors(), straight.phase.averaging.tensors())
        same_bits(resumed.best_network().state_dict(), straight.best_network().state_dict())

    def test_what_is_kept_is_what_was_measured(self, kind, train, valid):
        trainer = trained(train, valid, config(kind))
        best = trainer.history[trainer.phase.best_epoch]
        trainer.evaluator.network = trainer.best_network()
        losses, scores = trainer.evaluator.losses_and_scores(valid, valid.labelled(("RETURN", "MOMENTUM")))
        assert scores["rank_ic"] == best["valid/rank_ic"] == best["valid/score"]
        assert losses["score"] == best["valid/loss/score"]

    def test_training_does_not_see_it(self, kind, train, valid):
        """The weights that are trained are those of a training without it, where it leaves the learning rate alone."""
        averaged = trained(train, valid, config(kind), balancer=EqualWeighting(), fit={"keep_epochs": False})
        steps = averaged.phase.optimizer.state_dict()["state"]
        plain = trained(train, valid, balancer=EqualWeighting())
        same = all(
            torch.equal(moments["exp_avg"], plain.phase.optimizer.state_dict()["state"][k]["exp_avg"])
            for k, moments in steps.items()
        )
        assert same == (kind == "EMA")

    def test_the_epochs_kept_are_those_measured(self, kind, train, valid, tmp_path):
        folder = CheckpointFolder(tmp_path, {})
        trainer = trained(train, valid, config(kind), fit={"folder": folder, "keep_epochs": True})
        epochs = by_epoch(kept_epochs(trainer.checkpoint_path, 4))
        same_bits(epochs[trainer.phase.best_epoch], trainer.phase.best_weights)

    def test_running_statistics_are_those_of_the_averaged_weights(self, kind, train, valid):
        trainer = trained(train, valid, config(kind), backbone=RESNEXT)
        judged, network = trainer.evaluator.network, trainer.network
        found = {name: x for name, x in judged.state_dict().items() if "running_mean" in name}
        assert found
        assert judged is not network
        counts = [x for name, x in judged.state_dict().items() if "num_batches" in name]
        assert {int(count) for count in counts} == {6}  # each day of training once

    def test_shows_the_call_that_makes_it_again(self, kind, rebuild):
        found, kwargs = KINDS[kind]
        rebuild(found(**kwargs))


def test_ema_without_a_past_is_the_plain_training(train, valid):
    averaged, plain = trained(train, valid, config("EMA", decay=0)), trained(train, valid)
    assert without_seconds(averaged.history) == without_seconds(plain.history)
    same_bits(averaged.network.state_dict(), plain.network.state_dict())


def test_swa_of_one_epoch_is_that_epoch(train, valid):
    swa = config("SWA", start=3, learning_rate=None)
    averaged, plain = trained(train, valid, swa), trained(train, valid)
    assert averaged.phase.averaging.count == 1
    assert without_seconds(averaged.history) == without_seconds(plain.history)
    same_bits(averaged.network.state_dict(), plain.network.state_dict())


def test_one_snapshot_is_the_training_by_its_schedule(train, valid):
    """The cosine by steps, set by hand."""
    snapshots = Snapshots(cycle=4)

    class Scheduled(Mortal):
        def _step(self, train, position):
            progress = self.epoch + (getattr(self, "steps", 0) % 6) / 6
            self.phase.optimizer.param_groups[0]["lr"] = snapshots.learning_rate(1e-2, progress)
            return super()._step(train, position)

    plain = trained(train, valid, kind=Scheduled)
    one = trained(train, valid, config("Snapshots", cycle=4))
    (member,) = one.best_network().members
    assert one.phase.best_epoch == 3
    keys = [key for key in plain.history[3] if key.startswith(("train/", "valid/"))]
    assert {key: one.history[3][key] for key in keys} == {key: plain.history[3][key] for key in keys}
    last = plain.phase.optimizer.state_dict()["state"]
    for index, moments in one.phase.optimizer.state_dict()["state"].items():
        same_bits(moments, last[index])
    same_bits(member.state_dict(), one.network.state_dict())


@each_kind
def test_a_mean_of_equal_weights_is_itself(kind):
    network = torch.nn.Linear(3, 2)
    found, kwargs = KINDS[kind]
    average = found(**kwargs).begun(network)
    for _ in range(4):
        average.end_step(network)
        average.end_epoch(network)
    judged = average.judged(network)
    members = judged.members if kind == "Snapshots" else [judged]
    for member in members:
        same_bits(member.state_dict(), network.state_dict())


@each_kind
def test_what_is_begun_again_has_nothing_of_before(kind):
    """The averages of two phases are two."""
    found, kwargs = KINDS[kind]
    named = found(**kwargs)
    first = named.begun(torch.nn.Linear(2, 1))
    first.end_step(torch.nn.Linear(2, 1))
    first.end_epoch(torch.nn.Linear(2, 1))
    fresh = named.begun(torch.nn.Linear(2, 1))
    assert set(fresh.values().values()) == {0}


def test_a_step_leaves_the_device_alone():
    """On `meta`, where no value can be read."""
    with torch.device("meta"):
        network = torch.nn.Linear(3, 2)
    for found, kwargs in KINDS.values():
        average = found(**kwargs).begun(network)
        for _ in range(2):
            average.end_step(network)


def test_checkpoints_hold_the_average(train, valid, tmp_path):
    folder = CheckpointFolder(tmp_path, {})
    trainer = trained(train, valid, config("EMA"), fit={"folder": folder})
    state = load(trainer.checkpoint_path)
    same_bits(state.tensors["averaging"], trainer.phase.averaging.average.state_dict())
    assert state.values["averaging"] == {"count": 4 * 6}
