"""What every risk model keeps to."""

from dataclasses import replace

import numpy as np
import pytest

from qlib_ext.config.build import classes_in
from qlib_ext.metrics.risk_forecast import bias_statistic
from qlib_ext.portfolio import risk_models
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.portfolio.risk_models.covariance import Covariance
from qlib_ext.portfolio.risk_models.factor_model import FactorModel
from tests.portfolio.markets import HALTED, LATE, day_of, history_of, scrambled

HISTORY = history_of()
EVERY = {
    **{
        name: lambda name=name: Covariance(estimator={"class": f"skfolio.moments.{name}"}, window=200)
        for name in (
            "EmpiricalCovariance",
            "LedoitWolf",
            "EWCovariance",
            "DenoiseCovariance",
            "GerberCovariance",
        )
    },
    "factors": lambda: FactorModel(window=150),
    "styles": lambda: FactorModel(styles=["beta", "volatility"], industries=False, window=150),
}
every = pytest.mark.parametrize("make", EVERY.values(), ids=EVERY)


def test_none_is_missing() -> None:
    known = {type(make()) for make in EVERY.values()}
    assert {each for each in classes_in(risk_models, RiskModel) if each is not RiskModel} == known


@every
def test_it_is_a_covariance_of_what_is_known(make) -> None:
    risk, _ = make().estimate(day_of(HISTORY))
    assert np.flatnonzero(~risk.known).tolist() == [LATE]
    assert np.isnan(risk.components[LATE]).all()
    assert np.isnan(risk.specific[LATE])
    covariance = risk.take(risk.known).covariance()
    np.testing.assert_allclose(covariance, covariance.T)
    assert np.linalg.eigvalsh(covariance)[0] > 0
    assert (np.sqrt(np.diag(covariance)) < 0.05).all()


@every
def test_new_and_suspended_stocks_are_told(make) -> None:
    notes = " / ".join(make().estimate(day_of(HISTORY))[1])
    assert f"no risk is known of {HISTORY.codes[LATE]}: traded on fewer than 60 of the last" in notes
    assert f": {HISTORY.codes[HALTED]}; these days" in notes
    whole = replace(HISTORY, returns=np.nan_to_num(HISTORY.returns), planes={})
    assert "suspended" not in " / ".join(make().estimate(day_of(whole))[1])


@every
def test_nothing_is_known_of_the_first_days(make) -> None:
    risk, notes = make().estimate(day_of(HISTORY, length=50))
    assert not risk.known.any()
    assert "no risk is known of SH600000, SH600001, SH600002 and 27 more" in notes[0]


@every
def test_it_does_not_look_ahead(make) -> None:
    then = make().estimate(day_of(HISTORY, back=20))
    again = make().estimate(day_of(scrambled(HISTORY, back=20), back=20))
    np.testing.assert_array_equal(then[0].components, again[0].components)
    np.testing.assert_array_equal(then[0].specific, again[0].specific)
    assert then[1] == again[1]


@every
def test_it_needs_no_more_days_than_it_says(make) -> None:
    model = make()
    every_day = make().estimate(day_of(HISTORY))[0]
    as_said = model.estimate(day_of(HISTORY, length=model.days_back))[0]
    np.testing.assert_allclose(as_said.covariance(), every_day.covariance(), rtol=1e-9, atol=1e-16)


@every
def test_the_order_of_stocks_means_nothing(make) -> None:
    order = np.random.default_rng(1).permutation(30)
    known = day_of(HISTORY)
    expected = make().estimate(known)[0].covariance()[np.ix_(order, order)]
    found = make().estimate(known.take(order))[0].covariance()
    # Exposures that are clipped or ties of a sort aside, sums in another order differ by rounding.
    np.testing.assert_allclose(found, expected, rtol=1e-6, atol=1e-12)


# Momentum compounds: double returns are not double momentum.
@pytest.mark.parametrize("name", [name for name in EVERY if name != "factors"])
def test_it_grows_with_the_square_of_returns(name) -> None:
    make = EVERY[name]
    known = day_of(HISTORY)
    twice = replace(known, returns=2 * known.returns, market=2 * known.market)
    found, expected = (make().estimate(one)[0].covariance() for one in (twice, known))
    np.testing.assert_allclose(found, 4 * expected, rtol=1e-6, atol=1e-12)


@every
def test_what_it_forecasts_comes_true(make) -> None:
    """Of a market that stays as it is, and of a portfolio that the model was not fitted to."""
    model, weights = make(), np.random.default_rng(2).dirichlet(np.ones(30))
    history = replace(HISTORY, returns=np.nan_to_num(HISTORY.returns), planes={})
    forecasts = [
        model.estimate(day_of(history, back=back))[0].volatility(weights) for back in range(100, 0, -4)
    ]
    outcome = np.array(
        [(history.returns[-k : len(history.days) - k + 4] @ weights) for k in range(100, 0, -4)]
    )
    bias = bias_statistic(outcome.reshape(-1, 1), np.repeat(forecasts, 4)[:, None])
    assert 0.8 < bias[0] < 1.2
