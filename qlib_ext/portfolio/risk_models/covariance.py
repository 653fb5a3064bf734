"""Any covariance estimator of skfolio, on the returns of a window."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from typing import Any

import numpy as np
from skfolio.exceptions import NonPositiveVarianceError
from skfolio.moments import BaseCovariance
from sklearn.base import clone

from qlib_ext.checks import UserError, at_least, integer
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.portfolio.risk_models.histories import completed, told, traded_returns
from qlib_ext.portfolio.skfolio_objects import skfolio_object

MADE_UP = 4  # stocks that an estimator is tried on


class Covariance(RiskModel):
    """A covariance estimator of skfolio, named by its dotted class, on the daily returns of a window.

    `EmpiricalCovariance`, `LedoitWolf`, `OAS`, `ShrunkCovariance`, `EWCovariance`, `RegimeAdjustedEWCovariance`,
    `DenoiseCovariance`, `DetoneCovariance`, `GerberCovariance`, `GeodesicShrinkageCovariance`, `GraphicalLassoCV` of
    `skfolio.moments`, and what is made of them.

    Parameters
    ----------
    estimator
        `{class, kwargs}`; parts in `kwargs` are written alike.
    window
        Days of returns, today's included.
    min_days
        Days with trading that a stock must have among them.

    Raises
    ------
    UserError
        From the constructor if the estimator is none of covariances, or cannot be fitted on made-up returns; from `estimate` if
        it cannot be fitted on those of the day.

    Notes
    -----
    *Missing returns* are filled in by `histories.completed`: no estimator but the exponential ones takes a gap. *Stocks*
    without `min_days`, or without any spread, are unknown.

    Examples
    --------
    ::

        risk_model:
          class: qlib_ext.portfolio.risk_models.covariance.Covariance
          kwargs: {estimator: {class: skfolio.moments.LedoitWolf}, window: 250}
    """

    def __init__(self, estimator: Mapping[str, Any], window: int = 250, min_days: int = 60) -> None:
        self.window = integer("window", window, 2)
        self.min_days = integer("min_days", min_days, 2)
        at_least("window", window, min_days)
        self.days_back = window
        self.estimator = skfolio_object(estimator, BaseCovariance, name="estimator")
        try:
            fitted(self.estimator, 0.01 * np.random.default_rng(0).standard_normal((window, MADE_UP)))
        except FAILURES as error:
            raise UserError(
                f"`estimator` {self.estimator!r} must work on {window} days of made-up returns; it says: {error}"
            ) from error

    def factors(self, store: QlibStore) -> set[str]:
        """None at all: the covariance is whole."""
        return set()

    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        """The root of what the estimator finds."""
        returns = traded_returns(known)[-self.window :]
        there = np.isfinite(returns)
        enough = there.sum(axis=0) >= self.min_days
        enough &= np.where(there, returns, -np.inf).max(axis=0) > np.where(there, returns, np.inf).min(axis=0)
        covariance = np.full((len(enough), len(enough)), np.nan)
        if enough.any():
            market = np.nan_to_num(known.market[-self.window :])
            try:
                found = fitted(self.estimator, completed(returns[:, enough], market))
            except FAILURES as error:
                raise UserError(
                    f"`estimator` {self.estimator!r} cannot be fitted on {known.day:%Y-%m-%d}, on {len(returns)} days of "
                    f"{enough.sum()} stocks: {error}"
                ) from error
            covariance[np.ix_(enough, enough)] = found
        return Risk.of_covariance(covariance), told(known, returns, enough, self.min_days)


# What skfolio, and scikit-learn under it, raise where they cannot do what they are asked.
FAILURES = (ValueError, TypeError, ArithmeticError, np.linalg.LinAlgError, NonPositiveVarianceError)


def fitted(estimator: BaseCovariance, returns: Floats) -> Floats:
    """The covariance `[N, N]` that an estimator finds in returns `[D, N]`; the estimator itself stays as it is."""
    with warnings.catch_warnings():
        # With fewer days than stocks none is; what skfolio takes instead is the nearest one that is.
        warnings.filterwarnings("ignore", "The covariance matrix is not positive definite")
        found = np.asarray(clone(estimator).fit(returns).covariance_, dtype=np.float64)
    if not np.isfinite(found).all():
        raise ValueError(f"its covariance of {len(returns)} days is not finite")
    return found
