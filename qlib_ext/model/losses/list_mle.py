"""The likelihood of the right order of a day's stocks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from qlib_ext.checks import instance
from qlib_ext.model.losses.base import Loss, as_ranking


class ListMLE(Loss):
    r"""Negative log-likelihood, per stock, of the order of the labels under the Plackett-Luce model.

    Source: Xia et al. (2008), "Listwise Approach to Learning to Rank: Theory and Algorithm", ICML (the
    likelihood loss). Stocks are drawn one after the other, each with a probability in proportion to e to its score among those
    that are left; from the highest label down:

    .. math:: L = -\frac{1}{N} \sum_i \log \frac{e^{f_i}}{e^{f_i} + \sum_{j: y_j < y_i} e^{f_j}}

    Parameters
    ----------
    classification
        Whether to rank by classes: f is then the mean class under the predicted probabilities, as in
        `ApproxNDCG`, and y the class. Else both are values, such as score and return.

    Shapes
    ------
    Values ``[N]`` and ``[N]``, or logits ``[N, C]`` and class indices ``[N]``, to a scalar of at least 0.

    Notes
    -----
    Time grows with N log N and memory with N: the sums run along the sorted labels. A stock without any other of
    lower label adds 0, so a day of equal labels, or of one stock, gives 0 and no gradient.

    Departures
    ----------
    - Equal labels: the paper has none. Here a stock is drawn against those of strictly lower label only, so the
      loss does not depend on how ties are broken and asks for no order among them, as it must with five classes.
      Without ties it is the paper's.
    - The mean over the stocks instead of the sum: the size of the universe does not scale the loss.
    """

    def __init__(self, classification: bool = False) -> None:
        super().__init__()
        self.classification = instance("classification", classification, bool)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar."""
        score, relevance = as_ranking(pred, target, self.classification)
        relevance, order = relevance.sort()
        score = score[order]  # [N], from the lowest label up
        below = torch.searchsorted(relevance, relevance)  # [N]: how many labels are strictly lower
        rivals = score.logcumsumexp(dim=0)[(below - 1).clamp_min(0)]  # [N]: of all of these together
        return torch.where(below > 0, F.softplus(rivals - score), 0.0).mean()
