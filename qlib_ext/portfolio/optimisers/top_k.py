"""The best k at equal weight."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.shares import in_shares, to_invest
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem


class TopK(Optimiser):
    """The k stocks of the highest scores at the same weight, whatever risk and expected returns are.

    Parameters
    ----------
    k
        Number of stocks; fewer where no more have a score and may be held, and more where bounds do not let k stocks have all
        that is to be invested. Equal scores go by code.
    """

    def __init__(self, k: int) -> None:
        self.k = integer("k", k, 1)

    def solve(self, problem: Problem) -> Floats:
        """One part of k each."""
        score = np.where(problem.upper > 0, problem.known.score, np.nan)
        ranked = np.argsort(-score, kind="stable")[: int(np.isfinite(score).sum())]
        if not ranked.size:
            raise Infeasible("no stock that may be held has a score")
        room = np.cumsum(problem.upper[ranked] - np.maximum(problem.lower[ranked], 0.0))
        wanted = to_invest(problem) - np.maximum(problem.lower, 0.0).sum()
        enough = int(np.searchsorted(room, wanted - TOLERANCE)) + 1
        best = ranked[: max(self.k, enough)]
        shares = np.zeros(problem.count)
        shares[best] = 1.0
        return in_shares(problem, shares, of=f"the best {len(best)} stocks")
