"""Estimators of skfolio on what a portfolio knows."""

from dataclasses import replace

import numpy as np
import pytest
from sklearn.covariance import LedoitWolf, ledoit_wolf

from qlib_ext.checks import UserError
from qlib_ext.portfolio.risk_models.covariance import Covariance
from tests.portfolio.markets import day_of, history_of

HISTORY = history_of()
WHOLE = replace(HISTORY, returns=np.nan_to_num(HISTORY.returns), planes={})


def estimated(name, known=None, window=100, **kwargs):
    model = Covariance({"class": f"skfolio.moments.{name}", "kwargs": kwargs}, window=window)
    return model.estimate(known or day_of(WHOLE))[0].covariance()


def test_the_sample_covariance_is_numpy_s() -> None:
    np.testing.assert_allclose(
        estimated("EmpiricalCovariance"), np.cov(WHOLE.returns[-100:].T), rtol=1e-9, atol=1e-16
    )


def test_ledoit_and_wolf_is_that_of_scikit_learn() -> None:
    expected = LedoitWolf().fit(WHOLE.returns[-100:]).covariance_
    np.testing.assert_allclose(estimated("LedoitWolf"), expected, rtol=1e-9, atol=1e-16)
    assert 0 < ledoit_wolf(WHOLE.returns[-100:])[1] < 1


def test_the_exponential_one_is_a_weighted_sum() -> None:
    weights = 0.5 ** (np.arange(99, -1, -1) / 20)
    returns = WHOLE.returns[-100:]
    expected = (returns * weights[:, None]).T @ returns / weights.sum()
    np.testing.assert_allclose(estimated("EWCovariance", half_life=20), expected, rtol=1e-9, atol=1e-16)


def test_fewer_days_than_stocks_are_enough() -> None:
    found = Covariance({"class": "skfolio.moments.EmpiricalCovariance"}, window=20, min_days=10)
    assert found.estimate(day_of(WHOLE))[0].known.all()


def test_a_single_stock_has_a_risk() -> None:
    known = day_of(replace(WHOLE, scores=np.where(np.arange(30) == 7, WHOLE.scores, np.nan)))
    assert estimated("EmpiricalCovariance", known) == pytest.approx(WHOLE.returns[-100:, 7].var(ddof=1))


def test_a_stock_that_never_moves_is_unknown() -> None:
    returns = WHOLE.returns.copy()
    returns[:, 3] = 0.0
    risk = Covariance({"class": "skfolio.moments.OAS"}).estimate(day_of(replace(WHOLE, returns=returns)))[0]
    assert np.flatnonzero(~risk.known).tolist() == [3]


def test_it_shows_the_call_that_makes_it() -> None:
    config = {"class": "skfolio.moments.OAS"}
    assert repr(Covariance(config, window=90)) == f"Covariance(estimator={config!r}, window=90)"


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"window": 1}, "`window` must be at least 2"),
        ({"window": 50}, "`window` must be at least 60, found 50"),
        (
            {"estimator": {"class": "skfolio.prior.EmpiricalPrior"}},
            "`estimator.class` must be a BaseCovariance",
        ),
        (
            {"estimator": {"class": "skfolio.moments.EWCovariance", "kwargs": {"half_life": -1}}},
            "`estimator` EWCovariance.* must work on 250 days of made-up returns; it says: .*half_life",
        ),
        ({"estimator": {"class": "skfolio.moments.ImpliedCovariance"}}, "must work on 250 days of made-up"),
        (
            {"estimator": {"class": "skfolio.moments.EWCovariance", "kwargs": {"half_life": 400}}},
            "it says: its covariance of 250 days is not finite",
        ),
    ],
)
def test_faults_are_named_by_the_constructor(kwargs, message) -> None:
    with pytest.raises(UserError, match=message):
        Covariance(**{"estimator": {"class": "skfolio.moments.OAS"}, **kwargs})


def test_a_day_that_an_estimator_cannot_do_is_named() -> None:
    model = Covariance({"class": "skfolio.moments.EWCovariance", "kwargs": {"half_life": 100}}, min_days=60)
    with pytest.raises(UserError, match=r"cannot be fitted on .*, on 70 days of 30 stocks: "):
        model.estimate(day_of(WHOLE, length=70))
