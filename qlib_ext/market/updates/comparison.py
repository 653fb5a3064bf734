"""Every instrument of a source held against the store: what contradicts, what is new, what is to be written."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.progress import Progress
from qlib_ext.market.updates.frame import Frame
from qlib_ext.market.updates.instrument_bins import InstrumentBins
from qlib_ext.market.updates.overlap import NotProportionalError, Overlap, compare

NAMED = 5  # contradictions that a message names
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


@dataclass
class Plan:
    """What is to be written: for each instrument and field the places in the new calendar, and the values."""

    cells: dict[str, dict[str, tuple[np.ndarray, np.ndarray]]] = field(default_factory=dict)
    spans: dict[str, tuple[int, int]] = field(default_factory=dict)  # first day, day after the last
    new: list[str] = field(default_factory=list)
    rows: int = 0
    revisions: list[Revision] = field(default_factory=list)
    scales: dict[str, float] = field(default_factory=dict)


def compare_bars(bars: Bars, frame: Frame, revise: bool, notes: Notes, progress: Progress | None) -> Plan:
    """Hold every instrument of the bars against the store."""
    plan = Plan()
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
    late : bool array [common]
        Rows of the store's last days that are added to them.
    bins : InstrumentBins or None
        None for a new instrument.
    overlap : Overlap
        Of the first `common` rows, once it was compared.
    """

    overlap: Overlap

    def __init__(self, code: str, source: dict[str, np.ndarray], present: np.ndarray, frame: Frame):
        self.code, self.source, self.present, self.frame = code, source, present, frame
        self.late = np.zeros(frame.common, dtype=bool)
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
        had = np.logical_or.reduce([np.isfinite(values) for values in self.old.values()])
        self.late = self.present[:common] & ~had & (positions >= self.frame.known - self.frame.late)
        for lacking in self.overlap.lacking.values():
            lacking[self.late] = False
        late = (f"{self.code} {self._day(int(row))}" for row in np.flatnonzero(self.late))
        notes.add("{bar} of a day of the store that came late: added", self.late.sum(), late)
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
        """Rows that the store has no day for, or not this instrument, or that came late: bool [n]."""
        if self.bins is None:
            return self.present
        new = self.present.copy()
        new[: self.frame.common] = self.late
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
        if self.overlap.days == 0 and way in ("actions", "change"):
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

    def plan(self, plan: Plan, revise: bool) -> None:
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
