"""Factors measured day by day: each day's stocks are looked at once, all factors together."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

import numpy as np

from qlib_ext.factors.values import FactorValues
from qlib_ext.features.exposures.style_exposures import Exposures
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.progress import Progress
from qlib_ext.metrics.cross_section import pearson, rank
from qlib_ext.metrics.factors import correlations, group_share, rank_correlations, residuals

LAGS = 20  # days of the decay
AUTOCORRELATION_DAYS = (1, 5, 20)
GROUPS = 5  # turnover is that of a fifth


@dataclass(frozen=True)
class Measured:
    """What was measured of F factors on D days.

    Attributes
    ----------
    ic, rank_ic, neutral, coverage
        `[D, F]` by day: correlation with the label, of values and of ranks; that of what exposures leave of the ranks;
        share of the members that have a value.
    decay
        `[F, LAGS + 1]`: mean rank correlation with the label that many days later.
    autocorrelation
        `[F, 3]`: mean rank correlation with the factor 1, 5 and 20 days before.
    turnover
        `[F, 2]`: mean share of the lowest and of the highest fifth that was not in it the day before.
    exposures
        `[F, P]`: mean rank correlation with each exposure.
    industry
        `[F]`: mean share of the spread between industries; None without industries.
    correlation
        `[F, F]`: mean rank correlation of two factors.
    noise
        `[F, 2]`: mean rank correlation with the factor of noisy bars, and the RankIC of that; None where there is none.
    """

    ic: np.ndarray
    rank_ic: np.ndarray
    neutral: np.ndarray
    coverage: np.ndarray
    decay: np.ndarray
    autocorrelation: np.ndarray
    turnover: np.ndarray
    exposures: np.ndarray
    industry: np.ndarray | None
    correlation: np.ndarray
    noise: np.ndarray | None


class _Mean:
    """Mean of arrays of one shape, NaN left out."""

    def __init__(self, *shape: int) -> None:
        self._total, self._count = np.zeros(shape), np.zeros(shape)

    def add(self, values: np.ndarray) -> None:
        there = ~np.isnan(values)
        self._total[there] += values[there]
        self._count += there

    def value(self) -> np.ndarray:
        return np.where(self._count > 0, self._total / np.maximum(self._count, 1), np.nan)


def measure(
    factors: FactorValues,
    noisy: FactorValues | None,
    market: MarketPanel,
    days: np.ndarray,
    label: np.ndarray,
    exposures: Exposures,
    progress: Progress | None = None,
) -> Measured:
    """Measure factors on the stocks that are members and have a close.

    Parameters
    ----------
    factors
        Their values.
    noisy
        Those of a market with noise; None where values came ready made.
    market
        The bars.
    days
        Positions of the days, ascending.
    label
        `[D, S]` over the days of the market, NaN where there is none.
    exposures
        Of the same market.
    progress
        Told of each day.

    Notes
    -----
    RankIC is the Spearman correlation over the stocks that have both. Everything else by ranks takes the ranks once,
    among the stocks that have a value that day; where a few of them lack the other side the two differ little.
    """
    number = len(factors.names)
    names = [*exposures.planes]
    ic, rank_ic, neutral, coverage, noise_ic = (np.full((len(days), number), np.nan) for _ in range(5))
    decay, exposed = _Mean(number, LAGS + 1), _Mean(number, len(names))
    correlation, industry, noise = _Mean(number, number), _Mean(number), _Mean(number)
    turnover, autocorrelation = _Mean(number, 2), _Mean(number, len(AUTOCORRELATION_DAYS))
    past: deque[_Day] = deque(maxlen=max(AUTOCORRELATION_DAYS))
    told = progress or (lambda done, total, what: None)
    for row, day in enumerate(days):
        told(row, len(days), "measuring the factors")
        columns = np.flatnonzero(market.present[day])
        values = factors.of_day(int(day), columns)
        ranks = rank(values)
        coverage[row] = (~np.isnan(values)).mean(axis=1)
        target = label[day, columns]
        if (~np.isnan(target)).any():
            ic[row] = correlations(values, target[None])[:, 0]
            rank_ic[row] = rank_correlations(values, target)
        later = rank(label[day : day + LAGS + 1, columns])
        found = correlations(ranks, later)
        decay.add(np.pad(found, ((0, 0), (0, LAGS + 1 - len(later))), constant_values=np.nan))
        known = rank(np.stack([plane[day, columns] for plane in exposures.planes.values()]))
        exposed.add(correlations(ranks, known))
        group = None if exposures.industry is None else exposures.industry[day, columns]
        if group is not None:
            industry.add(group_share(ranks, group))
        neutral[row] = correlations(residuals(ranks, known, group), later[:1])[:, 0]
        correlation.add(correlations(ranks, ranks))
        if noisy is not None:
            moved = noisy.of_day(int(day), columns)
            noise.add(pearson(ranks, rank(moved)))
            noise_ic[row] = rank_correlations(moved, target)
        today = _Day.of(int(day), ranks, columns, market.members.shape[1])
        autocorrelation.add(_with_past(today, past, columns))
        turnover.add(_entered(today, past[-1] if past else None))
        past.append(today)
    told(len(days), len(days), "measuring the factors")
    return Measured(
        ic,
        rank_ic,
        neutral,
        coverage,
        decay.value(),
        autocorrelation.value(),
        turnover.value(),
        exposed.value(),
        None if exposures.industry is None else industry.value(),
        correlation.value(),
        None if noisy is None else np.stack([noise.value(), _mean(noise_ic)], axis=1),
    )


@dataclass(frozen=True)
class _Day:
    """A day's ranks over all S stocks `[F, S]`, and who is in the lowest and in the highest fifth `[F, 2, S]`."""

    day: int
    ranks: np.ndarray
    ends: np.ndarray

    @classmethod
    def of(cls, day: int, ranks: np.ndarray, columns: np.ndarray, stocks: int) -> _Day:
        whole = np.full((len(ranks), stocks), np.nan, np.float32)
        whole[:, columns] = ranks
        ends = np.zeros((len(ranks), 2, stocks), dtype=bool)
        there = (~np.isnan(ranks)).sum(axis=1, keepdims=True)
        # As `quantile_groups`: of n stocks that at place i from 0 is in the group ceil(i Q / (n - 1)) - 1.
        place, last = GROUPS * (ranks - 1), there - 1
        with np.errstate(invalid="ignore"):
            ends[:, 0, columns] = place <= last
            ends[:, 1, columns] = place > (GROUPS - 1) * last
        return cls(day, whole, ends)


def _with_past(today: _Day, past: deque[_Day], columns: np.ndarray) -> np.ndarray:
    found = np.full((len(today.ranks), len(AUTOCORRELATION_DAYS)), np.nan)
    by_day = {each.day: each for each in past}
    for k, lag in enumerate(AUTOCORRELATION_DAYS):
        before = by_day.get(today.day - lag)
        if before is not None:
            found[:, k] = pearson(today.ranks[:, columns], before.ranks[:, columns])
    return found


def _entered(today: _Day, before: _Day | None) -> np.ndarray:
    """Share of each fifth that was not in it the day before, `[F, 2]`."""
    if before is None or before.day != today.day - 1:
        return np.full(today.ends.shape[:2], np.nan)
    size = today.ends.sum(axis=2)
    new = (today.ends & ~before.ends).sum(axis=2)
    known = (size > 0) & before.ends.any(axis=2)
    return np.where(known, new / np.maximum(size, 1), np.nan)


def _mean(values: np.ndarray) -> np.ndarray:
    mean = _Mean(values.shape[1])
    for row in values:
        mean.add(row)
    return mean.value()
