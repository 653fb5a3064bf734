"""No forecast: risk alone decides."""

from __future__ import annotations

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class NoForecast(ExpectedReturns):
    """Expects nothing of any stock; scores only say who is a candidate, not even that a stock without one may not be held."""

    def estimate(self, known: KnownDay, risk: Risk) -> Floats | None:
        """None."""
        return None
