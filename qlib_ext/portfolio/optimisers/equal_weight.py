"""Every stock at the same weight."""

from __future__ import annotations

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.shares import candidates, in_shares
from qlib_ext.portfolio.problem import Problem


class EqualWeight(Optimiser):
    """All stocks of the universe at the same weight, but for those whose bounds do not let them."""

    def solve(self, problem: Problem) -> Floats:
        """One part of N each."""
        shares = np.zeros(problem.count)
        shares[candidates(problem)] = 1.0
        return in_shares(problem, shares)
