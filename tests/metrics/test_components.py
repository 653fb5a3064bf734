from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.components import effective_bets, noise_edge, principal_components

DRAW = np.random.default_rng(4)
RETURNS = DRAW.normal(size=(90, 1)) @ DRAW.uniform(0.5, 1, (1, 6)) + DRAW.normal(size=(90, 6))
COVARIANCE = np.cov(RETURNS.T)


class TestComponents:
    def test_they_are_those_of_the_standardised_returns(self) -> None:
        """Oracle: the singular values of the returns, each stock with mean 0 and deviation 1."""
        standard = (RETURNS - RETURNS.mean(axis=0)) / RETURNS.std(axis=0, ddof=1)
        _, values, vectors = np.linalg.svd(standard, full_matrices=False)
        found = principal_components(COVARIANCE, np.full(6, 1 / 6))
        np.testing.assert_allclose(found.shares, values**2 / (values**2).sum())
        np.testing.assert_allclose(np.abs(found.loadings), np.abs(vectors.T))
        assert (found.loadings.sum(axis=0) >= 0).all()

    def test_their_parts_make_the_variance_of_the_portfolio(self) -> None:
        weights = DRAW.dirichlet(np.ones(6))
        found = principal_components(COVARIANCE, weights)
        volatility = np.sqrt(np.diag(COVARIANCE))
        moves = (RETURNS - RETURNS.mean(axis=0)) / volatility @ found.loadings  # of the components, by day
        parts = moves.var(axis=0, ddof=1) * (found.loadings.T @ (volatility * weights)) ** 2
        assert parts.sum() == pytest.approx(weights @ COVARIANCE @ weights)
        np.testing.assert_allclose(found.portfolio, parts / parts.sum())

    def test_a_portfolio_of_nothing_has_no_shares(self) -> None:
        assert np.isnan(principal_components(COVARIANCE, np.zeros(6)).portfolio).all()

    def test_what_does_not_fit_is_told(self) -> None:
        with pytest.raises(UserError, match="for 3 weights, found the shape"):
            principal_components(COVARIANCE, np.ones(3))
        with pytest.raises(UserError, match="variances above 0, found 0"):
            principal_components(np.zeros((2, 2)), np.ones(2))


def test_noise_stays_below_its_edge() -> None:
    noise = np.corrcoef(np.random.default_rng(0).normal(size=(2000, 100)).T)
    largest = np.linalg.eigvalsh(noise)[-1]
    assert largest == pytest.approx(noise_edge(100, 2000), rel=0.03)
    assert np.linalg.eigvalsh(np.corrcoef(RETURNS.T))[-1] > noise_edge(6, 90)


def test_bets() -> None:
    assert effective_bets([1.0, 0.0]) == 1
    assert effective_bets(np.full(8, 1 / 8)) == pytest.approx(8)
    assert 1 < effective_bets([0.9, 0.1]) < 2
    assert np.isnan(effective_bets([np.nan, 1.0]))
