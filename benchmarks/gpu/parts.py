"""Trainers as the script measures them: every backbone and balancer of the house, on days of a panel file."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from benchmarks.gpu.panel_file import PanelFile
from benchmarks.step_cost import BALANCERS, TASKS
from qlib_ext.config.build import build
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task
from qlib_ext.model.trainer import Trainer

BACKBONES: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("lstm.LSTM", {"num_layers": 2}),
    "GRU": ("gru.GRU", {"num_layers": 2}),
    "ALSTM": ("alstm.ALSTM", {}),
    "GATs": ("gats.GATs", {"num_layers": 2}),
    "HIST": ("hist.HIST", {"num_layers": 2}),
    "RSR": ("rsr.RSR", {}),
    "Transformer": ("transformer.Transformer", {"dropout": 0.0}),
    "ResNeXt": ("resnext.ResNeXt", {}),
    "DSN": ("dsn.DSN", {}),
    "MCCNN": ("mccnn.MCCNN", {}),
    "MASTER": ("master.MASTER", {"beta": None, "num_heads": 2, "dropout": 0.0}),
}


@dataclass(frozen=True)
class Recipe:
    """What to train: names of `BACKBONES` and `BALANCERS`, a width, a precision; `momentum` for the second task."""

    backbone: str = "LSTM"
    balancer: str = "CQB"
    hidden_size: int = 128
    precision: str = "float32"
    momentum: bool = True
    seed: int = 0


def make(recipe: Recipe, file: PanelFile, device: torch.device) -> Trainer:
    """A trainer of fresh weights, the same on every device."""
    torch.manual_seed(recipe.seed)
    names = [*TASKS] if recipe.momentum else ["score"]
    classes = int(np.nanmax(file.raw_labels["MOMENTUM"])) + 1
    tasks = [Task.from_config(name, TASKS[name]) for name in names]
    tasks = [replace(task, classes=classes if task.classification else None) for task in tasks]
    path, kwargs = BACKBONES[recipe.backbone]
    network = MultiTaskNetwork(
        {
            "class": f"qlib_ext.model.backbones.{path}",
            "kwargs": {"hidden_size": recipe.hidden_size, **kwargs},
        },
        tasks,
        num_features=len(file.features.names),
        lookback_days=file.features.lookback_days,
    )
    balancer: dict[str, Any] = {"class": f"qlib_ext.model.balancers.{BALANCERS[recipe.balancer]}"}
    if not recipe.momentum:
        balancer = {"class": "qlib_ext.model.balancers.single_task.SingleTask", "kwargs": {"task": "score"}}
    return Trainer(
        network,
        tasks,
        build(balancer, Balancer, name="balancer"),
        TrainerOptions(precision=recipe.precision),
        seed=recipe.seed,
        device=device,
    )


def positions(trainer: Trainer, panels: DailyPanels) -> np.ndarray:
    """The days on which all tasks have labels."""
    return panels.labelled(tuple(task.label for task in trainer.tasks))


def weights(trainer: Trainer) -> dict[str, torch.Tensor]:
    """A copy of all weights, on the CPU."""
    return {name: value.detach().cpu().clone() for name, value in trainer.network.state_dict().items()}


def on(panel: DailyPanel, device: torch.device) -> DailyPanel:
    """The same day on another device."""

    def moved(value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            return value.to(device)
        return {name: each.to(device) for name, each in value.items()} if isinstance(value, dict) else value

    fields = {name: moved(getattr(panel, name)) for name in panel.__dataclass_fields__}
    return replace(panel, **fields)
