"""Mean squared error."""

from __future__ import annotations

from torch import Tensor

from qlib_ext.model.losses.base import Loss, as_values


class MSE(Loss):
    r"""Mean squared error over the stocks of a day: predictions ``[N]`` or ``[N, 1]``, values ``[N]``.

    Source: the regression loss of MiM-StocR and Eq. 4 of the ResNeXt multi-task paper.

    .. math:: L = \frac{1}{N} \sum_i (\hat y_i - y_i)^2
    """

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar in the squared unit of the label."""
        pred, target = as_values(pred, target)
        return (pred - target).square().mean()
