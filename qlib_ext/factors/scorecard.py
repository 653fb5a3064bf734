"""The scorecard: what each factor alone is worth, and how sure that is, as tables."""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, counted
from qlib_ext.factors.disturbed import reading_ahead, with_noise
from qlib_ext.factors.exposures import exposures
from qlib_ext.factors.measurement import AUTOCORRELATION_DAYS, LAGS, Measured, measure
from qlib_ext.factors.subject import Subject
from qlib_ext.factors.table import FactorTable
from qlib_ext.factors.values import FactorValues, FeatureValues, ReadyValues, expressions_of
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.exposures.style_exposures import Exposures
from qlib_ext.market.progress import Progress
from qlib_ext.metrics.bootstrap import overlapping_block
from qlib_ext.metrics.cross_section import icir, newey_west_t
from qlib_ext.metrics.decay import half_life
from qlib_ext.metrics.diversity import clusters, effective_number, nearest
from qlib_ext.metrics.significance import benjamini_hochberg, bootstrap_means, expected_maximum_sharpe

LEVEL = 0.05  # of the findings that are said to tell, this share may be wrong
UNCHECKED = "not checked"  # of values that came ready made
ALIKE = 0.7  # factors that go together by more than this are one cluster


@dataclass(frozen=True)
class Scorecard:
    """Tables of F factors.

    Attributes
    ----------
    name
        Of the workflow or file.
    table
        A row a factor, in its own order; docs/factors.md has the columns.
    years
        RankIC by factor and year.
    decay
        Rank correlation with the label by factor and lag in days.
    correlation
        Rank correlation of factors, those that go together beside each other.
    facts
        Name -> text: what was judged, on which days, by which label.
    told
        Exposure -> what it is, or why it is not there.
    notes
        What a reader should know, as sentences.
    test_was_read
        Whether the days that a choice must not rest on are among those judged.
    effective_number
        How many independent factors would be as diverse.
    luckiest
        |t| that the best of as many factors without any skill would show on average.
    """

    name: str
    table: pd.DataFrame
    years: pd.DataFrame
    decay: pd.DataFrame
    correlation: pd.DataFrame
    facts: dict[str, str]
    told: dict[str, str]
    notes: list[str]
    test_was_read: bool
    effective_number: float
    luckiest: float

    @property
    def ahead(self) -> pd.DataFrame:
        """The factors that follow from later days."""
        return self.table[~self.table["look_ahead"].isin(["", UNCHECKED])]

    @property
    def checked(self) -> bool:
        """Whether it is known which factors look ahead."""
        return not (self.table["look_ahead"] == UNCHECKED).any()

    @property
    def best(self) -> pd.DataFrame:
        """The others, the surest first."""
        return self.table[self.table["place"] > 0].sort_values("place")

    @property
    def tell(self) -> int:
        """How many of them tell returns apart, by q."""
        return int((self.best["q"] <= LEVEL).sum())

    @property
    def best_of_clusters(self) -> pd.DataFrame:
        """The surest of each cluster, the surest first."""
        return self.best.drop_duplicates("cluster")


def scorecard(
    subject: Subject, *, every_lag: bool = False, seed: int = 0, progress: Progress | None = None
) -> Scorecard:
    """Judge each factor of a subject alone.

    Parameters
    ----------
    subject
        What is judged.
    every_lag
        Whether each lag of a window is a factor, and not today's value alone.
    seed
        Of the noise, and of the bars that are changed to see what looks ahead.
    progress
        Told of each step.

    Raises
    ------
    UserError
        If the universe has no member on the days, or the table no row of one.
    """
    told = progress or (lambda done, total, what: None)
    market, days = subject.market, subject.days
    told(0, 1, "computing the factors")
    factors, noisy, ahead = _sources(subject, every_lag, seed)
    told(0, 1, "computing the exposures")
    known = exposures(subject)
    label = subject.label.label.values(market, subject.store).of(slice(0, len(market.calendar)))
    found = measure(factors, noisy, market, days, label, known, progress)
    table = _table(subject, factors.names, found, known, ahead)
    groups = clusters(found.correlation, ALIKE)
    ordered = [factors.names[k] for k in groups.order]
    place, size = nearest(found.correlation)
    table["cluster"] = groups.number
    table["nearest"] = [factors.names[k] if k >= 0 else "" for k in place]
    table["nearest_correlation"] = size
    frame = pd.DataFrame(found.correlation, factors.names, factors.names)
    index = pd.Index(factors.names, name="factor")
    return Scorecard(
        subject.name,
        table.set_index(index),
        _years(subject, found, factors.names),
        pd.DataFrame(found.decay, index, pd.RangeIndex(LAGS + 1, name="lag")),
        frame.loc[ordered, ordered].rename_axis("factor"),
        _facts(subject, seed),
        known.told,
        _notes(subject, factors),
        subject.judged_on_test,
        effective_number(found.correlation),
        expected_maximum_sharpe(1.0, 2 * len(factors.names)),
    )


def _sources(
    subject: Subject, every_lag: bool, seed: int
) -> tuple[FactorValues, FactorValues | None, dict[str, str] | None]:
    """The factors, the same of noisy bars, and those that look ahead; None where it cannot be known."""
    source, store, market = subject.source, subject.store, subject.market
    if isinstance(source, FactorTable):
        held = (source.places(market.calendar, market.instruments) >= 0) & market.present
        if not held[subject.days].any():
            raise UserError(
                f"`{subject.name}` must have a row of a member of `{subject.universe}` on one of the days, found none among "
                f"{len(source.values):,} rows from {source.days.min():%Y-%m-%d} to {source.days.max():%Y-%m-%d}"
            )
        return ReadyValues(source, market), None, None
    rules = subject.rules
    ahead = reading_ahead(source, store, market, subject.days, every_lag=every_lag, seed=seed, rules=rules)
    clean, noisy = (
        FeatureValues(source, store, each, every_lag=every_lag, rules=rules)
        for each in (market, with_noise(market, seed))
    )
    return clean, noisy, ahead


def _table(
    subject: Subject,
    names: tuple[str, ...],
    found: Measured,
    known: Exposures,
    ahead: dict[str, str] | None,
) -> pd.DataFrame:
    """All columns but those of clusters, a row a factor."""
    source = subject.source
    texts = expressions_of(source) if isinstance(source, FeatureSet) else {}
    years = _years(subject, found, names).to_numpy()
    rank_ic, neutral = _mean(found.rank_ic), _mean(found.neutral)
    sign = np.where(rank_ic < 0, -1.0, 1.0)
    # Labels of several days overlap: neighbours are not independent.
    span = subject.label.label.span_days
    block = overlapping_block(len(found.rank_ic), span)
    t = np.array([newey_west_t(each, span_days=span) for each in found.rank_ic.T])
    leads = {} if ahead is None else ahead
    judged = np.array([name not in leads for name in names])
    q = benjamini_hochberg(np.where(judged, _p(t), np.nan))
    worst = np.array([_worst(row, s) for row, s in zip(years, sign, strict=True)])
    low, high = bootstrap_means(found.rank_ic, block_days=block)
    left_low, left_high = bootstrap_means(found.neutral, block_days=block)
    order = np.argsort(np.where(judged & ~np.isnan(t), -np.abs(t), np.inf), kind="stable")
    place = np.where(judged & ~np.isnan(t), np.argsort(order) + 1, 0)
    columns: dict[str, Any] = {
        "expression": [texts.get(name, "") for name in names],
        "look_ahead": [UNCHECKED if ahead is None else leads.get(name, "") for name in names],
        "place": place,
        "days": (~np.isnan(found.rank_ic)).sum(axis=0),
        "ic": _mean(found.ic),
        "icir": [icir(each) for each in found.ic.T],
        "rank_ic": rank_ic,
        "rank_ic_low": low,
        "rank_ic_high": high,
        "rank_icir": [icir(each) for each in found.rank_ic.T],
        "t": t,
        "p": _p(t),
        "q": q,
        "years": (~np.isnan(years)).sum(axis=1),
        "years_same_sign": _mean(np.where(np.isnan(years), np.nan, years * sign[:, None] > 0).T),
        "worst_year": [_year_of(subject, k) for k in worst],
        "worst_year_rank_ic": [row[k] if k >= 0 else np.nan for row, k in zip(years, worst, strict=True)],
        "half_life_days": [half_life(row) for row in found.decay],
        **{f"decay_{lag}": found.decay[:, lag] for lag in (5, 10, 20)},
        "turnover": np.where(sign < 0, found.turnover[:, 0], found.turnover[:, 1]),
        **{
            f"autocorrelation_{lag}": found.autocorrelation[:, k]
            for k, lag in enumerate(AUTOCORRELATION_DAYS)
        },
        "coverage": _mean(found.coverage),
        "coverage_worst_year": _by_year(subject, found.coverage).min(axis=0),
        **dict.fromkeys(("size", "beta", "volatility", "reversal"), np.nan),
        **{name: found.exposures[:, k] for k, name in enumerate(known.planes)},
        "industry": np.nan if found.industry is None else found.industry,
        "neutral_rank_ic": neutral,
        "neutral_low": left_low,
        "neutral_high": left_high,
        "noise_correlation": np.nan if found.noise is None else found.noise[:, 0],
        "noise_rank_ic": np.nan if found.noise is None else found.noise[:, 1],
    }
    return pd.DataFrame(columns, index=range(len(names)))


def _p(t: np.ndarray) -> np.ndarray:
    """Two-sided, of a statistic that is normal where there is nothing."""
    normal = NormalDist()
    return np.array([2 * normal.cdf(-abs(each)) if not math.isnan(each) else np.nan for each in t])


def _worst(years: np.ndarray, sign: float) -> int:
    """The year that was worst for whoever followed the sign; -1 where there is none."""
    return int(np.nanargmin(years * sign)) if not np.isnan(years).all() else -1


def _year_numbers(subject: Subject) -> np.ndarray:
    return np.asarray(subject.market.calendar[subject.days].year)


def _year_of(subject: Subject, place: int) -> int:
    return int(np.unique(_year_numbers(subject))[place]) if place >= 0 else 0


def _by_year(subject: Subject, daily: np.ndarray) -> np.ndarray:
    """Means `[Y, F]` of daily values `[D, F]`."""
    years = _year_numbers(subject)
    return np.stack([_mean(daily[years == year]) for year in np.unique(years)])


def _years(subject: Subject, found: Measured, names: tuple[str, ...]) -> pd.DataFrame:
    columns = pd.Index(np.unique(_year_numbers(subject)), name="year")
    return pd.DataFrame(_by_year(subject, found.rank_ic).T, pd.Index(names, name="factor"), columns)


def _mean(values: np.ndarray) -> np.ndarray:
    """Means over the first dimension, NaN left out."""
    count = (~np.isnan(values)).sum(axis=0)
    return np.where(count > 0, np.nansum(values, axis=0) / np.maximum(count, 1), np.nan)


def _facts(subject: Subject, seed: int) -> dict[str, str]:
    market, days = subject.market, subject.days
    ranges = ", ".join(
        f"{name}: {first:%Y-%m-%d} to {last:%Y-%m-%d}" for name, (first, last) in subject.ranges.items()
    )
    calendar = market.calendar[days]
    label = subject.label
    return {
        "Judged": subject.name,
        "Store": subject.store.root.name,
        "Universe": subject.universe,
        "Days asked for": ranges,
        "Days judged": f"{counted(len(days), 'day')} from {calendar[0]:%Y-%m-%d} to {calendar[-1]:%Y-%m-%d}",
        "Stocks of a day": f"{market.present[days].sum(axis=1).mean():,.0f} on average",
        "Label": label.name if label.name == label.expression else f"{label.name}: {label.expression}",
        "Seed": str(seed),
    }


def _notes(subject: Subject, factors: FactorValues) -> list[str]:
    source = subject.source
    notes = subject.notes()
    if subject.store.sample:
        notes.append("the store is a synthetic market: nothing here says anything of a real one")
    notes += factors.notes
    if isinstance(source, FactorTable):
        notes.append(
            "whether ready values look ahead was not checked: only what they were made from could tell"
        )
        notes.append("noise was not tried on ready values: it belongs into what they were made from")
    elif source.lookback_days > 1:
        notes.append(
            f"of windows of {source.lookback_days} days the newest is judged (`--every-lag` takes all)"
        )
    missing = subject.market.missing_fields
    if missing:
        notes.append(
            f"the store has no {', '.join(f'`{name}`' for name in missing)}: what needs it is missing"
        )
    return notes
