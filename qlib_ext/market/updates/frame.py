"""Which days and fields of a source an update looks at, and whether its days follow on those of the store."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
from qlib.utils import fname_to_code

from qlib_ext.checks import UserError
from qlib_ext.files import open_file
from qlib_ext.market.exchange_days import exchange_days
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_settings import REGIONS, ImportSettings
from qlib_ext.market.importing.ingest import ORDER
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.store import SUFFIX, QlibStore, StoreError
from qlib_ext.paths import is_stray

CALENDAR_DAYS = 250  # of the store, by which it is seen whether they are those of the exchange
CALENDAR_SHARE = 0.95


class Frame:
    """Which days and fields of the bars are looked at, and where they lie in the store.

    Attributes
    ----------
    calendar : pd.DatetimeIndex
        Of the store and the added days.
    added : pd.DatetimeIndex
    rows : int array [n]
        Rows of the bars: first the `common` that the store has, then those of the added days.
    positions : int array [n]
        Of these rows in `calendar`.
    known : int
        Days of the store.
    late : int
        So many of its last ones may get bars that it has nothing of.
    folders : mapping
        Code to folder of the store.
    fields : tuple of str
        That the store has.
    """

    def __init__(
        self,
        store: QlibStore,
        bars: Bars,
        settings: ImportSettings,
        allow_gap: bool,
        notes: Notes,
        late: int = 0,
    ):
        days, known = bars.calendar, store.calendar
        self.folders = _folders(store.root)
        if not set(bars.instruments) & self.folders.keys():
            raise UserError(
                f"no instrument of the source is in the store: it has {', '.join(bars.instruments[:3])}, the store "
                f"{', '.join(sorted(self.folders)[:3])}; is it of the same market, and is `--region` right?"
            )
        self.fields = _fields(store, bars, self.folders, notes)
        some = np.zeros(len(days), dtype=bool)
        for name in self.fields:
            some |= np.isfinite(bars.fields[name]).any(axis=1)
        positions = known.get_indexer(days)
        stray = (positions < 0) & some & (days > known[0]) & (days < known[-1])
        if stray.any():
            raise UserError(
                f"the source has bars of {days[stray][0].date()} and {stray.sum() - 1:,} more days that lie between two "
                f"days of the store, whose calendar does not have them; import anew from a source of all days"
            )
        early = some & (days < known[0])
        notes.add(
            f"{{day}} before the store's first, {known[0].date()}: left out",
            early.sum(),
            (str(day.date()) for day in days[early]),
        )
        common = np.flatnonzero(positions >= 0)
        later = np.flatnonzero(days > known[-1])
        with_bars = np.flatnonzero(some[later])
        later = later[: with_bars[-1] + 1] if with_bars.size else later[:0]
        self.known, self.late = len(known), late
        self.added = days[later]
        self.calendar = known.append(self.added)
        self.rows = np.concatenate([common, later])
        self.positions = np.concatenate([positions[common], len(known) + np.arange(len(later))])
        self.common = len(common)
        if len(self.added):
            _check_gap(known, self.added, settings, allow_gap, notes)

    def stop(self, code: str) -> int:
        """Index of the day after the last one of which an instrument of the store has a bar."""
        for path in self.folders[code].glob("[!.]*" + SUFFIX):
            with open_file(path) as stream:
                first = np.frombuffer(stream.read(4), dtype="<f4")
                size = os.fstat(stream.fileno()).st_size
            if not first.size:
                return 0
            start = float(first[0])
            if not (0 <= start < 2**24 and start.is_integer()):
                raise StoreError(
                    f"`{path}` must begin with the index of a day, found {start:g}: `qlib-ext data check` finds what else is "
                    "wrong"
                )
            return int(start) + size // 4 - 1
        return 0


def _folders(root: Path) -> dict[str, Path]:
    paths = [path for path in (root / "features").iterdir() if path.is_dir()]
    return {fname_to_code(path.name).upper(): path for path in paths if not is_stray(path.name)}


def _fields(store: QlibStore, bars: Bars, folders: Mapping[str, Path], notes: Notes) -> tuple[str, ...]:
    fields: set[str] = set()
    for code in folders:
        fields.update(store.fields(code))
    lacking = sorted(fields - bars.fields.keys())
    if lacking:
        reasons = [f" ({note})" for note in bars.notes if note.startswith(f"no {lacking[0]}")]
        raise UserError(
            f"the source must have every field of the store, found no {', '.join(f'`{field}`' for field in lacking)}"
            f"{''.join(reasons)}; name the column with `--column {lacking[0]}=NAME`, or import anew without the field"
        )
    other = sorted(bars.fields.keys() - fields)
    if other:
        notes.add(f"the store has no {', '.join(f'`{field}`' for field in other)}: left out")
    return tuple(sorted(fields, key=_by_rank))


def _by_rank(field: str) -> tuple[int, str]:
    return (ORDER.index(field) if field in ORDER else len(ORDER), field)


def _check_gap(
    known: pd.DatetimeIndex,
    added: pd.DatetimeIndex,
    settings: ImportSettings,
    allow_gap: bool,
    notes: Notes,
) -> None:
    """Refuse days that do not follow on those of the store."""
    exchange = settings.exchange or REGIONS[settings.region]
    sessions = _sessions(known, added, settings, exchange)
    if sessions is None:  # a calendar of the data's own: no gap was ever longer than its longest
        longest, now = np.diff(known.asi8).max(initial=0), added[0] - known[-1]
        missing = 0 if now.value <= longest else now.days - 1
        found = f"{now.days} days lie between them, and no more than {pd.Timedelta(longest).days} ever did in the store"
    else:
        between = sessions[(sessions > known[-1]) & (sessions < added[0])]
        missing = len(between)
        found = f"{exchange} traded on {missing:,} days between them, such as {', '.join(between[:3].strftime('%Y-%m-%d'))}"
        holes = sessions[(sessions > added[0]) & (sessions < added[-1])].difference(added)
        notes.add(
            f"{{day}} on which {exchange} traded without a row in the source",
            len(holes),
            holes.strftime("%Y-%m-%d"),
        )
    if missing and not allow_gap:
        raise UserError(
            f"the source's days must follow on the store's last, {known[-1].date()}, found {added[0].date()} as the "
            f"first: {found}. Get these days too, or leave them out with `--allow-gap`"
        )
    if missing:
        notes.add(f"a gap before {added[0].date()}, the first day added: {found}")


def _sessions(
    known: pd.DatetimeIndex, added: pd.DatetimeIndex, settings: ImportSettings, exchange: str
) -> pd.DatetimeIndex | None:
    """Days of the exchange from the store's last year on; None where they are not those of the store."""
    recent = known[-CALENDAR_DAYS:]
    try:
        sessions = exchange_days(exchange, recent[0], added[-1])
    except UserError:
        if settings.calendar == "data":
            return None
        raise
    own = sessions[sessions <= known[-1]]
    share = len(own.intersection(recent)) / len(own.union(recent))
    if share >= CALENDAR_SHARE:
        return sessions
    if settings.calendar == "exchange":
        raise UserError(
            f"the store's days must be those of {exchange}, found {share:.0%} of the last ones in common: name its "
            "exchange with `--exchange`, or take the days of the data with `--calendar data`"
        )
    return None
