"""Several losses of one task together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from qlib_ext.checks import UserError, above, brief
from qlib_ext.config.build import build
from qlib_ext.model.losses.base import Loss


class WeightedSum(Loss):
    r"""The sum of several losses of the same predictions and labels, each with a weight.

    .. math:: L = \sum_m w_m L_m

    Feng et al. (2019) train returns on the squared error and the pair-wise loss together. A ranking loss on classes needs
    cross-entropy beside it where the classes themselves are to be predicted: MiM-StocR's classification loss (Eq. 9) is
    the example below.

    Parameters
    ----------
    losses
        Each `{class, kwargs}` of a `Loss`; all of values, or all of classes.
    weights
        One number above 0 for each; all 1 by default.

    Examples
    --------
    ::

        loss:
          class: qlib_ext.model.losses.weighted_sum.WeightedSum
          kwargs:
            losses:
              - {class: qlib_ext.model.losses.cross_entropy.CrossEntropy}
              - {class: qlib_ext.model.losses.approx_ndcg.ApproxNDCG}
            weights: [0.5, 0.5]
    """

    def __init__(
        self, losses: Sequence[Mapping[str, Any] | Loss], weights: Sequence[float] | None = None
    ) -> None:
        super().__init__()
        if not isinstance(losses, (list, tuple)) or not losses:
            raise UserError(f"`losses` must be a list of at least 1 loss, found {brief(losses)}")
        built = [build(loss, Loss, name=f"losses[{m}]") for m, loss in enumerate(losses)]
        kinds = {loss.classification for loss in built}
        if len(kinds) > 1:
            names = ", ".join(
                f"{type(loss).__name__} ({'classes' if loss.classification else 'values'})" for loss in built
            )
            raise UserError(f"`losses` must all be of values or all of classes, found {names}")
        weights = [1.0] * len(built) if weights is None else weights
        if not isinstance(weights, (list, tuple)) or len(weights) != len(built):
            raise UserError(
                f"`weights` must be a list of {len(built)} numbers, one a loss, found {brief(weights)}"
            )
        self.losses = nn.ModuleList(built)
        self.weights = [float(above(f"weights[{m}]", weight, 0)) for m, weight in enumerate(weights)]
        self.classification = built[0].classification

    def forward(self, pred: Tensor, target: Tensor) -> Tensor:
        """Return the loss of a day, a scalar."""
        terms = [weight * loss(pred, target) for weight, loss in zip(self.weights, self.losses, strict=True)]
        return sum(terms[1:], start=terms[0])
