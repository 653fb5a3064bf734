"""The information coefficient of a day, as a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from qlib_ext.checks import above
from qlib_ext.model.losses.base import Loss, as_values


class NegativeIC(Loss):
    r"""One minus the Pearson correlation of a day's predictions with their labels.

    .. math:: L = 1 - \frac{\overline{(\hat y - \bar{\hat y})(y - \bar y)}}
        {\sqrt{(\operatorname{var} \hat y + \epsilon)(\operatorname{var} y + \epsilon)}}

    It is MiM-StocR's measure (Eq. 16) itself, in [0, 2]. On labels ranked a day, the default, it is the
    correlation with the ranks: smooth, and between IC and RankIC.

    Parameters
    ----------
    epsilon
        Added to both variances, in squared units of predictions and labels; a spread well above its root (0.001)
        leaves it without effect. See Notes.

    Shapes
    ------
    Predictions ``[N]`` or ``[N, 1]`` and values ``[N]`` to a scalar in [0, 2].

    Notes
    -----
    The one is added so that balancers that take a logarithm (CQB, DB-MTL) can have it; the gradient is that of
    minus the IC. Neither the level nor, above :math:`\sqrt\epsilon`, the spread of the predictions is learned:
    scores come in arbitrary units, and a strategy that reads them as returns needs another loss beside it
    (`WeightedSum`).

    Equal predictions have no correlation: the loss is 1, and its gradient points along the labels with a length
    that :math:`\epsilon` bounds. Where all labels are equal, or there is one stock, the loss is 1 and the gradient
    zero.
    """

    def __init__(self, epsilon: float = 1e-6) -> None:
        super().__init__()
        self.epsilon = above("epsilon", epsilon, 0)

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar."""
        pred, target = as_values(pred, target)
        pred, target = pred - pred.mean(), target - target.mean()
        variances = (pred.square().mean() + self.epsilon) * (target.square().mean() + self.epsilon)
        correlation = (pred * target).mean() * torch.rsqrt(variances)
        return 1 - correlation.clamp(max=1)  # rounding may take it above
