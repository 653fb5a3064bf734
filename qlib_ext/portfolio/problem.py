"""What an optimiser is asked: the stocks, what is expected and risked, and what is allowed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Box, Limit
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk

TOLERANCE = 1e-6  # of a weight or a sum of weights


class Infeasible(Exception):
    """No weights keep within all limits; or the solver found none."""


@dataclass(frozen=True)
class Problem:
    """A portfolio to be found.

    Attributes
    ----------
    known
        The day, of the N stocks that the risk model knows; what is held of others is in `fixed`.
    expected
        `[N]` expected returns of a day; None where risk alone decides. Finite.
    risk
        Of the same stocks; finite.
    lower, upper
        `[N]` bounds of the weights; equal where a stock cannot be traded.
    invested
        Sum of the weights of these stocks: what shall be invested, less what is held of stocks that have no part in the problem.
    limits
        What is allowed beside bounds and sum.
    boxes
        The bounds of each constraint, of which, with what cannot be traded, `lower` and `upper` are made: so that it is known
        which one gives way.
    least_invested
        The least that the sum may be, where less than `invested` may be; None where it must be that.
    buy_cost, sell_cost
        What a purchase and a sale cost, as a share of their value, spread over the days that a stock is held: in the unit of
        `expected`. 0 where costs are left out of the objective.
    """

    known: KnownDay
    expected: Floats | None
    risk: Risk
    lower: Floats
    upper: Floats
    invested: float = 1.0
    limits: Sequence[Limit] = field(default_factory=tuple)
    buy_cost: float = 0.0
    sell_cost: float = 0.0
    boxes: Sequence[Box] = ()
    least_invested: float | None = None

    @property
    def count(self) -> int:
        """N."""
        return len(self.lower)

    def broken(self, weights: Floats, tolerance: float = 10 * TOLERANCE) -> list[str]:
        """In words, what the weights do not keep to; empty where they are allowed."""
        found = []
        if np.any(weights < self.lower - tolerance) or np.any(weights > self.upper + tolerance):
            found.append("bounds of the weights")
        least = self.invested if self.least_invested is None else self.least_invested
        wide = tolerance * max(1, self.count) ** 0.5
        if not least - wide <= weights.sum() <= self.invested + wide:
            found.append("the share that is invested")
        return found + [limit.words for limit in self.limits if limit.excess(weights) > tolerance]

    def only(self, some: np.ndarray) -> Problem:
        """The problem with no weight for stocks outside of a mask, but for what cannot be traded of them."""
        nearest_0 = np.clip(0.0, self.lower, self.upper)
        return replace(
            self,
            lower=np.where(some, self.lower, nearest_0),
            upper=np.where(some, self.upper, nearest_0),
        )
