"""What is wrong with the side data of a store, by the tables alone and beside the store's codes and days."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from qlib_ext.market.finding import Finding
from qlib_ext.market.side_data.faults import fault
from qlib_ext.market.side_data.rows import FAR
from qlib_ext.market.side_data.side_data import side_files, two_files, within
from qlib_ext.market.side_data.table import KEYS, KNOWN_FROM, SideTable, read_table

ENDS_EARLY_DAYS = {"spells": 30, "values": 30, "market": 30, "series": 200}  # calendar days
OF_FEW = ("status", "st", "suspended")  # a stock without a row has no status of its own


def problems(
    root: str | Path,
    names: Iterable[str] | None = None,
    *,
    calendar: pd.DatetimeIndex | None = None,
    instruments: Sequence[str] | None = None,
) -> list[Finding]:
    """What is wrong with the side data of a store; nothing that a file may hold raises.

    The store around them may be broken: only the folder `side` is read. Without `calendar` the rows that lie outside of
    the trading days are not looked for, without `instruments` (codes that have bars) the codes that are not among them.

    Parameters
    ----------
    root
        The store's directory.
    names
        Tables to look at; all by default.

    Returns
    -------
    list of Finding
        Of the kinds of `faults.KINDS`, in the order of the files; all rows of a file with the same fault are one.
    """
    root = Path(root).expanduser()
    found: list[Finding] = []
    wanted = None if names is None else set(names)
    for name, paths in side_files(root).items():
        if wanted is not None and name not in wanted:
            continue
        if len(paths) > 1:
            found.append(two_files(paths))
        for path in paths:
            table, of_table = read_table(path, within(path))
            found += of_table
            if table is not None and len(table.frame):
                of_store = beside_store(table, calendar, instruments)
                found += [replace(finding, file=within(path)) for finding in of_store]
    return found


def beside_store(
    table: SideTable, calendar: pd.DatetimeIndex | None, instruments: Sequence[str] | None
) -> list[Finding]:
    """What only the calendar and the codes of a store show of a table."""
    return [*_beside_codes(table, instruments), *_beside_calendar(table, calendar)]


def _beside_codes(table: SideTable, instruments: Sequence[str] | None) -> list[Finding]:
    """What only the codes that have bars show."""
    if instruments is None or "instrument" not in KEYS[table.shape]:
        return []
    known = {code.upper() for code in instruments}
    codes = set(table.frame["instrument"].cat.remove_unused_categories().cat.categories)
    unknown, covered = sorted(codes - known), len(codes & known)
    found = []
    if not covered:
        message = (
            f"none of the {len(codes)} codes of `{table.name}` has bars, such as {unknown[0]}; write codes as the "
            f"store does, such as {min(known, default='none')}"
        )
        return [fault("side-no-known-code", message, instrument=unknown[0], count=len(codes))]
    if unknown:
        message = (
            f"{len(unknown)} of the {len(codes)} codes of `{table.name}` have no bars, such as {unknown[0]}"
        )
        found.append(fault("side-unknown-code", message, instrument=unknown[0], count=len(unknown)))
    if 2 * covered < len(known) and table.name not in OF_FEW:
        message = f"`{table.name}` has rows for {covered} of the {len(known)} instruments that have bars"
        found.append(fault("side-few-stocks", message, count=len(known) - covered))
    return found


def _beside_calendar(table: SideTable, calendar: pd.DatetimeIndex | None) -> list[Finding]:
    """What only the trading calendar shows."""
    if calendar is None or not len(calendar):
        return []
    rows, start, end = table.frame, calendar[0], calendar[-1]
    first = rows[KNOWN_FROM[table.shape]]
    last = rows["end"].fillna(FAR) if table.shape == "spells" else first
    outside = (first > end).to_numpy()
    # A figure of before is known on the first day, and what changes are taken from.
    if table.shape != "series":
        outside |= (last < start).to_numpy()
    found = []
    if outside.any():
        message = (
            f"{int(outside.sum())} of the {len(rows)} rows of `{table.name}` lie outside of the calendar, "
            f"{start:%Y-%m-%d} to {end:%Y-%m-%d}"
        )
        date = f"{first.iloc[int(np.argmax(outside))]:%Y-%m-%d}"
        kind = "side-nothing-inside" if outside.all() else "side-outside-calendar"
        found.append(fault(kind, message, date=date, count=int(outside.sum())))
    newest = last.max()
    if not outside.all() and (end - newest).days > ENDS_EARLY_DAYS[table.shape]:
        message = (
            f"`{table.name}` ends on {newest:%Y-%m-%d}, {(end - newest).days} days before the bars, which end on "
            f"{end:%Y-%m-%d}"
        )
        found.append(fault("side-ends-early", message, date=f"{newest:%Y-%m-%d}"))
    return found
