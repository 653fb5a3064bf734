"""Equilibrium and views against skfolio's own model."""

from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from skfolio.prior import BasePrior, ReturnDistribution
from skfolio.prior import BlackLitterman as Oracle

from qlib_ext.checks import UserError
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.expected_returns.black_litterman import BlackLitterman
from qlib_ext.portfolio.expected_returns.no_forecast import NoForecast
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.markets import day_of, history_of
from tests.portfolio.problems import risk_of

KNOWN = day_of(history_of(stocks=8, days=70))
SOME = np.array([0.002, np.nan, -0.001, 0.0005, np.nan, 0.0, 0.001, -0.002])


class Given(ExpectedReturns):
    def __init__(self, forecast) -> None:
        self.forecast = forecast

    def estimate(self, known, risk):
        return self.forecast


class Prior(BasePrior):
    """Skfolio's place for an equilibrium that is known."""

    def __init__(self, mu=None, covariance=None) -> None:
        self.mu = mu
        self.covariance = covariance

    def fit(self, X, y=None):
        self.return_distribution_ = ReturnDistribution(self.mu, self.covariance, np.asarray(X))
        return self

    def get_metadata_routing(self):
        return super().get_metadata_routing()


@pytest.mark.parametrize("confidence", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("whole", [True, False])
def test_it_is_skfolio_s_posterior(confidence, whole) -> None:
    risk = risk_of(8)
    covariance = risk.covariance()
    risk = Risk.of_covariance(covariance) if whole else risk
    equilibrium = 3 * covariance @ KNOWN.benchmark
    viewed = np.flatnonzero(np.isfinite(SOME))
    oracle = Oracle(
        views=[f"{KNOWN.codes[k]} == {equilibrium[k] + SOME[k]:.17f}" for k in viewed],
        view_confidences=[confidence] * len(viewed),
        prior_estimator=Prior(equilibrium, covariance),
        tau=0.05,
    ).fit(pd.DataFrame(KNOWN.returns, columns=KNOWN.codes).fillna(0.0))
    found = BlackLitterman(Given(SOME), confidence=confidence, risk_aversion=3).estimate(KNOWN, risk)
    np.testing.assert_allclose(found, oracle.return_distribution_.mu, rtol=1e-9)


def test_without_views_the_equilibrium_remains() -> None:
    risk = risk_of(8)
    expected = 2.5 * risk.covariance() @ np.full(8, 1 / 8)
    np.testing.assert_allclose(BlackLitterman(NoForecast()).estimate(KNOWN, risk), expected)
    unsure = BlackLitterman(Given(SOME), confidence=1e-9, weights="equal").estimate(KNOWN, risk)
    np.testing.assert_allclose(unsure, expected, atol=1e-9)


def test_sure_views_come_on_top_of_it() -> None:
    risk, views = risk_of(8), np.linspace(-0.002, 0.002, 8)
    found = BlackLitterman(Given(views), confidence=1 - 1e-12).estimate(KNOWN, risk)
    np.testing.assert_allclose(found - BlackLitterman(NoForecast()).estimate(KNOWN, risk), views)


def test_unknown_stocks_hold_up_none() -> None:
    risk = risk_of(8)
    risk.components[4] = np.nan
    found = BlackLitterman(Given(SOME)).estimate(KNOWN, risk)
    assert np.flatnonzero(np.isnan(found)).tolist() == [4]


def test_the_market_may_be_weighed_by_value() -> None:
    risk, value = risk_of(8), KNOWN.planes["market_value"][-1]
    found = BlackLitterman(NoForecast(), weights="market_value").estimate(KNOWN, risk)
    known = np.nan_to_num(value)
    np.testing.assert_allclose(found, 2.5 * risk.covariance() @ (known / known.sum()))


def test_what_is_held_beside_the_universe_is_no_part_of_a_market_at_equal_weight() -> None:
    scores = KNOWN.scores.copy()
    scores[-1, 2:4] = np.nan
    risk, members = risk_of(8), np.isfinite(scores[-1])
    found = BlackLitterman(NoForecast(), weights="equal").estimate(replace(KNOWN, scores=scores), risk)
    np.testing.assert_allclose(found, 2.5 * risk.covariance() @ (members / 6))


def test_it_is_made_from_yaml() -> None:
    views = {"class": "qlib_ext.portfolio.expected_returns.grinold.GrinoldAlpha", "kwargs": {"window": 90}}
    assert BlackLitterman(views=views).days_back == 90


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"confidence": 1.0}, r"`confidence` must lie in \(0, 1\)"),
        ({"risk_aversion": 0}, "`risk_aversion` must be above 0"),
        ({"weights": "index"}, "`weights` must be one of benchmark, equal, market_value"),
        ({"views": {"class": "skfolio.moments.OAS"}}, "`views.class` must be a ExpectedReturns"),
    ],
)
def test_faults_are_named(kwargs, message) -> None:
    with pytest.raises(UserError, match=message):
        BlackLitterman(**kwargs)


def test_a_market_without_weights_is_named() -> None:
    nothing = replace(KNOWN, benchmark=np.full(8, np.nan))
    with pytest.raises(UserError, match="`weights` of BlackLitterman is benchmark, and no stock has any on"):
        BlackLitterman(NoForecast()).estimate(nothing, risk_of(8))
