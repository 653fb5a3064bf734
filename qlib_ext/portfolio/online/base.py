"""What every rule of combination is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.metrics.cross_section import Floats


class MixingRule(Rebuildable, ABC):
    """Shares of M members from how they have done."""

    @abstractmethod
    def shares(self, relatives: Floats) -> Floats:
        """Shares `[D + 1, M]` on each of D days, and on the day to come; each row sums to 1.

        Parameters
        ----------
        relatives
            `[D, M]`: a member's value at the end of a day over that of the day before, after cost. Row d of the shares
            follows from the rows before d alone.
        """

    @abstractmethod
    def bound(self, relatives: Floats) -> float:
        """What the regret is sure not to exceed, whatever the members do."""

    def rival(self, relatives: Floats) -> float:
        """Log wealth at the end of what the regret is to: here, the best member held throughout."""
        return float(np.log(relatives).sum(axis=0).max(initial=-np.inf))

    def regret(self, relatives: Floats) -> float:
        r"""Log wealth of the best in hindsight less that of the rule.

        .. math:: R_D = \max_b \sum_d \log(b \cdot x_d) - \sum_d \log(p_d \cdot x_d)
        """
        if not len(relatives):
            return 0.0
        own = np.log(np.einsum("dm,dm->d", self.shares(relatives)[:-1], relatives)).sum()
        return self.rival(relatives) - float(own)


def best_mix(relatives: Floats, steps: int = 2_000) -> Floats:
    r"""Shares `[M]` that, kept by rebalancing every day, would have ended with the most.

    Source: Cover (1984), "An algorithm for maximizing expected log investment return", IEEE Transactions on Information Theory
    30.

    .. math:: b_m \leftarrow b_m\,\frac1D \sum_d \frac{x_{dm}}{b \cdot x_d}

    No step loses; steps end when the wealth of no other mix can be more than a millionth higher.
    """
    mix = np.full(relatives.shape[1], 1.0 / relatives.shape[1])
    for _ in range(steps):
        gain = (relatives / (relatives @ mix)[:, None]).mean(axis=0)
        if np.log(gain.max()) * len(relatives) < 1e-6:
            break
        mix = mix * gain
    return mix / mix.sum()
