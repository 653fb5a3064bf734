"""Cross-entropy."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor

from qlib_ext.model.losses.base import Loss, as_classes


class CrossEntropy(Loss):
    r"""Mean cross-entropy over the stocks of a day, of logits ``[N, C]`` against class indices ``[N]``.

    Source: the first term of MiM-StocR's Eq. 9 and Eq. 4 of the ResNeXt multi-task paper.

    .. math:: L = -\frac{1}{N} \sum_i \log \mathrm{softmax}(\mathrm{logits}_i)_{c_i}

    Class indices run from 0 to C - 1 and may come as floats, as label columns do.
    """

    classification = True

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar in nats."""
        logits, classes = as_classes(pred, target)
        return F.cross_entropy(logits, classes)
