"""Shares of Cover's universal portfolio."""

from __future__ import annotations

import numpy as np
from scipy.stats import qmc

from qlib_ext.checks import LARGEST_SEED, integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.online.base import MixingRule, best_mix


class Universal(MixingRule):
    r"""The mean of all mixes of constant shares, each weighted by what it has earned.

    Source: Cover (1991), "Universal portfolios", Mathematical Finance 1.

    .. math:: p_d = \int b\,S_{d-1}(b)\,db \Big/ \int S_{d-1}(b)\,db,\qquad S_d(b) = \prod_{s \le d} b \cdot x_s

    Parameters
    ----------
    mixes
        Number of mixes, spread evenly over all, that stand for the integral.
    seed
        Of what chance there is in how they are spread.

    Notes
    -----
    The regret is to the best mix of constant shares, and at most :math:`(M - 1) \ln(D + 1)` (Blum and Kalai (1999), "Universal
    portfolios with and without transaction costs"); that is of the integral, which many
    mixes come near to for a handful of members. For portfolios of the same stocks it stays near equal shares: what mixes have earned differs by
    little.
    """

    def __init__(self, mixes: int = 5_000, seed: int = 0) -> None:
        self.mixes = integer("mixes", mixes, 1)
        self.seed = integer("seed", seed, 0, LARGEST_SEED)

    def shares(self, relatives: Floats) -> Floats:
        """Means of the mixes."""
        mixes = self._mixes(relatives.shape[1])
        wealth = np.vstack([np.zeros(len(mixes)), np.cumsum(np.log(relatives @ mixes.T), axis=0)])
        power = np.exp(wealth - wealth.max(axis=1, keepdims=True))
        return power @ mixes / power.sum(axis=1, keepdims=True)

    def _mixes(self, members: int) -> Floats:
        """Mixes `[K, M]`, even among all: the gaps between points on a line."""
        if members == 1:
            return np.ones((1, 1))
        points = np.sort(qmc.Halton(members - 1, seed=self.seed).random(self.mixes), axis=1)
        return np.diff(points, axis=1, prepend=0.0, append=1.0)

    def bound(self, relatives: Floats) -> float:
        """Of the regret, by the number of members and days."""
        return float((relatives.shape[1] - 1) * np.log(len(relatives) + 1))

    def rival(self, relatives: Floats) -> float:
        """The best mix of constant shares."""
        return float(np.log(relatives @ best_mix(relatives)).sum())
