"""How sure the mean of a daily series is."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import at_least, between, integer
from qlib_ext.metrics.cross_section import present


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap_mean(
    daily: npt.ArrayLike,
    level: float = 0.95,
    *,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    r"""Confidence interval for the mean of a daily series, from the stationary block bootstrap.

    Source: Politis and Romano (1994), "The Stationary Bootstrap", Journal of the American Statistical
    Association 89. A resampled series of D days starts on a day drawn at random; each further day is the one
    after its predecessor with probability 1 - 1/B, else drawn anew; the day after the last is the first.
    Blocks of a mean length B keep the autocorrelation of neighbours, and the random lengths keep the
    resampled series stationary. The interval is that of percentiles: the :math:`(1 \mp \text{level}) / 2`
    quantiles of the means.

    Parameters
    ----------
    daily
        ``[D]`` in the order of time, NaN on a day without a value; such days are cut out, and the days at
        either side count as neighbours.
    level
        Probability that the interval is to cover the mean, in (0, 1).
    block_days
        Mean length B of a block, at least 1 (days drawn one by one). The default is the cube root of D, the
        order that balances bias and variance; take more where the series is more persistent than returns or
        daily IC.
    draws
        Number of resampled series.
    seed
        Seed of the drawing; the same seed gives the same interval.

    Returns
    -------
    `Interval` of low and high; both NaN with fewer than two values.

    Raises
    ------
    UserError
        If an argument lies outside its range.

    Examples
    --------
    >>> bootstrap_mean([0.02, -0.01, 0.03, 0.04, 0.00, 0.01]).low > 0
    True
    """
    between("level", level, 0, 1, open_low=True, open_high=True)
    integer("draws", draws, 1)
    integer("seed", seed, 0)
    if block_days is not None:
        at_least("block_days", block_days, 1)
    values = present("daily", daily)
    days = len(values)
    if days < 2:
        return Interval(math.nan, math.nan)
    anew = 1 / (block_days if block_days is not None else days ** (1 / 3))

    rng = np.random.default_rng(seed)
    day = rng.integers(days, size=draws)
    total = values[day]
    for _ in range(days - 1):  # all draws advance together by a day
        jump = rng.random(draws) < anew
        day = np.where(jump, rng.integers(days, size=draws), (day + 1) % days)
        total += values[day]
    low, high = np.quantile(total / days, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))
