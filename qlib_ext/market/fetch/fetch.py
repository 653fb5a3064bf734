"""From a source to a store: what is new is fetched, a store made or brought up to date, and side data beside it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief, counted
from qlib_ext.files import read_json, write_whole
from qlib_ext.lock import BusyError, exclusive
from qlib_ext.market.codes import normalise_code
from qlib_ext.market.exchange_days import EXCHANGES, day_of_knowing, exchange_days, exchange_timezone
from qlib_ext.market.fetch.downloads import ABOUT, PENDING, mark_pending, pending
from qlib_ext.market.fetch.source import Fetched, Job, Source
from qlib_ext.market.fetch.vendor import TAIL_DAYS
from qlib_ext.market.importing.import_bars import write_bars
from qlib_ext.market.importing.import_settings import ImportSettings
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.progress import Progress
from qlib_ext.market.replace import check_place, recover
from qlib_ext.market.side_data.import_table import import_table
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.side_data.table import KNOWN_FROM
from qlib_ext.market.store import QlibStore
from qlib_ext.market.universes.constituents import read_constituents
from qlib_ext.market.universes.universes import write_universe
from qlib_ext.market.updates.update import update_store
from qlib_ext.paths import writable

FIRST = "2010-01-01"  # of a new store, where nobody says
LATE_DAYS = 5  # of the store, for which a bar may come after those of other stocks
BEGUN = "begun.json"
ONE_DAY = pd.Timedelta(days=1)
SHAPES = {"market_value": "values"}  # of side data; all else are spells
COLUMNS = {"market_value": {"datetime": "date", "instrument": "code"}}


@dataclass(frozen=True)
class Refreshed:
    """What a fetch did.

    Attributes
    ----------
    store : QlibStore
        As it is afterwards.
    made : bool
        Whether it is new.
    days : pd.DatetimeIndex
        Added to it; all of them where it is new.
    rows : int
        Bars added; 0 where it is new.
    brought : tuple of str
        Universes and side data that were written.
    notes : tuple of str
        What was left out, changed or is worth a look.
    revised : int
        Values of the store that were changed.
    behind : int
        Days of the exchange, up to the last one asked for, that the store does not have: the source is late, or stands
        still.
    """

    store: QlibStore
    made: bool
    days: pd.DatetimeIndex
    rows: int
    brought: tuple[str, ...]
    notes: tuple[str, ...]
    revised: int = 0
    behind: int = 0

    @property
    def changed(self) -> bool:
        """Whether there was anything new."""
        return bool(self.made or len(self.days) or self.rows or self.revised or self.brought)


def fetch(
    source: Source,
    out: str | Path,
    *,
    folder: str | Path | None = None,
    start: str | None = None,
    end: str | None = None,
    universes: tuple[str, ...] = (),
    benchmarks: tuple[str, ...] | None = None,
    codes: tuple[str, ...] = (),
    revise: bool = False,
    rebuild: bool = False,
    progress: Progress | None = None,
    now: pd.Timestamp | None = None,
) -> Refreshed:
    """Ask a source for what a store does not have, and make the store or bring it up to date.

    What comes is kept in `folder`, and a fetch that was cut short goes on from there. The bars are written whole or not at
    all; after them universes and side data, each whole: where one of these fails, the next call goes on with them.

    Parameters
    ----------
    source
        Whom to ask.
    out
        The store; made where there is none.
    folder
        Of the downloads; `OUT.downloads` by default.
    start, end
        Days to ask for. By default from the day that the folder began with, or 2010, to the last one that has closed;
        beside a store of other origin from a month before its last day.
    universes
        Whose members to bring in, such as csi300.
    benchmarks
        Codes of indices to bring in; by default those of the source.
    codes
        Stocks to ask for; by default all that the source lists.
    revise
        Take the source's values where they contradict the store, as in `update_store`.
    rebuild
        Make the store anew of all that was downloaded; its side data stay.
    progress
        Called with (done, total, what).
    now
        The moment; for tests.

    Raises
    ------
    UserError
        If an argument is wrong, another process is at the folder, or the bars contradict the store.
    SourceError
        If the source cannot be reached, refuses, or has changed.
    """
    out = Path(out).expanduser()
    folder = out.with_name(f"{out.name}.downloads") if folder is None else Path(folder).expanduser()
    if folder.resolve().is_relative_to(out.resolve()):
        raise UserError(f"`folder` must lie outside of the store, found `{folder}` in `{out}`")
    check_place(out)
    writable(folder.absolute().parent, name="the place of `--folder`", way_out="name another")
    recover(out)
    store = QlibStore(out) if out.is_dir() and any(out.iterdir()) else None
    last = last_closed(source.region, now, source.published) if end is None else _day("end", end)
    first = _first(folder, start, store)
    if rebuild and start is None and store is not None and first > store.calendar[0]:
        raise UserError(
            f"`--rebuild` would make a store that begins on {first.date()}, found one that begins on "
            f"{store.calendar[0].date()}: name the first day by `--start`"
        )
    if last < first:
        raise UserError(f"`end` must not be before `start`, found {last.date()} before {first.date()}")
    known = None if store is None or rebuild else store.calendar[-1]
    notes = Notes()
    indices = _codes(source.default_benchmarks if benchmarks is None else benchmarks, source.region)
    wanted = frozenset(_codes(codes, source.region)) if codes else None
    have = frozenset() if known is None or store is None else frozenset(store.instruments())
    complete = (
        not revise and not (folder / PENDING).is_file() and have.issuperset((*indices, *(wanted or ())))
    )
    if known is not None and store is not None:
        complete = complete and {*universes} <= {*store.universes()}
        began = store.calendar[0]
        if start is not None and first < began and len(_sessions(source.region, first, began - ONE_DAY)):
            notes.add(f"the store begins on {began.date()}: days before it get in by `--rebuild` alone")
    job = Job(
        folder=folder,
        start=first,
        end=last,
        universes=tuple(universes),
        benchmarks=indices,
        codes=wanted,
        known=known,
        have=have,
        notes=notes,
        progress=progress,
        complete=complete,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(folder.with_name(f".{folder.name}.lock")):
            try:
                found = source.fetch(job)
            finally:
                _remember(folder, first)
            done = _brought(out, store if known is not None else None, found, folder, revise, job, progress)
            return _held_against(done, source.region, last)
    except BusyError as error:
        raise UserError(
            f"{error.holder} is fetching into `{folder}` at this moment; wait for it to end{error.hint}"
        ) from error


def _remember(folder: Path, first: pd.Timestamp) -> None:
    """Keep the day that a folder begins with, where there is one: of a fetch that was cut short as well."""
    if (folder / ABOUT).is_file():
        try:
            before = _first(folder, None, None) if (folder / BEGUN).is_file() else first
        except UserError:  # damaged, and the day was said anew
            before = first
        write_whole(folder / BEGUN, json.dumps(f"{min(first, before):%Y-%m-%d}"))


def _held_against(done: Refreshed, region: str, last: pd.Timestamp) -> Refreshed:
    """With the days that the source is behind, in words where it is more than the one that may be late."""
    ends = done.store.calendar[-1]
    behind = len(_sessions(region, ends + ONE_DAY, last)) if ends < last else 0
    said = (
        f"the newest day is {ends.date()}, {counted(behind, 'trading day')} before {last.date()}: the source stands still, or "
        "has changed"
    )
    return replace(done, behind=behind, notes=(*done.notes, said) if behind > 1 else done.notes)


def _sessions(region: str, first: pd.Timestamp, last: pd.Timestamp) -> pd.DatetimeIndex:
    return exchange_days(EXCHANGES[region], first, last)


def last_closed(
    region: str, now: pd.Timestamp | None = None, published: pd.Timedelta = Source.published
) -> pd.Timestamp:
    """The last trading day of a region's exchange whose close is so long ago."""
    exchange = EXCHANGES[region]
    here = (now or pd.Timestamp.now("UTC")).tz_convert(exchange_timezone(exchange)).tz_localize(None)
    today = here.normalize()
    closed = day_of_knowing(pd.DatetimeIndex([here - published]), exchange)[0] > today
    days = exchange_days(exchange, today - pd.Timedelta(days=31), today)
    days = days[days <= today] if closed else days[days < today]
    return days[-1]


def _first(folder: Path, start: str | None, store: QlibStore | None) -> pd.Timestamp:
    if start is not None:
        return _day("start", start)
    if (folder / BEGUN).is_file():
        try:
            return _day(BEGUN, str(read_json(folder / BEGUN)))
        except ValueError as error:
            raise UserError(f"`{folder / BEGUN}` must hold a day: {error}; say `--start`") from error
    if store is not None:
        return store.calendar[-1] - pd.Timedelta(days=TAIL_DAYS)
    return pd.Timestamp(FIRST)


def _day(name: str, text: str) -> pd.Timestamp:
    try:
        return pd.Timestamp(pd.to_datetime(text, format="%Y-%m-%d"))
    except ValueError as error:
        raise UserError(f"`{name}` must be a day such as 2015-01-05, found {brief(text)}") from error


def _codes(given: tuple[str, ...], region: str) -> tuple[str, ...]:
    return tuple(normalise_code(code, region) for code in given)


def _brought(
    out: Path,
    store: QlibStore | None,
    found: Fetched,
    folder: Path,
    revise: bool,
    job: Job,
    progress: Progress | None,
) -> Refreshed:
    """Write what was fetched."""
    if found.bars is None:
        assert store is not None
        return Refreshed(store, False, store.calendar[:0], 0, (), job.notes.sentences())
    if folder.is_dir():
        mark_pending(folder)
    settings = found.bars.settings or ImportSettings()
    if store is None:
        made = write_bars(found.bars, out, settings, source=folder, replace=True)
        days, rows, revised, said = made.store.calendar, 0, 0, [*made.notes]
    else:
        try:
            done = update_store(out, found.bars, revise=revise, late=LATE_DAYS, progress=progress)
        except UserError as error:
            raise UserError(
                f"{error}; `--rebuild` makes the store anew of all that was downloaded, from {job.start.date()} on"
            ) from error
        days, rows, revised, said = done.days, done.rows, len(done.revisions), [*done.notes]
    brought = []
    with tempfile.TemporaryDirectory() as tables:
        for name, table in found.universes.items():
            brought += _universe(out, name, table, Path(tables), said)
        for name, table in found.side.items():
            brought += _side(out, name, table, Path(tables), said)
    if folder.is_dir():
        left = (pending(folder) or frozenset()) - {*found.bars.instruments}
        (folder / PENDING).unlink()
        if left:  # which `codes` left out
            mark_pending(folder, left)
    notes = (*job.notes.sentences(), *said)
    return Refreshed(QlibStore(out), store is None, days, rows, tuple(brought), notes, revised)


def _universe(out: Path, name: str, table: pd.DataFrame, folder: Path, said: list[str]) -> list[str]:
    path = folder / f"{name}.parquet"
    table.to_parquet(path, index=False)
    store = QlibStore(out)
    universe = read_constituents(store, name, path)
    if name in store.universes():
        began, begins = store.membership(name)["start"].min(), universe.spells["start"].min()
        if began < begins:
            said.append(
                f"universe `{name}` begins on {began:%Y-%m-%d} in the store and on {begins:%Y-%m-%d} at the source: left as it is"
            )
            return []
    write_universe(out, universe, replace=True)
    said += [f"universe `{name}`: {note}" for note in universe.notes]
    return [f"universe {name}"]


def _side(out: Path, name: str, table: pd.DataFrame, folder: Path, said: list[str]) -> list[str]:
    path = folder / f"{name}.parquet"
    table.to_parquet(path, index=False)
    side = SideData(QlibStore(out))
    shape = SHAPES.get(name, "spells")
    if name in side:
        have = side.read(name)
        began = have.frame[KNOWN_FROM[have.shape]].min()
        begins = table["start" if "start" in table else "date"].min()
        if began < begins:
            said.append(
                f"side data `{name}` begin on {began:%Y-%m-%d} in the store and on {begins:%Y-%m-%d} at the source: left as they are"
            )
            return []
    options: dict[str, Any] = {"columns": COLUMNS[name]} if name in COLUMNS else {}
    done = import_table(out, name, path, shape=shape, replace=True, **options)
    said += [f"side data `{name}`: {note}" for note in done.notes]
    return [f"side data {name}"]
