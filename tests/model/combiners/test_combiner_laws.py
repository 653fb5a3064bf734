"""Laws of every combiner of the package."""

from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.config.build import classes_in
from qlib_ext.metrics.cross_section import rank
from qlib_ext.model import combiners
from qlib_ext.model.combiners.base import Combiner

COMBINERS = [kind for kind in classes_in(combiners, Combiner) if kind is not Combiner]
MEMBERS, DAYS, STOCKS = 3, 40, 12
SIZE = (MEMBERS, DAYS, STOCKS)


@pytest.fixture(params=COMBINERS, ids=lambda kind: kind.__name__)
def combiner(request: pytest.FixtureRequest) -> Combiner:
    return request.param()


@pytest.fixture
def truth() -> np.ndarray:
    return np.random.default_rng(5).normal(size=(DAYS, STOCKS))


@pytest.fixture
def scores(truth: np.ndarray) -> np.ndarray:
    """The first member knows most of the return, the last nothing; each misses some stocks."""
    rng = np.random.default_rng(6)
    found = np.array([0.8, 0.3, 0.0])[:, None, None] * truth + rng.normal(size=SIZE)
    found[rng.random(SIZE) < 0.1] = np.nan
    return found


def test_one_member_is_itself(combiner: Combiner, scores: np.ndarray, truth: np.ndarray) -> None:
    combiner.fit(scores[:1], truth)
    np.testing.assert_array_equal(rank(combiner.combine(scores[:1])), rank(scores[0]))


def test_the_order_of_the_members_means_nothing(
    combiner: Combiner, scores: np.ndarray, truth: np.ndarray
) -> None:
    combiner.fit(scores, truth)
    first = combiner.combine(scores)
    weights = combiner.weights_of(MEMBERS)
    combiner.fit(scores[::-1], truth)
    np.testing.assert_allclose(combiner.combine(scores[::-1]), first, atol=1e-9)
    np.testing.assert_allclose(combiner.weights_of(MEMBERS)[::-1], weights, atol=1e-9)


def test_nor_does_the_order_of_the_stocks(combiner: Combiner, scores: np.ndarray, truth: np.ndarray) -> None:
    order = np.random.default_rng(1).permutation(STOCKS)
    combiner.fit(scores, truth)
    first = combiner.combine(scores)
    combiner.fit(scores[..., order], truth[:, order])
    np.testing.assert_allclose(combiner.combine(scores[..., order]), first[:, order], atol=1e-9)


def test_a_day_says_nothing_of_another(combiner: Combiner, scores: np.ndarray, truth: np.ndarray) -> None:
    combiner.fit(scores, truth)
    whole = combiner.combine(scores)
    np.testing.assert_allclose(combiner.combine(scores[:, 7:8]), whole[7:8], atol=1e-12)


def test_a_stock_has_a_score_where_any_member_gives_it_one(
    combiner: Combiner, scores: np.ndarray, truth: np.ndarray
) -> None:
    scores[:, 3, 4], scores[1:, 3, 5], scores[0, 3, 5] = np.nan, np.nan, 1.0
    combiner.fit(scores, truth)
    found = combiner.combine(scores)
    np.testing.assert_array_equal(np.isnan(found), np.isnan(scores).all(axis=0))


def test_one_member_alone_does_not_put_a_stock_on_top(combiner: Combiner) -> None:
    """Of three members that agree but for the first stock, which one puts first and the others do not know."""
    scores = np.tile(np.arange(9.0), (3, 1, 1))
    scores[0, 0, 0], scores[1:, 0, 0] = 9.0, np.nan
    assert combiner.combine(scores)[0].argmax() == 8


def test_equal_scores_of_a_day_stay_equal(combiner: Combiner) -> None:
    found = combiner.combine(np.ones((2, 1, 5)))
    assert (found == found[0, 0]).all()


def test_it_learns_of_returns_only_where_it_says_so(
    combiner: Combiner, scores: np.ndarray, truth: np.ndarray
) -> None:
    combiner.fit(scores, truth)
    learned = combiner.weights_of(MEMBERS)
    assert learned.sum() == pytest.approx(1)
    if combiner.learns:
        assert learned[0] > learned[1] > learned[2]
    else:
        np.testing.assert_array_equal(learned, np.full(MEMBERS, 1 / MEMBERS))


def test_weights_of_other_members_are_refused(combiner: Combiner, scores: np.ndarray) -> None:
    combiner.weights = np.array([0.5, 0.5])
    with pytest.raises(UserError, match="the weights are of 2 members, found 3"):
        combiner.combine(scores)


def test_what_cannot_be_learned_from_is_told(
    combiner: Combiner, scores: np.ndarray, truth: np.ndarray
) -> None:
    if combiner.learns:
        with pytest.raises(UserError, match="found no day of it with a score and a return"):
            combiner.fit(scores, np.full_like(truth, np.nan))
        with pytest.raises(UserError, match="must have the days and stocks of `scores`"):
            combiner.fit(scores, truth[:-1])


def test_it_shows_the_call_that_makes_it(combiner: Combiner) -> None:
    assert repr(combiner) == f"{type(combiner).__name__}()"
