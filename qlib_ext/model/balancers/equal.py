"""Equal weighting (EW)."""

from __future__ import annotations

import torch
from torch import Tensor

from qlib_ext.model.balancers.base import Weighting


class EqualWeighting(Weighting):
    """The sum of the losses: every task has weight 1 (MiM-StocR, section 4.1, baseline EW).

    Parameters
    ----------
    weight_decay
        Constant coupled L2.
    """

    def weights(self, losses: Tensor) -> Tensor:
        """1 for every task."""
        return torch.ones_like(losses)
