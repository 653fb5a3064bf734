"""How well a forecast of risk was: forecast volatility beside what came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.stats import chi2

from qlib_ext.checks import UserError, between, integer
from qlib_ext.metrics.cross_section import Floats, same_shape


def bias_statistic(returns: npt.ArrayLike, forecasts: npt.ArrayLike) -> Floats:
    r"""Standard deviation of returns in units of their forecast volatility: above 1 the risk was forecast too low.

    Source: Menchero, Orr and Wang (2011), "The Barra US Equity Model (USE4)", MSCI, appendix on bias statistics.

    .. math:: B = \sqrt{\frac{1}{D - 1} \sum_t (z_t - \bar z)^2}, \quad z_t = r_t / \hat\sigma_t

    Parameters
    ----------
    returns
        Daily returns ``[D, P]``, one column a portfolio; beside an index where the forecasts are of a tracking error.
    forecasts
        ``[D, P]`` volatilities of a day, forecast before the day began; NaN, as in `returns`, where there is none.

    Returns
    -------
    ``[P]``; NaN with fewer than two days.

    Raises
    ------
    UserError
        If the two are not matrices of one shape, or a forecast is not above 0.
    """
    z = _standardised(returns, forecasts)
    there = np.isfinite(z)
    count = there.sum(axis=0)
    mean = np.where(there, z, 0.0).sum(axis=0) / np.maximum(count, 1)
    squares = np.where(there, (z - mean) ** 2, 0.0).sum(axis=0)
    return np.where(count > 1, np.sqrt(squares / np.maximum(count - 1, 1)), np.nan)


def bias_interval(days: int, level: float = 0.95) -> tuple[float, float]:
    r"""Where the bias statistic of a right forecast lies, if returns are normal.

    Source: the distribution of a sample variance; about :math:`1 \pm \sqrt{2 / D}` at 95%, as in Menchero, Orr and Wang (2011).

    .. math:: \left[\sqrt{\chi^2_{D-1, (1-p)/2} / (D-1)}, \; \sqrt{\chi^2_{D-1, (1+p)/2} / (D-1)}\right]

    Parameters
    ----------
    days
        D, at least 2.
    level
        p, the share of right forecasts that lie within.

    Notes
    -----
    Returns have fatter tails than the normal distribution: more than 1 - p of right forecasts lie outside. The statistic's own
    interval, which assumes none, is that of `bootstrap.bootstrap_intervals`.

    Examples
    --------
    >>> tuple(round(x, 2) for x in bias_interval(250))
    (0.91, 1.09)
    """
    free = integer("days", days, 2) - 1
    between("level", level, 0, 1, open_low=True, open_high=True)
    low, high = chi2.ppf([(1 - level) / 2, (1 + level) / 2], free) / free
    return float(np.sqrt(low)), float(np.sqrt(high))


def qlike(returns: npt.ArrayLike, forecasts: npt.ArrayLike) -> Floats:
    r"""Mean loss of a forecast of variance: the lower, the better.

    Source: Patton (2011), "Volatility Forecast Comparison Using Imperfect Volatility Proxies", Journal of Econometrics 160: it
    ranks forecasts as the true variance would, though a squared return is a noisy stand-in for it.

    .. math:: \frac{1}{D} \sum_t \left(\ln \hat\sigma_t^2 + r_t^2 / \hat\sigma_t^2\right)

    Only differences mean something, of forecasts of the same returns. A forecast that is too low costs more than one that is as
    many times too high.

    Parameters
    ----------
    returns, forecasts
        As of `bias_statistic`.

    Returns
    -------
    ``[P]``; NaN without a day.

    Raises
    ------
    UserError
        As of `bias_statistic`.
    """
    z = _standardised(returns, forecasts)
    there = np.isfinite(z)
    loss = np.where(there, 2 * np.log(np.where(there, forecasts, 1.0)) + z**2, 0.0)
    count = there.sum(axis=0)
    return np.where(count > 0, loss.sum(axis=0) / np.maximum(count, 1), np.nan)


def _standardised(returns: npt.ArrayLike, forecasts: npt.ArrayLike) -> Floats:
    """Returns over their forecast volatilities `[D, P]`; NaN where either is missing."""
    r, f = same_shape("returns", returns, "forecasts", forecasts)
    if (f <= 0).any():
        raise UserError(f"`forecasts` must be above 0, found {f[f <= 0][0]:g}")
    return r / f
