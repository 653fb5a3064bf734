"""Equilibrium of the market, and scores as views on it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from qlib_ext.checks import UserError, above, between, one_of
from qlib_ext.config.build import build
from qlib_ext.market.side_data.table import MARKET_VALUE
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.expected_returns.grinold import GrinoldAlpha
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class BlackLitterman(ExpectedReturns):
    r"""What the market's weights imply, moved towards a forecast as far as it is trusted.

    Source: Black and Litterman (1992), "Global Portfolio Optimization", Financial Analysts Journal 48; Idzorek (2005), "A
    Step-by-Step Guide to the Black-Litterman Model", and Walters (2014), "The Black-Litterman Model in Detail", for the
    confidence c in a view.

    .. math::

        \mu = \pi + \tau \Sigma P^\top (P \tau \Sigma P^\top + \Omega)^{-1} (q - P \pi), \quad \pi = \delta \Sigma w, \quad
        \Omega = \tau (1 / c - 1) \, \mathrm{diag}(P \Sigma P^\top)

    There is one view for each stock that the forecast speaks of: that it earns so much beside the equilibrium, so
    :math:`q - P \pi` is the forecast, and :math:`\tau` cancels out. A view on one stock moves others that go with it.

    Parameters
    ----------
    views
        Expected returns that are taken for views, `{class, kwargs}`; by default `GrinoldAlpha`.
    confidence
        c, above 0 and below 1: towards 0 the equilibrium remains, towards 1 the forecast is taken on top of it.
    risk_aversion
        Delta: the market's expected return over its variance.
    weights
        Of the market: `benchmark`, what deviations are measured from; `market_value`; or `equal`.

    Raises
    ------
    UserError
        For arguments out of range; from `estimate` if there are no such weights on the day.

    Notes
    -----
    The mean alone is taken over; the risk model's covariance stays as it is. With factors the cost is linear in the stocks.
    """

    def __init__(
        self,
        views: Mapping[str, Any] | ExpectedReturns | None = None,
        confidence: float = 0.5,
        risk_aversion: float = 2.5,
        weights: str = "benchmark",
    ) -> None:
        self.views = GrinoldAlpha() if views is None else build(views, ExpectedReturns, name="views")
        self.confidence = float(between("confidence", confidence, 0, 1, open_low=True, open_high=True))
        self.risk_aversion = float(above("risk_aversion", risk_aversion, 0))
        self.weights = one_of("weights", weights, ("benchmark", "market_value", "equal"))
        self.days_back = self.views.days_back
        self.asks = (*self.views.asks, *([MARKET_VALUE] if weights == "market_value" else []))

    def estimate(self, known: KnownDay, risk: Risk) -> Floats:
        """NaN where the risk is unknown; a stock without a view has what others' views make of it."""
        there = risk.known
        own = risk.take(there)
        expected = np.full(len(there), np.nan)
        expected[there] = self.risk_aversion * own.times(self._market(known)[there])
        forecast = self.views.estimate(known, risk)
        if forecast is None:
            return expected
        viewed = np.isfinite(forecast[there])
        views = own.take(viewed)
        doubt = views.specific + (1 / self.confidence - 1) * views.variances()
        moved = np.zeros(len(viewed))
        moved[viewed] = _solved(views.components, doubt, forecast[there][viewed])
        expected[there] += own.times(moved)
        return expected

    def _market(self, known: KnownDay) -> Floats:
        """`[N]` weights of the market; those of unknown stocks stay in their sum."""
        found = np.isfinite(known.score).astype(
            np.float64
        )  # what is held beside the universe is no part of its market
        if self.weights != "equal":
            found = known.benchmark if self.weights == "benchmark" else known.plane("market_value")[-1]
            found = np.nan_to_num(found)
        if not found.sum() > 0:
            raise UserError(
                f"`weights` of BlackLitterman is {self.weights}, and no stock has any on {known.day:%Y-%m-%d}: take another "
                "of benchmark, market_value and equal"
            )
        return np.asarray(found / found.sum(), dtype=np.float64)


def _solved(components: Floats, diagonal: Floats, right: Floats) -> Floats:
    """X of (L L' + diag(d)) x = b, by the factors where there are fewer of them than stocks."""
    scaled = components / diagonal[:, None]
    inner = np.eye(components.shape[1]) + components.T @ scaled
    return right / diagonal - scaled @ np.linalg.solve(inner, scaled.T @ right)
