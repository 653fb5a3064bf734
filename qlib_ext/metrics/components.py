"""What moves the stocks of a portfolio together, and how many bets it makes."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, matrix


class Components(NamedTuple):
    """Principal components of N stocks, the largest first.

    Attributes
    ----------
    loadings
        ``[N, N]``: a component a column, of length 1 and with a sum of at least 0.
    shares
        ``[N]`` of the variance of all stocks, each counting the same.
    portfolio
        ``[N]`` shares of the portfolio's variance; NaN where it has none.
    """

    loadings: Floats
    shares: Floats
    portfolio: Floats


def principal_components(covariance: npt.ArrayLike, weights: npt.ArrayLike) -> Components:
    r"""Principal components of the stocks' correlations, and the portfolio's variance by them.

    .. math:: C = V \Lambda V^\top, \quad p_k \propto \lambda_k \, \big(v_k^\top (\sigma \circ w)\big)^2

    with the volatilities :math:`\sigma` and the correlations C of the covariance. Components do not move together, so their
    parts add up to the variance.

    Parameters
    ----------
    covariance
        ``[N, N]``, symmetric, with variances above 0.
    weights
        ``[N]``.

    Raises
    ------
    UserError
        If the shapes do not fit, or a variance is not above 0.
    """
    square, w = matrix("covariance", covariance), np.asarray(weights, dtype=np.float64)
    if square.shape != (len(w), len(w)):
        raise UserError(
            f"`covariance` must be [stocks, stocks] for {len(w)} weights, found the shape {square.shape}"
        )
    variance = np.diag(square)
    if not (variance > 0).all():
        raise UserError(f"`covariance` must have variances above 0, found {variance.min():g}")
    volatility = np.sqrt(variance)
    values, vectors = np.linalg.eigh(square / np.outer(volatility, volatility))
    values, vectors = np.clip(values[::-1], 0.0, None), vectors[:, ::-1]
    vectors = vectors * np.where(vectors.sum(axis=0) < 0, -1.0, 1.0)
    parts = values * (vectors.T @ (volatility * w)) ** 2
    whole = parts.sum()
    return Components(vectors, values / values.sum(), parts / whole if whole > 0 else parts * np.nan)


def noise_edge(stocks: int, days: int) -> float:
    r"""The largest eigenvalue of the correlations of stocks that have nothing to do with each other.

    Source: Marchenko and Pastur (1967), "Distribution of eigenvalues for some sets of random matrices"; for correlations of
    stocks, Laloux, Cizeau, Bouchaud and Potters (1999), "Noise dressing of financial correlation matrices".

    .. math:: \lambda_+ = \big(1 + \sqrt{N / D}\big)^2

    What lies above it is more than a sample's noise.

    Parameters
    ----------
    stocks, days
        N and D, at least 1.
    """
    return float((1 + np.sqrt(integer("stocks", stocks, 1) / integer("days", days, 1))) ** 2)


def effective_bets(portfolio: npt.ArrayLike) -> float:
    r"""How many bets of equal size, independent of each other, would spread the variance as far.

    Source: Meucci (2009), "Managing diversification", Risk 22.

    .. math:: \exp\Big(-\sum_k p_k \ln p_k\Big)

    Parameters
    ----------
    portfolio
        Shares p ``[K]`` of the portfolio's variance, as of `principal_components`.

    Returns
    -------
    1 where one component makes all of it, K where all make the same; NaN where a share is missing.
    """
    shares = np.asarray(portfolio, dtype=np.float64)
    if np.isnan(shares).any():
        return float("nan")
    some = shares[shares > 0]
    return float(np.exp(-(some * np.log(some)).sum()))
