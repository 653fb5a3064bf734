"""What every balancer promises, and its two kinds."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor

from qlib_ext.checks import UserError, at_least
from qlib_ext.config.rebuildable import Rebuildable


class Balancer(Rebuildable):
    """From the losses of K tasks to the gradient of the P shared parameters.

    A balancer is a `Weighting` or an `Aggregator`. It never touches an optimizer: the trainer applies what it says.

    Parameters
    ----------
    weight_decay
        Coupled L2 that the trainer puts on all parameters. The baselines of MiM-StocR's paper have none, which confounds
        a comparison with CQB.

    Attributes
    ----------
    weight_decay
        That of the coming epoch; constant unless a balancer changes it.
    tasks
        Names of the K tasks, set by `setup`.
    """

    tasks: tuple[str, ...] = ()

    def __init__(self, weight_decay: float = 0.0) -> None:
        self.weight_decay = float(at_least("weight_decay", weight_decay, 0))

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

    def end_step(self, losses_after: Callable[[], Tensor]) -> None:
        """Take note of what the step has made of its day's losses.

        Calling `losses_after` measures them, `[K]`, by one more pass of the day through the network.
        """

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


class Weighting(Balancer, ABC):
    """A balancer that weighs losses: one backward pass through their weighted sum, whatever K is."""

    @abstractmethod
    def weights(self, losses: Tensor) -> Tensor:
        """Weights `[K]` of the transformed losses, from the losses `[K]`; neither has a gradient."""


class ConstantWeighting(Weighting):
    """The weights of `loss_weights`, in every step of a phase."""

    _made: tuple[tuple[str, ...], Tensor] | None = None  # for which tasks, and on the device that trains

    def weights(self, losses: Tensor) -> Tensor:
        """The constant weights, sent to the device once."""
        if self._made is None or self._made[0] != self.tasks or self._made[1].device != losses.device:
            self._made = self.tasks, losses.new_tensor(list(self.loss_weights().values()))
        return self._made[1]


class Aggregator(Balancer, ABC):
    """A balancer that combines gradients: one backward pass a task."""

    @abstractmethod
    def aggregate(self, jacobian: Tensor) -> Tensor:
        """Combine `[K, P]` task gradients into the `[P]` gradient of the shared parameters."""
