"""What a unit of score has been worth."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import at_least, integer, one_of
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk

LIMIT = 3.0  # standard deviations at which a score is cut


class TrailingRegression(ExpectedReturns):
    r"""Slope of past returns on past scores, times today's score.

    Source: Fama and MacBeth (1973), "Risk, Return, and Equilibrium: Empirical Tests", Journal of Political Economy 81.

    .. math::

        \mu_i = \bar b \, z_{i,t}, \quad
        \bar b = \frac{1}{D} \sum_s b_s \quad \text{or} \quad \frac{\sum_s \sum_i z_{i,s} r_{i,s}}{\sum_s \sum_i z_{i,s}^2}

    z is the score less the mean of the day over its standard deviation, cut at 3; b of day s is the slope of the returns that
    the scores foretold across the stocks of that day. Only days count whose returns are known by now. As z has the mean 0,
    what all stocks earn together is no part of it.

    Parameters
    ----------
    window
        Days to look back over, today's included; the last of them foretell what is not known yet.
    min_days
        Days with a slope that it takes; before that nothing is expected of any stock, and risk alone decides.
    kind
        `daily`: the mean of the slopes of the days. `pooled`: one slope of all days together, in which a day with many stocks
        counts for more.

    Raises
    ------
    UserError
        For arguments out of range.

    Notes
    -----
    Where past scores told the opposite of what came, the slope is negative and so is what is expected of the highest score.
    """

    def __init__(self, window: int = 250, min_days: int = 60, kind: str = "daily") -> None:
        self.window = integer("window", window, 1)
        self.min_days = integer("min_days", min_days, 1)
        at_least("window", window, min_days)
        self.kind = one_of("kind", kind, ("daily", "pooled"))
        self.days_back = window

    def estimate(self, known: KnownDay, risk: Risk) -> Floats | None:
        """NaN without a score; None with too few days."""
        slope = self.slope(known)
        return None if slope is None else slope * standard_scores(known.score[None])[0]

    def slope(self, known: KnownDay) -> float | None:
        """Return of a day for one standard deviation of score, as of the day."""
        scores, returns = known.forecastable(self.window)
        both = np.isfinite(scores) & np.isfinite(returns)
        z = np.nan_to_num(standard_scores(np.where(both, scores, np.nan)))
        spread = (z**2).sum(axis=1)
        product = (z * np.where(both, returns, 0.0)).sum(axis=1)
        days = spread > 0
        if days.sum() < self.min_days:
            return None
        if self.kind == "pooled":
            return float(product[days].sum() / spread[days].sum())
        return float((product[days] / spread[days]).mean())


def standard_scores(scores: Floats) -> Floats:
    """Scores `[D, N]` less the mean of the day over its standard deviation, cut and centred again; 0 where none differ."""
    there = np.isfinite(scores)
    count = np.maximum(there.sum(axis=1, keepdims=True), 1)

    def centred(values: Floats) -> Floats:
        return np.where(there, values - np.where(there, values, 0.0).sum(axis=1, keepdims=True) / count, 0.0)

    x = centred(scores)
    spread = np.sqrt((x**2).sum(axis=1, keepdims=True) / count)
    # Rounding leaves a tiny spread where all are equal.
    level = np.abs(np.where(there, scores, 0.0)).max(axis=1, keepdims=True, initial=0.0)
    z = np.clip(x / np.where(spread > 1e-12 * level, spread, np.inf), -LIMIT, LIMIT)
    return np.where(there, centred(z), np.nan)
