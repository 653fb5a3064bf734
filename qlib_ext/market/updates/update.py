"""Add the days, and the stocks, that a source has beyond a store."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pandas as pd
from qlib.utils import code_to_fname

from qlib_ext.checks import one_of
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.import_settings import FILE, ImportSettings
from qlib_ext.market.importing.ingest import read_bars
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.progress import Progress
from qlib_ext.market.replace import Lock, copy_store, locked, recover
from qlib_ext.market.store import SUFFIX, QlibStore, read_calendar, write_lines
from qlib_ext.market.updates.comparison import Plan, Revision, compare_bars
from qlib_ext.market.updates.frame import Frame
from qlib_ext.market.updates.instrument_bins import InstrumentBins
from qlib_ext.market.updates.open_spells import UNIVERSES, extended_memberships

CACHES = ("features_cache", "dataset_cache")  # of Qlib: made of the old bars


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
    late: int = 0,
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
    late
        So many last days of the store may get bars that it has nothing of: a vendor gave them after those of other stocks.
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
            lock,
            bars,
            settings or bars.settings or ImportSettings(),
            revise,
            allow_gap,
            universes,
            progress,
            late,
        )


def _update(
    lock: Lock,
    bars: Bars,
    settings: ImportSettings,
    revise: bool,
    allow_gap: bool,
    universes: str,
    progress: Progress | None,
    late: int = 0,
) -> Update:
    one_of("universes", universes, UNIVERSES)
    store = QlibStore(lock.root)
    notes = Notes()
    frame = Frame(store, bars, settings, allow_gap, notes, late)
    plan = compare_bars(bars, frame, revise, notes, progress)
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


def _write(
    root: Path,
    new: Path,
    frame: Frame,
    plan: Plan,
    memberships: Mapping[Path, list[str]],
    progress: Progress | None,
) -> None:
    """Fill the new version: what changes is written, the rest shared."""
    rewritten = {Path("features", frame.folders[code].name) for code in plan.cells if code in frame.folders}
    texts = dict(memberships)
    if len(frame.added):
        days = {"day.txt": frame.calendar}
        future = root / "calendars" / "day_future.txt"
        if future.is_file():  # Qlib's: the same days, and those that are known to come
            known = read_calendar(future)
            days["day_future.txt"] = frame.calendar.append(known[known > frame.calendar[-1]])
        texts |= {Path("calendars", name): list(of.strftime("%Y-%m-%d")) for name, of in days.items()}

    def leave_out(relative: Path) -> bool:
        return (
            relative in texts
            or (relative.parent in rewritten and relative.name.endswith(SUFFIX))
            or (len(relative.parts) == 1 and relative.name in CACHES)
        )

    copy_store(root, new, leave_out=leave_out)
    for path, lines in texts.items():
        write_lines(new / path, lines)
    for done, (code, cells) in enumerate(plan.cells.items()):
        folder = frame.folders.get(code)
        target = new / "features" / (code_to_fname(code).lower() if folder is None else folder.name)
        target.mkdir(exist_ok=True)
        for name, start, values in InstrumentBins(folder, frame.fields, frame.known).with_cells(cells):
            np.concatenate([np.array([start], dtype="<f4"), values]).tofile(target / (name + SUFFIX))
        if progress is not None:
            progress(done + 1, len(plan.cells), "writing")
