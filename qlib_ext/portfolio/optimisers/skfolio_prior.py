"""A prior of skfolio that hands over what the portfolio expects and risks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from skfolio.prior import BasePrior, FactorModel, ReturnDistribution

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.risk import Risk


class GivenPrior(BasePrior):
    """Expected returns and risk that are known already; scenarios are the returns that it is fitted on.

    Parameters
    ----------
    expected
        `[N]`; None for 0.
    risk
        Of the N stocks.
    codes
        Their codes, by which the columns of the returns are found: a cluster is fitted on some of the stocks.
    """

    def __init__(self, expected: Floats | None, risk: Risk, codes: Sequence[str]) -> None:
        self.expected = expected
        self.risk = risk
        self.codes = codes

    def __sklearn_clone__(self) -> GivenPrior:
        """Another on the same arrays, which nothing writes to."""
        return GivenPrior(self.expected, self.risk, self.codes)

    def fit(self, X: Any, y: Any = None, **fit_params: Any) -> GivenPrior:
        """Take what is known of the columns."""
        place = {code: place for place, code in enumerate(self.codes)}
        some = np.array([place[code] for code in X.columns])
        risk = self.risk.take(some)
        self.return_distribution_ = ReturnDistribution(
            mu=np.zeros(len(some)) if self.expected is None else self.expected[some],
            covariance=risk.covariance(),
            returns=np.asarray(X, dtype=np.float64),
            factor_model=_factor_model(risk, [*X.columns]) if np.any(risk.specific > 0) else None,
        )
        return self


def _factor_model(risk: Risk, codes: Sequence[str]) -> FactorModel:
    """The form in which a solver needs no covariance of all stocks."""
    loadings, covariance = risk.loadings, risk.factor_covariance
    if loadings is None or covariance is None:
        loadings, covariance = risk.components, np.eye(risk.components.shape[1])
    count = loadings.shape[1]
    names = risk.factors if len(risk.factors) == count else [f"factor_{k}" for k in range(count)]
    return FactorModel(
        observations=np.array([], dtype=object),
        asset_names=np.array(codes, dtype=object),
        factor_names=np.array(names, dtype=object),
        factor_families=None,
        loading_matrix=loadings,
        exposures=None,
        factor_covariance=covariance,
        factor_mu=np.zeros(count),
        factor_returns=None,
        idio_covariance=risk.specific,
        idio_mu=None,
        idio_returns=None,
        idio_variances=None,
    )
