"""A task: which label, which head, which loss."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from qlib_ext.checks import UserError, brief, instance, integer, one_of, short
from qlib_ext.config.build import build, check_config
from qlib_ext.data.panel import DailyPanel
from qlib_ext.model.losses.base import Loss

LINEAR_HEAD = {"class": "qlib_ext.model.heads.linear.LinearHead"}


@dataclass(frozen=True)
class Task:
    """One thing to learn from a stock's embedding.

    Attributes
    ----------
    name
        Key in the workflow's `tasks`; `score` is the task that ranks stocks.
    label
        Label column of the dataset.
    loss
        What is minimised; its `classification` says which kind of task this is.
    head
        `{class, kwargs}` of the head; its sizes are given by the network.
    classes
        C of a classification task; None lets the labels of train and valid say (largest class + 1).
    """

    name: str
    label: str
    loss: Loss
    head: Mapping[str, Any] = field(default_factory=lambda: dict(LINEAR_HEAD))
    classes: int | None = None

    @classmethod
    def from_config(cls, name: str, config: Mapping[str, Any]) -> Task:
        """Build a task from `{label, loss, head, classes}` and check it."""
        if not isinstance(name, str) or not name.isidentifier() or hasattr(nn.ModuleDict(), name):
            raise UserError(
                f"`tasks` must name each task by letters, digits and underscores, and not as an attribute of torch's "
                f"ModuleDict, found {brief(name)}"
            )
        short("name of a task", name)
        where = f"tasks.{name}"
        if not isinstance(config, Mapping):
            raise UserError(f"`{where}` must be a mapping with `label` and `loss`, found {brief(config)}")
        for key in config:
            one_of(f"key of {where}", key, ("label", "loss", "head", "classes"))
        for key in ("label", "loss"):
            if key not in config:
                raise UserError(f"`{where}` must name its `{key}`, found {sorted(config)}")
        head = config.get("head", LINEAR_HEAD)
        check_config(head, nn.Module, name=f"{where}.head", in_features=1, out_features=1)
        task = cls(
            name=name,
            label=instance(f"{where}.label", config["label"], str),
            loss=build(config["loss"], Loss, name=f"{where}.loss"),
            head=head,
            classes=config.get("classes"),
        )
        if task.classes is not None:
            integer(f"{where}.classes", task.classes, 2)
            if not task.classification:
                raise UserError(
                    f"`{where}.classes` is for classification losses, found {type(task.loss).__name__}"
                )
        return task

    @property
    def classification(self) -> bool:
        """Whether the task predicts a class."""
        return self.loss.classification

    @property
    def out_features(self) -> int:
        """Outputs of the head: C, or 1 for a regression."""
        if not self.classification:
            return 1
        if self.classes is None:
            raise RuntimeError(
                f"the number of classes of task {self.name} is not known before the labels are"
            )
        return self.classes

    def daily_loss(self, prediction: Tensor, panel: DailyPanel) -> Tensor:
        """Loss of one day over the stocks that have a label; stocks without one are dropped here, once."""
        rows = panel.labelled(self.label)
        return self.loss(prediction[rows], panel.labels[self.label][rows])

    def probabilities(self, prediction: Tensor) -> Tensor:
        """Class probabilities `[N, C]` from logits."""
        return torch.softmax(prediction, dim=-1)


def daily_losses(tasks: Sequence[Task], predictions: Mapping[str, Tensor], panel: DailyPanel) -> Tensor:
    """Losses `[K]` of a day."""
    return torch.stack([task.daily_loss(predictions[task.name], panel) for task in tasks])
