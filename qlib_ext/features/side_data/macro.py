"""Macro indicators as each day's close knew them: by release date, with revisions, never by reference date."""

from __future__ import annotations

import bisect
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, brief, instance, integer, nearest, one_of
from qlib_ext.features.side_data.source import Source
from qlib_ext.market.side_data.rows import parse_periods
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.side_data.table import LAG
from qlib_ext.market.store import QlibStore

TRANSFORMS = {
    "level": "the figure itself",
    "change": "less the figure of the period before",
    "relative_change": "as a fraction of the figure of the period before, less 1",
    "year_change": "less the figure of the same period a year before",
    "relative_year_change": "as a fraction of the figure of the same period a year before, less 1",
}
PERIODS_A_YEAR = {"Y": 1, "Q": 4, "M": 12}
FILLS = ("forward", "linear")


@dataclass(frozen=True, eq=False)
class MacroFigures:
    """M indicators over D days.

    Attributes
    ----------
    calendar
        D days.
    names
        M names, such as `cpi` or `cpi relative_change`.
    values
        `[D, M]` float64, NaN where nothing is known or what is known is too old.
    reads_future
        Whether a day's value may follow from figures that were released later.
    """

    calendar: pd.DatetimeIndex
    names: tuple[str, ...]
    values: np.ndarray
    reads_future: bool


class Macro(Source):
    """Macro indicators from the store's side data, a table of the shape `series`.

    On day t the newest figure is that of the latest period of which a release is known, in its latest release known:
    with `release_date` on t or before. A release counts at the close of its day, since statistics offices publish
    in the morning; for figures that come out after the close set `release_delay_days` to 1. A transformed figure
    takes both of its figures in their latest release known on t, so that a revision of the past counts from its own
    release on.

    Parameters
    ----------
    name
        The table.
    series
        Series in order, or series -> one or several of `TRANSFORMS`; all series as levels by default.
    limit_days
        For how many calendar days after its release a figure is carried forward, or series -> days.
    release_delay_days
        Trading days from the release (or the first trading day after it) to the first close that knows it.
    fill
        `forward`: the newest figure is carried on. `linear`: a straight line from each release to the next, for
        comparison with "Collaborative Optimization in Financial Data Mining Through Deep Learning and ResNeXt",
        which interpolates; it reads the future. After the last release figures are carried on.

    Raises
    ------
    UserError
        For arguments out of range; when it is loaded, for a series that the table does not have, or a yearly change
        of daily figures.
    SideDataError
        When it is loaded: the table is not there or has a fault.

    Notes
    -----
    A relative change from a figure that is not above 0 is NaN, as is a change without the figure that it needs.
    `change` takes the last period that is known before, which is an older one where a period is missing.
    """

    def __init__(
        self,
        name: str = "macro",
        series: Sequence[str] | Mapping[str, str | Sequence[str]] | None = None,
        limit_days: int | Mapping[str, int] = 130,
        release_delay_days: int = 0,
        fill: str = "forward",
    ) -> None:
        self.name = instance("name", name, str)
        self.series = None if series is None else _transforms(series)
        limits = limit_days if isinstance(limit_days, Mapping) else {"limit_days": limit_days}
        for key, days in limits.items():
            integer(key if key == "limit_days" else f"limit_days[{key!r}]", days, 0)
        self.limit_days = limit_days
        self.release_delay_days = integer("release_delay_days", release_delay_days, 0)
        self.fill = one_of("fill", fill, FILLS)

    @property
    def names(self) -> tuple[str, ...] | None:
        """Names of the M indicators, as `MacroFigures.names`; None where the table says which series there are."""
        if self.series is None:
            return None
        return tuple(_indicator(series, x) for series, transforms in self.series.items() for x in transforms)

    def lacks(self, store: QlibStore) -> str | None:
        return None if self.name in SideData(store) else f"there is no side/{self.name}.parquet or .csv"

    def load(self, store: QlibStore, calendar: pd.DatetimeIndex | None = None) -> MacroFigures:
        """Indicators `[D, M]` at the close of each day of `calendar`, by default the store's."""
        days = store.calendar if calendar is None else calendar
        table = SideData(store).read(self.name, "series").frame
        wanted = self._wanted(list(table["series"].cat.remove_unused_categories().cat.categories))
        columns, names = [], []
        for series, transforms in wanted.items():
            rows = table[table["series"] == series]
            limit = self._limit(series)
            for transform in transforms:
                names.append(_indicator(series, transform))
                columns.append(self._on_days(releases(series, rows, transform), days, limit))
        values = np.stack(columns, axis=1) if columns else np.empty((len(days), 0))
        return MacroFigures(days, tuple(names), values, reads_future=self.fill == "linear")

    def describe(self, store: QlibStore) -> dict[str, Any]:
        side = SideData(store)
        limits = self.limit_days
        return {
            "source": f"side/{side.path(self.name).name}",
            "fingerprint": side.fingerprint([self.name]),
            "series": None if self.series is None else {key: list(x) for key, x in self.series.items()},
            "limit_days": dict(limits) if isinstance(limits, Mapping) else limits,
            "release_delay_days": self.release_delay_days,
            "fill": self.fill,
            "reads_future": self.fill == "linear",
            "stated_lags": self._stated_lags(side),
        }

    def notes(self, store: QlibStore) -> list[str]:
        found = []
        lags = self._stated_lags(SideData(store))
        if lags:
            listed = ", ".join(f"{series} {lag}" for series, lag in lags.items())
            found.append(f"macro figures of stated lags, not of known release dates: {listed}")
        if self.fill == "linear":
            found.append("macro figures are interpolated between releases: their values read the future")
        return found

    def _stated_lags(self, side: SideData) -> dict[str, str]:
        table = side.read(self.name, "series").frame
        if LAG not in table:
            return {}
        stated = table[table[LAG].ne("") & table[LAG].notna()]
        return {
            str(series): " or ".join(sorted(set(lags)))
            for series, lags in stated.groupby("series", observed=True)[LAG]
            if self.series is None or series in self.series
        }

    def _wanted(self, known: list[str]) -> dict[str, tuple[str, ...]]:
        if self.series is None:
            return dict.fromkeys(known, ("level",))
        for series in self.series:
            if series not in known:
                raise UserError(
                    f"the side data {brief(self.name)} have no series {brief(series)}{nearest(series, known)}; "
                    f"they have {', '.join(known)}"
                )
        return self.series

    def _limit(self, series: str) -> int:
        if not isinstance(self.limit_days, Mapping):
            return self.limit_days
        if series not in self.limit_days:
            raise UserError(
                f"`limit_days` must have every series, found none for {brief(series)} among {', '.join(self.limit_days)}"
            )
        return self.limit_days[series]

    def _on_days(
        self, releases: tuple[np.ndarray, np.ndarray, np.ndarray], days: pd.DatetimeIndex, limit: int
    ) -> np.ndarray:
        """A figure `[D]` from its releases: their days, the figure after each, and when its newest part was released."""
        released, figures, newest = releases
        today = days.to_numpy().astype("M8[D]").astype(np.int64)
        known_from = today.searchsorted(released, side="left") + self.release_delay_days  # positions in days
        last = (
            known_from.searchsorted(np.arange(len(today)), side="right") - 1
        )  # the newest release by each day
        there = last >= 0
        values = np.where(there, figures[last], np.nan)
        values[there & (today - newest[last] > limit)] = np.nan
        if self.fill == "linear":
            used = ~np.isnan(figures) & np.append(known_from[1:] > known_from[:-1], True)
            at, figure = known_from[used], figures[used]
            if len(at) > 1:
                between = np.arange(at[0], min(at[-1], len(today)))
                values[between] = np.interp(between, at, figure)
        return values


def _indicator(series: str, transform: str) -> str:
    return series if transform == "level" else f"{series} {transform}"


def _transforms(series: Sequence[str] | Mapping[str, str | Sequence[str]]) -> dict[str, tuple[str, ...]]:
    """Series -> transforms, checked."""
    if isinstance(series, str) or not series:
        raise UserError(f"`series` must be a list of names or a mapping from names, found {brief(series)}")
    given = series if isinstance(series, Mapping) else dict.fromkeys(series, "level")
    checked = {}
    for name, transforms in given.items():
        checked[name] = (transforms,) if isinstance(transforms, str) else tuple(transforms)
        for transform in checked[name]:
            one_of(f"series[{name!r}]", transform, TRANSFORMS)
    return checked


def releases(series: str, rows: pd.DataFrame, transform: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """What is known after each day with a release: these R days, the figure, and when its newest part was released.

    Days are int64 since 1970. The releases are gone through in their order, as a reader of the newspapers would.
    """
    periods = parse_periods(rows["period"])
    lag = _periods_back(series, str(periods["frequency"].iloc[0]), transform)
    released = rows["release_date"].to_numpy().astype("M8[D]").astype(np.int64)
    ordinals, values = periods["ordinal"].to_numpy(), rows["value"].to_numpy()
    order = np.argsort(released, kind="stable")
    known: dict[int, tuple[float, int]] = {}  # period -> figure and release day
    seen: list[int] = []  # the known periods, ascending
    table = []
    for position, row in enumerate(order):
        period, day = int(ordinals[row]), int(released[row])
        if period not in known:
            bisect.insort(seen, period)
        known[period] = float(values[row]), day
        if position + 1 < len(order) and released[order[position + 1]] == day:
            continue  # more comes out that day
        figure, newest = known[seen[-1]]
        base = 0.0
        if lag is not None:
            before = seen[-1] - lag if lag else seen[-2] if len(seen) > 1 else None
            base = known[before][0] if before in known else np.nan
        if transform.startswith("relative"):
            figure = figure / base - 1 if base > 0 else np.nan
        else:
            figure -= base
        table.append((day, figure, newest))
    days, figures, newest_days = zip(*table, strict=True)
    return np.array(days), np.array(figures, dtype=float), np.array(newest_days)


def _periods_back(series: str, frequency: str, transform: str) -> int | None:
    """How many periods lie between the two figures of a transform; 0: the one known before; None: there is but one."""
    if transform == "level":
        return None
    if "year" not in transform:
        return 0
    if frequency not in PERIODS_A_YEAR:
        raise UserError(
            f"`series[{series!r}]` must not be {transform}, as its figures are daily and have no period a year before"
        )
    return PERIODS_A_YEAR[frequency]
