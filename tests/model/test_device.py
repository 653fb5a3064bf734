"""A step of the training on torch's `meta` device, where a tensor has a size and no values.

What runs there reads no value of a tensor: on a GPU nothing in it waits for what is still to be computed. And it leaves
no tensor on the CPU. Every backbone, balancer and loss is tried as soon as its file is there: each backbone and each
balancer with all losses at once, a task each, and each backbone with both kinds of balancer. The optimizer is no part of
it: torch's fused Adam does not run on `meta`.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import Any

import pandas as pd
import pytest
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from qlib_ext.data.panel import DailyPanel
from qlib_ext.model import backbones, balancers, losses, phase_state
from qlib_ext.model.backbones.base import Backbone
from qlib_ext.model.backbones.dsn import DSN
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.balancers.cqb import CQB
from qlib_ext.model.balancers.equal import EqualWeighting
from qlib_ext.model.losses.base import Loss
from qlib_ext.model.losses.cross_entropy import CrossEntropy
from qlib_ext.model.losses.mse import MSE
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import LOOK_EVERY, Trainer

STOCKS, DAYS, FEATURES, MARKET, CLASSES = 7, 4, 3, 2, 5
META = torch.device("meta")


def every(family, kind):
    """The classes of a family that can be built, by name."""
    found = {}
    for file in pkgutil.iter_modules(family.__path__, f"{family.__name__}."):
        for name, each in vars(importlib.import_module(file.name)).items():
            own = inspect.isclass(each) and each.__module__ == file.name and issubclass(each, kind)
            if own and not inspect.isabstract(each) and each.__module__ != kind.__module__:
                found[name] = each
    return found


# What a class needs to be told; one that is not here is built with its defaults.
ARGUMENTS: dict[str, dict[str, Any]] = {
    "TorchJDAggregator": {"method": {"class": "torchjd.aggregation.Mean"}},
    "TorchJDScalarizer": {"method": {"class": "torchjd.scalarization.UW"}},
    "WeightedSum": {"losses": [CrossEntropy(), CrossEntropy()]},
    "Gated": {"backbone": {"class": "qlib_ext.model.backbones.gru.GRU"}},
}
BACKBONES = every(backbones, Backbone)
BALANCERS = every(balancers, Balancer)
LOSSES = every(losses, Loss)

# Those that need a value in each step, and why.
READS = {
    "HIST": "how many predefined concepts have a stock of the day, and how many hidden ones there are, are sizes",
    "CAGrad": "its dual is solved exactly, over all sets of tasks, on the host; K × K numbers go there",
    "TorchJDAggregator": "asks of every gradient whether it is finite; many methods have a solver on the host besides",
    "TorchJDScalarizer": "asks of every weight whether it is finite",
}


class Watch(TorchDispatchMode):
    """Keeps each operation that has, or makes, a tensor that is not on `meta`."""

    def __init__(self) -> None:
        super().__init__()
        self.elsewhere: list[str] = []

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **(kwargs or {}))
        tensors = [x for x in tree_leaves((args, kwargs, result)) if isinstance(x, torch.Tensor)]
        if any(x.device != META for x in tensors):
            self.elsewhere.append(str(function))
        return result


class WatchSent(TorchFunctionMode):
    """Keeps each tensor that is made of Python's numbers: on a GPU that is a copy, and a wait."""

    MAKERS = (torch.tensor, torch.as_tensor, torch.from_numpy, torch.Tensor.new_tensor)

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[str] = []

    def __torch_function__(self, function, types, args=(), kwargs=None):
        if function in self.MAKERS:
            self.sent.append(function.__name__)
        return function(*args, **(kwargs or {}))


def day() -> DailyPanel:
    """A day without values; which stocks have a label is known beforehand, as of any day of a segment."""
    rows = torch.empty(STOCKS - 2, dtype=torch.long, device=META)
    labels = {name: torch.empty(STOCKS, device=META) for name in ("RETURN", "MOMENTUM")}
    return DailyPanel(
        date=pd.Timestamp("2020-01-01"),
        features=torch.empty(STOCKS, DAYS, FEATURES, device=META),
        instruments=torch.empty(STOCKS, dtype=torch.long, device=META),
        market_value=torch.empty(STOCKS, device=META),
        labels=labels,
        raw_labels=labels,
        concepts=torch.empty(STOCKS, 3, device=META),
        market_status=torch.empty(MARKET, device=META),
        rows=dict.fromkeys(labels, rows),
    )


def all_tasks() -> list[Task]:
    """A task for every loss; one that can be of values and of classes has two."""
    tasks = [Task("score", "RETURN", MSE())]
    for name, kind in LOSSES.items():
        given = ARGUMENTS.get(name, {})
        both = "classification" in inspect.signature(kind).parameters
        for loss in [kind(**given), *([kind(**given, classification=True)] if both else [])]:
            if loss.classification:
                tasks.append(Task(f"{name}_classes", "MOMENTUM", loss, classes=CLASSES))
            else:
                tasks.append(Task(f"{name}_values", "RETURN", loss))
    return tasks


class NoOptimizer:
    def __init__(self, parameters, lr, fused):
        self.param_groups = [{"lr": lr}]

    def step(self):
        pass

    def zero_grad(self, set_to_none):
        pass


@pytest.fixture
def train(monkeypatch):
    """Two steps, the first of which may send what stays the same; what the second has elsewhere, and what it sends."""
    monkeypatch.setattr(phase_state, "Adam", NoOptimizer)

    def run(backbone, balancer, tasks, position=1):
        kwargs = ARGUMENTS.get(backbone.__name__, {})
        config = {"class": f"{backbone.__module__}.{backbone.__name__}", "kwargs": kwargs}
        sizes = {"num_features": FEATURES, "lookback_days": DAYS, "num_market": MARKET}
        with META:
            network = MultiTaskNetwork(config, tasks, **sizes).train()
        trainer = Trainer(network, tasks, balancer, TrainerOptions(), seed=0, device=META)
        days = dict.fromkeys([position], day())
        trainer._step(days, position)
        with WatchSent() as sent, Watch() as watch:
            trainer._step(days, position)
        for name, parameter in network.named_parameters():
            assert parameter.grad is None or parameter.grad.device == META, name
        return watch.elsewhere, sent.sent

    return run


def test_there_are_some():
    assert {"LSTM", "HIST", "ResNeXt"} <= BACKBONES.keys()
    assert {"EqualWeighting", "CQB", "CAGrad", "Weighted"} <= BALANCERS.keys()
    assert {"MSE", "CrossEntropy", "ApproxNDCG", "WeightedSum"} <= LOSSES.keys()
    assert READS.keys() <= BACKBONES.keys() | BALANCERS.keys() | LOSSES.keys()


each_backbone = pytest.mark.parametrize("backbone", [name for name in BACKBONES if name not in READS])


@each_backbone
def test_backbones(train, backbone):
    assert train(BACKBONES[backbone], EqualWeighting(), all_tasks()) == ([], [])


@each_backbone
def test_backbones_a_pass_for_each_task(train, backbone):
    assert train(BACKBONES[backbone], CQB(), all_tasks()[:2]) == ([], [])


@pytest.mark.parametrize("balancer", [name for name in BALANCERS if name not in READS])
def test_balancers(train, balancer):
    chosen = BALANCERS[balancer](**ARGUMENTS.get(balancer, {}))
    assert train(DSN, chosen, all_tasks()) == ([], [])


def test_a_day_at_which_gradients_are_looked_at(train):
    assert train(DSN, EqualWeighting(), all_tasks()[:3], position=LOOK_EVERY) == ([], [])


@pytest.mark.parametrize("name", READS)
def test_those_that_need_values_need_them(train, name):
    """Else they belong to the others."""
    backbone, balancer = (
        BACKBONES.get(name, BACKBONES["DSN"]),
        BALANCERS.get(name, BALANCERS["EqualWeighting"]),
    )
    with pytest.raises((NotImplementedError, RuntimeError), match="meta"):
        train(backbone, balancer(**ARGUMENTS.get(balancer.__name__, {})), all_tasks()[:2])


def test_the_test_sees_what_it_should(train):
    """A loss that makes a tensor of numbers, and a backbone that keeps one on the CPU."""

    class Sending(MSE):
        def forward(self, pred, target):
            return super().forward(pred, target) * torch.tensor(2.0, device=pred.device)

    class Leaving(MSE):
        def forward(self, pred, target):
            torch.zeros(3) + 1
            return super().forward(pred, target)

    class Reading(MSE):
        def forward(self, pred, target):
            return super().forward(pred, target) if target.sum() > 0 else pred.sum()

    assert train(DSN, EqualWeighting(), [Task("score", "RETURN", Sending())]) == ([], ["tensor"])
    elsewhere, _ = train(DSN, EqualWeighting(), [Task("score", "RETURN", Leaving())])
    assert elsewhere == ["aten.zeros.default", "aten.add.Tensor"]
    with pytest.raises(RuntimeError, match="meta"):
        train(DSN, EqualWeighting(), [Task("score", "RETURN", Reading())])
