"""Whether what is said of a day changes with how many days of bars were loaded before it."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.lookahead.findings import Finding
from qlib_ext.lookahead.leaks import columns_said
from qlib_ext.lookahead.observation import FEATURES, Day, Difference

KIND = "changes-with-history"
FACTORS = (1.0, 1.25, 1.5, 2.0, 3.0, 4.0)  # of the days that features say they need
LONG = 400  # days of history, with which what does not say what it needs must have settled
APART = 1e-3  # of a column's deviation; what windows of one length keep of rounding is less
FEW = 0.02  # of the stocks of a day, which may be further apart: windows that hardly move are noise in some engines
Scores = tuple[np.ndarray, np.ndarray]  # codes `[N]` and scores `[N, K]`


@dataclass(frozen=True)
class HistoryCut:
    """A store without its first days, and days that are looked at in it.

    Attributes
    ----------
    first
        Position of the first day whose bars are there.
    lengths
        Position of a day -> days of bars up to it, itself included.
    """

    first: int
    lengths: Mapping[int, int]

    @classmethod
    def plan(cls, needed: int, segments: Sequence[np.ndarray], last: int) -> HistoryCut | None:
        """One cut that gives days of the segments up to `last` ever more history, from `needed` days on.

        At least half of the days up to `last` are cut; None where too few are left.
        """
        longest = min(max(round(FACTORS[-1] * needed), LONG), (last + 1) // 2)
        first = last - longest + 1
        inside = np.unique(np.concatenate([np.asarray(part, dtype=int) for part in segments]))
        inside = inside[inside <= last]
        asked = [round(factor * needed) for factor in FACTORS]
        days = {
            int(inside[place])
            for length in (*asked, longest)
            if (place := int(np.searchsorted(inside, first + length - 1))) < len(inside)
        }
        if longest < needed or not days:
            return None
        return cls(first, {day: day - first + 1 for day in sorted(days)})


def feature_findings(
    cut: HistoryCut,
    whole: Mapping[int, Day],
    short: Mapping[int, Day],
    columns: Sequence[str],
    calendar: pd.DatetimeIndex,
    needed: int,
    *,
    declared: bool,
) -> tuple[list[Finding], list[str]]:
    """Features of days that differ from those of the whole history, as findings, and notes.

    Parameters
    ----------
    cut
        Which days, with how much history.
    whole, short
        The days, by all of the history and by a part of it.
    columns
        Names of the features.
    calendar
        Of the store.
    needed
        Days that the features say they need.
    declared
        Whether they do say so. Then a difference at any length is a finding; else one with the longest history.
    """
    planes = {day: (whole[day].planes[FEATURES], whole[day].codes) for day in cut.lengths if day in whole}
    others = {day: (short[day].planes[FEATURES], short[day].codes) for day in cut.lengths if day in short}
    found = _unlike(planes, others)
    return _told(found, cut, "feature", columns, calendar, needed, declared=declared)


def score_findings(
    cut: HistoryCut,
    whole: Mapping[int, Scores],
    short: Mapping[int, Scores],
    calendar: pd.DatetimeIndex,
    needed: int,
) -> tuple[list[Finding], list[str]]:
    """Scores of days that differ from those of the whole history where its features do not; as `feature_findings`."""
    found = _unlike(
        *({day: (values, codes) for day, (codes, values) in one.items()} for one in (whole, short))
    )
    return _told(found, cut, "score", ["score"], calendar, needed, declared=False)


def _unlike(
    whole: Mapping[int, tuple[np.ndarray, np.ndarray]], short: Mapping[int, tuple[np.ndarray, np.ndarray]]
) -> dict[int, Difference]:
    """Day -> the columns of which more than few stocks are further apart than rounding, of the stocks that both have."""
    if not whole:
        return {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a column may be missing altogether
        deviation = np.nanstd(np.concatenate([values for values, _ in whole.values()]), axis=0)
    limit = APART * np.nan_to_num(deviation) + 1e-6
    found = {}
    for day, (values, codes) in whole.items():
        if day not in short:
            continue
        _, ours, theirs = np.intersect1d(codes, short[day][1], assume_unique=True, return_indices=True)
        one, other = values[ours], short[day][0][theirs]
        with np.errstate(invalid="ignore"):
            apart = np.abs(one - other)
        far = (apart > limit) | (np.isnan(one) != np.isnan(other))
        columns = far.sum(axis=0) > max(1, FEW * len(far))
        if columns.any():
            size = np.nanmax(np.where(far & columns, apart, np.nan), initial=0.0)
            stocks = int(far[:, columns].any(axis=1).sum())
            found[day] = Difference(
                FEATURES, tuple(np.flatnonzero(columns).tolist()), stocks, len(far), float(size)
            )
    return found


def _told(
    found: Mapping[int, Difference],
    cut: HistoryCut,
    what: str,
    columns: Sequence[str],
    calendar: pd.DatetimeIndex,
    needed: int,
    *,
    declared: bool,
) -> tuple[list[Finding], list[str]]:
    """Findings of the columns by the length from which on they settle; notes of those that settle, and need not before."""
    settles: dict[int | None, list[int]] = {}
    days = sorted(cut.lengths)
    for column in sorted({column for each in found.values() for column in each.columns}):
        last = max(day for day in days if day in found and column in found[day].columns)
        later = [cut.lengths[day] for day in days if day > last]
        settles.setdefault(later[0] if later else None, []).append(column)
    findings, notes = [], []
    for length, some in settles.items():
        seen = [day for day in days if day in found and {*some} & {*found[day].columns}]
        lengths = f"{min(cut.lengths[day] for day in seen)} days of history"
        until = (
            f"do not settle within {cut.lengths[days[-1]]}" if length is None else f"settle from {length} on"
        )
        says = f"; the features say that {needed} are enough" if declared else ""
        names = columns_said(columns, some) if what == "feature" else "scores"
        said = f"{names}: with {lengths} other {what}s than with all of it, which {until}{says}"
        if declared or length is None:
            first = f"{calendar[seen[0]]:%Y-%m-%d}"
            findings.append(Finding(KIND, said, first, len(seen), found[seen[0]].said()))
        else:
            notes.append(said)
    return findings, notes
