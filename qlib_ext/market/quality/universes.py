"""Membership files: rows that cannot be, codes without bars, and sizes by day."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Mapping

import numpy as np

from qlib_ext.checks import brief
from qlib_ext.market.codes import is_index
from qlib_ext.market.finding import Findings, Kind, listed
from qlib_ext.market.quality.source import Membership, Source, Spell
from qlib_ext.market.store import SAMPLE

ALL, ALL_FILE = "all", "instruments/all.txt"
# Members that a universe of this name has by its own rules, in US indices with the usual few share classes that are
# listed apart. What `universes.json` says comes first.
NOMINAL_SIZES: Mapping[str, int] = {
    "sse50": 50, "sse180": 180, "szse100": 100,
    "csi100": 100, "csi300": 300, "csi500": 500, "csi800": 800, "csi1000": 1000, "csi2000": 2000,
    "dow30": 30, "djia": 30, "nasdaq100": 103, "sp100": 101, "sp500": 503, "russell1000": 1000, "russell2000": 2000,
}  # fmt: skip
# Real indices are a few members off between reviews.
SIZE_TOLERANCE, SIZE_DAYS = 0.05, 0.05
# A review changes members, not their number.
SIZE_JUMP, SIZE_JUMP_MEMBERS = 0.10, 5
# Of a hundred firms about three a year are delisted or bought, and more are taken out of an index: in so many years,
# added up over the members, somebody leaves.
SURVIVORS_YEARS = 60
# Lists of stocks with a status, such as ST, name few, and sometimes none.
_OF_A_STATUS = re.compile(r"(^|[^a-z])(st|status|suspended|paused)($|[^a-z])")
# A stock may be suspended when the bars begin or end, and few suspensions last longer than a year of trading.
BEYOND_BARS_DAYS = 250
COVERAGE = 0.95

KINDS = (
    Kind("universe-missing", "error", "the universe that was asked for is not there", "the workflow has no stocks"),
    Kind("universe-empty", "error", "a universe has no usable row", "the workflow has no stocks"),
    Kind("membership-incomplete", "error", "a row of a universe has fewer than three columns",
         "Qlib reads it as a member without end, or fails"),
    Kind("membership-separator", "error", "the columns of a row are not parted by tabs",
         "Qlib reads the row as one code", "writes tabs"),
    Kind("membership-date", "error", "a first or last day of a row is no day", "Qlib fails on it, or reads no end"),
    Kind("membership-date-format", "warning", "a day of a row is not written YYYY-MM-DD",
         "software that compares days as text goes wrong", "writes it as YYYY-MM-DD"),
    Kind("membership-reversed", "error", "a membership ends before it begins", "the stock is no member on any day"),
    Kind("membership-overlap", "warning", "two spells of one stock overlap",
         "software that counts rows counts the stock twice", "joins them"),
    Kind("membership-doubled-row", "warning", "a row is there twice",
         "software that counts rows counts the stock twice", "keeps one"),
    Kind("membership-lower-case", "warning", "a code has lower-case letters",
         "the same stock has two names across universes, and joins lose it", "writes the code in upper case"),
    Kind("membership-without-bars", "warning", "a member has no bars",
         "it is left out in silence; where delisted firms lack bars, results are those of survivors"),
    Kind("universe-without-bars", "error", "no member of a universe has bars",
         "codes are written another way than the folders, and the workflow has no stocks"),
    Kind("membership-beyond-bars", "warning",
         f"a stock is a member for {BEYOND_BARS_DAYS} trading days or more before its first or after its last bar",
         "bars are lost, or the membership did not end with the firm"),
    Kind("membership-outside-calendar", "warning", "a membership lies before or after the whole calendar",
         "it has no day in this store", "takes the row out"),
    Kind("membership-open-ended", "note", "a membership begins before the calendar or ends after it",
         "harmless; dates such as 2099-12-31 stand for members of today", "clips it to the calendar"),
    Kind("index-in-universe", "warning", "an index is a member of a universe of stocks",
         "it would be ranked and traded like a stock"),
    Kind("universe-size", "warning",
         f"a universe has another size than its nominal one, by more than {SIZE_TOLERANCE:.0%}",
         "members are missing, or past ones still in; results are not those of the index"),
    Kind("universe-size-jump", "warning",
         f"the size of a universe changes by more than {SIZE_JUMP:.0%} from a day to the next",
         "a review was applied by half"),
    Kind("universe-survivors", "warning",
         f"no member of a universe ever leaves, over at least {SURVIVORS_YEARS} years of membership added up",
         "it is a list of survivors: whoever picks among them knows that none fails, and results are too good"),
    Kind("universe-empty-day", "error", "a universe has no member on a day between others",
         "the day has no ranks and no trades"),
    Kind("universe-range", "warning", "a universe has no member at the beginning or the end of the calendar",
         "the membership file is older or younger than the bars, and those days have no stocks"),
    Kind("universe-coverage", "warning", f"on some day fewer than {COVERAGE:.0%} of the members have bars then",
         "the universe is another one than its name says"),
    Kind("all-missing", "warning", "there is no `all.txt`, or no usable row in it",
         "Qlib's default universe is missing", "writes it from the bars"),
    Kind("all-without-bars", "warning", "`all.txt` lists a code that has no bars",
         "Qlib loads it, finds nothing and says nothing", "writes `all.txt` from the bars"),
    Kind("all-lacks-stock", "warning", "`all.txt` lacks a stock that has bars",
         "the stock is invisible in the universe `all`", "writes `all.txt` from the bars"),
    Kind("all-range", "warning", "`all.txt` has other days for a stock than its bars",
         "bars outside are never read, days without bars are read as missing", "writes `all.txt` from the bars"),
)  # fmt: skip


def nominal_sizes(source: Source) -> dict[str, int]:
    """Universe to the number of members that it should have; universes of no known size are left out.

    The universes of a sample market scale with its number of firms: their names say nothing of their size.
    """
    sizes = {} if (source.root / SAMPLE).exists() else dict(NOMINAL_SIZES)
    recorded, _ = source.metadata("universes.json")
    if isinstance(recorded, dict):
        for name, said in recorded.items():
            size = said.get("size") if isinstance(said, dict) else None
            if isinstance(size, int) and not isinstance(size, bool) and size > 0:
                sizes[name] = size
            else:
                sizes.pop(name, None)
    return sizes


class UniverseChecks:
    """Memberships, after the bars have been read.

    Parameters
    ----------
    source, found
        What is checked, and where findings go.
    first, stop
        Code to its first day with a close, and the day after its last one; codes without a close are missing.
    folders
        Code to the name of its folder, of those that have files of bars.
    """

    def __init__(
        self,
        source: Source,
        found: Findings,
        first: Mapping[str, int],
        stop: Mapping[str, int],
        folders: Mapping[str, str],
    ):
        self._source = source
        self._found = found
        self._first, self._stop = first, stop
        self._folders = folders
        self._sizes = nominal_sizes(source)
        days = source.days
        # Spells are put on the calendar by bisection, which an unsorted one does not allow: its days in order then.
        self._days = np.unique(days[~np.isnat(days)])
        self._position = np.where(np.isnat(days), -1, np.searchsorted(self._days, days))
        self._in_order = bool((np.diff(self._position) > 0).all()) and len(self._days) == len(days)

    def check(self, universe: str | None) -> None:
        """Every universe, or one."""
        known = {membership.name.lower(): membership for membership in self._source.memberships}
        if universe is not None and universe.lower() not in known:
            message = f"there is no universe `{universe}`; there are {listed(sorted(known), 10) or 'none'}"
            self._found.add("universe-missing", message, f"instruments/{universe.lower()}.txt")
        for name, membership in known.items():
            if universe is None or name == universe.lower():
                self._check_rows(membership)
                if name == ALL:
                    self._check_all(membership)
                else:
                    self._check_members(membership)
                self._check_sizes(membership)
        if self._folders and universe in (None, ALL) and (ALL not in known or not known[ALL].spells):
            state = "has no usable row" if ALL in known else "is missing"
            self._found.add("all-missing", f"{ALL_FILE} {state}", file=ALL_FILE)

    def _check_rows(self, membership: Membership) -> None:
        found, file = self._found, membership.file
        if membership.problem is not None:
            found.add("unreadable-file", f"{file} {membership.problem}", file=file)
        for kind, rows, what in (
            ("membership-incomplete", membership.short, "which is less than code, first and last day"),
            ("membership-date", membership.undated, "of which a day is none"),
            ("membership-separator", membership.separated, "without tabs"),
            ("membership-date-format", membership.oddly_dated, "whose days are not written YYYY-MM-DD"),
        ):
            if rows:
                line, text = rows[0]
                message = f"line {line} of {file} is {text[:60]!r}, {what}" + (
                    f", and {len(rows)} such lines in all" if len(rows) > 1 else ""
                )
                found.add(
                    kind, message, file, text.split("\t")[0].strip().upper()[:20] or None, count=len(rows)
                )
        if membership.lower:
            line, code = membership.lower[0]
            message = f"line {line} of {file} has the code {brief(code)}" + (
                f", and {len(membership.lower)} such lines in all" if len(membership.lower) > 1 else ""
            )
            found.add("membership-lower-case", message, file, code.upper(), count=len(membership.lower))
        if not membership.spells:
            if membership.problem is None or not membership.problem.startswith("cannot"):
                found.add("universe-empty", f"{file} has no usable row", file=file)
            return
        by_code: dict[str, list[Spell]] = defaultdict(list)
        for spell in membership.spells:
            by_code[spell.code].append(spell)
        for code, spells in by_code.items():
            self._check_spells(file, code, spells)

    def _check_spells(self, file: str, code: str, spells: list[Spell]) -> None:
        """The rows of one stock."""
        found = self._found
        reversed_ = [spell for spell in spells if spell.start > spell.end]
        if reversed_:
            first = reversed_[0]
            message = f"{file}: {code} from {first.start} to {first.end} (line {first.line})"
            found.add("membership-reversed", message, file, code, first.start, len(reversed_))
        rows = Counter((spell.start, spell.end) for spell in spells)
        twice = [span for span, count in rows.items() if count > 1]
        if twice:
            start, end = twice[0]
            message = f"{file}: {code} from {start} to {end} is there {rows[start, end]} times"
            found.add(
                "membership-doubled-row",
                message,
                file,
                code,
                start,
                sum(count - 1 for count in rows.values()),
            )
        ordered = sorted(span for span in rows if span[0] <= span[1])
        reach, overlaps = None, []
        for start, end in ordered:
            if reach is not None and start <= reach:
                overlaps.append((start, min(end, reach)))
            reach = end if reach is None else max(reach, end)
        if overlaps:
            start, end = overlaps[0]
            message = f"{file}: {code} is a member twice from {start} to {end}"
            found.add("membership-overlap", message, file, code, start, len(overlaps))
        if not len(self._days):
            return
        begin, finish = self._days[0], self._days[-1]
        outside = [span for span in ordered if span[1] < begin or span[0] > finish]
        if outside:
            start, end = outside[0]
            message = f"{file}: {code} from {start} to {end}, the calendar is from {begin} to {finish}"
            found.add("membership-outside-calendar", message, file, code, start, len(outside))

    def _spans(self, membership: Membership) -> dict[str, list[tuple[int, int]]]:
        """Code to its spells as positions, first and one after the last, of those that have any day."""
        result: dict[str, list[tuple[int, int]]] = defaultdict(list)
        for spell in membership.spells:
            first = int(np.searchsorted(self._days, spell.start, side="left"))
            stop = int(np.searchsorted(self._days, spell.end, side="right"))
            if first < stop:
                result[spell.code].append((first, stop))
        return result

    def _range_of(self, code: str) -> tuple[int, int] | None:
        """Positions of a stock's first close and after its last one among the days in order; None without any."""
        if code not in self._first:
            return None
        first, stop = self._first[code], self._stop[code]
        if self._in_order:
            return first, stop
        positions = self._position[first:stop]
        positions = positions[positions >= 0]
        return (int(positions.min()), int(positions.max()) + 1) if positions.size else None

    def _check_members(self, membership: Membership) -> None:
        """The members of a universe against the stocks that have bars."""
        found, file = self._found, membership.file
        codes = list(membership.codes)
        without = [code for code in codes if code not in self._folders]
        if codes and self._folders and len(without) == len(codes):
            message = (
                f"none of the {len(codes)} codes of {file} has bars: they look like {codes[0]}, those with bars like "
                f"{next(iter(self._folders))}"
            )
            found.add("universe-without-bars", message, file, codes[0], count=len(codes))
            return
        spans = self._spans(membership)
        for code in without:
            days = sum(stop - first for first, stop in spans.get(code, []))
            spell = next(spell for spell in membership.spells if spell.code == code)
            message = f"{file}: {code} has no bars, and is a member on {days} days"
            found.add("membership-without-bars", message, file, code, spell.start, max(1, days))
        indices = [code for code in codes if is_index(code)]
        for code in indices:
            found.add(
                "index-in-universe", f"{file}: {code} is the code of an index", file=file, instrument=code
            )
        for code, of_code in spans.items():
            bars = self._range_of(code)
            if bars is None:
                continue
            early = sum(max(0, min(stop, bars[0]) - first) for first, stop in of_code)
            late = sum(max(0, stop - max(first, bars[1])) for first, stop in of_code)
            parts = [
                f"{count} days {side}"
                for count, side in ((early, "before its first bar"), (late, "after its last bar"))
                if count >= BEYOND_BARS_DAYS
            ]
            if parts:
                at = of_code[0][0] if early >= BEYOND_BARS_DAYS else max(bars[1], of_code[-1][0])
                message = (
                    f"{file}: {code} is a member on {' and '.join(parts)} "
                    f"({self._days[bars[0]]} to {self._days[bars[1] - 1]})"
                )
                found.add(
                    "membership-beyond-bars",
                    message,
                    file,
                    code,
                    self._days[min(at, len(self._days) - 1)],
                    early + late,
                )

    def _check_all(self, membership: Membership) -> None:
        """`all.txt`, which should list what has bars, from the first to the last one."""
        found, file = self._found, membership.file
        spans = self._spans(membership)
        if not membership.spells:
            return
        for code in membership.codes:
            if code not in self._folders:
                found.add("all-without-bars", f"{file}: {code} has no bars", file=file, instrument=code)
        named = membership.codes
        for code in self._folders:
            bars = self._range_of(code)
            if code not in named:
                message = f"{file} lacks {code}"
                found.add(
                    "all-lacks-stock", message, file, code, None if bars is None else self._days[bars[0]]
                )
            elif bars is not None:
                of_code = spans.get(code, [])
                covered = (
                    (min(first for first, _ in of_code), max(stop for _, stop in of_code))
                    if of_code
                    else (0, 0)
                )
                lost = max(0, min(covered[0], bars[1]) - bars[0]) + max(0, bars[1] - max(covered[1], bars[0]))
                idle = max(0, bars[0] - covered[0]) + max(0, covered[1] - bars[1])
                if lost or idle >= BEYOND_BARS_DAYS:
                    says = (
                        f"{self._days[covered[0]]} to {self._days[covered[1] - 1]}" if of_code else "no day"
                    )
                    message = (
                        f"{file}: {code} has {says}, its closes are from {self._days[bars[0]]} to "
                        f"{self._days[bars[1] - 1]}"
                    )
                    found.add(
                        "all-range",
                        message,
                        file,
                        code,
                        self._days[bars[0] if covered[0] != bars[0] else bars[1] - 1],
                        lost + idle,
                    )

    def _check_sizes(self, membership: Membership) -> None:
        """Members by day, and how many of them have bars then, or had a year before or after."""
        found, file, name = self._found, membership.file, membership.name.lower()
        days = len(self._days)
        if not days or not membership.spells:
            return
        opened = [spell for spell in membership.spells if self._is_open_ended(spell)]
        if opened:
            first = opened[0]
            message = (
                f"{file}: {first.code} from {first.start} to {first.end}, the calendar is from {self._days[0]} to "
                f"{self._days[-1]}" + (f"; {len(opened)} such rows" if len(opened) > 1 else "")
            )
            found.add("membership-open-ended", message, file, first.code, first.start, len(opened))
        size, with_bars = np.zeros(days + 1, dtype=int), np.zeros(days + 1, dtype=int)
        for code, of_code in self._spans(membership).items():
            bars = self._range_of(code)
            for first_day, stop in _joined(of_code):
                size[first_day] += 1
                size[stop] -= 1
                if bars is not None:
                    begin = max(first_day, bars[0] - BEYOND_BARS_DAYS)
                    end = min(stop, bars[1] + BEYOND_BARS_DAYS)
                    if begin < end:
                        with_bars[begin] += 1
                        with_bars[end] -= 1
        size, with_bars = size.cumsum()[:-1], with_bars.cumsum()[:-1]
        there = np.flatnonzero(size)
        if not there.size:
            return
        begin, last = int(there[0]), int(there[-1])
        if _OF_A_STATUS.search(name):
            return
        self._check_survivors(membership, begin, last)
        empty = np.flatnonzero(size[begin : last + 1] == 0) + begin
        if empty.size:
            message = f"{file} has no member on {self._days[empty[0]]}" + (
                f", and on {empty.size} days in all" if empty.size > 1 else ""
            )
            found.add("universe-empty-day", message, file, date=self._days[empty[0]], count=empty.size)
        outside = begin + days - 1 - last
        if outside:
            message = (
                f"{file} has members from {self._days[begin]} to {self._days[last]}, the calendar days from "
                f"{self._days[0]} to {self._days[-1]}"
            )
            found.add(
                "universe-range", message, file, date=self._days[0 if begin else last + 1], count=outside
            )
        inner = size[begin : last + 1]
        steps = np.abs(np.diff(inner))
        jumps = np.flatnonzero(
            (steps > SIZE_JUMP * np.maximum(inner[:-1], inner[1:]))
            & (steps > SIZE_JUMP_MEMBERS)
            & (inner[1:] > 0)
        )
        if jumps.size:
            at = int(jumps[0])
            message = (
                f"{file} has {inner[at]} members on {self._days[begin + at]} and {inner[at + 1]} on "
                f"{self._days[begin + at + 1]}" + (f"; {jumps.size} such jumps" if jumps.size > 1 else "")
            )
            found.add("universe-size-jump", message, file, date=self._days[begin + at + 1], count=jumps.size)
        self._check_nominal(file, name, inner, begin)
        if name != ALL and with_bars.any():
            few = np.flatnonzero(with_bars[begin : last + 1] < COVERAGE * inner)
            if few.size:
                at = begin + int(few[0])
                message = (
                    f"{file}: on {few.size} days fewer than {COVERAGE:.0%} of the members have bars; the median day has "
                    f"{np.median(inner):g} members and {np.median(with_bars[begin : last + 1]):g} with bars"
                )
                found.add("universe-coverage", message, file, date=self._days[at], count=few.size)

    def _check_survivors(self, membership: Membership, begin: int, last: int) -> None:
        """Whether every member is one to the last day of the universe."""
        spans = self._spans(membership)
        stays = [code for code, of_code in spans.items() if max(stop for _, stop in of_code) > last]
        years = sum(
            (self._days[stop - 1] - self._days[first]).astype(int)
            for of in spans.values()
            for first, stop in of
        )
        if membership.name.lower() != ALL and len(stays) == len(spans) and years > SURVIVORS_YEARS * 365:
            self._found.add(
                "universe-survivors",
                f"{membership.file}: all of its {len(spans)} codes are members to the last day, {self._days[last]}",
                file=membership.file,
                date=self._days[begin],
                count=len(spans),
            )

    def _check_nominal(self, file: str, name: str, sizes: np.ndarray, begin: int) -> None:
        nominal = self._sizes.get(name)
        if nominal is None:
            return
        off = np.flatnonzero(np.abs(sizes - nominal) > SIZE_TOLERANCE * nominal)
        if off.size > SIZE_DAYS * len(sizes):
            message = (
                f"{file} has {sizes[off[0]]} members on {self._days[begin + off[0]]} and {np.median(sizes):g} on the median "
                f"day, where {nominal} are expected"
            )
            self._found.add("universe-size", message, file, date=self._days[begin + off[0]], count=off.size)

    def _is_open_ended(self, spell: Spell) -> bool:
        begin, last = self._days[0], self._days[-1]
        inside = spell.start <= spell.end and spell.end >= begin and spell.start <= last
        return bool(inside and (spell.start < begin or spell.end > last))


def _joined(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans joined where they overlap or touch, in order."""
    result: list[tuple[int, int]] = []
    for first, stop in sorted(spans):
        if result and first <= result[-1][1]:
            result[-1] = (result[-1][0], max(stop, result[-1][1]))
        else:
            result.append((first, stop))
    return result
