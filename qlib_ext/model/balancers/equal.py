"""Equal weighting (EW)."""

from __future__ import annotations

from qlib_ext import checks
from qlib_ext.model.balancers.base import Balancer


class EqualWeighting(Balancer):
    """The sum of the losses: every task has weight 1 (MiM-StocR, section 4.1, baseline EW).

    Parameters
    ----------
    weight_decay
        Constant coupled L2. The paper's baselines have none, which confounds a comparison with CQB.
    """

    def __init__(self, weight_decay: float = 0.0) -> None:
        self.weight_decay = float(checks.at_least("weight_decay", weight_decay, 0))
