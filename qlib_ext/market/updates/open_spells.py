"""The membership files of a store when days are added to it."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.market.codes import normalise_code
from qlib_ext.market.importing.import_settings import FILE, ImportSettings
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.store import read_list
from qlib_ext.market.universes.universes import universe_rules

UNIVERSES = ("carry", "keep")


def extended_memberships(
    root: Path,
    spans: Mapping[str, tuple[int, int]],
    calendar: pd.DatetimeIndex,
    added: int,
    universes: str,
    notes: Notes,
) -> dict[Path, list[str]]:
    """New lines of the files of `instruments/` that change, by path in the store.

    `all`, and the universe that an import made of all but the benchmarks, follow the bars. In other universes a spell
    that ends on the store's last day is open: it goes on to the last day added. A universe that ended before stays as it
    is.

    Parameters
    ----------
    root
        The store before.
    spans
        Instrument that changes or is new to its first position in `calendar` and the one after its last.
    calendar, added
        With the days added, and how many they are.
    universes
        `carry` open spells forward, or `keep` them as they are; `notes` are told which.
    """
    follow: dict[str, tuple[str, ...]] = {"all": ()}  # universe to the instruments that are not in it
    if (root / FILE).is_file():
        stored = ImportSettings.load(root)
        follow[stored.universe] = tuple(normalise_code(code, stored.region) for code in stored.benchmarks)
    rules = universe_rules(root)
    changed = {}
    for path in sorted((root / "instruments").glob("[!.]*.txt")):
        lines = [line.split("\t") for line in read_list(path).splitlines() if line.strip()]
        before = ["\t".join(parts) for parts in lines]
        if path.stem in follow:
            own = {code: span for code, span in spans.items() if code not in follow[path.stem]}
            _follow(lines, own, calendar)
        elif added and lines:
            command = rules.get(path.stem, {}).get("command")
            _carry(path.stem, lines, calendar[-1 - added], calendar[-1], universes, command, notes)
        after = ["\t".join(parts) for parts in lines]
        if after != before:
            changed[path.relative_to(root)] = after
    return changed


def _follow(lines: list[list[str]], spans: Mapping[str, tuple[int, int]], calendar: pd.DatetimeIndex) -> None:
    """Let each instrument of `spans` be a member from its first to its last bar."""
    own: dict[str, list[list[str]]] = {}
    for parts in lines:
        own.setdefault(parts[0].upper(), []).append(parts)
    codes = [parts[0].upper() for parts in lines]
    is_sorted = codes == sorted(codes)
    for code, (start, stop) in spans.items():
        first, last = (str(calendar[position].date()) for position in (start, stop - 1))
        if code not in own:
            at = bisect_left(lines, code, key=lambda parts: parts[0].upper()) if is_sorted else len(lines)
            lines.insert(at, [code, first, last])
            continue
        begin = min(own[code], key=lambda parts: pd.Timestamp(parts[1]))
        end = max(own[code], key=lambda parts: pd.Timestamp(parts[2]))
        if pd.Timestamp(begin[1]) > pd.Timestamp(first):
            begin[1] = first
        if pd.Timestamp(end[2]) < pd.Timestamp(last):
            end[2] = last


def _carry(
    name: str,
    lines: list[list[str]],
    before: pd.Timestamp,
    now: pd.Timestamp,
    universes: str,
    command: str | None,
    notes: Notes,
) -> None:
    """Let the spells that end on the day `before` end on `now`."""
    ends = pd.to_datetime([parts[2] for parts in lines], format="ISO8601").normalize()
    is_open = np.flatnonzero(ends == before)
    if ends.max() < before:
        notes.add(f"universe `{name}` ends on {ends.max().date()}, before the days added: left as it is")
    elif is_open.size and universes == "keep":
        notes.add(f"universe `{name}` left as it is: {is_open.size:,} spells end on {before.date()}")
    elif is_open.size:
        anew = f" (to choose it anew: {command})" if command else ""
        notes.add(
            f"{{spell}} of universe `{name}` open on {before.date()}: carried forward to {now.date()}{anew}",
            is_open.size,
        )
        for row in is_open:
            lines[row][2] = str(now.date())
