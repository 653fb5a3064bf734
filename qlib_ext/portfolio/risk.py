"""The risk of N stocks: a covariance, or factors and what is left of each stock."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.metrics.cross_section import Floats


@dataclass(frozen=True)
class Risk:
    r"""Forecast covariance of the daily returns of N stocks.

    .. math:: \Sigma = B F B^\top + \mathrm{diag}(d), \quad\text{or}\quad \Sigma = L L^\top

    Attributes
    ----------
    components
        `[N, K]`: B times a root of F, or a root L of the whole covariance. NaN in all of a row where the model cannot say
        anything of a stock.
    specific
        `[N]` variances d that belong to each stock alone; all 0 where `components` are a root of the whole.
    factors
        Names of the K factors; empty where `components` are a root of the whole.
    loadings
        `[N, K]` B, where there are factors.
    factor_covariance
        `[K, K]` F, where there are factors.
    """

    components: Floats
    specific: Floats
    factors: tuple[str, ...] = ()
    loadings: Floats | None = None
    factor_covariance: Floats | None = None

    @classmethod
    def of_covariance(cls, covariance: Floats) -> Risk:
        """From a whole covariance `[N, N]`; a row of NaN where a stock is unknown.

        Raises
        ------
        UserError
            If it is not positive semi-definite, but for rounding.
        """
        known = np.isfinite(np.diag(covariance))
        root = np.full(covariance.shape, np.nan)
        root[known] = 0.0
        root[np.ix_(known, known)] = _root(covariance[np.ix_(known, known)])
        return cls(root, np.where(known, 0.0, np.nan))

    @classmethod
    def of_factors(
        cls, loadings: Floats, factor_covariance: Floats, specific: Floats, factors: tuple[str, ...]
    ) -> Risk:
        """From loadings `[N, K]`, the factors' covariance `[K, K]` and specific variances `[N]`."""
        values, vectors = np.linalg.eigh(factor_covariance)
        root = vectors * np.sqrt(np.clip(values, 0.0, None))
        return cls(loadings @ root, specific, factors, loadings, factor_covariance)

    @property
    def known(self) -> np.ndarray:
        """`[N]` bool: the stocks that the model has an estimate of."""
        return np.isfinite(self.components).all(axis=1) & np.isfinite(self.specific)

    def covariance(self) -> Floats:
        """`[N, N]`."""
        return self.components @ self.components.T + np.diag(self.specific)

    def variances(self) -> Floats:
        """`[N]`."""
        return np.einsum("nk,nk->n", self.components, self.components) + self.specific

    def times(self, weights: Floats) -> Floats:
        """`[N]`: the covariance times weights, without making the covariance."""
        return self.components @ (self.components.T @ weights) + self.specific * weights

    def volatility(self, weights: Floats) -> float:
        """Forecast standard deviation of a day's return of the weights; stocks without an estimate count for nothing."""
        known = self.known
        own = self.take(known)
        return float(np.sqrt(max(0.0, weights[known] @ own.times(weights[known]))))

    def take(self, some: np.ndarray) -> Risk:
        """The risk of some of the stocks, by a mask or by places."""
        return replace(
            self,
            components=self.components[some],
            specific=self.specific[some],
            loadings=None if self.loadings is None else self.loadings[some],
        )


def _root(covariance: Floats) -> Floats:
    """L of a covariance L Lᵀ: a triangle, half of which a solver need not look at, or of eigenvectors where there is none.

    Raises
    ------
    UserError
        If it is not positive semi-definite, but for rounding.
    """
    try:
        return np.asarray(np.linalg.cholesky(covariance), np.float64)
    except np.linalg.LinAlgError:
        values, vectors = np.linalg.eigh(covariance)
    if values[0] < -1e-8 * max(values[-1], 1e-300):
        raise UserError(
            f"a covariance must have no negative eigenvalue, found {values[0]:.3g} beside {values[-1]:.3g}"
        )
    return vectors * np.sqrt(np.clip(values, 0.0, None))
