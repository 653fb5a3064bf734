"""From a source to a store: what is new is fetched, a store made or brought up to date, and side data beside it."""

from __future__ import annotations

import json
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief
from qlib_ext.files import read_json
from qlib_ext.lock import BusyError, exclusive
from qlib_ext.market.codes import normalise_code
from qlib_ext.market.exchange_days import EXCHANGES, day_of_knowing, exchange_days, exchange_timezone
from qlib_ext.market.fetch.downloads import ABOUT
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
PUBLISHED = pd.Timedelta(hours=1)  # after the close: before it, sources give bars of a day that is not over
BEGUN = "begun.json"
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
    """

    store: QlibStore
    made: bool
    days: pd.DatetimeIndex
    rows: int
    brought: tuple[str, ...]
    notes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether there was anything new."""
        return self.made or len(self.days) > 0


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
    """Ask a source for what a store does not have, and make the store or bring it up to date, whole or not at all.

    What comes is kept in `folder`, and a fetch that was cut short goes on from there.

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
    last = last_closed(source.region, now) if end is None else _day("end", end)
    first = _first(folder, start, store)
    if last < first:
        raise UserError(f"`end` must not be before `start`, found {last.date()} before {first.date()}")
    known = None if store is None or rebuild else store.calendar[-1]
    notes = Notes()
    job = Job(
        folder=folder,
        start=first,
        end=last,
        universes=tuple(universes),
        benchmarks=_codes(source.default_benchmarks if benchmarks is None else benchmarks, source.region),
        codes=frozenset(_codes(codes, source.region)) if codes else None,
        known=known,
        have=frozenset() if known is None or store is None else frozenset(store.instruments()),
        notes=notes,
        progress=progress,
    )
    folder.parent.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(folder.with_name(f".{folder.name}.lock")):
            try:
                found = source.fetch(job)
            finally:
                _remember(folder, first)
            return _brought(out, store if known is not None else None, found, folder, revise, notes, progress)
    except BusyError as error:
        raise UserError(
            f"{error.holder} is fetching into `{folder}` at this moment; wait for it to end{error.hint}"
        ) from error


def _remember(folder: Path, first: pd.Timestamp) -> None:
    """Keep the day that a folder begins with, where there is one: of a fetch that was cut short as well."""
    if (folder / ABOUT).is_file():
        before = _first(folder, None, None) if (folder / BEGUN).is_file() else first
        (folder / BEGUN).write_text(json.dumps(f"{min(first, before):%Y-%m-%d}"), encoding="utf-8")


def last_closed(region: str, now: pd.Timestamp | None = None) -> pd.Timestamp:
    """The last trading day of a region's exchange whose close is an hour ago."""
    exchange = EXCHANGES[region]
    here = (now or pd.Timestamp.now("UTC")).tz_convert(exchange_timezone(exchange)).tz_localize(None)
    today = here.normalize()
    closed = day_of_knowing(pd.DatetimeIndex([here - PUBLISHED]), exchange)[0] > today
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
    notes: Notes,
    progress: Progress | None,
) -> Refreshed:
    """Write what was fetched."""
    if found.bars is None:
        assert store is not None
        return Refreshed(store, False, store.calendar[:0], 0, (), notes.sentences())
    settings = found.bars.settings or ImportSettings()
    if store is None:
        made = write_bars(found.bars, out, settings, source=folder, replace=True)
        days, rows, said = made.store.calendar, 0, [*made.notes]
    else:
        try:
            done = update_store(out, found.bars, revise=revise, progress=progress)
        except UserError as error:
            raise UserError(
                f"{error}; `--rebuild` makes the store anew of all that was downloaded"
            ) from error
        days, rows, said = done.days, done.rows, [*done.notes]
    brought = []
    with tempfile.TemporaryDirectory() as tables:
        for name, table in found.universes.items():
            brought += _universe(out, name, table, Path(tables), said)
        for name, table in found.side.items():
            brought += _side(out, name, table, Path(tables), said)
    return Refreshed(QlibStore(out), store is None, days, rows, tuple(brought), (*notes.sentences(), *said))


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
