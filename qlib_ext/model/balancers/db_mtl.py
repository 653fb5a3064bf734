"""Dual-balancing of multi-task learning (DB-MTL)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from qlib_ext.checks import between
from qlib_ext.model.balancers.base import Aggregator

EPSILON = 1e-8  # inside the logarithm; MiM-StocR's Algorithm 1, lines 6 and 9


class DBMTL(Aggregator):
    r"""Balance the scales of losses by a logarithm, and those of gradients by bringing all to the largest norm.

    Source: Lin et al. (2023), "Dual-Balancing for Multi-Task Learning"; MiM-StocR, section 4.1, baseline DB-MTL.

    Per step and task k, with g_k the gradient of log(L_k + 1e-8) on the shared parameters:

    .. math::
        \hat g_k &\leftarrow \beta \hat g_k + (1 - \beta) g_k \\
        \tilde g &= \max_j \lVert\hat g_j\rVert \sum_k \hat g_k / \lVert\hat g_k\rVert

    The average starts at the first gradient. Heads take the gradient of log(L_k + 1e-8).

    Parameters
    ----------
    beta
        Forgetting rate, in [0, 1): the share of the old average that stays.
    weight_decay
        Constant coupled L2.

    Notes
    -----
    A task whose averaged gradient is zero adds nothing to the step; a task with a loss that is not finite is the
    trainer's to stop at.

    Departures
    ----------
    The authors' code lets beta shrink with the root of the step and starts the average at zero; here it
    is CQB without what CQB adds, so that a comparison of the two shows just that.
    """

    def __init__(self, beta: float = 0.5, weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        self.beta = float(between("beta", beta, 0, 1, open_high=True))
        self._average: Tensor | None = None  # [K, P]
        self._forget_by({})

    def setup(self, tasks: Sequence[str]) -> None:
        """Start without an average."""
        super().setup(tasks)
        self._average = None
        self._forget_by(dict.fromkeys(self.tasks, self.beta))

    def _forget_by(self, task_beta: Mapping[str, float]) -> None:
        self.task_beta = dict(task_beta)
        self._beta_column: Tensor | None = None  # [K, 1], made where the gradients are

    def transform(self, losses: Tensor) -> Tensor:
        """Logarithm of the losses."""
        return torch.log(losses + EPSILON)

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """Average each task's gradient over steps, bring all to the largest norm, and add them up."""
        if self._beta_column is None:
            self._beta_column = jacobian.new_tensor([[self.task_beta[task]] for task in self.tasks])
        if self._average is None:
            self._average = jacobian.clone()
        else:
            self._average.mul_(self._beta_column).add_(jacobian * (1 - self._beta_column))
        norms = torch.linalg.vector_norm(self._average, dim=1)  # [K]
        scale = torch.where(norms > 0, norms.max() / norms, 0.0)  # [K]
        return scale @ self._average  # [P]

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """The averaged gradients; a copy, which later steps leave alone."""
        return ({} if self._average is None else {"average": self._average.clone()}), {}

    def load_state(self, tensors: Mapping[str, Tensor], values: Mapping[str, Any]) -> None:
        """Take up where `state` was taken."""
        self._average = tensors["average"].clone() if "average" in tensors else None
