"""What stocks have earned, taken for what they will."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import at_least, integer
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class PastMean(ExpectedReturns):
    r"""Mean daily return of the last days, whatever the scores are.

    Source: Markowitz (1952), "Portfolio Selection", Journal of Finance 7, where it is the estimate that he warns of.

    .. math:: \mu_i = \frac{1}{T} \sum_{t} r_{i,t}

    Parameters
    ----------
    window
        T, days to look back over, today's included; where fewer are known, those.
    min_days
        Returns that a stock must have among them.

    Raises
    ------
    UserError
        For arguments out of range.

    Notes
    -----
    The mean of a few years tells little of the next one: its standard error is the volatility over the root of the years.
    """

    def __init__(self, window: int = 250, min_days: int = 60) -> None:
        self.window = integer("window", window, 1)
        self.min_days = integer("min_days", min_days, 1)
        at_least("window", window, min_days)
        self.days_back = window

    def estimate(self, known: KnownDay, risk: Risk) -> Floats:
        """NaN with too few returns."""
        returns = known.returns[-self.window :]
        there = np.isfinite(returns)
        count = there.sum(axis=0)
        mean = np.where(there, returns, 0.0).sum(axis=0) / np.maximum(count, 1)
        return np.where(count >= self.min_days, mean, np.nan)
