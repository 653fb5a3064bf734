"""What a cron job runs after the close: fetch, update, check, recommend, and what came of it in words."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from enum import IntEnum
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief, counted, integer, nearest, words
from qlib_ext.files import MIB, load_yaml, read_json, read_text
from qlib_ext.lock import BusyError, exclusive
from qlib_ext.market.fetch.fetch import Refreshed, fetch
from qlib_ext.market.finding import Finding, QualityReport, listed
from qlib_ext.market.progress import Progress
from qlib_ext.market.quality.check import KINDS, check_store
from qlib_ext.market.store import QlibStore
from qlib_ext.masking import masked
from qlib_ext.paths import writable
from qlib_ext.recommend.daily_files import list_path, write_list, write_status
from qlib_ext.recommend.holdings import check_cash
from qlib_ext.recommend.recommendation import Recommendation, recommend
from qlib_ext.recommend.sources import built_source
from qlib_ext.tracking.runs import connect

DAY = "%Y-%m-%d"
LOCK = ".lock"
FAULT, WRONG = 1, 2  # what the command ends with on an error: of the program, or of the settings


class Status(IntEnum):
    """How a daily call ended; its exit status."""

    LIST = 0
    NO_NEW_DAY = 3
    SOURCE_FAILED = 4
    AUDIT_FAILED = 5
    NO_LIST = 6
    BUSY = 7


PATHS = ("store", "out", "folder", "holdings", "memory")
FILES = ("file", "token_file")  # of the options of a source
TEXTS = ("source", "folder", "holdings", "memory", "audit_universe", "audit_benchmark", "tracking_uri")
LISTS = ("universes", "benchmarks", "codes", "accept")


@dataclass(frozen=True)
class DailyConfig:
    """What `qlib-ext daily` does.

    Parameters
    ----------
    store
        The store to bring up to date and to score.
    run
        The trained run: id, first digits of it, name, or experiment (its newest).
    out
        Folder of the lists.
    source
        Whom to ask for new days, as `qlib-ext data fetch` takes it; None: the store is brought up to date by other means.
    options
        Arguments of the source.
    folder
        Of its downloads; `STORE.downloads` by default.
    universes, benchmarks, codes
        What to ask it for; `benchmarks` None: those of the source.
    revise
        Take the source's values where they contradict the store.
    holdings
        CSV of what is held, for the orders of the next day.
    cash
        Of the account, where the file does not say.
    memory
        File in which the strategy keeps what it remembers from call to call, as `qlib-ext recommend --memory` does.
    top
        Stocks to show; the file has all of them.
    audit_universe, audit_benchmark
        What the audit looks at, as `qlib-ext data check` takes them; None: all of the store.
    accept
        Errors of the audit that a person has looked at, `KIND` or, of one stock, `KIND:CODE`: they stop nothing.
    tracking_uri
        MLflow store of the run; by default that of the environment.

    Raises
    ------
    UserError
        If something cannot be.
    """

    store: str
    run: str
    out: str = "daily"
    source: str | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    folder: str | None = None
    universes: tuple[str, ...] = ()
    benchmarks: tuple[str, ...] | None = None
    codes: tuple[str, ...] = ()
    revise: bool = False
    holdings: str | None = None
    cash: float | None = None
    memory: str | None = None
    top: int = 20
    audit_universe: str | None = None
    audit_benchmark: str | None = None
    accept: tuple[str, ...] = ()
    tracking_uri: str | None = None

    def __post_init__(self) -> None:
        for name in ("store", "run", "out"):
            if not isinstance(getattr(self, name), str) or not getattr(self, name):
                raise UserError(f"`{name}` must be a text, found {brief(getattr(self, name))}")
        for name in TEXTS:
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value):
                raise UserError(f"`{name}` must be a text, found {brief(value)}")
        if not isinstance(self.revise, bool):
            raise UserError(f"`revise` must be true or false, found {brief(self.revise)}")
        for name in LISTS:
            if getattr(self, name) is not None:
                object.__setattr__(self, name, words(name, getattr(self, name)))
        if not isinstance(self.options, Mapping):
            raise UserError(
                f"`options` must be a mapping such as per_minute: 50, found {brief(self.options)}"
            )
        if self.source is None and (self.options or self.universes or self.codes):
            raise UserError(
                "`options`, `universes` and `codes` are for a source, found no `source`: name one"
            )
        integer("top", self.top, 1)
        if self.cash is not None:
            check_cash(self.cash)
        if self.memory is not None and self.holdings is None and self.cash is None:
            raise UserError("`memory` goes with orders, found no account: name `holdings` or `cash`")
        known = [kind.name for kind in KINDS]
        for kind in (word.partition(":")[0] for word in self.accept):
            if kind not in known:
                raise UserError(
                    f"`accept` must name kinds of fault, found {brief(kind)}{nearest(kind, known)}"
                )

    @classmethod
    def read(cls, path: Path, **given: Any) -> DailyConfig:
        """The settings of a YAML file, in which paths are relative to its folder; `given` comes before them.

        Raises
        ------
        UserError
            If the file cannot be read, or has a key that is none.
        """
        try:
            found = load_yaml(read_text(path, MIB))
        except UserError:
            raise
        except (OSError, UnicodeDecodeError, ValueError) as error:
            raise UserError(f"`{path}` must be a YAML file of settings, found none: {error}") from error
        known = [each.name for each in fields(cls)]
        if not isinstance(found, dict):
            raise UserError(f"`{path}` must be a mapping such as `store: my_market`, found {brief(found)}")
        for key in found:
            if key not in known:
                raise UserError(
                    f"`{path}` has no place for `{key}`{nearest(str(key), known)}; it takes {', '.join(known)}"
                )
        _from_folder(found, PATHS, path.absolute().parent)
        if isinstance(found.get("options"), dict):
            _from_folder(found["options"], FILES, path.absolute().parent)
            if given.get("source") in (None, found.get("source")):
                given["options"] = {**found["options"], **given.get("options", {})}
            else:  # those of the file are another source's
                given.setdefault("options", {})
        return cls.of({**found, **given}, f"`{path}`")

    @classmethod
    def of(cls, given: Mapping[str, Any], where: str) -> DailyConfig:
        """The settings of a mapping; a UserError where one that is needed is missing."""
        missing = [name for name in ("store", "run") if given.get(name) is None]
        if missing:
            raise UserError(
                f"{where} must say {' and '.join(missing)}, found {', '.join(given) or 'nothing'}"
            )
        return cls(**given)


def _from_folder(found: dict[str, Any], keys: tuple[str, ...], folder: Path) -> None:
    for key in keys:
        if isinstance(found.get(key), str):
            found[key] = str(folder / Path(found[key]).expanduser())


@dataclass(frozen=True)
class Outcome:
    """What a daily call came to.

    Attributes
    ----------
    status : Status
    headline : str
        One line, the subject of a mail.
    text : str
        The mail, the headline first.
    day : str or None
        Of the list.
    files : tuple of Path
        What was written.
    """

    status: Status
    headline: str
    text: str
    day: str | None
    files: tuple[Path, ...]


class _StoppedError(Exception):
    """A step that ends the call."""

    def __init__(self, status: Status, headline: str, lines: list[str], day: str | None = None) -> None:
        super().__init__(headline)
        self.status, self.headline, self.lines, self.day = status, headline, lines, day


def daily(
    config: DailyConfig,
    *,
    again: bool = False,
    progress: Progress | None = None,
    now: pd.Timestamp | None = None,
) -> Outcome:
    """Fetch what is new, bring the store up to date, audit it, and make the list of its newest day.

    It may be called any number of times a day: a list that is there is not made again. What came of it stands in
    `status.json` and `status.txt` of the folder, good or bad, an error too; a list that was made stays until the next one
    is whole.

    Parameters
    ----------
    config
        What to do.
    again
        Make the list of the newest day again, though it is there.
    progress
        Called with (done, total, what).
    now
        The moment; for tests.

    Raises
    ------
    UserError
        If the folder cannot be written, or the source cannot be built; what goes wrong afterwards is an outcome.
    """
    out = Path(config.out).expanduser()
    writable(out.absolute(), name="`out`", way_out="name another")
    memory = None if config.memory is None else Path(config.memory).expanduser()
    if memory is not None:
        writable(memory.absolute().parent, name="the folder of `memory`", way_out="name another")
    out.mkdir(parents=True, exist_ok=True)
    try:
        with exclusive(out / LOCK):
            try:
                source = None if config.source is None else built_source(config.source, config.options)
                update = None if source is None else _fetched(config, source, progress, now)
                day = _newest(config)
                if update is not None and update.behind > 1:
                    raise _StoppedError(
                        Status.SOURCE_FAILED,
                        f"{config.source} stands still since {day}",
                        [*update.notes, "", "There is no new list: it would be of a day long past."],
                        day,
                    )
                if not again and _is_there(out, day, config.run):
                    raise _StoppedError(
                        Status.NO_NEW_DAY,
                        f"no new day: the list of {day} is there",
                        [f"{list_path(out, day)}"],
                        day,
                    )
                audit = _audited(config, day, progress)
                found = _recommended(config, day, memory)
                # The memory first: the list says that the day is done. A day that is asked again reads those before it.
                if memory is not None and found.memory is not None:
                    found.memory.write(memory)
                files, text, headline = write_list(out, found, audit, config, _told(update))
                outcome = Outcome(Status.LIST, headline, text, day, files)
            except _StoppedError as stop:
                text = "\n".join([f"qlib-ext daily: {stop.headline}", "", *stop.lines]).rstrip() + "\n"
                outcome = Outcome(stop.status, f"qlib-ext daily: {stop.headline}", text, stop.day, ())
            except (
                Exception
            ) as error:  # told, and raised: whoever mails the status mails no list of yesterday
                status = WRONG if isinstance(error, UserError) else FAULT
                said = f"qlib-ext daily: stopped by an error: {' '.join(str(error).split()) or type(error).__name__}"
                with contextlib.suppress(OSError):  # of a full disk, perhaps: the error itself matters more
                    write_status(out, status, said, said + "\n", None, ())
                raise
            write_status(out, outcome.status, outcome.headline, outcome.text, outcome.day, outcome.files)
            return outcome
    except BusyError as error:
        said = f"qlib-ext daily: {error.holder} is at it already{error.hint}"
        return Outcome(Status.BUSY, said, said + "\n", None, ())


def _fetched(
    config: DailyConfig, source: Any, progress: Progress | None, now: pd.Timestamp | None
) -> Refreshed:
    try:
        return fetch(
            source,
            config.store,
            folder=config.folder,
            universes=config.universes,
            benchmarks=config.benchmarks,
            codes=config.codes,
            revise=config.revise,
            progress=progress,
            now=now,
        )
    except UserError as error:
        raise _StoppedError(
            Status.SOURCE_FAILED,
            f"no new data from {config.source}",
            [
                masked(str(error)),
                "",
                "There is no new list. Bars come into the store whole or not at all; the next call goes on from what came.",
            ],
        ) from error


def _newest(config: DailyConfig) -> str:
    try:
        return f"{QlibStore(config.store).calendar[-1]:{DAY}}"
    except UserError as error:
        raise _StoppedError(Status.SOURCE_FAILED, "no store", [str(error)]) from error


def _is_there(out: Path, day: str, run: str) -> bool:
    """Whether the list of a day was made, for the same wish of a run."""
    path = list_path(out, day)
    if not path.is_file():
        return False
    try:
        found = read_json(path)
    except ValueError:
        return False  # cut short: made again
    return isinstance(found, dict) and found.get("wanted") == run


def _audited(config: DailyConfig, day: str, progress: Progress | None) -> QualityReport:
    audit = check_store(
        config.store, universe=config.audit_universe, benchmark=config.audit_benchmark, progress=progress
    )
    severe = [
        each
        for each in audit.findings
        if each.severity == "error" and not {each.kind, _one(each)} & {*config.accept}
    ]
    if severe:
        ones = sorted({_one(each) for each in severe})
        raise _StoppedError(
            Status.AUDIT_FAILED,
            f"the audit of {day} has {counted(len(severe), 'error')}: no list",
            [
                *(f"{each.kind}: {each.message}" for each in severe[:10]),
                *([f"and {len(severe) - 10:,} more"] if len(severe) > 10 else []),
                "",
                f"To read them: qlib-ext data check {config.store}",
                f"Who has looked at them and goes on says so: accept: [{listed(ones, 20)}]",
            ],
            day,
        )
    return audit


def _one(finding: Finding) -> str:
    """What accepts this finding and no other stock's."""
    return finding.kind if finding.instrument is None else f"{finding.kind}:{finding.instrument}"


def _recommended(config: DailyConfig, day: str, memory: Path | None) -> Recommendation:
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            return recommend(
                connect(config.tracking_uri),
                config.run,
                config.store,
                current=None if config.holdings is None else Path(config.holdings),
                cash=config.cash,
                memory=memory,
            )
    except UserError as error:
        raise _StoppedError(Status.NO_LIST, f"no list of {day}", [masked(str(error))], day) from error


def _told(update: Refreshed | None) -> list[str]:
    """What the fetch did, in sentences."""
    if update is None:
        return ["Nothing was fetched: the store is brought up to date by other means"]
    if update.made:
        said = f"A new store of {counted(len(update.days), 'day')}"
    elif not update.changed:
        said = "The source had no newer day"
    else:
        said = f"{counted(len(update.days), 'day')} and {counted(update.rows, 'bar')} added"
    return [said, *update.notes]
