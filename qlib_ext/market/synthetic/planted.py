"""The predictable part of the sample market: a score that the bars of the past 60 days determine.

A synthetic market without anything to predict could not tell a model that learns from one that doesn't. So the
sample market pushes the return of day t+2 by a small amount that follows from what is known at the close of
day t. This module is that rule, and nothing else in the market is predictable beyond volatility and volume.
"""

from __future__ import annotations

import numpy as np

LOOKBACK_DAYS = 60
MINIMUM_DAYS = 40
REVERSAL_DAYS = 5
RANGE_DAYS = 60
SHOCK_DAYS = 10
CLIP = 3.0


def planted_score(close: np.ndarray, high: np.ndarray, low: np.ndarray, volume: np.ndarray) -> np.ndarray:
    r"""Score of each stock from its last 60 days of bars: calm stocks that fell, on fading volume, come back.

    .. math::

        s = z\big(z(a) + z(b) + z(c)\big), \quad
        a = -\log \frac{close_t}{close_{t-5}}, \quad
        b = -\frac{close_t - \min low}{\max high - \min low}, \quad
        c = -\log \frac{\mathrm{mean}(volume_{t-9..t})}{\mathrm{mean}(volume_{t-59..t})}

    a is short-term reversal, b the position within the range of the last 60 days, c the volume shock; z
    standardises over the stocks of the day and clips at 3. As the day's mean falls out, a is the reversal of the
    return beyond the market's. Each part is a ratio of a stock's own bars to its last ones, so a model that sees
    a stock's window divided by its last values, as Alpha360 has it, sees all of it.

    Parameters
    ----------
    close, high, low, volume
        `[60, S]`: adjusted bars of days t-59 to t, oldest first; NaN on days without a bar.

    Returns
    -------
    float `[S]`
        Mean 0 and standard deviation 1 (before clipping) over the stocks that have one; NaN for a stock without a
        bar on day t or with fewer than 40 bars in the 60 days. A part that a suspension leaves undefined counts
        as the day's mean.
    """
    traded = ~np.isnan(close)
    eligible = traded[-1] & (traded.sum(axis=0) >= MINIMUM_DAYS)
    with np.errstate(divide="ignore", invalid="ignore"):
        reversal = -np.log(close[-1] / close[-1 - REVERSAL_DAYS])
        top, bottom = np.fmax.reduce(high[-RANGE_DAYS:]), np.fmin.reduce(low[-RANGE_DAYS:])
        position = -(close[-1] - bottom) / (top - bottom)
        shock = -np.log(_mean(volume[-SHOCK_DAYS:], traded[-SHOCK_DAYS:]) / _mean(volume, traded))
    total = sum(np.nan_to_num(_standardise(part, eligible)) for part in (reversal, position, shock))
    return np.where(eligible, _standardise(total, eligible), np.nan)


def _mean(values: np.ndarray, traded: np.ndarray) -> np.ndarray:
    return np.where(traded, values, 0.0).sum(axis=0) / traded.sum(axis=0)


def _standardise(values: np.ndarray, eligible: np.ndarray) -> np.ndarray:
    """z-score over the eligible and finite, clipped; NaN elsewhere, and zeros where nothing varies."""
    use = eligible & np.isfinite(values)
    result = np.full(values.shape, np.nan)
    if use.any():
        deviation = values[use] - values[use].mean()
        spread = np.sqrt(np.mean(deviation**2))
        result[use] = np.clip(deviation / spread, -CLIP, CLIP) if spread > 0 else 0.0
    return result
