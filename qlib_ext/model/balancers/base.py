"""What every balancer promises."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qlib_ext.checks import UserError


class Balancer:
    """From the losses of K tasks to the gradient of the P shared parameters.

    A balancer answers in one of two ways. With `needs_jacobian` False it gives `weights`, and one backward pass
    through their weighted sum does the rest. With `needs_jacobian` True the trainer makes one backward pass a
    task and `aggregate` combines the rows. A balancer never touches an optimizer: the trainer applies what it says.

    Attributes
    ----------
    needs_jacobian
        Which of the two ways.
    needs_losses_after
        Whether `end_step` is to be given the day's losses after the step: one forward pass more.
    weight_decay
        Coupled L2 that the trainer puts on all parameters for the coming epoch.
    tasks
        Names of the K tasks, set by `setup`.
    """

    needs_jacobian: bool = False
    needs_losses_after: bool = False
    weight_decay: float = 0.0
    tasks: tuple[str, ...] = ()

    def setup(self, tasks: Sequence[str]) -> None:
        """Learn the tasks' names; called once, before the first step."""
        self.tasks = tuple(tasks)

    def begin_phase(self, tasks: Sequence[str]) -> None:
        """Begin a phase of the training that trains some of the tasks given to `setup`, in their order.

        Until the next phase all K losses and gradients are theirs. What the balancer has come to hold is forgotten.
        """
        self.setup(tasks)

    def loss_weights(self) -> dict[str, float]:
        """Constant weight of each task's loss in a validation score: 1 where a balancer has no constant weights."""
        return dict.fromkeys(self.tasks, 1.0)

    def transform(self, losses: Tensor) -> Tensor:
        """What is differentiated in place of the losses `[K]`, for shared parameters and heads alike."""
        return losses

    def weights(self, losses: Tensor) -> Tensor:
        """Weights `[K]` of the transformed losses (without gradient)."""
        return torch.ones_like(losses)

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """Combine `[K, P]` task gradients into the `[P]` gradient of the shared parameters."""
        raise TypeError(f"{type(self).__name__} answers with weights and has no `aggregate`")

    def end_step(self, losses: Tensor) -> None:
        """Take note of what the step has made of its day's losses `[K]`; called where `needs_losses_after` is set."""

    def end_epoch(self, train: Mapping[str, float], valid: Mapping[str, float]) -> None:
        """Take note of an epoch's losses by task, both measured in evaluation mode."""

    def report(self) -> dict[str, float]:
        """The balancer's own quantities in force, as `name` or `name/task`, for the log of each epoch."""
        return {"weight_decay": self.weight_decay}

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """What resuming needs: tensors, and values that JSON can hold."""
        return {}, {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up what `state` gave."""
        if tensors or values:
            raise UserError(
                f"{type(self).__name__} has no state to load, found {sorted([*tensors, *values])}"
            )
