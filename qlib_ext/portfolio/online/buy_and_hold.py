"""Members that are left alone."""

from __future__ import annotations

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.online.base import MixingRule


class BuyAndHold(MixingRule):
    r"""The same money for each member at the beginning, and never moved between them.

    .. math:: p_{d,m} \propto \prod_{s < d} x_{sm}

    Notes
    -----
    The regret is to the best member, and at most :math:`\ln M`: the money that was given to it has earned what it has.
    """

    def shares(self, relatives: Floats) -> Floats:
        """What members have earned."""
        wealth = np.vstack([np.zeros(relatives.shape[1]), np.cumsum(np.log(relatives), axis=0)])
        earned = np.exp(wealth - wealth.max(axis=1, keepdims=True))
        return earned / earned.sum(axis=1, keepdims=True)

    def bound(self, relatives: Floats) -> float:
        """Of the regret."""
        return float(np.log(relatives.shape[1]))
