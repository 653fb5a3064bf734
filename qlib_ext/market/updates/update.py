"""Add the days, and the stocks, that a source has beyond a store."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pandas as pd
from qlib.utils import code_to_fname, fname_to_code

from qlib_ext.checks import UserError, one_of
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.calendars import exchange_days
from qlib_ext.market.importing.import_settings import FILE, REGIONS, ImportSettings
from qlib_ext.market.importing.ingest import ORDER, read_bars
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.replace import Lock, copy_store, locked, recover
from qlib_ext.market.store import SUFFIX, QlibStore
from qlib_ext.market.updates.instrument_bins import InstrumentBins
from qlib_ext.market.updates.open_spells import UNIVERSES, extended_memberships
from qlib_ext.market.updates.overlap import NotProportionalError, Overlap, compare

Progress = Callable[[int, int, str], None]

CACHES = ("features_cache", "dataset_cache")  # of Qlib: made of the old bars
NAMED = 5  # contradictions that a message names
CALENDAR_DAYS = 250  # of the store, by which it is seen whether they are those of the exchange
CALENDAR_SHARE = 0.95
JUMP = 0.01  # between the source's own change and the store's last close: rounding of either is below


@dataclass(frozen=True)
class Revision:
    """A value of the store that a source contradicts.

    Attributes
    ----------
    instrument : str
    day : pd.Timestamp
    field : str
    old : float
        In the store; NaN where it has none.
    new : float
        In the source, on the scale of the store.
    """

    instrument: str
    day: pd.Timestamp
    field: str
    old: float
    new: float

    def __str__(self) -> str:
        found = "nothing" if np.isnan(self.old) else f"{self.old:.7g}"
        return f"{self.instrument} {self.day.date()} {self.field}: {found} in the store, {self.new:.7g} in the source"


@dataclass(frozen=True)
class Update:
    """What an update did.

    Attributes
    ----------
    store : QlibStore
        As it is afterwards.
    days : pd.DatetimeIndex
        Added to the calendar.
    instruments : tuple of str
        New ones.
    rows : int
        Bars (an instrument on a day) added.
    revisions : tuple of Revision
        Values that were changed.
    scales : mapping
        Instrument to the scale of the source's prices against the store's, where it is not 1.
    notes : tuple of str
        What the reader of the source and the update had to say.
    """

    store: QlibStore
    days: pd.DatetimeIndex
    instruments: tuple[str, ...]
    rows: int
    revisions: tuple[Revision, ...]
    scales: Mapping[str, float]
    notes: tuple[str, ...]

    @property
    def changed(self) -> bool:
        """Whether there was anything to do; if not, no file was touched."""
        return bool(self.rows or self.revisions)


def update(
    root: str | Path,
    source: str | Path,
    settings: ImportSettings | None = None,
    *,
    actions: str | Path | None = None,
    revise: bool = False,
    allow_gap: bool = False,
    universes: str = "carry",
    progress: Progress | None = None,
) -> Update:
    """Read a source as the store's own was read, and add what it has beyond the store; see `update_store`.

    Parameters
    ----------
    root, revise, allow_gap, universes, progress
        As in `update_store`.
    source, actions
        As in `qlib_ext.market.importing.ingest.read_bars`. It may hold the new days alone, or days before them too: the more
        days it shares with the store, the more can be checked.
    settings
        How the source is read; None: as `import.json` of the store says, or with every choice left to the reader.

    Raises
    ------
    UserError
        If the source cannot be read, or as in `update_store`.
    """
    root = Path(root).expanduser()
    recover(root)
    QlibStore(root)  # early: what is no store gets no lock beside it
    with locked(root) as lock:
        if settings is None:
            settings = ImportSettings.load(root) if (root / FILE).is_file() else ImportSettings()
        bars = read_bars(source, settings, actions=actions, progress=progress)
        return _update(lock, bars, settings, revise, allow_gap, universes, progress)


def update_store(
    root: str | Path,
    bars: Bars,
    settings: ImportSettings | None = None,
    *,
    revise: bool = False,
    allow_gap: bool = False,
    universes: str = "carry",
    progress: Progress | None = None,
) -> Update:
    """Add to a store the days and instruments that `bars` have beyond it, whole or not at all.

    The store's history stays what it is, bit by bit. On the days that both have, the bars must agree with it (see
    `qlib_ext.market.updates.overlap.compare`); where a vendor has rescaled its history since, new rows are brought to the
    scale of the store. Instruments without a common day are taken as they are, with a note. New days go to the end
    of the calendar. `all` and the universe that the import made follow the bars; of other universes, spells that
    end on the store's last day are open and go on to the new last day. All else in the store, side data too, stays;
    Qlib's caches of the old bars go. Unchanged files are shared with the version before by hard links.

    If there is nothing to add, nothing is touched.

    Parameters
    ----------
    root
        The store; `~` is expanded.
    bars
        What to add; they need all fields of the store.
    settings
        For the exchange, whose days tell whether some are missing; None: those of the bars.
    revise
        Take the values of `bars` where they contradict the store, instead of stopping.
    allow_gap
        Add days although the exchange traded on days between them and the store's last.
    universes
        `carry` open spells forward, or `keep` them as they are.
    progress
        Called with (done, total, what).

    Raises
    ------
    UserError
        If the store cannot be read or is being changed; if `bars` lack a field of it, share no instrument with it,
        or have a day that lies between two days of its calendar; if they contradict it (the message names stock,
        day, field and both values); if days are missing in between.
    """
    root = Path(root).expanduser()
    recover(root)
    QlibStore(root)
    with locked(root) as lock:
        return _update(
            lock, bars, settings or bars.settings or ImportSettings(), revise, allow_gap, universes, progress
        )


def _update(
    lock: Lock,
    bars: Bars,
    settings: ImportSettings,
    revise: bool,
    allow_gap: bool,
    universes: str,
    progress: Progress | None,
) -> Update:
    one_of("universes", universes, UNIVERSES)
    store = QlibStore(lock.root)
    notes = Notes()
    frame = _Frame(store, bars, settings, allow_gap, notes)
    plan = _compare(store, bars, frame, revise, notes, progress)
    if plan.cells:
        texts = extended_memberships(
            lock.root, plan.spans, frame.calendar, len(frame.added), universes, notes
        )
        with lock.replaced() as new:
            _write(lock.root, new, frame, plan, texts, progress)
    return Update(
        store=QlibStore(lock.root),
        days=frame.added if plan.cells else frame.added[:0],
        instruments=tuple(plan.new),
        rows=plan.rows,
        revisions=tuple(plan.revisions),
        scales=plan.scales,
        notes=(*bars.notes, *notes.sentences()),
    )


class _Frame:
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
    folders : mapping
        Code to folder of the store.
    fields : tuple of str
        That the store has.
    """

    def __init__(self, store: QlibStore, bars: Bars, settings: ImportSettings, allow_gap: bool, notes: Notes):
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
        self.known = len(known)
        self.added = days[later]
        self.calendar = known.append(self.added)
        self.rows = np.concatenate([common, later])
        self.positions = np.concatenate([positions[common], len(known) + np.arange(len(later))])
        self.common = len(common)
        if len(self.added):
            _check_gap(known, self.added, settings, allow_gap, notes)

    def stop(self, code: str) -> int:
        """Index of the day after the last one of which an instrument of the store has a bar."""
        for path in self.folders[code].glob("*" + SUFFIX):
            with path.open("rb") as stream:
                first = np.frombuffer(stream.read(4), dtype="<f4")
            return int(first[0]) + path.stat().st_size // 4 - 1 if first.size else 0
        return 0


def _folders(root: Path) -> dict[str, Path]:
    paths = [path for path in (root / "features").iterdir() if path.is_dir()]
    return {fname_to_code(path.name).upper(): path for path in paths}


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
        found = f"{exchange} traded on {missing:,} days between them, such as {', '.join(_iso(between[:3]))}"
        holes = sessions[(sessions > added[0]) & (sessions < added[-1])].difference(added)
        notes.add(f"{{day}} on which {exchange} traded without a row in the source", len(holes), _iso(holes))
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


def _iso(days: pd.DatetimeIndex) -> list[str]:
    return [str(day.date()) for day in days]


@dataclass
class _Plan:
    """What is to be written: for each instrument and field the places in the new calendar, and the values."""

    cells: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)  # first day, day after the last
    new: list[str] = field(default_factory=list)
    rows: int = 0
    revisions: list[Revision] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)


def _compare(
    store: QlibStore, bars: Bars, frame: _Frame, revise: bool, notes: Notes, progress: Progress | None
) -> _Plan:
    """Hold every instrument of the bars against the store."""
    plan = _Plan()
    way = bars.settings.adjustment if bars.settings else "adjusted"
    wrong = _Contradictions()
    going_on = set()  # instruments with a bar on an added day
    for index, code in enumerate(bars.instruments):
        source = {name: bars.fields[name][frame.rows, index] for name in frame.fields}
        present = np.logical_or.reduce([np.isfinite(values) for values in source.values()])
        if present.any():
            one = _Instrument(code, source, present, frame)
            if present[frame.common :].any():
                going_on.add(code)
            if one.bins is None:
                plan.new.append(code)
            else:
                one.compare(way, notes)
                wrong.add(one.contradictions(), keep_all=revise)
                one.continue_from_the_store(way, notes)
                if one.overlap.scale != 1:
                    plan.scales[code] = one.overlap.scale
            one.plan(plan, revise)
        if progress is not None:
            progress(index + 1, len(bars.instruments), "comparing")
    if wrong.count and not revise:
        raise UserError(wrong.message())
    plan.revisions = wrong.first
    if len(frame.added):
        silent = (code for code in sorted(frame.folders.keys() - going_on) if frame.stop(code) == frame.known)
        notes.gather("{instrument} with a bar on the store's last day and none on the days added", silent)
    return plan


class _Contradictions:
    """Values of the store that the source contradicts, counted, and the first or all of them."""

    def __init__(self) -> None:
        self.count = 0
        self.instruments: set[str] = set()
        self.first: list[Revision] = []

    def add(self, revisions: Iterator[Revision], *, keep_all: bool) -> None:
        for revision in revisions:
            self.count += 1
            self.instruments.add(revision.instrument)
            if keep_all or len(self.first) < NAMED:
                self.first.append(revision)

    def message(self) -> str:
        more = self.count - len(self.first)
        others = (
            f"; and {more:,} more values, of {len(self.instruments):,} instruments in all" if more else ""
        )
        return (
            f"the source contradicts the store: {'; '.join(map(str, self.first))}{others}. Nothing was changed; "
            "`--revise` takes the values of the source"
        )


class _Instrument:
    """One instrument of the bars, beside its bars in the store.

    Attributes
    ----------
    code : str
    source : dict
        Field to float32 `[n]` on the rows of the frame, on the store's scale once it was compared.
    present : bool array [n]
        Rows with any value.
    bins : InstrumentBins or None
        None for a new instrument.
    overlap : Overlap
        Of the first `common` rows, once it was compared.
    """

    overlap: Overlap

    def __init__(self, code: str, source: dict[str, np.ndarray], present: np.ndarray, frame: _Frame):
        self.code, self.source, self.present, self.frame = code, source, present, frame
        folder = frame.folders.get(code)
        self.bins = None if folder is None else InstrumentBins(folder, frame.fields, frame.known)

    def compare(self, way: str, notes: Notes) -> None:
        """Find the scale, and bring the source to that of the store."""
        assert self.bins is not None
        common = self.frame.common
        positions = self.frame.positions[:common]
        self.old = {name: self.bins.at(name, positions) for name in self.source}
        try:
            self.overlap = compare(self.old, {name: values[:common] for name, values in self.source.items()})
        except NotProportionalError as error:
            raise UserError(
                f"{self.code}: {error}. Its history was adjusted in another way than the store's, or revised: import "
                "all of it anew with `qlib-ext data import --replace`. Nothing was changed"
            ) from error
        if self.overlap.scale != 1 and way == "none":
            raise UserError(
                f"{self.code}: the prices are said to be raw, and those of the source are {self.overlap.scale:.6g} times "
                "those of the store: were they adjusted for a split since? Nothing was changed"
            )
        for name, divisor in self.overlap.divisors.items():
            if divisor != 1:
                self.source[name] = (self.source[name] / np.float64(divisor)).astype(np.float32)
        for name in [name for name in self.source if name not in self.bins.fields]:
            self.overlap.lacking[name][:] = False  # a field begins with the rows added
            if np.isfinite(self.source[name][self.new]).any() and name != "change":
                notes.gather(f"{{instrument}} without any `{name}` in the store before", [self.code])
        # The change of a first bar needs a close before it: one side may know it and the other not.
        if "change" in self.source:
            self.overlap.lacking["change"][positions == self.bins.start] = False
            self.overlap.gone["change"][: self.present.argmax() + 1] = False
        self._note_gone(notes)
        if self.overlap.scale != 1 and self.new.any():
            notes.add(
                "{instrument} whose history the source has on another scale than the store: new rows brought to the "
                "store's, divided by the number named",
                places=[f"{self.code} {self.overlap.scale:.6g}"],
            )

    @property
    def new(self) -> np.ndarray:
        """Rows that the store has no day for, or not this instrument: bool [n]."""
        if self.bins is None:
            return self.present
        new = self.present.copy()
        new[: self.frame.common] = False
        return new

    def contradictions(self) -> Iterator[Revision]:
        """In the order of days and fields."""
        names = list(self.overlap.disagreeing)
        masks = [self.overlap.disagreeing[name] | self.overlap.lacking[name] for name in names]
        days = self.frame.calendar[self.frame.positions[: self.frame.common]]
        for row, column in np.argwhere(np.stack(masks, axis=1)):
            name = names[column]
            yield Revision(
                self.code, days[row], name, float(self.old[name][row]), float(self.source[name][row])
            )

    def continue_from_the_store(self, way: str, notes: Notes) -> None:
        """Link the first new row to the store's last where the source has none before it."""
        assert self.bins is not None
        if not self.new.any():
            return
        if self.overlap.days == 0 and way == "actions":
            raise UserError(
                f"{self.code}: splits and dividends continue the store's factor from a day that both have, found none; "
                "let the source begin at the store's last day or before. Nothing was changed"
            )
        priced = self.present & np.isfinite(self.source["close"]) if "close" in self.source else self.new[:0]
        last = self.bins.last("close")
        if self.overlap.days == 0:
            notes.gather(
                "{instrument} without a day that the store has too: whether its new rows are on the store's scale could "
                "not be checked",
                [self.code],
            )
        if not priced.any() or not self.new[(first := int(priced.argmax()))] or np.isnan(last):
            return
        change = self.source.get("change")
        if change is None:
            return
        rise = self.source["close"][first] / np.float64(last) - 1
        if np.isnan(change[first]):
            self.source["change"] = change.copy()
            self.source["change"][first] = rise
        elif abs((1 + rise) / (1 + change[first]) - 1) > JUMP:
            notes.gather(
                "{instrument} whose first new close and change do not fit the store's last close: not on one scale?",
                [f"{self.code} {self._day(first)}"],
            )

    def plan(self, plan: _Plan, revise: bool) -> None:
        """Enter what is to be written."""
        new = self.new
        plan.rows += int(new.sum())
        cells = {}
        for name, values in self.source.items():
            write = new & np.isfinite(values)
            if revise and self.bins is not None:
                write[: self.frame.common] |= self.overlap.disagreeing[name] | self.overlap.lacking[name]
            if write.any():
                cells[name] = (self.frame.positions[write], values[write])
        if cells:
            plan.cells[self.code] = cells
            positions = np.concatenate([places for places, _ in cells.values()])
            start, stop = positions.min(), positions.max() + 1
            if self.bins is not None:
                start, stop = min(start, self.bins.start), max(stop, self.bins.stop)
            plan.spans[self.code] = (int(start), int(stop))

    def _note_gone(self, notes: Notes) -> None:
        """Say what the store has and the source, in the span of its own rows, has not."""
        rows = np.flatnonzero(self.present)
        within = np.zeros(self.frame.common, dtype=bool)
        within[rows[0] : rows[-1] + 1] = True
        had = np.logical_or.reduce([np.isfinite(values) for values in self.old.values()])
        whole = had & within & ~self.present[: self.frame.common]
        notes.add(
            "{bar} of the store that the source does not have: kept",
            whole.sum(),
            (f"{self.code} {self._day(int(row))}" for row in np.flatnonzero(whole)),
        )
        for name, gone in self.overlap.gone.items():
            some = gone & self.present[: self.frame.common]
            notes.add(
                f"{{value}} of `{name}` in the store that the source does not have: kept",
                some.sum(),
                (f"{self.code} {self._day(int(row))}" for row in np.flatnonzero(some)),
            )

    def _day(self, row: int) -> str:
        return str(self.frame.calendar[self.frame.positions[row]].date())


def _write(
    root: Path,
    new: Path,
    frame: _Frame,
    plan: _Plan,
    memberships: Mapping[Path, list[str]],
    progress: Progress | None,
) -> None:
    """Fill the new version: what changes is written, the rest shared."""
    rewritten = {Path("features", frame.folders[code].name) for code in plan.cells if code in frame.folders}
    texts: dict[Path, list[str]] = dict(memberships)
    if len(frame.added):
        texts[Path("calendars", "day.txt")] = _iso(frame.calendar)
        future = root / "calendars" / "day_future.txt"
        if future.is_file():  # Qlib's: the same days, and those that are known to come
            days = pd.DatetimeIndex(
                pd.to_datetime(future.read_text(encoding="utf-8").splitlines(), format="ISO8601")
            )
            texts[Path("calendars", "day_future.txt")] = _iso(
                frame.calendar.append(days[days > frame.calendar[-1]])
            )

    def leave_out(relative: Path) -> bool:
        return (
            relative in texts
            or (relative.parent in rewritten and relative.name.endswith(SUFFIX))
            or (len(relative.parts) == 1 and relative.name in CACHES)
        )

    copy_store(root, new, leave_out=leave_out)
    for path, lines in texts.items():
        (new / path).write_text("".join(line + "\n" for line in lines), encoding="utf-8", newline="\n")
    for done, (code, cells) in enumerate(plan.cells.items()):
        folder = frame.folders.get(code)
        target = new / "features" / (code_to_fname(code).lower() if folder is None else folder.name)
        target.mkdir(exist_ok=True)
        for name, start, values in InstrumentBins(folder, frame.fields, frame.known).with_cells(cells):
            np.concatenate([np.array([start], dtype="<f4"), values]).tofile(target / (name + SUFFIX))
        if progress is not None:
            progress(done + 1, len(plan.cells), "writing")
