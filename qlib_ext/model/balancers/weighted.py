"""Constant weights of the tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from qlib_ext.checks import UserError, at_least, brief, one_of
from qlib_ext.model.balancers.base import ConstantWeighting


class Weighted(ConstantWeighting):
    r"""The weighted sum of the losses, each task with a constant weight.

    Source: "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt", Eq. 4; also called
    linear scalarization.

    .. math:: L = \sum_k \alpha_k L_k

    Parameters
    ----------
    weights
        Task -> alpha, at least 0; a task that is not named has 1. A task of weight 0 learns nothing, neither in the
        shared parameters nor in its head.
    weight_decay
        Constant coupled L2.

    Raises
    ------
    UserError
        From the constructor, if a weight is no number of at least 0; from `setup`, if a task is not one of the
        workflow's, or all tasks have weight 0.

    Notes
    -----
    A selection by `loss` weighs the validation losses in the same way.
    """

    def __init__(self, weights: Mapping[str, float] | None = None, weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        if weights is not None and not isinstance(weights, Mapping):
            raise UserError(f"`weights` must be a mapping of tasks to numbers, found {brief(weights)}")
        self.alpha = {
            name: float(at_least(f"weights.{name}", weight, 0)) for name, weight in (weights or {}).items()
        }

    def setup(self, tasks: Sequence[str]) -> None:
        """Check that the tasks are there."""
        for name in self.alpha:
            one_of("weights", name, tuple(tasks))
        self.begin_phase(tasks)

    def begin_phase(self, tasks: Sequence[str]) -> None:
        """Keep the weights of the tasks that are trained."""
        self.tasks = tuple(tasks)
        if not any(self.loss_weights().values()):
            raise UserError(
                f"`weights` must be above 0 for at least 1 task, found 0 for {', '.join(self.tasks)}"
            )

    def loss_weights(self) -> dict[str, float]:
        """Alpha of each task."""
        return {name: self.alpha.get(name, 1.0) for name in self.tasks}
