"""Pairs weighted by what their order is worth to the NDCG, as a loss."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from qlib_ext.checks import above, integer, one_of
from qlib_ext.model.losses.base import Loss, as_ranking


class LambdaLoss(Loss):
    r"""Logistic loss of every pair of different classes, weighted by its worth in NDCG.

    Source: Wang et al. (2018), "The LambdaLoss Framework for Ranking Metric Optimization", CIKM.

    .. math:: L = \sum_{i, j: y_i > y_j} w_{ij} \, \frac{G(y_i) - G(y_j)}{\mathrm{DCG}^*}
        \log_2 \bigl( 1 + e^{-\alpha (f_i - f_j)} \bigr), \qquad G(y) = 2^y - 1

    f is the mean class under the predicted probabilities, y the class, :math:`\mathrm{DCG}^*` the best DCG that
    the day's classes allow (over the k best with `k`). The weight comes from the places :math:`\pi` by score,
    without a gradient, with :math:`D(r) = \log_2(1 + r)`:

    - ``lambdarank``, the default (Burges, Ragno and Le, 2006): :math:`w = |1 / D(\pi_i) - 1 / D(\pi_j)|`, what
      exchanging the two would change;
    - ``ndcg_loss2`` (Wang et al.'s NDCG-Loss2): :math:`w = 1 / D(d) - 1 / D(d + 1)` with the distance
      :math:`d = |\pi_i - \pi_j|`.

    Parameters
    ----------
    weighting
        ``lambdarank`` or ``ndcg_loss2``.
    k
        Only the k highest scores count: ``lambdarank`` takes :math:`1 / D = 0` beyond k, the change of NDCG@k,
        ``ndcg_loss2`` leaves out pairs of which neither is among them. None counts all.
    alpha
        Sharpness of the logistic comparison.

    Shapes
    ------
    Logits ``[N, C]`` and class indices ``[N]`` to a scalar of at least 0; memory grows with N².

    Notes
    -----
    *Equal scores.* A stock's place is the mean of those that its equals share, and stocks that tie at the end of
    k all belong to it: the order in which stocks come decides nothing. Under ``lambdarank`` scores that are all
    equal have no gradient; under ``ndcg_loss2`` they count as neighbours (d = 1) and have one.

    *Value.* ``ndcg_loss2`` has its weight on neighbours, so its value falls from step to step only while the
    places stay: a day in reversed order, where neighbours are of one class, may cost less than one in random
    order. ``lambdarank`` costs more the worse the order is. A balancer that looks at the course of the losses
    (CQB) wants that.

    Days of one class or one stock give 0 and no gradient.

    Departures
    ----------
    The truncation at `k` is not in Wang et al.
    """

    classification = True

    def __init__(self, weighting: str = "lambdarank", k: int | None = None, alpha: float = 1.0) -> None:
        super().__init__()
        self.weighting = one_of("weighting", weighting, ("lambdarank", "ndcg_loss2"))
        self.k = None if k is None else integer("k", k, 1)
        self.alpha = above("alpha", alpha, 0)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar."""
        score, relevance = as_ranking(pred, target, classification=True)
        gain = torch.exp2(relevance) - 1  # [N]
        place = torch.arange(1, len(gain) + 1, device=gain.device, dtype=gain.dtype)
        best = gain.sort(descending=True).values[: self.k] / torch.log2(1 + place)[: self.k]
        ideal = best.sum()
        worth = gain[:, None] - gain  # [N, N], positive where i belongs before j
        worth = self._weight(score.detach()) * worth.clamp_min(0) / torch.where(ideal > 0, ideal, 1.0)
        cost = F.softplus(-self.alpha * (score[:, None] - score)) / math.log(2)
        return (worth * cost).sum()

    def _weight(self, score: Tensor) -> Tensor:
        """Weight of each pair, ``[N, N]``."""
        higher = (score > score[:, None]).sum(dim=1)  # [N]
        equal = (score == score[:, None]).sum(dim=1)  # [N], the stock itself with them
        rank = higher + (1 + equal.to(score.dtype)) / 2  # [N], the mean of the places that equals share
        counts = higher < (len(score) if self.k is None else self.k)  # [N]
        if self.weighting == "lambdarank":
            discount = counts / torch.log2(1 + rank)
            return (discount[:, None] - discount).abs()
        distance = (rank[:, None] - rank).abs().clamp_min(1)
        weight = 1 / torch.log2(1 + distance) - 1 / torch.log2(2 + distance)
        return weight * (counts[:, None] | counts)
