"""What can be seen without changing a market: segments, days to fit on, what is declared, and dates in the data."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.features.side_data.macro import Macro
from qlib_ext.features.side_data.market_value import FirstAvailable, SideMarketValue
from qlib_ext.lookahead.findings import Finding
from qlib_ext.lookahead.observation import FEATURES, compare
from qlib_ext.lookahead.subject import Subject
from qlib_ext.market.side_data.rows import parse_periods
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.store import QlibStore

LONG_BEFORE = 120  # trading days of membership before a stock's first bar
EARLY_SHARE, EARLY_STOCKS = 0.02, 3
AHEAD = 0.5  # correlation of a market value's change with the return of the day after
MOVE = 1e-3  # of a factor, from which on it says in which direction prices are adjusted
MOST = 0.5


def segments(subject: Subject) -> list[Finding]:
    """Segments in another order than time, or with days in common; days to fit on that belong to others."""
    found = []
    spans = {name: days for name, days in subject.segments.items() if len(days)}
    roles = [name for name in ("train", "valid", "test") if name in spans]
    for i, name in enumerate(roles):
        for other in roles[i + 1 :]:
            if spans[name][0] > spans[other][0]:
                said = f"segment `{name}` begins on {_day(subject, spans[name][0])}, after `{other}`"
                found.append(Finding("segment-order", said, _day(subject, spans[other][0])))
            common = np.intersect1d(spans[name], spans[other])
            if len(common):
                said = f"segments `{name}` and `{other}` have {len(common)} days in common"
                found.append(Finding("segments-overlap", said, _day(subject, common[0])))
    if "train" not in spans:
        return found
    for who, start, end in subject.fit_ranges():
        if start is None and end is None and who == "the features":
            continue  # nothing is fitted there: the statistics are those of another dataset
        for name, days in spans.items():
            if name == "train":
                continue
            dates = subject.calendar[days]
            inside = (True if start is None else dates >= start) & (True if end is None else dates <= end)
            inside = np.broadcast_to(inside, len(dates))
            if inside.any():
                first = days[np.flatnonzero(inside)[0]]
                said = f"{who}: fitted on {int(inside.sum()):,} days of segment `{name}`"
                found.append(Finding("fit-range", said, _day(subject, first), 0))
    return found


def purge(subject: Subject, horizon_days: int) -> list[Finding]:
    """Segments whose last labels reach into the next one."""
    found = []
    spans = {name: days for name, days in subject.segments.items() if len(days)}
    for name, days in spans.items():
        later = {other: int(x[0]) for other, x in spans.items() if x[0] > days[-1]}
        if not later:
            continue
        nearest = min(later, key=lambda other: later[other])
        reaching = days[days + horizon_days >= later[nearest]]
        if len(reaching):
            said = f"labels of the last {len(reaching)} days of segment `{name}` reach into `{nearest}`"
            found.append(
                Finding("not-purged", said, _day(subject, reaching[0]), 0, f"{horizon_days} days ahead")
            )
    return found


def declared(subject: Subject) -> list[Finding]:
    """What the workflow says of itself."""
    return [Finding("declared-look-ahead", sentence) for sentence in subject.look_ahead()]


def data(subject: Subject, store: QlibStore) -> list[Finding]:
    """Dates in the data that cannot be those on which a thing was known."""
    return [
        *_listing(subject, store),
        *_releases(subject, store),
        *_market_values(subject, store),
        *_side_fields(subject),
    ]


def batches(subject: Subject, days: Sequence[int]) -> list[Finding]:
    """Whether the panels of days hold the features of those days, as their table has them."""
    if not subject.by_panels:
        return []
    panels, tables = subject.observe(days), subject.table_features(days)
    for day in days:
        ours, theirs = panels.get(day), tables.get(day)
        if ours is None or theirs is None:
            continue
        if not np.array_equal(ours.codes, theirs.codes):
            said = "a panel has other stocks than its day"
            return [Finding("batch-mixes-days", said, _day(subject, day))]
        unlike = compare(FEATURES, ours.planes[FEATURES], theirs.planes[FEATURES])
        if unlike is not None:
            said = "a panel has other features than its day"
            return [Finding("batch-mixes-days", said, _day(subject, day), 0, unlike.said())]
    return []


def adjusted_forwards(store: QlibStore) -> bool:
    """Whether prices are adjusted from the first day on, so that no later split is in them: factors begin with 1."""
    (factor,) = store.read(["factor"], store.instruments())
    begins = ends = moves = 0
    for column in factor.T:
        values = column[~np.isnan(column)]
        if len(values) and np.ptp(values) > MOVE * np.abs(values).max():
            moves += 1
            begins += abs(values[0] - 1) <= MOVE
            ends += abs(values[-1] - 1) <= MOVE
    return moves > 0 and begins > MOST * moves and begins > ends


def _listing(subject: Subject, store: QlibStore) -> list[Finding]:
    """Members long before their first bar."""
    universe = getattr(subject.handler, "instruments", None)
    if not isinstance(universe, str) or universe not in store.universes():
        return []
    listed = set(store.membership(universe)["instrument"])
    codes = [code for code in store.instruments() if code in listed]
    if not codes:
        return []
    members = store.member_mask(universe, codes)
    there = ~np.isnan(store.read(["close"], codes)[0])
    first_bar = np.where(there.any(axis=0), there.argmax(axis=0), len(there))
    days = np.arange(len(there))[:, None]
    early = (members & (days < first_bar)).sum(axis=0)
    stocks = np.flatnonzero((early >= LONG_BEFORE) & there.any(axis=0))
    if len(stocks) < EARLY_STOCKS or early[stocks].sum() < EARLY_SHARE * members.sum():
        return []
    stock = stocks[early[stocks].argmax()]
    said = (
        f"{len(stocks)} of {len(codes)} stocks of `{universe}` are members {LONG_BEFORE} days or more before their "
        f"first bar, such as {codes[stock]} ({early[stock]} days)"
    )
    first = int(members[:, stocks].any(axis=1).argmax())
    return [Finding("member-before-listing", said, _day(subject, first), int(early[stocks].max()))]


def _releases(subject: Subject, store: QlibStore) -> list[Finding]:
    """Macro figures that are dated with the end of their period."""
    macro: Any = getattr(subject.features, "macro", None)
    if not isinstance(macro, Macro):
        return []
    table = SideData(store).read(macro.name, "series").frame
    found = []
    for series, rows in table.groupby("series", observed=True):
        if macro.series is not None and series not in macro.series:
            continue
        periods = parse_periods(rows["period"])
        frequency = str(periods["frequency"].iloc[0])
        if frequency not in ("Y", "Q", "M"):
            continue
        ends = pd.PeriodIndex.from_ordinals(
            periods["ordinal"].to_numpy(), freq=frequency
        ).end_time.normalize()
        released = pd.DataFrame({"end": ends, "released": rows["release_date"].to_numpy()})
        first = released.groupby("end")["released"].min()
        early = first.to_numpy() <= first.index.to_numpy()
        if early.mean() > MOST:
            said = f"`{series}` of `{macro.name}` is released on the last day of its period, or before"
            size = f"{int(early.sum())} of {len(early)} figures"
            day = f"{pd.Timestamp(first[early].min()):%Y-%m-%d}"
            found.append(Finding("released-at-period-end", said, day, 0, size))
    return found


def _market_values(subject: Subject, store: QlibStore) -> list[Finding]:
    """Market values whose change goes with the return of the day after rather than of the day."""
    dataset = subject.dataset
    chosen: Any = dataset.arguments.market_value if isinstance(dataset, DailyPanelDataset) else None
    if isinstance(chosen, FirstAvailable):
        chosen = chosen.chosen(store)
    if not isinstance(chosen, SideMarketValue):
        return []
    codes = subject.handler.panel.instruments
    values, close = chosen.load(store, codes), store.read(["close"], codes)[0]
    with np.errstate(invalid="ignore", divide="ignore"):
        change, returns = (np.diff(np.log(x.astype(float)), axis=0) for x in (values, close))
    same, ahead = _correlation(change, returns), _correlation(change[:-1], returns[1:])
    if ahead > AHEAD and ahead > same:
        said = (
            f"changes of `{chosen.name}` go with the next day's returns (correlation {ahead:.2f}, with those of the "
            f"day {same:.2f})"
        )
        return [Finding("market-value-of-a-later-day", said, _day(subject, 1))]
    return []


def _side_fields(subject: Subject) -> list[Finding]:
    """Numbers of side data that go with the return of the day after rather than of the day: dated a day early."""
    if subject.features is None:
        return []
    found = []
    market = subject.handler.panel
    with np.errstate(invalid="ignore", divide="ignore"):
        returns = np.diff(np.log(market.field("close").astype(float)), axis=0)
    for name, known in subject.features.side_fields().items():
        values = known.at(slice(0, len(market.calendar)), np.arange(len(market.instruments)))[0].astype(float)
        moves = returns
        if known.everyone:
            values, moves = values[:, :1], np.nanmean(returns, axis=1, keepdims=True)
        change = np.diff(np.log(values) if np.nanmin(values) > 0 else values, axis=0)
        for what, numbers in (("changes", change), ("numbers", values[1:])):
            same, ahead = (abs(_correlation(*pair)) for pair in ((numbers, moves), (numbers[:-1], moves[1:])))
            if ahead > AHEAD and ahead > same:
                said = (
                    f"{what} of `{name}` go with the next day's returns (correlation {ahead:.2f}, with those of the day "
                    f"{same:.2f})"
                )
                found.append(Finding("side-of-a-later-day", said, _day(subject, 1)))
                break
    return found


def _correlation(one: np.ndarray, other: np.ndarray) -> float:
    there = np.isfinite(one) & np.isfinite(other)
    if there.sum() < 100 or not np.std(one[there]) > 0 or not np.std(other[there]) > 0:
        return 0.0
    return float(np.corrcoef(one[there], other[there])[0, 1])


def _day(subject: Subject, position: int) -> str:
    return f"{subject.calendar[int(position)]:%Y-%m-%d}"
