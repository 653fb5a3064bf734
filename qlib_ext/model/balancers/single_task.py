"""Single-task learning (STL)."""

from __future__ import annotations

from collections.abc import Sequence

from qlib_ext.checks import one_of
from qlib_ext.model.balancers.base import ConstantWeighting


class SingleTask(ConstantWeighting):
    """One task alone moves the shared parameters (MiM-StocR, section 4.1, baseline STL).

    Other tasks may be there; they have weight 0, so neither the shared parameters nor their own heads learn from
    them.

    Parameters
    ----------
    task
        Name of the task that learns.
    weight_decay
        Constant coupled L2.
    """

    def __init__(self, task: str = "score", weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        self.task = task

    def setup(self, tasks: Sequence[str]) -> None:
        """Check that the task is there."""
        super().setup(tasks)
        one_of("task", self.task, self.tasks)

    def loss_weights(self) -> dict[str, float]:
        """1 for the task that learns, 0 for the others."""
        return {name: float(name == self.task) for name in self.tasks}
