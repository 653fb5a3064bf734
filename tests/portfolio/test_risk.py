"""Risk in either form is one covariance."""

from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.risk import Risk

DRAW = np.random.default_rng(1)
LOADINGS, ROOT = DRAW.normal(size=(6, 2)), DRAW.normal(size=(2, 2))
SPECIFIC = DRAW.uniform(0.5, 1.0, 6)
COVARIANCE = LOADINGS @ (ROOT @ ROOT.T) @ LOADINGS.T + np.diag(SPECIFIC)
FORMS = {
    "factors": Risk.of_factors(LOADINGS, ROOT @ ROOT.T, SPECIFIC, ("a", "b")),
    "covariance": Risk.of_covariance(COVARIANCE),
}


@pytest.mark.parametrize("risk", FORMS.values(), ids=FORMS)
class TestForms:
    def test_the_covariance_comes_back(self, risk: Risk) -> None:
        assert np.allclose(risk.covariance(), COVARIANCE)
        assert np.allclose(risk.variances(), np.diag(COVARIANCE))

    def test_it_multiplies_as_the_covariance_does(self, risk: Risk) -> None:
        weights = DRAW.normal(size=6)
        assert np.allclose(risk.times(weights), COVARIANCE @ weights)
        assert risk.volatility(weights) == pytest.approx(np.sqrt(weights @ COVARIANCE @ weights))

    def test_some_of_the_stocks_have_their_part_of_it(self, risk: Risk) -> None:
        some = np.array([True, False, True, True, False, False])
        assert np.allclose(risk.take(some).covariance(), COVARIANCE[np.ix_(some, some)])


def test_a_stock_without_an_estimate_counts_for_nothing() -> None:
    gappy = COVARIANCE.copy()
    gappy[2] = gappy[:, 2] = np.nan
    risk = Risk.of_covariance(gappy)
    assert risk.known.tolist() == [True, True, False, True, True, True]
    rest = np.delete(np.delete(COVARIANCE, 2, 0), 2, 1)
    assert np.allclose(risk.take(risk.known).covariance(), rest)
    assert risk.volatility(np.eye(6)[2]) == 0


def test_what_is_no_covariance_is_refused() -> None:
    with pytest.raises(UserError, match="must have no negative eigenvalue, found -1 beside 3"):
        Risk.of_covariance(np.array([[1.0, 2.0], [2.0, 1.0]]))
