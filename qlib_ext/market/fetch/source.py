"""What a source is asked for, what it gives, and how its answers are checked."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import io
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any, TypeVar

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError
from qlib_ext.market.fetch.polite import KEPT, Polite, SourceError, passes, shown
from qlib_ext.market.importing.bars import Bars
from qlib_ext.market.importing.notes import Notes
from qlib_ext.market.progress import Progress

T = TypeVar("T")
RATIO = (0.7, 1.4)  # of amount / volume to close, over the rows of a table: beyond, the units are others


@dataclass(frozen=True)
class Job:
    """What a source is asked for.

    Attributes
    ----------
    folder : Path
        Where what comes is kept.
    start, end : pd.Timestamp
        Days, both included; `end` has closed.
    universes : tuple of str
        Whose members are wanted, such as csi300.
    benchmarks : tuple of str
        Codes of indices whose bars are wanted.
    codes : frozenset of str or None
        The stocks wanted; None for all that the source lists.
    known : pd.Timestamp or None
        The last day of the store; None where there is none yet.
    have : frozenset of str
        Codes of the store.
    notes : Notes
        Told what was left out or changed.
    progress : callable or None
    complete : bool
        Whether the store has up to `known` all that is asked for: then only a newer day is worth the rest.
    """

    folder: Path
    start: pd.Timestamp
    end: pd.Timestamp
    universes: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] = ()
    codes: frozenset[str] | None = None
    known: pd.Timestamp | None = None
    have: frozenset[str] = frozenset()
    notes: Notes = field(default_factory=Notes)
    progress: Progress | None = None
    complete: bool = True

    def nothing_beyond(self, newest: pd.Timestamp) -> bool:
        """Whether a source whose newest day this is has nothing that the store lacks."""
        return self.known is not None and newest <= self.known and self.complete


@dataclass(frozen=True)
class Fetched:
    """What a source gave beyond a store.

    Attributes
    ----------
    bars : Bars or None
        Of a new store all of them; else from a month before the store's last day on, and all of stocks that are new or
        were fetched again. None where there is nothing that the store lacks.
    universes : mapping
        Universe to the table of its members: `date` and `code` of snapshots, or `code`, `from` and `to` of spells.
    side : mapping
        Name of side data to their table, as `import_table` reads it.
    """

    bars: Bars | None
    universes: Mapping[str, pd.DataFrame] = field(default_factory=dict)
    side: Mapping[str, pd.DataFrame] = field(default_factory=dict)


class Source(ABC):
    """A place that data come from.

    Attributes
    ----------
    region : str
        `cn` or `us`.
    published : pd.Timedelta
        After the close; a day is not asked for before.
    """

    region: str = "cn"
    published: pd.Timedelta = pd.Timedelta(hours=1)  # before it, sources give bars of a day that is not over

    @abstractmethod
    def fetch(self, job: Job) -> Fetched:
        """Ask for what is new, keep it in the job's folder, and give it as the store takes it.

        Raises
        ------
        SourceError
            If the source cannot be reached, refuses, or has changed. What came is kept.
        """

    @property
    def identity(self) -> str:
        """What must be the same for a folder of downloads to go on."""
        return type(self).__name__

    @property
    def default_benchmarks(self) -> tuple[str, ...]:
        """Indices whose bars are fetched where nobody names any."""
        return ("SH000300",) if self.region == "cn" else ()


class Client:
    """A vendor's Python client: imported when it is first asked, asked politely, and its answers looked at.

    Parameters
    ----------
    name
        Of the package, as installed and imported.
    tested
        The version that this program's tables were written for.
    polite
        How often it is called.
    judge
        What an error of the client means; None for what this function does not know.
    """

    def __init__(
        self, name: str, tested: str, polite: Polite, judge: Callable[[Exception], Exception | None]
    ) -> None:
        self.name, self.tested, self.polite, self._own = name, tested, polite, judge

    @property
    def module(self) -> ModuleType:
        """The client; a UserError where it is not installed."""
        try:
            return importlib.import_module(self.name)
        except ImportError as error:
            raise UserError(
                f"this source needs the package {self.name}, found none ({error}): pip install 'qlib-ext[fetch]'"
            ) from error

    @property
    def versions(self) -> str:
        """Which version is installed, and with which this program was written."""
        try:
            installed = importlib.metadata.version(self.name)
        except importlib.metadata.PackageNotFoundError:
            installed = "of unknown version"
        return f"{self.name} {installed} is installed, {self.tested} is what this program was written for"

    def function(self, holder: Any, name: str) -> Callable[..., Any]:
        """A function of the client; a SourceError where it has none of that name."""
        found = getattr(holder, name, None)
        if not callable(found):
            raise SourceError(
                f"{self.name} must have a function `{name}`, found none: the client has changed ({self.versions}); install "
                f"that version, or take another source. {KEPT}"
            )
        return found

    def ask(self, what: str, call: Callable[[], T]) -> T:
        """The answer of a call, which `what` says in words. What the client prints, bars of progress too, is held back."""

        def quiet() -> T:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                return call()

        return self.polite.call(f"{self.name}'s `{what}`", quiet, lambda error: self._judge(what, error))

    def _judge(self, what: str, error: Exception) -> Exception:
        if isinstance(error, UserError):
            return error
        verdict = self._own(error) or passes(error)
        return verdict or SourceError(
            f"{self.name}'s `{what}` failed with {shown(error)}: the source may have changed ({self.versions}); look for a "
            f"newer version, or take another source. {KEPT}"
        )

    def take(self, what: str, table: Any, columns: Mapping[str, str]) -> pd.DataFrame:
        """The columns of an answer that are needed, with the names of this program.

        Parameters
        ----------
        what
            The call, for messages.
        table
            The answer.
        columns
            Column of the vendor to the name here.

        Raises
        ------
        SourceError
            If the answer is no table, or lacks a column.
        """
        if not isinstance(table, pd.DataFrame):
            raise self.changed(what, "a table", type(table).__name__)
        missing = [column for column in columns if column not in table.columns]
        if missing and not (table.empty and len(table.columns) == 0):
            found = ", ".join(map(str, table.columns)) or "none"
            raise self.changed(
                what, f"the columns {', '.join(columns)}", f"{found} (no {', '.join(missing)})"
            )
        return table.reindex(columns=list(columns)).rename(columns=dict(columns)).reset_index(drop=True)

    def changed(self, what: str, expected: str, found: str) -> SourceError:
        """The error of an answer that is another one than before."""
        return SourceError(
            f"{self.name}'s `{what}` must give {expected}, found {found}: the source may have changed ({self.versions}); look "
            f"for a newer version of this program, or take another source. {KEPT}"
        )

    def days(self, what: str, column: pd.Series) -> pd.Series:
        """A column of days, written 20240102 or 2024-01-02 or as dates; a SourceError where one is none."""
        texts = column.astype(str).str.slice(0, 10)
        found = pd.to_datetime(texts, format="ISO8601", errors="coerce")
        if found.isna().any():
            raise self.changed(what, "days such as 2024-01-02", repr(column[found.isna()].iloc[0]))
        return found.dt.normalize()

    def check_units(self, what: str, table: pd.DataFrame) -> None:
        """A SourceError where amounts and volumes of stocks are not in the units that they had."""
        if not {"amount", "volume", "close"} <= set(table.columns):
            return
        traded = table[(table["amount"] > 0) & (table["volume"] > 0) & (table["close"] > 0)]
        if len(traded) < 5:
            return
        ratio = float(np.median(traded["amount"] / traded["volume"] / traded["close"]))
        if not RATIO[0] <= ratio <= RATIO[1]:
            raise self.changed(
                what,
                "amounts and volumes whose ratio is near the close",
                f"one of {ratio:.4g} times it, so that units are others",
            )


@contextlib.contextmanager
def no_session() -> Iterator[None]:
    """What a client needs that has nothing to open or to close."""
    yield


def numbers(table: pd.DataFrame, *columns: str) -> pd.DataFrame:
    """The table with these columns as numbers, NaN where there is none."""
    return table.assign(**{name: pd.to_numeric(table[name], errors="coerce") for name in columns})


def held_factor(days: pd.Series, since: pd.Series, factor: pd.Series) -> np.ndarray:
    """The factor of each day: that of the last date in `since` by then, 1 before the first; NaN where there is none."""
    if not len(since):
        return np.ones(len(days))
    order = np.argsort(since.to_numpy(), kind="stable")
    place = since.to_numpy()[order].searchsorted(days.to_numpy(), side="right") - 1
    values = pd.to_numeric(factor, errors="coerce").to_numpy(dtype=float)[order]
    return np.where(place >= 0, values[np.maximum(place, 0)], 1.0)


def until_next(spells: pd.DataFrame) -> pd.DataFrame:
    """Spells that end before the next one of their stock begins; those of no length go."""
    rows = spells.sort_values(["code", "start"], ignore_index=True).drop_duplicates(
        ["code", "start"], keep="last"
    )
    rows = rows.reset_index(drop=True)
    following = rows["start"].shift(-1).where(rows["code"].eq(rows["code"].shift(-1))) - pd.Timedelta(days=1)
    end = (
        rows["end"]
        .fillna(pd.Timestamp.max.normalize())
        .combine(following.fillna(pd.Timestamp.max.normalize()), min)
    )
    rows = rows.assign(end=end.where(end < pd.Timestamp.max.normalize()))
    return rows[~(rows["end"] < rows["start"])].reset_index(drop=True)
