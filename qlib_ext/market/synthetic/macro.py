"""A synthetic economy: macro series as they were published, with revisions, and what of them the market follows.

Everything is invented. One business cycle drives four monthly and quarterly series, which bear the names of the real
ones that they imitate. A figure is published after its period ends, and some are published with an error that a later
release corrects:

=========  =========  ======================================================================================
series     period     released
=========  =========  ======================================================================================
realgdp    quarter    30 days after the quarter's end with an error of 0.25 %, 60 days after it with one of
                      0.1 %, 90 days after it as it is
cpi        month      on the 15th of the month after, not revised
unemp      month      on the first Friday of the month after with an error of 0.1 points, corrected with the
                      release of the month after that
tbilrate   month      on the first business day of the month after, not revised
=========  =========  ======================================================================================

A release that falls on a weekend comes on the Monday. The cycle falls in the real recessions of 2001, 2008 and 2020,
so that a period of stress is one here too.

What the market follows is the `macro_state` of what was published by a day's close: growth of the economy, less the
change of unemployment over a year, plus the change of the bill rate over a year. Prices never wait for the true figures,
only for the published ones, so nothing that is planted needs the future.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

SERIES = ("realgdp", "cpi", "unemp", "tbilrate")
HISTORY_YEARS = 4  # of figures before the market opens, so that yearly changes are known on its first day
RECESSIONS = (("2001-03", "2001-11"), ("2007-12", "2009-06"), ("2020-02", "2020-05"))
# Mean and spread that a state's parts are measured in: constants, so that no later figure moves an earlier state.
GROWTH, GROWTH_SPREAD = 0.006, 0.008  # of real GDP, quarter on quarter
UNEMPLOYMENT_SPREAD = 1.0  # percentage points in a year
RATE_SPREAD = 1.0  # percentage points in a year
STATE_BOUND = 2.0


@dataclass(frozen=True)
class Release:
    """A figure becoming known.

    Attributes
    ----------
    series
        One of `SERIES`.
    period
        1998Q1 or 1998-01.
    ordinal
        The period as quarters or months since the year 0.
    value
        The figure: billions of dollars, an index, or per cent.
    release_date
        Calendar day of the publication.
    """

    series: str
    period: str
    ordinal: int
    value: float
    release_date: pd.Timestamp


def publish(seed: int, start: str | pd.Timestamp, end: str | pd.Timestamp) -> list[Release]:
    """Every release from four years before `start` up to `end`, in the order of its day; equal arguments, equal bits."""
    last = pd.Timestamp(end)
    months = pd.period_range(pd.Timestamp(start) - pd.DateOffset(years=HISTORY_YEARS), last, freq="M")
    rng = np.random.default_rng([seed, 4])
    cycle = _cycle(rng, months)
    releases = [
        *_growth(rng, months, cycle),
        *_prices(rng, months, cycle),
        *_unemployment(rng, months, cycle),
        *_rate(rng, months, cycle),
    ]
    known = [release for release in releases if release.release_date <= last]
    return sorted(
        known, key=lambda release: (release.release_date, SERIES.index(release.series), release.ordinal)
    )


def release_table(releases: Sequence[Release]) -> pd.DataFrame:
    """Side data of the shape `series`: columns series, period, value and release_date."""
    return pd.DataFrame(
        {
            "series": [release.series for release in releases],
            "period": [release.period for release in releases],
            "value": [release.value for release in releases],
            "release_date": [release.release_date for release in releases],
        }
    )


def macro_state(releases: Sequence[Release], calendar: pd.DatetimeIndex) -> np.ndarray:
    r"""The state of the economy as each day's close knew it.

    .. math::

        m = \mathrm{clip}\Big(\frac{1}{\sqrt 3}\Big(\frac{g - 0.006}{0.008} - \frac{u}{1.0} + \frac{r}{1.0}\Big), -2, 2\Big)

    g is the growth of realgdp from the last quarter but one to the last that are published, as a fraction; u and r are
    the changes of unemp and tbilrate from the month a year before to the last published one, in percentage points.
    Every figure is that of its latest release by then.

    Parameters
    ----------
    releases
        From `publish`; any order.
    calendar
        D trading days.

    Returns
    -------
    float `[D]`
        0 on a day on which a part is not known.
    """
    waiting = sorted(releases, key=lambda release: release.release_date)
    known: dict[str, dict[int, float]] = {name: {} for name in SERIES}
    states = np.zeros(len(calendar))
    done = 0
    for position, day in enumerate(calendar):
        while done < len(waiting) and waiting[done].release_date <= day:
            known[waiting[done].series][waiting[done].ordinal] = waiting[done].value
            done += 1
        growth = _latest(known["realgdp"], back=1)
        unemployment = _latest(known["unemp"], back=12)
        rate = _latest(known["tbilrate"], back=12)
        if growth is None or unemployment is None or rate is None:
            continue
        parts = (
            (growth[0] / growth[1] - 1 - GROWTH) / GROWTH_SPREAD,
            -(unemployment[0] - unemployment[1]) / UNEMPLOYMENT_SPREAD,
            (rate[0] - rate[1]) / RATE_SPREAD,
        )
        states[position] = min(STATE_BOUND, max(-STATE_BOUND, sum(parts) / math.sqrt(len(parts))))
    return states


def _latest(figures: dict[int, float], back: int) -> tuple[float, float] | None:
    """The figure of the last period and that of `back` periods before it."""
    if not figures:
        return None
    last = max(figures)
    return (figures[last], figures[last - back]) if last - back in figures else None


def _cycle(rng: np.random.Generator, months: pd.PeriodIndex) -> np.ndarray:
    """The business cycle: an autoregression of variance 0.5 around 0.3, two below it in a recession."""
    cycle = np.empty(len(months))
    value = math.sqrt(0.5) * rng.standard_normal()
    for position, shock in enumerate(rng.standard_normal(len(months))):
        value = 0.94 * value + math.sqrt(0.5 * (1 - 0.94**2)) * shock
        cycle[position] = value
    dips = np.zeros(len(months))
    for first, last in RECESSIONS:
        dips[(months >= pd.Period(first, "M")) & (months <= pd.Period(last, "M"))] = 2.0
    return cycle + 0.3 - dips


def _growth(rng: np.random.Generator, months: pd.PeriodIndex, cycle: np.ndarray) -> list[Release]:
    quarters = months.asfreq("Q")
    level, releases = 10_000.0, []
    for quarter in quarters.unique():
        level *= 1 + 0.006 + 0.006 * cycle[quarters == quarter].mean() + 0.001 * rng.standard_normal()
        errors = 0.0025 * rng.standard_normal(), 0.001 * rng.standard_normal(), 0.0
        for days, error in zip((30, 60, 90), errors, strict=True):
            day = quarter.end_time.normalize() + pd.Timedelta(days=days)
            releases.append(
                _release("realgdp", str(quarter), quarter.ordinal, round(level * (1 + error), 3), day)
            )
    return releases


def _prices(rng: np.random.Generator, months: pd.PeriodIndex, cycle: np.ndarray) -> list[Release]:
    level, releases = 160.0, []
    for month, state in zip(months, cycle, strict=True):
        level *= 1 + 0.002 + 0.0005 * state + 0.0012 * rng.standard_normal()
        day = (month + 1).start_time + pd.Timedelta(days=14)
        releases.append(_release("cpi", str(month), month.ordinal, round(level, 1), day))
    return releases


def _unemployment(rng: np.random.Generator, months: pd.PeriodIndex, cycle: np.ndarray) -> list[Release]:
    level, releases = 5.0, []
    for month, state in zip(months, cycle, strict=True):
        level += 0.02 * (5.5 - level) - 0.08 * (state - 0.3) + 0.04 * rng.standard_normal()
        level = min(14.0, max(2.0, level))
        first = round(level + 0.1 * rng.standard_normal(), 1)
        releases.append(_release("unemp", str(month), month.ordinal, first, _first_friday(month + 1)))
        if round(level, 1) != first:
            releases.append(
                _release("unemp", str(month), month.ordinal, round(level, 1), _first_friday(month + 2))
            )
    return releases


def _rate(rng: np.random.Generator, months: pd.PeriodIndex, cycle: np.ndarray) -> list[Release]:
    level, releases = 4.0, []
    for month, state in zip(months, cycle, strict=True):
        level += 0.02 * (3.0 - level) + 0.08 * state + 0.05 * rng.standard_normal()
        level = min(15.0, max(0.02, level))
        day = (month + 1).start_time
        releases.append(_release("tbilrate", str(month), month.ordinal, round(level, 2), day))
    return releases


def _release(series: str, period: str, ordinal: int, value: float, day: pd.Timestamp) -> Release:
    weekend = max(0, day.weekday() - 4)
    return Release(series, period, ordinal, value, day + pd.Timedelta(days=3 - weekend if weekend else 0))


def _first_friday(month: pd.Period) -> pd.Timestamp:
    first = month.start_time
    return first + pd.Timedelta(days=(4 - first.weekday()) % 7)
