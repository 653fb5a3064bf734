"""Equal weighting (EW)."""

from __future__ import annotations

from qlib_ext.model.balancers.base import ConstantWeighting


class EqualWeighting(ConstantWeighting):
    """The sum of the losses: every task has weight 1 (MiM-StocR, section 4.1, baseline EW).

    Parameters
    ----------
    weight_decay
        Constant coupled L2.
    """
