"""The most and the least of one stock."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, above, at_least
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import centre
from qlib_ext.portfolio.constraints.limits import Box, Limit, percent
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class WeightBounds(Constraint):
    """No stock has a larger weight than this, nor lies further from its weight in the benchmark than that.

    A stock that the benchmark does not have has the weight 0 in it. Where several are set, all hold.

    Parameters
    ----------
    most
        Largest weight, as a share of the account; None for no such bound.
    above_benchmark, below_benchmark
        Most that a stock may have above and below its weight in the benchmark; None for no such bound. Below the benchmark
        no bound is below 0: it asks to hold what the benchmark has much of.

    Raises
    ------
    UserError
        If nothing is set, or one is out of its range.
    """

    name = "weight"

    def __init__(
        self,
        most: float | None = None,
        above_benchmark: float | None = None,
        below_benchmark: float | None = None,
    ) -> None:
        if most is None and above_benchmark is None and below_benchmark is None:
            raise UserError("`most`, `above_benchmark` or `below_benchmark` must be set, found none of them")
        self.most = None if most is None else above("most", most, 0)
        self.above = None if above_benchmark is None else at_least("above_benchmark", above_benchmark, 0)
        self.below = None if below_benchmark is None else at_least("below_benchmark", below_benchmark, 0)

    def box(self, known: KnownDay) -> Box:
        """The narrowest of what is set."""
        count = len(known.codes)
        low, high, said = np.full(count, -np.inf), np.full(count, np.inf), []
        if self.most is not None:
            high[:] = self.most
            said.append(f"of at most {percent(self.most)}")
        if self.above is not None or self.below is not None:
            benchmark = centre(known, "benchmark", "the bound of a weight")
            if self.above is not None:
                high = np.minimum(high, benchmark + self.above)
                said.append(f"at most {percent(self.above)} above the benchmark's")
            if self.below is not None:
                low = np.where(benchmark > self.below, benchmark - self.below, -np.inf)
                said.append(f"at most {percent(self.below)} below the benchmark's")
        return Box(self.name, f"weights {' and '.join(said)}", low, high)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """None."""
        return []
