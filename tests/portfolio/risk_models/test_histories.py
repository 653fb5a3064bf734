"""Gaps in returns: which there are, and what fills them."""

from dataclasses import replace

import numpy as np
import pytest

from qlib_ext.portfolio.risk_models.histories import completed, named, traded_returns
from tests.portfolio.markets import HALTED, LATE, day_of, history_of


def test_a_suspension_and_what_makes_up_for_it_are_left_out() -> None:
    known = day_of(history_of())
    found = traded_returns(known)
    gone = np.isfinite(known.returns) & np.isnan(found)
    days = len(known.returns)
    assert np.flatnonzero(gone[:, HALTED]).tolist() == list(range(days - 60, days - 39))
    gone[:, HALTED] = False
    assert np.flatnonzero(gone.any(axis=1)).tolist() == []
    assert np.isnan(found[: days - 30, LATE]).all()


def test_without_volumes_every_return_counts() -> None:
    known = replace(day_of(history_of()), planes={})
    np.testing.assert_array_equal(traded_returns(known), known.returns)


def test_what_is_filled_in_keeps_variance_and_what_is_shared() -> None:
    rng = np.random.default_rng(0)
    market = rng.normal(0, 0.01, 4000)
    pair = rng.normal(0, 0.01, 4000)  # what two stocks share beside the market
    returns = 1.5 * market[:, None] + pair[:, None] + rng.normal(0, 0.01, (4000, 2))
    short = returns.copy()
    short[:2000] = np.nan
    np.testing.assert_array_equal(completed(short, market)[2000:], returns[2000:])
    found, expected = np.cov(completed(short, market).T), np.cov(returns.T)
    np.testing.assert_allclose(found, expected, rtol=0.05)


def test_a_whole_history_stays_as_it_is() -> None:
    returns = np.random.default_rng(0).normal(size=(50, 3))
    np.testing.assert_array_equal(completed(returns, returns[:, 0]), returns)


def test_a_market_that_stands_still_explains_nothing() -> None:
    returns = np.array([[0.01], [0.03], [np.nan]])
    assert completed(returns, np.zeros(3))[2, 0] == pytest.approx(0.01)


def test_a_sentence_names_a_few() -> None:
    assert named(["A", "B"]) == "A, B"
    assert named(["A", "B", "C", "D", "E"]) == "A, B, C and 2 more"
