"""How sure any figure of daily series is: the stationary bootstrap of whole days."""

from __future__ import annotations

import functools
import itertools
import math
import warnings
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import LARGEST_SEED, UserError, at_least, between, integer
from qlib_ext.metrics.cross_section import Floats


def stationary_days(
    days: int, *, block_days: float | None = None, draws: int = 2000, seed: int = 0
) -> npt.NDArray[np.int64]:
    r"""Draw the days of resampled series, by the stationary bootstrap.

    Source: Politis and Romano (1994), "The Stationary Bootstrap", Journal of the American Statistical Association
    89. A resampled series starts on a day drawn at random; each further day is the one after its predecessor with
    probability 1 - 1/B, else drawn anew; the day after the last is the first.

    Parameters
    ----------
    days
        Length D of the series.
    block_days
        Mean length B of a block, at least 1. The default is the cube root of D.
    draws
        Number of resampled series.
    seed
        Seed of the drawing. With the same arguments these are the days that `significance.bootstrap_mean` draws.

    Returns
    -------
    Positions ``[draws, D]``.

    Raises
    ------
    UserError
        If an argument lies outside its range.
    """
    steps = day_by_day(days, block_days=block_days, draws=draws, seed=seed)
    return np.stack([*steps], axis=1).astype(np.int64)


def day_by_day(
    days: int, *, block_days: float | None = None, draws: int = 2000, seed: int = 0
) -> Iterator[npt.NDArray[np.int32]]:
    """Draw what `stationary_days` draws, one resampled day ``[draws]`` of all series after the other.

    For sums, which then need no resampled series.
    """
    integer("days", days, 1)
    check_drawing(block_days, draws, seed)
    return iter(_drawn(days, 1 / (block_days if block_days is not None else days ** (1 / 3)), draws, seed))


def overlapping_block(days: int, span_days: int) -> float | None:
    r"""Mean length of blocks for a series whose neighbouring days share most of what they look at.

    A return over h days shares h - 1 of them with that of the next day, so that a daily IC against it is correlated over
    h - 1 days whatever the score. Blocks of the usual cube root of D would break this apart, and take 20 days that tell
    one thing for twenty.

    .. math:: B = \min(D, \max(D^{1/3}, 2h))

    Parameters
    ----------
    days
        Length D of the series.
    span_days
        h, the days that a value looks at; 1 where neighbours share none.

    Returns
    -------
    None for h = 1, which leaves the usual length.

    Notes
    -----
    With blocks of a mean length 2h the interval of the mean of a pure moving average of h days has 0.92 of its width as h
    and D grow: a block's ends still cut.
    """
    integer("days", days, 0)
    if integer("span_days", span_days, 1) == 1 or days < 1:
        return None
    return min(float(days), max(days ** (1 / 3), 2.0 * span_days))


def span_of(label: str | None, described: Mapping[str, Mapping[str, int]]) -> int:
    """Days of return that a label holds.

    Parameters
    ----------
    label
        Its name.
    described
        Label, before any processor -> its `span`, as a dataset says it (`label_days`).

    Returns
    -------
    What a processor made of labels counts as the longest of them; where nothing is said all count as one day.
    """
    spans = {name: int(days["span"]) for name, days in described.items()}
    return spans.get(str(label), max(spans.values(), default=1))


def check_drawing(block_days: float | None, draws: int, seed: int) -> None:
    """Raise a UserError if `stationary_days` does not take these; for callers that may end without a drawing."""
    if block_days is not None:
        at_least("block_days", block_days, 1)
    integer("draws", draws, 1)
    integer("seed", seed, 0, LARGEST_SEED)


@functools.lru_cache(maxsize=2)
def _drawn(days: int, anew: float, draws: int, seed: int) -> npt.NDArray[np.int32]:
    """The day of each series on each of its days, ``[D, draws]``.

    They follow from the arguments alone, and a record asks for the same ones for one series after the other.
    """
    rng = np.random.default_rng(seed)
    drawn = np.empty((days, draws), np.int32)
    drawn[0] = rng.integers(days, size=draws)
    for before, day in itertools.pairwise(drawn):  # all draws advance together by a day
        jump = rng.random(draws) < anew
        day[:] = before + 1
        day[day == days] = 0
        np.copyto(day, rng.integers(days, size=draws), where=jump, casting="same_kind")
    drawn.flags.writeable = False
    return drawn


def bootstrap_intervals(
    statistics: Callable[..., npt.ArrayLike],
    *daily: npt.ArrayLike,
    level: float = 0.95,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    r"""Confidence intervals of figures that are computed from daily series, by the stationary bootstrap.

    Whole days are drawn (`stationary_days`), the same for every series, so that what happens on one day stays
    together. The interval is that of percentiles: the :math:`(1 \mp \text{level}) / 2` quantiles of the figures of
    the resampled series.

    Parameters
    ----------
    statistics
        Takes as many series ``[D]`` as are given, returns S figures.
    daily
        Series ``[D]`` on the same days, in the order of time.
    level
        Probability that an interval is to cover its figure, in (0, 1).
    block_days, draws, seed
        As in `stationary_days`.

    Returns
    -------
    low, high : ``[S]``
        Of the resampled series in which the figure has a value; NaN where it has one in fewer than half of them, or
        with fewer than two days.

    Raises
    ------
    UserError
        If an argument lies outside its range, or the series differ in length.

    Notes
    -----
    For figures that average over days: mean, volatility, ratios of them, beta. A figure of the order of days, such as
    the deepest drawdown, has no valid interval of this kind, since resampling makes another path.
    """
    between("level", level, 0, 1, open_low=True, open_high=True)
    check_drawing(block_days, draws, seed)
    series = [np.asarray(values, dtype=np.float64) for values in daily]
    shapes = {values.shape for values in series}
    if len(shapes) != 1 or len(series[0].shape) != 1:
        found = ", ".join(str(values.shape) for values in series) or "none"
        raise UserError(f"the daily series must all be [days] of one length, found {found}")
    (days,) = series[0].shape
    if days < 2:
        nothing = np.full(np.shape(statistics(*series)), math.nan)
        return nothing, nothing.copy()
    drawn = stationary_days(days, block_days=block_days, draws=draws, seed=seed)
    figures = np.array([statistics(*(values[day] for values in series)) for day in drawn], dtype=np.float64)
    rare = np.isfinite(figures).mean(axis=0) < 0.5
    figures[~np.isfinite(figures)] = np.nan
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a figure that never has a value: NaN is the answer
        low, high = np.nanquantile(figures, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(rare, np.nan, low), np.where(rare, np.nan, high)
