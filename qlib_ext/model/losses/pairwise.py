"""The pair-wise ranking loss."""

from __future__ import annotations

import torch
from torch import Tensor

from qlib_ext.checks import instance
from qlib_ext.model.losses.base import Loss, as_ranking

BLOCK = 1024  # rows of the N x N comparisons that are held at a time


class Pairwise(Loss):
    r"""Every pair of stocks in the wrong order costs the product of its two differences.

    Source: Feng et al. (2019), "Temporal Relational Ranking for Stock Prediction", ACM TOIS 37, second term of
    its objective, on predicted returns; MiM-StocR's ablation "Pair-wise" (section 4.4, Table 3) puts it in the
    place of ApproxNDCG, half and half with cross-entropy.

    .. math:: L = \frac{1}{N^2} \sum_{i, j} \max(0, -(f_i - f_j)(y_i - y_j))

    Parameters
    ----------
    classification
        Whether to rank by classes: f is then the mean class under the predicted probabilities, as in
        `ApproxNDCG`, and y the class. Else both are values.

    Shapes
    ------
    Values ``[N]`` and ``[N]``, or logits ``[N, C]`` and class indices ``[N]``, to a scalar of at least 0.

    Notes
    -----
    *Memory.* The pairs are counted without a graph and 1024 stocks at a time: besides the block, only ``[N]``
    is held, forwards and backwards. For that the loss is written as the sum of f times its own slope, which it
    is, being linear between any two changes of order:

    .. math:: L = \sum_i f_i s_i, \qquad s_i = \frac{1}{N^2} \sum_j
        \bigl( \operatorname{sign}(f_i - f_j) |y_i - y_j| - (y_i - y_j) \bigr)

    *Ties.* A pair of equal labels costs nothing. A pair of equal scores costs nothing either, but its slope is
    half of that in the wrong order, so scores that are all equal part in the right directions.

    *Alone* the loss is least, 0, for scores that are all equal, and training shrinks them towards that: it wants a
    loss beside it that keeps their spread, as cross-entropy and the squared error do (`WeightedSum`).

    Departures
    ----------
    Feng et al. sum over the pairs; the mean is the reading of MiM-StocR's ablation here, and does not
    grow with the universe.
    """

    def __init__(self, classification: bool = False) -> None:
        super().__init__()
        self.classification = instance("classification", classification, bool)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar."""
        score, relevance = as_ranking(pred, target, self.classification)
        slope = _slope(score, relevance)  # [N]
        total = (slope * (score - score.detach().mean())).sum()  # the slopes sum to 0: centring saves digits
        return total + (-total).detach().clamp_min(0)  # what rounding takes below 0, without its gradient


@torch.no_grad()
def _slope(score: Tensor, relevance: Tensor) -> Tensor:
    """Derivative of the loss by each score, ``[N]``."""
    parts = []
    for f, y in zip(score.split(BLOCK), relevance.split(BLOCK), strict=True):
        ahead = y[:, None] - relevance  # [B, N]
        order = torch.sign(f[:, None] - score)  # [B, N]
        parts.append((order * ahead.abs() - ahead).sum(dim=1))
    return torch.cat(parts) / len(score) ** 2
