"""The ledger of trials: every look at the test days of a market that brought something new, in a file that only grows.

The best of many backtests is good by luck. How many there were is forgotten easily: a run is deleted, a database begun anew.
So each look is a line of a file that lies beside the store, not beside the runs; a line holds the hash of the line before
it, and each run the hash of its own line.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.lock import exclusive

VARIABLE = "QLIB_EXT_LEDGER"
TAG = "ledger_entry"  # of a run: the number and the hash of its line
START = "0" * 64  # what the first line follows
WAIT_SECONDS = 20.0


class LedgerError(UserError):
    """A line was changed, or taken out."""


@dataclass(frozen=True)
class Trial:
    """A look at test days.

    Attributes
    ----------
    time
        When, as ISO 8601 with its offset.
    what
        Digest of the scores, and of the returns where they were traded: the same again is no new trial.
    fingerprint, universe
        Of the data.
    first, last
        Test days, both included.
    run_id, name, user
        Of the run, and who ran it.
    rank_ic
        Mean over the days; None where it is not known.
    ratio
        Mean over standard deviation of the daily returns after cost, over the index where there is one, not annualised; None
        without a backtest.
    """

    time: str
    what: str
    fingerprint: str
    universe: str
    first: str
    last: str
    run_id: str
    name: str
    user: str
    rank_ic: float | None
    ratio: float | None


@dataclass(frozen=True)
class Entry:
    """A line: its number from 1, the trial, and its hash, which follows from both and from the line before."""

    number: int
    trial: Trial
    hash: str

    def tag(self, path: Path) -> str:
        """What the run keeps of it: number, hash, and the name of the ledger."""
        return f"{self.number} {self.hash} {path.name}"


def ledger_path(store: Path) -> Path:
    """Where the ledger of a store lies: beside it, or where QLIB_EXT_LEDGER says, such as in a folder of the team."""
    chosen = os.environ.get(VARIABLE)
    root = store.expanduser().absolute()
    return Path(chosen).expanduser() if chosen else root.with_name(f"{root.name}.trials.jsonl")


def entries(path: Path) -> list[Entry]:
    """All lines, the first one first; none where there is no file.

    Raises
    ------
    LedgerError
        If a line is none, or does not follow from the one before it.
    """
    if not path.exists():
        return []
    found: list[Entry] = []
    for number, line in enumerate(_lines(path), start=1):
        previous = found[-1].hash if found else START
        try:
            said = json.loads(line)
            entry = Entry(int(said["number"]), Trial(**said["trial"]), str(said["hash"]))
        except (ValueError, TypeError, KeyError) as error:
            raise LedgerError(
                f"line {number} of the ledger {path} cannot be read ({error}): {_WAY_OUT}"
            ) from None
        if entry.number != number or entry.hash != _hash(number, entry.trial, previous):
            raise LedgerError(
                f"line {number} of the ledger {path} does not follow from the one before it: one of them was changed or "
                f"taken out; {_WAY_OUT}"
            )
        found.append(entry)
    return found


def enter(path: Path, trial: Trial) -> tuple[Entry, list[Entry]]:
    """Add a trial, unless what it looked at is in the ledger already; its line, and all lines up to now.

    Raises
    ------
    LedgerError
        If the ledger is not whole; nothing is added to it then.
    OSError
        If it cannot be written.
    BusyError
        If another process keeps it for long.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with exclusive(path.with_name(f"{path.name}.lock"), wait=WAIT_SECONDS):
        known = entries(path)
        for entry in known:
            if entry.trial.what == trial.what:
                return entry, known
        number, previous = len(known) + 1, known[-1].hash if known else START
        entry = Entry(number, trial, _hash(number, trial, previous))
        with path.open("ab") as file:
            whole = sum(len(line) + 1 for line in _lines(path)) if number > 1 else 0
            file.truncate(whole)  # a line that was cut off by a crash never counted
            file.write(json.dumps(asdict(entry), ensure_ascii=False).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        return entry, [*known, entry]


def on_the_same_days(known: Sequence[Entry], trial: Trial) -> list[Entry]:
    """The entries that looked at some of the days that a trial does."""
    return [each for each in known if each.trial.first <= trial.last and trial.first <= each.trial.last]


def taken_out(path: Path, tags: Mapping[str, str]) -> list[str]:
    """The ids of runs that say that they are in a ledger of this name, and are not in this one.

    Parameters
    ----------
    tags
        Run id -> what its tag `ledger_entry` says.
    """
    there = {entry.tag(path) for entry in entries(path)}
    return sorted(
        run_id for run_id, tag in tags.items() if tag.endswith(f" {path.name}") and tag not in there
    )


def tabulate(known: Sequence[Entry]) -> pd.DataFrame:
    """A row a trial, by its number."""
    rows: list[dict[str, Any]] = [
        {"number": entry.number, **asdict(entry.trial), "hash": entry.hash} for entry in known
    ]
    columns = ["number", *Trial.__dataclass_fields__, "hash"]
    return pd.DataFrame(rows, columns=columns).set_index("number")


_WAY_OUT = f"bring the whole file back from a copy, or begin a new one elsewhere by {VARIABLE}, and say so where its figures are shown"


def _lines(path: Path) -> list[bytes]:
    """The whole lines; what was written without an end was cut off."""
    return path.read_bytes().split(b"\n")[:-1]


def _hash(number: int, trial: Trial, previous: str) -> str:
    content = json.dumps([number, asdict(trial), previous], sort_keys=True, ensure_ascii=False)
    return hashlib.sha256(content.encode()).hexdigest()
