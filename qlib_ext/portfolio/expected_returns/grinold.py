"""Scores as a forecast by the rule of Grinold: skill, risk and place among the others."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, at_least, between, integer
from qlib_ext.metrics.cross_section import Floats, normal_scores, spearman
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class GrinoldAlpha(ExpectedReturns):
    r"""Information coefficient times volatility times score.

    Source: Grinold (1994), "Alpha Is Volatility Times IC Times Score", Journal of Portfolio Management 20.

    .. math:: \alpha_i = \mathrm{IC} \cdot \frac{\sigma_i}{\sqrt{h}} \cdot z_i

    z is the score's rank as a quantile of the normal distribution and sigma the daily volatility by the risk model. IC is the
    mean RankIC of the past days whose returns over the h days of the horizon are known by now. These returns have a
    volatility of :math:`\sigma_i \sqrt{h}`, of which a day has the h-th part.

    Parameters
    ----------
    window
        Days to look back over, today's included; the last of them foretell what is not known yet.
    min_days
        Days with a RankIC that it takes to believe their mean.
    initial
        What is taken for IC before that.
    floor, ceiling
        Bounds of IC: a floor of 0 never bets against the scores.

    Raises
    ------
    UserError
        For arguments out of range.

    Departures
    ----------
    Grinold takes volatility and returns beside the market; here they are whole, as a covariance of any kind has them. The past
    days are those of today's stocks.
    """

    def __init__(
        self,
        window: int = 250,
        min_days: int = 60,
        initial: float = 0.02,
        floor: float = 0.0,
        ceiling: float = 0.1,
    ) -> None:
        self.window = integer("window", window, 1)
        self.min_days = integer("min_days", min_days, 1)
        at_least("window", window, min_days)
        self.floor = float(between("floor", floor, -1, 1))
        self.ceiling = float(between("ceiling", ceiling, -1, 1))
        if floor > ceiling:
            raise UserError(f"`floor` must not be above `ceiling`, found {floor} and {ceiling}")
        self.initial = float(between("initial", initial, floor, ceiling))
        self.days_back = window

    def estimate(self, known: KnownDay, risk: Risk) -> Floats:
        """NaN without a score, or where the risk is unknown."""
        volatility = np.sqrt(risk.variances() / known.horizon[1])
        return self.skill(known) * volatility * normal_scores(known.score[None])[0]

    def skill(self, known: KnownDay) -> float:
        """IC as of the day."""
        daily = spearman(*known.forecastable(self.window))
        daily = daily[np.isfinite(daily)]
        if len(daily) < self.min_days:
            return self.initial
        return float(np.clip(daily.mean(), self.floor, self.ceiling))
