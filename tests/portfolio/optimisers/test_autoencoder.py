from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.optimisers.autoencoder import AutoencoderPortfolio
from qlib_ext.portfolio.optimisers.eigen import EigenPortfolio
from qlib_ext.portfolio.problem import Infeasible
from qlib_ext.portfolio.risk import Risk
from tests.portfolio.problems import day_of, problem_of

DAY = day_of(12, seed=3)


def test_one_linear_factor_is_the_first_eigen_portfolio() -> None:
    """What a linear network of one factor learns is the first principal component."""
    asked = problem_of(12, known=DAY, risk=Risk.of_covariance(np.cov(DAY.returns.T)))
    linear = AutoencoderPortfolio(by="factors", factors=1, activation="linear", weight_decay=0.0, epochs=500)
    np.testing.assert_allclose(linear.solve(asked), EigenPortfolio().solve(asked), atol=1e-5)


def test_errors_of_one_linear_factor_are_those_of_the_first_component() -> None:
    scaled = (DAY.returns - DAY.returns.mean(axis=0)) / DAY.returns.std(axis=0)
    linear = AutoencoderPortfolio(factors=1, activation="linear", weight_decay=0.0, epochs=500)
    errors, _ = linear._fit(scaled)
    _, vectors = np.linalg.eigh(scaled.T @ scaled)
    left = scaled - scaled @ vectors[:, -1:] @ vectors[:, -1:].T
    np.testing.assert_allclose(errors, (left**2).mean(axis=0), atol=1e-5)


@pytest.mark.parametrize(("most", "least", "held"), [(4, 0, [0, 1, 2, 3]), (0, 2, [10, 11])])
def test_it_tells_stocks_that_move_together_from_those_that_move_alone(
    most: int, least: int, held: list[int]
) -> None:
    rng = np.random.default_rng(0)
    alone = np.array([0.1] * 4 + [1.0] * 6 + [5.0] * 2) * 0.01
    market = rng.normal(0, 0.01, 60)
    known = day_of(12, returns=market[:, None] + rng.normal(0, 1, (60, 12)) * alone, market=market)
    found = AutoencoderPortfolio(factors=1, most=most, least=least).solve(problem_of(12, known=known))
    assert np.flatnonzero(found).tolist() == held
    np.testing.assert_allclose(found[held], 1 / len(held))


def test_another_seed_is_another_network() -> None:
    first, second = (
        AutoencoderPortfolio(by="factors", epochs=5, seed=seed).solve(problem_of(12, known=DAY))
        for seed in (0, 1)
    )
    assert not np.allclose(first, second, atol=1e-4)


def test_a_stock_that_stood_still_has_no_weight() -> None:
    returns = DAY.returns.copy()
    returns[:, 5] = 0.0
    found = AutoencoderPortfolio(by="factors", epochs=5).solve(
        problem_of(12, known=day_of(12, returns=returns))
    )
    assert found[5] == 0
    with pytest.raises(Infeasible, match="no stock that may be held has moved"):
        AutoencoderPortfolio(epochs=5).solve(problem_of(12, known=day_of(12, returns=0 * returns)))


def test_no_stock_at_all_is_refused() -> None:
    with pytest.raises(UserError, match="`most` and `least` must name one stock at least"):
        AutoencoderPortfolio(most=0, least=0)
