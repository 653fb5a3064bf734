"""Folders and files: what is missing, misnamed or astray, and bars that cannot be read or put on the calendar."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path

from qlib_ext.checks import brief
from qlib_ext.market.finding import Findings, Kind, listed
from qlib_ext.market.quality.source import FIELDS, Block, Source, majority

METADATA = ("universes.json", "import.json")
# An index has none of these, or the sums of its members.
NONE_IN_AN_INDEX = ("vwap", "volume", "amount")
# The fields that the features, the labels and the backtest read.
NEEDED = ("open", "high", "low", "close", "volume", "factor", "change")
OPTIONAL = ("vwap", "amount")
# A field of which fewer stocks than this share lack the file is the store's own, and its absence a fault.
COMMON = 0.5

KINDS = (
    Kind("store-part-missing", "error", "`calendars/day.txt`, `features/` or `instruments/` is not there, or is empty",
         "without it no workflow starts"),
    Kind("unreadable-file", "error", "a file or folder cannot be read, or a text file is not UTF-8",
         "what it holds is lost to every workflow"),
    Kind("metadata-unreadable", "warning", "`universes.json` or `import.json` is no JSON object",
         "nominal sizes and the options of the import are lost"),
    Kind("upper-case-folder", "error", "the folder of a stock has upper-case letters",
         "Qlib looks for the lower-case name and finds no bars",
         "renames the folder, unless another one has the name"),
    Kind("upper-case-file", "error", "a file of bars or of a universe has upper-case letters in its name",
         "Qlib looks for the lower-case name and finds nothing", "renames the file, unless another one has the name"),
    Kind("folder-twice", "error", "two folders are of one code and differ in case only",
         "which of them is read depends on the file system",
         "leaves out the other folder, where both hold the same files, byte for byte"),
    Kind("folder-empty", "warning", "a folder has no file of daily bars", "the code looks as if it had bars",
         "leaves the folder out"),
    Kind("stray-file", "note", "a file lies where none belongs",
         "leftovers of a download or of an editor; software that lists folders may trip over them",
         "leaves the file out"),
    Kind("link-out", "warning", "a link leads out of the store",
         "its content is of another place, which may change, or go, or be no data at all; a copy of the store lacks it"),
    Kind("bin-empty", "error", "a file of bars holds no value", "a download broke off; readers fail on it",
         "leaves the file out"),
    Kind("bin-not-float32", "error", "the length of a file of bars is no multiple of 4 bytes",
         "it was cut off within a number, or holds something else than float32"),
    Kind("bin-start-invalid", "error",
         "the first value of a file of bars, its start in the calendar, is negative or no whole number",
         "the bars cannot be dated"),
    Kind("bin-beyond-calendar", "error", "a file of bars reaches beyond the last day of the calendar",
         "calendar and bars are of different downloads, so that every day may be wrong"),
    Kind("bin-shifted", "error", "a field has as many values as the other fields of its stock, from another day on",
         "it is out of step with them on every day"),
    Kind("bin-truncated", "error", "a field ends before the other fields of its stock",
         "a download broke off; the last days miss it"),
    Kind("bin-starts-late", "warning", "a field begins after the other fields of its stock, or ends after them",
         "days have some fields and lack others"),
    Kind("field-missing", "error", "a stock lacks a field that most other stocks have",
         "its features and its trading are wrong where it has no value"),
    Kind("field-missing-everywhere", "warning",
         "a field that is needed (open, high, low, close, volume, factor, change) is there for no stock",
         "features are empty, lots cannot be sized without factor, and limits not be kept without change"),
    Kind("field-optional-missing", "note", "no stock has vwap or amount", "features that need it are left at 0"),
)  # fmt: skip


def check_layout(source: Source, found: Findings) -> None:
    """What can be told from names alone."""
    for part, there in (
        ("calendars/day.txt", (source.root / "calendars" / "day.txt").exists()),
        ("features", bool(source.folders)),
        ("instruments", bool(source.memberships)),
    ):
        if not there:
            state = "is empty" if (source.root / part).is_dir() else "is missing"
            found.add("store-part-missing", f"{part} {state}", file=part)
    for file, why in source.unreadable:
        found.add("unreadable-file", f"{file} {why}", file=file)
    if source.links_out:
        some = [f"{file} to {brief(end)}" for file, end in source.links_out]
        message = f"links lead out of the store: {listed(some, 3)}"
        found.add("link-out", message, source.links_out[0][0], count=len(some))
    for name in METADATA:
        content, problem = source.metadata(name)
        if problem is None and content is not None and not isinstance(content, dict):
            problem = "must hold a JSON object"
        if problem is not None:
            found.add("metadata-unreadable", f"{name} {problem}", file=name)
    for file in source.top_strays:
        found.add("stray-file", f"{file} does not belong there", file=file)
    for name, kept in source.twice:
        message = f"features/{name} and features/{kept} are of one code; features/{kept} was checked"
        found.add("folder-twice", message, f"features/{name}", name.upper())
    aside = {name for name, _ in source.twice}
    for folder in source.folders:
        name = folder.path.name
        file = f"features/{name}"
        if name != name.lower() and name not in aside:
            message = f"{file} must be {file.lower()}"
            found.add("upper-case-folder", message, file, folder.code)
        for misnamed in folder.misnamed:
            message = f"{file}/{misnamed} must be {misnamed.lower()}"
            found.add("upper-case-file", message, f"{file}/{misnamed}", folder.code)
        if folder.strays:
            message = f"{file} holds what is no file of bars: {listed(folder.strays)}"
            found.add(
                "stray-file", message, f"{file}/{folder.strays[0]}", folder.code, count=len(folder.strays)
            )
        if not folder.bins:
            found.add("folder-empty", f"{file} has no daily bars", file=file, instrument=folder.code)
    for membership in source.memberships:
        if membership.name != membership.name.lower():
            message = f"{membership.file} must be {membership.file.lower()}"
            found.add("upper-case-file", message, membership.file)


class BinChecks:
    """Files of bars, block by block: whether they can be read, and whether those of one stock belong together."""

    def __init__(self, source: Source, found: Findings):
        self._source = source
        self._found = found
        self._lacking: dict[str, list[tuple[str, Path]]] = defaultdict(list)
        self._having: dict[str, int] = defaultdict(int)
        self.with_bars = 0

    def check(self, block: Block) -> None:
        """One block."""
        for row, (folder, bins) in enumerate(zip(block.folders, block.bins, strict=True)):
            if not bins:
                continue
            self.with_bars += 1
            for name in FIELDS:
                if name in bins:
                    self._having[name] += 1
                elif name not in NONE_IN_AN_INDEX or not self._source.is_index(folder.code):
                    self._lacking[name].append((folder.code, folder.path))
            for name, of_field in bins.items():
                if of_field.problem is not None:
                    kind, what = of_field.problem
                    file = block.file(row, name)
                    self._found.add(kind, f"{file} {what}", file=file, instrument=folder.code)
            self._check_ranges(block, row)

    def _check_ranges(self, block: Block, row: int) -> None:
        """Fields of one stock that stand on other days than most of its fields."""
        spans = {name: (of.start, of.stop) for name, of in block.bins[row].items() if of.placed}
        if len(set(spans.values())) < 2:
            return
        days = self._source.days
        start, stop = majority(list(spans.values()))
        for name, (first, after) in spans.items():
            if (first, after) == (start, stop):
                continue
            file = block.file(row, name)
            if first != start and after - first == stop - start:
                kind, at = "bin-shifted", first
                what = f"begins {abs(first - start)} days {'after' if first > start else 'before'} the other fields"
            elif after < stop and first <= start:
                kind, at = "bin-truncated", after
                what = f"ends {stop - after} days before the other fields"
            elif after < stop:
                kind, at = "bin-truncated", after
                what = f"begins {first - start} days after the other fields and ends {stop - after} days before them"
            else:
                kind, at = "bin-starts-late", first if first > start else stop
                what = f"covers days {first} to {after - 1} of the calendar, the other fields {start} to {stop - 1}"
            message = f"{file} {what}"
            self._found.add(
                kind,
                message,
                file,
                block.codes[row],
                days[min(at, len(days) - 1)],
                max(abs(first - start), abs(stop - after)),
            )

    def finish(self) -> None:
        """Fields that some stocks lack, and those that all do."""
        for name in FIELDS:
            lacking, having = self._lacking[name], self._having[name]
            if not self.with_bars or not lacking:
                continue
            if having == 0:
                kind = "field-missing-everywhere" if name in NEEDED else "field-optional-missing"
                self._found.add(
                    kind, f"none of the {self.with_bars} stocks has `{name}`", count=self.with_bars
                )
            elif having > COMMON * self.with_bars:
                for code, path in lacking:
                    message = f"{code} has no `{name}`, which {having} of {self.with_bars} stocks have"
                    self._found.add("field-missing", message, f"features/{path.name}/{name}.day.bin", code)
            else:
                codes = [code for code, _ in lacking]
                message = f"`{name}` is there for {having} of {self.with_bars} stocks only; {listed(codes, 3)} lack it"
                self._found.add(
                    "field-missing" if name in NEEDED else "field-optional-missing", message, count=len(codes)
                )
