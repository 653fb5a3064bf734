"""A repaired copy of a store: what is safe to mend is mended, everything else is left for a person.

Safe is what loses nothing that anybody could use, and needs no guess: names, order, doubled rows, numbers that are no
prices, and what can be computed from the rest. A wrong price, a missing day or a factor on the wrong date is not
touched: the right number is not in the store.
"""

from __future__ import annotations

import filecmp
import shutil
from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.files import read_bytes
from qlib_ext.market.finding import Finding, Findings, QualityReport
from qlib_ext.market.progress import Progress
from qlib_ext.market.quality import universes
from qlib_ext.market.quality.calendar import FILE as CALENDAR
from qlib_ext.market.quality.calendar import compare
from qlib_ext.market.quality.check import KINDS, check_store
from qlib_ext.market.quality.prices import unit_of_change
from qlib_ext.market.quality.series import Series
from qlib_ext.market.quality.source import (
    FIELDS,
    PRICES,
    Bin,
    Block,
    Folder,
    Membership,
    Source,
    Spell,
    read_bin,
)
from qlib_ext.market.replace import check_place, copy_store, replaced
from qlib_ext.market.store import LIST_SIZE

# What makes `all.txt` another list than that of the bars.
ALL_KINDS = ("all-missing", "all-without-bars", "all-lacks-stock", "all-range")


@dataclass(frozen=True)
class Repair:
    """What was done.

    Attributes
    ----------
    out : str
        The new store.
    done : tuple of str
        What was mended, in counted sentences.
    before, after : QualityReport
        Of the old store and of the new one.
    """

    out: str
    done: tuple[str, ...]
    before: QualityReport
    after: QualityReport

    @property
    def mended(self) -> list[Finding]:
        """Findings of the old store that the new one does not have."""
        still = {_key(finding) for finding in self.after.findings}
        return [finding for finding in self.before.findings if _key(finding) not in still]

    @property
    def left(self) -> list[Finding]:
        """Findings of the new store: what was not touched, and what mending has brought to light."""
        return list(self.after.findings)

    def to_json(self) -> dict[str, Any]:
        """Both audits and what was done, for `json.dumps`."""
        return {
            "out": self.out,
            "done": list(self.done),
            "mended": [asdict(finding) for finding in self.mended],
            "before": self.before.to_json(),
            "after": self.after.to_json(),
        }


def _key(finding: Finding) -> tuple[str, str, str]:
    """Kind and place; a folder that was renamed is the same place."""
    return finding.kind, (finding.file or "").lower(), finding.instrument or ""


def check_out(root: str | Path, out: str | Path) -> None:
    """Check, before any long work, that a repaired store may be written to `out`.

    Raises
    ------
    UserError
        If `out` is something else than a new or an empty directory, or lies in the store.
    """
    source, target = (Path(path).expanduser().resolve() for path in (root, out))
    if target == source or source in target.parents:
        raise UserError(
            f"`--fix` writes a new store and leaves the old one as it is; `{out}` lies in `{root}`, name another place"
        )
    if target.exists() and (not target.is_dir() or any(target.iterdir())):
        raise UserError(
            f"`--fix` must name a new or an empty directory, found something at `{out}`; nothing was written"
        )
    check_place(target)


def repair(
    root: str | Path,
    out: str | Path,
    before: QualityReport,
    *,
    universe: str | None = None,
    benchmark: str | None = None,
    progress: Progress | None = None,
) -> Repair:
    """Write a new store with what is safe to mend, and audit it. The old store is only read.

    Parameters
    ----------
    root
        The store.
    out
        A new or an empty directory. It shares no file with the old store.
    before
        The audit of the old store.
    universe, benchmark, progress
        As `audit` takes them.

    Raises
    ------
    UserError
        If `out` cannot be written there, or something in the store is neither a file nor a directory.
    """
    check_out(root, out)
    source = Source(Path(root).expanduser())
    with replaced(out) as made, np.errstate(all="ignore"):
        work = _Work(source, made, before)
        work.run(progress)
    after = check_store(out, universe=universe, benchmark=benchmark, progress=progress)
    return Repair(str(out), tuple(work.sentences()), before, after)


@dataclass
class _CalendarPlan:
    """Where each line of the old calendar goes.

    Attributes
    ----------
    days : datetime64[D]
        The new calendar.
    position : int [old D]
        Of each old line in the new calendar, -1 for one that is taken out.
    moved : bool
        Whether any bar has to be written anew for it.
    """

    days: np.ndarray
    position: np.ndarray
    moved: bool

    def move(self, row: np.ndarray, start: int, stop: int) -> tuple[np.ndarray, tuple[int, int]]:
        """Values `[old D]` of a file from `start` to before `stop`, on the new calendar `[D]`, and their new range."""
        new = np.full(len(self.days), np.nan, dtype=np.float32)
        position, values = self.position[start:stop], row[start:stop]
        kept = position >= 0
        there = kept & ~np.isnan(values)
        new[position[there]] = values[there]
        span = (int(position[kept].min()), int(position[kept].max()) + 1) if kept.any() else (0, 1)
        return new, span


@dataclass
class _Work:
    """One repair: what is left out of the copy, what is written anew, and what is said of it."""

    source: Source
    made: Path
    before: QualityReport
    _left_out: set[str] = field(default_factory=set)
    _done: Counter[str] = field(default_factory=Counter)
    _texts: dict[str, str] = field(default_factory=dict)
    _bars: dict[str, np.ndarray] = field(default_factory=dict)
    _renamed: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        source = self.source
        self._taken = {folder.path.name for folder in source.folders} | {name for name, _ in source.twice}

    def run(self, progress: Progress | None) -> None:
        self._plan_names()
        calendar = self._plan_calendar()
        for membership in self.source.memberships:
            self._mend_membership(membership, calendar)
        left_out = self._left_out
        features = {f"features/{folder.path.name}" for folder in self.source.folders if folder.bins}
        copy_store(
            self.source.root,
            self.made,
            leave_out=lambda relative: (
                relative.as_posix() in left_out
                or relative.as_posix() in features
                or relative.as_posix() in self._texts
            ),
            links=False,  # the two stores go their own ways: software that appends in place must not reach both
        )
        for file, text in self._texts.items():
            path = self.made / self._renamed.get(file, file)
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8", newline="\n")
        folders = [folder for folder in self.source.folders if folder.bins]
        for done, folder in enumerate(folders, start=1):
            self._write_folder(folder, calendar)
            if progress is not None:
                progress(done, len(folders), "stocks written")
        self._write_all()

    def sentences(self) -> list[str]:
        """What was done, and how often."""
        return [f"{what}: {count:,}" for what, count in self._done.items()]

    def _plan_names(self) -> None:
        """Folders and files that lie where none belongs, or whose name only differs in case."""
        source = self.source
        for stray in source.top_strays:
            self._leave_out(stray, "stray files left out")
        for folder in source.folders:
            if not folder.bins:
                self._leave_out(f"features/{folder.path.name}", "folders without bars left out")
        by_name = {folder.path.name: folder for folder in source.folders}
        for name, kept in source.twice:
            if _same_files(source.root / "features" / name, by_name[kept].path):
                self._leave_out(f"features/{name}", "folders left out that another one doubles")
        names = {membership.file for membership in source.memberships}
        for membership in source.memberships:
            lower = membership.file.lower()
            if lower != membership.file and lower not in names:
                self._renamed[membership.file] = lower
                self._done["files renamed to lower case"] += 1
                self._texts.setdefault(membership.file, self._original(membership.file))

    def _leave_out(self, file: str, sentence: str) -> None:
        self._left_out.add(file)
        self._done[sentence] += 1

    def _original(self, file: str) -> str:
        content = read_bytes(self.source.root / file, LIST_SIZE)
        return content.decode("utf-8", errors="surrogateescape")

    def _plan_calendar(self) -> _CalendarPlan | None:
        """The new calendar; None where the old one cannot be mended, or there is none."""
        source = self.source
        if source.calendar_problem is not None or not source.lines or np.isnat(source.days).any():
            return None
        days = source.days
        compared = compare(days, source.exchange)
        closed = np.concatenate([compared.weekends, compared.extra if compared.known else compared.extra[:0]])
        unsorted, doubled = bool((np.diff(days).astype(int) < 0).any()), len(np.unique(days)) < len(days)
        if unsorted or doubled or closed.size:
            busy, clashes, sound = self._scan_bars(days)
            removable = np.setdiff1d(closed, days[busy]) if sound else closed[:0]
            if not sound or clashes:
                return self._written(_CalendarPlan(days, np.arange(len(days)), False))
            new = np.setdiff1d(np.unique(days), removable)
            position = np.searchsorted(new, days)
            position[np.isin(days, removable)] = -1
            moved = len(new) < len(days) or bool((position != np.arange(len(days))).any())
            if unsorted:
                self._done["days of the calendar put in order, and the bars with them"] = len(new)
            if doubled:
                self._done["doubled days joined"] = len(days) - len(np.unique(days))
            if removable.size:
                self._done[
                    "days without any bar taken out of the calendar, on which the exchange was closed"
                ] = len(removable)
            return self._written(_CalendarPlan(new, position, moved))
        return self._written(_CalendarPlan(days, np.arange(len(days)), False))

    def _written(self, plan: _CalendarPlan) -> _CalendarPlan:
        odd = len(self.source.plain) - sum(self.source.plain)
        if odd:
            self._done["days of the calendar written as YYYY-MM-DD"] = odd
        if odd or plan.moved:
            self._texts[CALENDAR] = "".join(f"{day}\n" for day in plan.days)
        return plan

    def _scan_bars(self, days: np.ndarray) -> tuple[np.ndarray, bool, bool]:
        """Lines of the calendar on which any file has a value, whether doubled days clash, and whether all is placed."""
        busy = np.zeros(len(days), dtype=bool)
        _, group = np.unique(days, return_inverse=True)
        doubled = np.flatnonzero(np.bincount(group) > 1)
        lines = [np.flatnonzero(group == number) for number in doubled]
        row = np.empty(len(days), dtype=np.float32)
        for folder in self.source.folders:
            for file in folder.bins.values():
                row.fill(np.nan)
                of_file = read_bin(folder.path / file, len(days), row)
                if of_file.problem is not None and of_file.problem[0] != "bin-empty":
                    return busy, False, False
                busy |= ~np.isnan(row)
                for same in lines:
                    values = row[same]
                    if len(np.unique(values[~np.isnan(values)])) > 1:
                        return busy, True, True
        return busy, False, True

    def _write_folder(self, folder: Folder, calendar: _CalendarPlan | None) -> None:
        """The files of one stock: copied where nothing changes, else written anew."""
        source = self.source
        name = folder.path.name
        lower = name.lower()
        if lower != name and lower not in self._taken:
            self._done["folders renamed to lower case"] += 1
        else:
            lower = name
        target = self.made / "features" / lower
        strays = {*folder.strays}
        if strays:
            self._done["stray files left out"] += len(strays)
        block = source.read([folder])
        bins = block.bins[0]
        changed = self._mend_values(block)
        empty = {file for key, file in folder.bins.items() if _is_empty(bins[key].problem)}
        if empty:
            self._done["files of bars without a value left out"] += len(empty)
        rewritten = {folder.bins[key] for key in changed}
        if calendar is not None and calendar.moved:
            rewritten |= {file for key, file in folder.bins.items() if bins[key].placed}
        names = {entry.name for entry in source.entries(folder.path)}
        renamed = {file: file.lower() for file in folder.misnamed if file.lower() not in names}
        self._done["files renamed to lower case"] += len(renamed)
        skipped = strays | empty | rewritten | set(renamed)
        copy_store(folder.path, target, leave_out=lambda relative: str(relative) in skipped, links=False)
        contents = self._contents(folder, bins, changed, calendar)
        for key, file in folder.bins.items():
            if file in rewritten:
                (target / renamed.get(file, file)).write_bytes(contents[key])
        for file, new in renamed.items():
            if file not in rewritten and file not in empty:
                shutil.copyfile(folder.path / file, target / new)
        self._done = +self._done  # what happened no times is not told

    def _contents(
        self,
        folder: Folder,
        bins: Mapping[str, Bin],
        changed: Mapping[str, np.ndarray],
        calendar: _CalendarPlan | None,
    ) -> dict[str, bytes]:
        """Field to the new content of its file, of every file that could be placed."""
        rows, spans = {}, {}
        for key, file in folder.bins.items():
            if not bins[key].placed:
                continue
            rows[key] = changed.get(key, np.full(len(self.source.days), np.nan, dtype=np.float32))
            if key not in changed:
                read_bin(folder.path / file, len(self.source.days), rows[key])
            spans[key] = (bins[key].start, bins[key].stop)
        if calendar is not None and calendar.moved:
            together = len(set(spans.values())) == 1
            for key, row in rows.items():
                rows[key], spans[key] = calendar.move(row, *spans[key])
            # Fields that stood on the same days do so again, from the first value to the last one.
            if together:
                there = np.flatnonzero(np.any([~np.isnan(row) for row in rows.values()], axis=0))
                span = (int(there[0]), int(there[-1]) + 1) if there.size else (0, 1)
                spans = dict.fromkeys(spans, span)
        return {
            key: np.concatenate([[spans[key][0]], row[slice(*spans[key])]]).astype("<f4").tobytes()
            for key, row in rows.items()
        }

    def _mend_values(self, block: Block) -> dict[str, np.ndarray]:
        """Field to its new values float32 `[D]`, for the fields of the one stock of `block` that change."""
        changed: dict[str, np.ndarray] = {}
        for name, of_file in block.bins[0].items():
            if name not in FIELDS or not of_file.placed or of_file.problem is not None:
                continue
            values = block.values[name][0]
            infinite = np.isinf(values)
            negative = (values < 0) & ~infinite & (name != "change")
            zero = (values == 0) & (name in (*PRICES, "factor"))
            for wrong, what in ((infinite, "infinite"), (negative, "negative"), (zero, "zero")):
                if wrong.any():
                    self._done[f"{what} values of `{name}` replaced by NaN"] += int(wrong.sum())
                    values[wrong] = np.nan
                    changed[name] = values
        if "change" in block.values:
            percent, _ = unit_of_change(
                block.values["change"].astype(np.float64), np.expm1(Series(block).log_return)
            )
            if percent[0]:
                self._done["stocks whose `change` was divided by 100, from percent to a fraction"] += 1
                changed["change"] = block.values["change"][0] / np.float32(100)
        return changed

    def _mend_membership(self, membership: Membership, calendar: _CalendarPlan | None) -> None:
        """Rows of one universe, in their order; rows that cannot be understood stay as they are."""
        if membership.problem is not None or not membership.spells:
            return
        days = None if calendar is None or not len(calendar.days) else calendar.days
        spells = {spell.line: spell for spell in membership.spells if spell.start <= spell.end}
        done: Counter[str] = Counter()
        by_code: dict[str, list[Spell]] = defaultdict(list)
        for spell in spells.values():
            by_code[spell.code].append(spell)
        rows: dict[int, Spell] = {}
        for of_code in by_code.values():
            for spell in _merged(of_code, done):
                clipped = _clipped(spell, days, done)
                if clipped is not None:
                    rows[spell.line] = clipped
        done["rows whose code was written in upper case"] += len(membership.lower)
        done["rows written with tabs"] += len(membership.separated)
        done["rows whose days were written as YYYY-MM-DD"] += len(membership.oddly_dated)
        done = +done
        if not done:
            return
        lines = []
        for number, line in enumerate(self._original(membership.file).splitlines(), start=1):
            if number not in spells:
                lines.append(line)
            elif number in rows:
                spell = rows[number]
                rest = line.split("\t")[3:] if line.count("\t") >= 3 else []
                lines.append("\t".join([spell.code, str(spell.start), str(spell.end), *rest]))
        self._texts[membership.file] = "".join(line + "\n" for line in lines if line.strip())
        self._done.update(done)

    def _write_all(self) -> None:
        """`all.txt` from the bars of the new store, where the old one has another list."""
        if not any(self.before.of(kind) for kind in ALL_KINDS):
            return
        new = Source(self.made)
        if np.isnat(new.days).any() or not len(new.days):
            return
        first: dict[str, int] = {}
        stop: dict[str, int] = {}
        for block in new.blocks():
            valid = Series(block).valid
            for row in np.flatnonzero(valid.any(axis=1)).tolist():
                there = np.flatnonzero(valid[row])
                first[block.codes[row]], stop[block.codes[row]] = int(there[0]), int(there[-1]) + 1
        # A calendar in order may have mended it already.
        found = Findings(KINDS)
        folders = {folder.code: folder.path.name for folder in new.folders if folder.bins}
        universes.UniverseChecks(new, found, first, stop, folders).check(universes.ALL)
        if first and any(finding.kind in ALL_KINDS for finding in found.sorted()):
            path = self.made / universes.ALL_FILE
            path.parent.mkdir(exist_ok=True)
            path.unlink(missing_ok=True)
            rows = (
                f"{code}\t{new.days[first[code]]}\t{new.days[stop[code] - 1]}\n" for code in sorted(first)
            )
            path.write_text("".join(rows), encoding="utf-8", newline="\n")
            self._done["instruments in `all.txt`, written from the bars"] = len(first)


def _merged(spells: list[Spell], done: Counter[str]) -> list[Spell]:
    """The spells of one stock, doubled ones once and overlapping ones joined; each at the line of its first row."""
    result: list[Spell] = []
    for spell in sorted(spells, key=lambda spell: (spell.start, spell.line)):
        if result and spell.start <= result[-1].end:
            last = result[-1]
            if (spell.start, spell.end) == (last.start, last.end):
                done["doubled rows left out"] += 1
            else:
                done["overlapping spells joined"] += 1
            result[-1] = Spell(last.line, last.code, last.start, max(last.end, spell.end))
        else:
            result.append(spell)
    return result


def _clipped(spell: Spell, days: np.ndarray | None, done: Counter[str]) -> Spell | None:
    """The part of a spell within the calendar, None where there is none."""
    if days is None:
        return spell
    if spell.end < days[0] or spell.start > days[-1]:
        done["spells outside of the calendar left out"] += 1
        return None
    start, end = max(spell.start, days[0]), min(spell.end, days[-1])
    if (start, end) != (spell.start, spell.end):
        done["spells clipped to the calendar"] += 1
    return Spell(spell.line, spell.code, start, end)


def _is_empty(problem: tuple[str, str] | None) -> bool:
    return problem is not None and problem[0] == "bin-empty"


def _same_files(one: Path, other: Path) -> bool:
    """Whether two folders hold the same files, byte for byte; names may differ in case."""
    first = {path.name.lower(): path for path in one.iterdir()}
    second = {path.name.lower(): path for path in other.iterdir()}
    if first.keys() != second.keys() or not all(
        path.is_file() for path in [*first.values(), *second.values()]
    ):
        return False
    return all(filecmp.cmp(first[name], second[name], shallow=False) for name in first)
