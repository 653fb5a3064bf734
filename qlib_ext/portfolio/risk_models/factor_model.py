"""Factors from exposures: regressions across the stocks of each day, and skfolio's estimators of what they find."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from skfolio.moments import BaseCovariance
from skfolio.moments.variance import BaseVariance
from sklearn.base import clone

from qlib_ext.checks import UserError, at_least, counted, integer, one_of, words
from qlib_ext.config.build import build
from qlib_ext.features.exposures.style_exposures import HISTORY_DAYS, STYLES
from qlib_ext.features.side_data.industries import industries_of
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.attribution import factor_returns
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.calendars.monthly import Monthly
from qlib_ext.portfolio.calendars.periodic import Periodic
from qlib_ext.portfolio.known_day import Bools, KnownDay
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.portfolio.risk_models.covariance import FAILURES, fitted
from qlib_ext.portfolio.risk_models.exposures import MARKET, Exposures, exposures, industry_of, style_planes
from qlib_ext.portfolio.risk_models.histories import completed, named, told, traded_returns
from qlib_ext.portfolio.skfolio_objects import skfolio_object

FACTORS = {
    "class": "skfolio.moments.EWCovariance",
    "kwargs": {"half_life": 90, "min_observations": 40, "nearest": False},
}
NOTHING = 1e-6  # of the median of specific variances; less is rounding
SPECIFIC = {"class": "skfolio.moments.EWVariance", "kwargs": {"half_life": 60, "min_observations": 40}}


@dataclass(frozen=True)
class Fit:
    """What a factor model holds from one fit to the next.

    Attributes
    ----------
    day
        The last day that it was fitted on.
    styles, industries
        Names.
    covariance
        `[K, K]` of the factors' daily returns.
    specific
        Code -> variance of a stock's own daily return.
    structure
        `[1 + J]`: what the logarithm of that variance is by styles, for a stock that was not there.
    notes
        What the model had to do without, as sentences.
    """

    day: pd.Timestamp
    styles: tuple[str, ...]
    industries: tuple[str, ...]
    covariance: Floats
    specific: Mapping[str, float]
    structure: Floats
    notes: tuple[str, ...]


class FactorModel(RiskModel):
    r"""Risk by what stocks have in common: the market, industries and styles.

    Source: Rosenberg (1974), "Extra-Market Components of Covariance in Security Returns", Journal of Financial and Quantitative
    Analysis 9; Menchero, Orr and Wang (2011), "The Barra US Equity Model (USE4)", MSCI, for the weights of the regressions, the
    factor of the market beside industries, and the specific risk of stocks without a history.

    .. math::

        r_{i,t} = f_{m,t} + \sum_j b_{i,j,t-1} f_{j,t} + f_{g(i),t} + e_{i,t}, \quad
        \sum_g c_{g,t-1} f_{g,t} = 0, \quad \Sigma = B_t F B_t^\top + \mathrm{diag}(d)

    Each day's returns are regressed on what stocks were exposed to at the close before, weighted by the root of market value;
    c is the share of an industry in the market. F is the covariance of the factors' returns and d the variance of what they
    leave, both by estimators of skfolio, made again when the calendar says so. B is of today.

    Parameters
    ----------
    styles
        Some of `size`, `beta`, `momentum`, `volatility`, `reversal`, `liquidity` (`qlib_ext.features.exposures.style_exposures`).
    industries
        Whether industries are factors, where the store has them.
    window
        Days of regressions.
    factor_covariance, specific_variance
        Estimators of skfolio, of covariances and of variances, as `{class, kwargs}`. By default exponential ones with half-lives
        of 90 and 60 days.
    refit
        Calendar of periods (`qlib_ext.portfolio.calendars`), `{class, kwargs}`: F and d are made again on the first day of
        each period that a portfolio asks for. So they are where half of the stocks are new.
    min_days
        Days with trading that a stock must have in the window.

    Raises
    ------
    UserError
        From the constructor for arguments out of range and estimators of another kind; from `estimate` if an estimator cannot be
        fitted.

    Notes
    -----
    *What is not known.* A style that no stock has on `min_days` days, or industries that the store lacks, are left out, and told.
    A stock without a value has that of the market, which is 0; stocks
    without an industry are one of their own. *New listings* are unknown until they have `min_days` days with
    trading. A stock that was unknown at the last fit takes the specific variance that its styles suggest, from a regression of
    the logarithms of the others', until the next fit. *Suspensions* are left out (`histories.traded_returns`). *The past* is that
    of today's stocks, in the industries that they are in today.

    Departures
    ----------
    skfolio's `CharacteristicsFactorModel` does the same from a panel of its own, and is the oracle in the tests. It takes
    several times as long, as it keeps all estimates of all days; it stops where too few stocks have all exposures on any day; and it
    has no answer for a stock that came after the fit.
    """

    def __init__(
        self,
        styles: Sequence[str] = STYLES,
        industries: bool = True,
        window: int = 500,
        factor_covariance: Mapping[str, Any] = FACTORS,
        specific_variance: Mapping[str, Any] = SPECIFIC,
        refit: Mapping[str, Any] | Periodic | None = None,
        min_days: int = 60,
    ) -> None:
        self.styles = tuple(one_of("styles", name, STYLES) for name in words("styles", styles))
        if not isinstance(industries, bool):
            raise UserError(f"`industries` must be true or false, found {industries!r}")
        self.industries = industries
        self.window = integer("window", window, 2)
        self.min_days = integer("min_days", min_days, 2)
        at_least("window", window, min_days)
        self.factor_covariance = skfolio_object(factor_covariance, BaseCovariance, name="factor_covariance")
        self.specific_variance = skfolio_object(specific_variance, BaseVariance, name="specific_variance")
        self.refit = Monthly() if refit is None else build(refit, Periodic, name="refit")
        self.days_back = window + 1 + HISTORY_DAYS
        self.last_fit: Fit | None = None

    def factors(self, store: QlibStore) -> set[str]:
        """The market, styles, and the industries of the store."""
        return {MARKET, *self.styles, *(industries_of(store) if self.industries else ())}

    def estimate(self, known: KnownDay) -> tuple[Risk, list[str]]:
        """The factors of the last fit, and what the stocks are exposed to today."""
        traded = traded_returns(known)
        recent = traded[-self.window :]
        enough = np.isfinite(recent).sum(axis=0) >= self.min_days
        if not enough.any():
            unknown = np.full((len(enough), 1), np.nan)
            return Risk(unknown, unknown[:, 0]), told(known, recent, enough, self.min_days)
        if self._due(known):
            self.last_fit = self._fit(known, traded, enough)
        fit = self.last_fit
        assert fit is not None
        today = exposures(known, *style_planes(known, traded, 1), fit.styles, fit.industries)
        notes = [*fit.notes, *told(known, recent, enough, self.min_days)]
        specific = np.array([fit.specific.get(code, np.nan) for code in known.codes])
        strange = enough & np.isnan(specific)
        if strange.any():
            specific[strange] = np.exp(_with_constant(today.styles[:, -1, strange].T) @ fit.structure)
            notes.append(
                f"unknown when the factor model was fitted on {fit.day:%Y-%m-%d}: "
                f"{named(np.array(known.codes)[strange])}; what they risk alone is what their styles suggest"
            )
        loadings = today.loadings()
        loadings[~enough] = np.nan
        return Risk.of_factors(
            loadings, fit.covariance, np.where(enough, specific, np.nan), today.names
        ), notes

    def _due(self, known: KnownDay) -> bool:
        """Whether the last fit is of another period; or of a later day or another market, where a model is used again."""
        last, period = self.last_fit, self.refit.period
        if last is None or known.day < last.day or known.day.to_period(period) != last.day.to_period(period):
            return True
        return sum(code in last.specific for code in known.codes) < len(known.codes) / 2

    def _fit(self, known: KnownDay, traded: Floats, enough: Bools) -> Fit:
        planes, values = style_planes(known, traded, self.window + 1)
        whole = {name: np.isfinite(plane).any(axis=1) for name, plane in planes.items()}
        styles = tuple(name for name in self.styles if name in whole and whole[name].sum() > self.min_days)
        # Rows begin where all styles do: a factor without exposures would have no return.
        first = max((int(np.argmax(whole[name])) for name in styles), default=0)
        industries = self._industries(known)
        found = exposures(
            known, {name: planes[name][first:] for name in styles}, values[first:], styles, industries
        )
        returns = traded[-len(values) :][first:]
        factors, left = regressions(returns, found)
        missing = [name for name in self.styles if name not in styles]
        notes = [
            f"the factor model does without {', '.join(missing)}, of which the store tells too little"
        ] * bool(missing)
        if self.industries and not industries:
            notes.append("the factor model does without industries, of which the store has none")
        if len(factors) < self.window:
            notes.append(
                f"the factor model is fitted on {counted(len(factors), 'day')} of {self.window:,} that are asked for"
            )
        try:
            covariance = self._covariance(factors)
            specific = np.full(len(enough), np.nan)
            some = enough & np.isfinite(left).any(axis=0)
            own = completed(left[:, some], np.zeros(len(left)))
            specific[some] = clone(self.specific_variance).fit(own).variance_
        except FAILURES as error:
            raise UserError(
                f"the factor model cannot be fitted on {known.day:%Y-%m-%d}, on {counted(len(factors), 'day')}: {error}"
            ) from error
        some = np.isfinite(specific)
        return Fit(
            day=known.day,
            styles=styles,
            industries=industries,
            covariance=covariance,
            specific={known.codes[k]: float(specific[k]) for k in np.flatnonzero(some)},
            structure=_structure(specific[some], found.styles[:, -1, some].T),
            notes=tuple(notes),
        )

    def _covariance(self, factors: Floats) -> Floats:
        """`[K, K]`; 0 of a factor that never moved, as the industry where there is one, or a style that tells no stocks apart."""
        moved = factors.any(axis=0)
        found = np.zeros((factors.shape[1], factors.shape[1]))
        found[np.ix_(moved, moved)] = fitted(self.factor_covariance, factors[:, moved])
        return found

    def _industries(self, known: KnownDay) -> tuple[str, ...]:
        """Those that a stock of the day is in; stocks without one are an industry of their own."""
        if not self.industries or known.industry is None:
            return ()
        return tuple(sorted({*industry_of(known)}))


def regressions(returns: Floats, found: Exposures) -> tuple[Floats, Floats]:
    """Regress each day's returns on the exposures of the close before, by `metrics.attribution.factor_returns`.

    Parameters
    ----------
    returns
        `[D, N]`, NaN where a stock has none that counts.
    found
        Exposures on the same days.

    Returns
    -------
    factors, left
        Returns of the factors `[D - 1, K]`, and what they leave of the stocks' `[D - 1, N]`, NaN where there was no return.
    """
    moves, styles = returns[1:], found.styles[:, :-1]
    groups = len(found.names) - 1 - len(styles)
    # Without industries all stocks are one, which has nothing beyond the market.
    group = np.broadcast_to(found.industry if groups else 0, moves.shape)
    earned = factor_returns(moves, styles, group, max(groups, 1), found.values[:-1]).returns
    own = earned[:, 1 + len(styles) :]
    left = moves - earned[:, :1] - np.einsum("pdn,dp->dn", styles, earned[:, 1 : 1 + len(styles)])
    left -= np.take_along_axis(own, group, axis=1)
    return earned[:, : len(found.names)], left


def _with_constant(styles: Floats) -> Floats:
    return np.hstack([np.ones((len(styles), 1)), styles])


def _structure(variances: Floats, styles: Floats) -> Floats:
    """What the logarithms of variances are by styles, so that the mean of the variances is kept."""
    # A stock that is an industry by itself has nothing left: all of it is the industry's, and says nothing of others.
    some = variances > NOTHING * np.median(variances) if len(variances) else variances > 0
    if not some.any():
        return np.full(1 + styles.shape[1], np.nan)
    x = _with_constant(styles[some])
    found = np.linalg.lstsq(x, np.log(variances[some]), rcond=None)[0]
    found[0] += np.log(variances[some].mean() / np.exp(x @ found).mean())
    return np.asarray(found, dtype=np.float64)
