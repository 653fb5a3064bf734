"""How strongly a portfolio moves with the market."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, at_least, integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.rolling import trailing_beta
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import missing
from qlib_ext.portfolio.constraints.limits import Limit, Linear, within
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class BetaBand(Constraint):
    """The portfolio's beta to the market lies between two numbers.

    A stock's beta is the slope of its daily returns on the market's over the last days. One with fewer returns than `fewest`
    counts as the market does, with a beta of 1, and it is told.

    Parameters
    ----------
    low, high
        Of the beta of the whole account: what is held in cash has 0.
    days
        Days of the slope.
    fewest
        Returns that a stock must have in them.

    Raises
    ------
    UserError
        If the numbers are not in order.
    """

    name = "beta"

    def __init__(self, low: float, high: float, days: int = 250, fewest: int = 60) -> None:
        self.low, self.high = at_least("low", low, -100), at_least("high", high, -100)
        if low > high:
            raise UserError(f"`low` must be at most `high`, found {low} and {high}")
        self.fewest = integer("fewest", fewest, 2)
        self.days_back = integer("days", days, self.fewest)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """One sum."""
        row = np.nan_to_num(self._betas(known), nan=1.0)[None]
        bounds = np.array([self.low]), np.array([self.high])
        words = f"beta {within(self.low, self.high, in_percent=False)}"
        return [Linear(self.name, words, row, *bounds, rows=("beta",), percent=False)]

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """How many have no beta."""
        return missing("the beta", np.isnan(self._betas(known)), "1, the market's, is taken")

    def _betas(self, known: KnownDay) -> Floats:
        """`[N]`, NaN with too few returns."""
        window = slice(-self.days_back, None)
        returns, market = known.returns[window], known.market[window]
        return trailing_beta(returns, market, max(2, len(market)), self.fewest)[-1]
