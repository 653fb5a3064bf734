"""What every rule of combination is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
from scipy.optimize import minimize

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


def best_mix(relatives: Floats) -> Floats:
    r"""Shares `[M]` that, kept by rebalancing every day, would have ended with the most.

    .. math:: \max_b \sum_d \log(b \cdot x_d)\quad\text{with}\quad b \ge 0,\; \mathbf 1^\top b = 1
    """
    members = relatives.shape[1]
    relative = relatives / relatives.mean(axis=1, keepdims=True)
    unit = (
        float(np.ptp(np.log(relative).sum(axis=0))) or 1.0
    )  # so that the solver's tolerance is one of the outcome

    def loss(mix: Floats) -> tuple[float, Floats]:
        value = relative @ mix
        return -float(np.log(value).sum()) / unit, -(relative / value[:, None]).sum(axis=0) / unit

    even = np.full(members, 1.0 / members)
    whole = {"type": "eq", "fun": lambda mix: mix.sum() - 1.0, "jac": lambda mix: np.ones(members)}
    options = {"ftol": 1e-12, "maxiter": 500}
    found = minimize(
        loss,
        even,
        jac=True,
        bounds=[(0.0, 1.0)] * members,
        constraints=whole,
        method="SLSQP",
        options=options,
    )
    mix = np.clip(found.x, 0.0, None)
    return mix / mix.sum()
