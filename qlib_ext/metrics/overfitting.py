"""Whether the best of several configurations would be the best on other days too."""

from __future__ import annotations

import math
from itertools import combinations
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, matrix, rank

MOST_BLOCKS = 20  # of which half are chosen in 184,756 ways
FEWEST_DAYS = 2  # of a block
USUAL_BLOCKS, BLOCK_DAYS = 16, 10
AT_ONCE = 1_000_000  # values of one step


class Overfitting(NamedTuple):
    """What choosing the best of M configurations on one half of the days is worth on the other.

    Attributes
    ----------
    probability
        That the one which is chosen lies below the median of the other half.
    logits
        ``[C]``, of its place there, one of each choice of blocks: 0 is the median.
    slope
        How far its ratio on the other half changes with its ratio on the half by which it was chosen; NaN where that is the
        same in all choices.
    loss
        Probability that its ratio on the other half is below zero.
    chosen, later
        ``[C]``, its ratio of a day on the half by which it was chosen, and on the other.
    configurations, blocks
        M and S.
    """

    probability: float
    logits: Floats
    slope: float
    loss: float
    chosen: Floats
    later: Floats
    configurations: int
    blocks: int


def usual_blocks(days: int) -> int:
    """How many blocks so many days are cut into: 16 as in the paper, fewer where one would have less than 10 days."""
    return max(2, min(USUAL_BLOCKS, days // BLOCK_DAYS // 2 * 2))


def backtest_overfitting(daily: npt.ArrayLike, blocks: int | None = None) -> Overfitting:
    r"""Probability of backtest overfitting, by combinatorially symmetric cross-validation.

    Source: Bailey, Borwein, López de Prado and Zhu (2017), "The Probability of Backtest Overfitting", Journal of
    Computational Finance 20. The days are cut into S blocks. Each half of the blocks is once what a configuration is chosen
    by, the rest what it is judged by. Of each of the :math:`C = \binom{S}{S/2}` choices, the configuration with the highest
    ratio (mean over standard deviation of a day) has the rank :math:`r` from 1 to M on the other half:

    .. math:: \lambda = \ln\frac{\omega}{1 - \omega}, \quad \omega = \frac{r}{M + 1}, \quad
        \mathrm{PBO} = P(\lambda < 0) + \tfrac12 P(\lambda = 0)

    Parameters
    ----------
    daily
        ``[D, M]``, returns of a day, or ICs, of M configurations on the same days, in the order of time.
    blocks
        S, even, and at least 2 days long each. Their lengths differ by one day at most. By default `usual_blocks`.

    Raises
    ------
    UserError
        If there are fewer than two configurations, values are missing, or the blocks do not fit the days.

    Notes
    -----
    Configurations without skill come to 0.5 on average. It is no p-value and no test: of few configurations or few days it is
    often near 0 or 1 without any skill. It is of the choice among these configurations: what was tried and is not among them
    does not count. Ratios that are alike share the mean of their ranks; half of the days on which nothing varies has the
    ratio 0.

    Departures
    ----------
    The paper counts a logit of 0 whole, by which an odd number of configurations without skill would come to more than 0.5,
    and equal ones to 1.

    Examples
    --------
    >>> days = np.random.default_rng(0).normal(0, 0.01, (400, 3))
    >>> days[:, 1] += 0.01
    >>> backtest_overfitting(days, blocks=8).probability
    0.0
    """
    values = matrix("daily", daily)
    days, configurations = values.shape
    blocks = usual_blocks(days) if blocks is None else integer("blocks", blocks, 2, MOST_BLOCKS)
    if blocks % 2:
        raise UserError(f"`blocks` must be even, so that half of them can be chosen, found {blocks}")
    if configurations < 2:
        raise UserError(
            f"`daily` must have at least two configurations to choose from, found {configurations}"
        )
    if days < FEWEST_DAYS * blocks:
        raise UserError(
            f"`daily` must have at least {FEWEST_DAYS * blocks} days for {blocks} blocks, found {days}: take fewer"
        )
    if not np.isfinite(values).all():
        raise UserError(
            f"`daily` must have a value of each configuration on each day, found {(~np.isfinite(values)).sum()} missing"
        )
    chosen, later, logits = (np.concatenate(part) for part in zip(*_choices(values, blocks), strict=True))
    below = (logits < 0).mean() + 0.5 * (logits == 0).mean()
    slope = math.nan if np.ptp(chosen) == 0 else float(np.polyfit(chosen, later, 1)[0])
    return Overfitting(
        float(below), logits, slope, float((later < 0).mean()), chosen, later, configurations, blocks
    )


def _choices(values: Floats, blocks: int) -> list[tuple[Floats, Floats, Floats]]:
    """Of some choices of blocks at a time: both ratios of the configuration that is chosen, and its logit."""
    configurations = values.shape[1]
    centre = values.mean(axis=0)  # taken out first, so that squares are of deviations
    parts = np.array_split(values - centre, blocks)
    sums = np.stack([part.sum(axis=0) for part in parts])  # [S, M]
    squares = np.stack([(part**2).sum(axis=0) for part in parts])
    lengths = np.array([len(part) for part in parts], dtype=np.float64)
    halves = np.array([*combinations(range(blocks), blocks // 2)])
    found = []
    for some in np.array_split(halves, max(1, len(halves) * configurations // AT_ONCE)):
        taken = np.zeros((len(some), blocks))
        np.put_along_axis(taken, some, 1.0, axis=1)
        inside, outside = (
            _ratios(half @ lengths, half @ sums, half @ squares, centre) for half in (taken, 1 - taken)
        )
        rows, best = np.arange(len(some)), inside.argmax(axis=1)
        place = rank(outside)[rows, best] / (configurations + 1)
        found.append((inside[rows, best], outside[rows, best], np.log(place / (1 - place))))
    return found


def _ratios(days: Floats, sums: Floats, squares: Floats, centre: Floats) -> Floats:
    """Mean over standard deviation (divisor n - 1) ``[C, M]``, of sums of deviations from `centre`; 0 where nothing varies."""
    mean = sums / days[:, None]
    variance = (squares - days[:, None] * mean**2) / (days[:, None] - 1)
    flat = variance <= 1e-12 * np.maximum(squares / days[:, None], np.finfo(np.float64).tiny)
    return np.where(flat, 0.0, (mean + centre) / np.sqrt(np.where(flat, 1.0, variance)))
