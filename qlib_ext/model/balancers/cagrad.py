"""Conflict-averse gradient descent (CAGrad)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from qlib_ext.checks import UserError, between
from qlib_ext.model.balancers.base import Aggregator

MOST_TASKS = 10


class CAGrad(Aggregator):
    r"""The step near the mean gradient that serves the worst-served task best.

    Source: Liu et al. (2021), "Conflict-Averse Gradient Descent for Multi-task Learning", NeurIPS, Algorithm 1;
    MiM-StocR, section 4.1, baseline CAGrad.

    With g_k the gradient of task k's loss and :math:`g_0` their mean, the step is

    .. math::
        d = \arg\max_d \min_k \, g_k \cdot d \quad \text{subject to} \quad \lVert d - g_0 \rVert \le c \lVert g_0 \rVert

    whose dual is over weights w of the tasks, at least 0 and of sum 1:

    .. math::
        w^* &= \arg\min_w \; g_w \cdot g_0 + c \lVert g_0 \rVert \lVert g_w \rVert, \qquad g_w = \sum_k w_k g_k \\
        d &= g_0 + c \lVert g_0 \rVert \, g_{w^*} / \lVert g_{w^*} \rVert

    Heads take the gradients of their own losses.

    Parameters
    ----------
    c
        Radius of the ball as a share of the mean gradient's length, in [0, 1), so that the step still lowers the
        mean loss. The paper's, and MiM-StocR's, is 0.4; 0 is the mean.
    weight_decay
        Constant coupled L2.

    Notes
    -----
    The dual is solved exactly, for 2 tasks as for 10, and needs no start and no tolerance: see `dual_weights`. Only
    the K × K products of the gradients leave the device.

    A task whose gradient is zero counts in the mean and has no say beyond it. Where gradients cancel to exactly
    zero, the dual has no direction there; the best of the other faces gives the step, which stays in the ball.

    Departures
    ----------
    None from Algorithm 1. The authors' code also offers to divide d by 1 + c or 1 + c²; with Adam that
    changes nothing but the weight of `weight_decay`.
    """

    def __init__(self, c: float = 0.4, weight_decay: float = 0.0) -> None:
        super().__init__(weight_decay)
        self.c = float(between("c", c, 0, 1, open_high=True))

    def setup(self, tasks: Sequence[str]) -> None:
        """Check that the tasks are few enough to be solved exactly."""
        super().setup(tasks)
        if len(self.tasks) > MOST_TASKS:
            raise UserError(
                f"CAGrad is solved exactly over 2^K sets of tasks, for at most {MOST_TASKS}, found {len(self.tasks)}: "
                "take `torchjd.aggregation.CAGrad` by TorchJD"
            )

    def aggregate(self, jacobian: Tensor) -> Tensor:
        """Combine `[K, P]` into `[P]`."""
        exact = jacobian.double()  # nearly opposite gradients cancel
        mean = exact.mean(dim=0)  # [P]
        products = (exact @ torch.cat([exact, mean[None]]).T).cpu().numpy()  # [K, K + 1]
        radius = self.c * torch.linalg.vector_norm(mean).item()
        weights = 1 / len(products) + dual_weights(products[:, :-1], products[:, -1], radius)
        return torch.from_numpy(weights).to(jacobian) @ jacobian  # [P]


def dual_weights(products: np.ndarray, pull: np.ndarray, radius: float) -> np.ndarray:
    r"""The weights :math:`r \, w^* / \lVert g_{w^*} \rVert` of each task's gradient in the step.

    The minimum lies inside one face of the simplex: a set of tasks that have a weight. There, with a multiplier
    :math:`\nu` for the sum of the weights,

    .. math:: g_k \cdot g_0 + r \, g_k \cdot u = \nu \quad \text{for each k of the face}, \qquad
        u = g_w / \lVert g_w \rVert

    is a linear system for the weights in u, and :math:`\lVert u \rVert = 1` a quadratic equation for
    :math:`\nu`. All faces are solved at once, and of those without a negative weight the one of least cost is
    taken. Gradients are scaled to length 1 first, so tasks of any magnitude are solved alike.

    Parameters
    ----------
    products
        `[K, K]` float64, g_j · g_k.
    pull
        `[K]` float64, g_k · g_0.
    radius
        :math:`r = c \lVert g_0 \rVert`.

    Returns
    -------
    ndarray
        `[K]`, at least 0; zeros where the radius is 0.
    """
    weights = np.zeros(len(products))
    length = np.sqrt(products.diagonal())
    moves = length > 0
    if radius == 0 or not moves.any():
        return weights
    length = length[moves]  # [A]
    pull = pull[moves] / length  # [A]
    cosine = products[np.ix_(moves, moves)] / np.outer(length, length)  # [A, A]

    size = len(length)
    faces = (np.arange(1, 2**size)[:, None] >> np.arange(size)) % 2 == 1  # [S, A], all sets but none
    on_face = cosine * (faces[:, :, None] & faces[:, None, :])  # [S, A, A]
    inverse = np.linalg.pinv(on_face, rcond=1e-12, hermitian=True)
    for_sum, for_pull = inverse @ (1 / length), inverse @ pull  # [S, A]
    a, b, c = for_sum @ (1 / length), for_sum @ pull, for_pull @ pull - radius**2  # a nu² - 2 b nu + c = 0
    nu = (b + np.sqrt(np.maximum(b**2 - a * c, 0.0))) / a  # [S]
    share = faces * (nu[:, None] * for_sum - for_pull)  # [S, A], of unit gradients in u, up to a factor
    norm = np.sqrt(np.maximum(np.einsum("si,ij,sj->s", share, cosine, share), 0.0))  # [S]
    inside = (share >= 0).all(axis=1) & (norm > 0)
    cost = np.full(len(faces), np.inf)
    cost[inside] = (share @ pull + radius * norm)[inside] / (share @ (1 / length))[inside]
    best = int(cost.argmin())
    weights[moves] = radius * share[best] / norm[best] / length
    return weights
