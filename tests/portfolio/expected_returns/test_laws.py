"""What every model of expected returns keeps to."""

from dataclasses import replace

import numpy as np
import pytest

from qlib_ext.config.build import classes_in
from qlib_ext.metrics.cross_section import spearman
from qlib_ext.portfolio import expected_returns
from qlib_ext.portfolio.expected_returns.base import ExpectedReturns
from qlib_ext.portfolio.expected_returns.black_litterman import BlackLitterman
from qlib_ext.portfolio.expected_returns.grinold import GrinoldAlpha
from qlib_ext.portfolio.expected_returns.no_forecast import NoForecast
from qlib_ext.portfolio.expected_returns.past_mean import PastMean
from qlib_ext.portfolio.expected_returns.trailing_regression import TrailingRegression
from qlib_ext.portfolio.risk_models.covariance import Covariance
from tests.portfolio.markets import LATE, day_of, history_of, scrambled

HISTORY = history_of(skill=1.0)
LONG = replace(HISTORY, horizon=(1, 5))
EVERY = [
    GrinoldAlpha(window=150, ceiling=1.0),
    TrailingRegression(window=150),
    TrailingRegression(window=150, kind="pooled"),
    BlackLitterman(views=GrinoldAlpha(window=150, ceiling=1.0)),
    BlackLitterman(views=TrailingRegression(window=150), weights="market_value"),
    PastMean(window=150),
    NoForecast(),
]
every = pytest.mark.parametrize("model", EVERY, ids=repr)
speaking = pytest.mark.parametrize("model", EVERY[:-2], ids=repr)  # of the scores
RISK = Covariance({"class": "skfolio.moments.LedoitWolf"})


def expected(model, known):
    return model.estimate(known, RISK.estimate(known)[0])


def test_none_is_missing() -> None:
    assert {
        each for each in classes_in(expected_returns, ExpectedReturns) if each is not ExpectedReturns
    } == {type(model) for model in EVERY}


@every
@pytest.mark.parametrize("history", [HISTORY, LONG], ids=["a day", "a week"])
def test_it_does_not_look_ahead(model, history) -> None:
    then = expected(model, day_of(history, back=10))
    again = expected(model, day_of(scrambled(history, back=10), back=10))
    np.testing.assert_equal(again, then)


@speaking
def test_it_learns_of_the_days_whose_returns_are_known(model) -> None:
    """The return of the last day counts, for the score that foretold it; later scores are of today alone."""
    known = day_of(HISTORY)
    risk = RISK.estimate(known)[0]
    first = model.estimate(known, risk)
    returns, scores = known.returns.copy(), known.scores.copy()
    returns[-1] = -5 * returns[-1]
    scores[-2] = -scores[-2]  # foretells what is not known yet
    np.testing.assert_allclose(model.estimate(replace(known, scores=scores), risk), first, rtol=1e-12)
    assert not np.allclose(model.estimate(replace(known, returns=returns), risk), first, equal_nan=True)


@every
def test_it_needs_no_more_days_than_it_says(model) -> None:
    known = day_of(HISTORY)
    risk = RISK.estimate(known)[0]
    np.testing.assert_equal(
        model.estimate(day_of(HISTORY, length=model.days_back), risk), model.estimate(known, risk)
    )


@speaking
def test_a_higher_score_promises_more_where_scores_told(model) -> None:
    known = day_of(HISTORY)
    found = expected(model, known)
    assert spearman(known.score[None], found[None])[0] > 0.5
    assert np.nanmax(np.abs(found)) < 0.05  # of a day


@speaking
def test_the_order_of_stocks_means_nothing(model) -> None:
    order = np.random.default_rng(1).permutation(30)
    known = day_of(HISTORY)
    found = expected(model, known.take(order))
    np.testing.assert_allclose(found, expected(model, known)[order], rtol=1e-9, equal_nan=True)


@speaking
def test_what_is_not_known_of_a_stock_is_not_said(model) -> None:
    scores = HISTORY.scores.copy()
    scores[-1, 7] = np.nan
    known = day_of(replace(HISTORY, scores=scores), held={HISTORY.codes[7]: 0.1})
    assert len(known.codes) == 30
    found = expected(model, known)
    # The market says something of a stock without a score, if its risk is known.
    assert np.isnan(found[7]) == (not isinstance(model, BlackLitterman))
    assert np.isnan(found[LATE]) == (not isinstance(model, TrailingRegression))
    some = np.ones(30, bool)
    some[[7, LATE]] = False
    assert np.isfinite(found[some]).all()


@every
def test_no_stock_is_no_trouble(model) -> None:
    known = day_of(replace(HISTORY, scores=np.where(np.arange(30) == LATE, HISTORY.scores, np.nan)))
    found = expected(model, known)  # one stock, of which nothing is known
    assert found is None or len(found) == 1
