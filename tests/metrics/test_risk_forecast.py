"""Forecast volatility beside what came, against closed forms, loops and simulated returns."""

import numpy as np
import pytest
from scipy.stats import norm

from qlib_ext.checks import UserError
from qlib_ext.metrics.risk_forecast import bias_interval, bias_statistic, qlike


@pytest.fixture
def forecasts():
    return np.random.default_rng(0).uniform(0.005, 0.02, (250, 400))


def returns_of(forecasts, times=1.0):
    return times * forecasts * np.random.default_rng(1).standard_normal(forecasts.shape)


def test_bias_is_the_deviation_of_standardised_returns(forecasts) -> None:
    returns = returns_of(forecasts)
    for portfolio in range(3):
        z = returns[:, portfolio] / forecasts[:, portfolio]
        assert bias_statistic(returns, forecasts)[portfolio] == pytest.approx(np.std(z, ddof=1), rel=1e-12)


def test_a_missing_day_does_not_count(forecasts) -> None:
    returns = returns_of(forecasts)
    returns[7], forecasts[9] = np.nan, np.nan
    some = np.delete(np.arange(250), [7, 9])
    for figure in (bias_statistic, qlike):
        np.testing.assert_allclose(
            figure(returns, forecasts), figure(returns[some], forecasts[some]), rtol=1e-12
        )
        assert np.isnan(figure(np.full((3, 1), np.nan), np.ones((3, 1))))
    assert np.isnan(bias_statistic([[0.1]], [[0.1]]))


@pytest.mark.parametrize("level", [0.8, 0.95])
def test_right_forecasts_lie_in_the_interval_as_often_as_it_says(forecasts, level) -> None:
    low, high = bias_interval(250, level)
    found = bias_statistic(returns_of(forecasts), forecasts)
    share = np.mean((found > low) & (found < high))
    assert share == pytest.approx(level, abs=3 * np.sqrt(level * (1 - level) / 400))
    wrong = bias_statistic(returns_of(forecasts, times=1.3), forecasts)
    assert np.mean(wrong > high) > 0.9


def test_the_interval_is_about_one_plus_and_minus_the_root_of_two_over_the_days() -> None:
    low, high = bias_interval(1000)
    width = norm.ppf(0.975) / np.sqrt(2 * 1000)
    assert (low, high) == pytest.approx((1 - width, 1 + width), abs=1e-3)


def test_qlike_is_patton_s_loss(forecasts) -> None:
    returns = returns_of(forecasts)
    loss = [np.log(f**2) + r**2 / f**2 for r, f in zip(returns[:, 0], forecasts[:, 0], strict=True)]
    assert qlike(returns, forecasts)[0] == pytest.approx(np.mean(loss), rel=1e-12)


def test_qlike_is_lowest_for_the_truth(forecasts) -> None:
    returns = returns_of(forecasts)
    right = qlike(returns, forecasts).mean()
    low, high = (qlike(returns, times * forecasts).mean() for times in (0.7, 1 / 0.7))
    assert right < high < low


def test_faults_are_named() -> None:
    with pytest.raises(UserError, match="`forecasts` must be above 0, found 0"):
        qlike([[0.1]], [[0.0]])
    with pytest.raises(UserError, match="one shape"):
        bias_statistic([[0.1]], [[0.1, 0.2]])
    with pytest.raises(UserError, match="`days` must be at least 2"):
        bias_interval(1)
