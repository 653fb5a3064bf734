"""The SQLite database of runs: made whole or not at all, and looked at before MLflow opens it.

MLflow makes its database in some seventy steps, each of which stays when the next does not come. Two first starts at
once, or one that is killed, would leave a database that no later start can use. So it is made beside its place, by one
process at a time, and moved there when it is whole.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sqlite3
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.store.tracking import DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH
from sqlalchemy.engine import make_url

from qlib_ext.checks import UserError
from qlib_ext.lock import BusyError, exclusive
from qlib_ext.paths import writable

WAIT_SECONDS = 120.0  # for another process that makes the database, which takes seconds
QUIET_SECONDS = 3.0  # after which nobody works any more on one that is half made
ELSEWHERE = "name a database elsewhere by MLFLOW_TRACKING_URI, such as sqlite:////path/to/mlflow.db"


def database_file(uri: str) -> Path | None:
    """The file of a SQLite database; None of a server, and of a database in memory."""
    name = make_url(uri).database if uri.startswith("sqlite:") else None
    return None if not name or name == ":memory:" or name.startswith("file:") else Path(name).absolute()


def prepare(uri: str) -> None:
    """Make the database of a tracking URI where there is none yet, and check the one that is there.

    Parameters
    ----------
    uri
        MLflow's tracking URI. A server's is nobody's business here.

    Raises
    ------
    UserError
        If another process makes it and does not come to an end, or as of `check_writable` and `check`.
    """
    file = database_file(uri)
    if file is not None:
        check_writable(uri)
        if _is_empty(file) or _part(file).exists() or _lock(file).exists():
            _make(file)
        check(uri)


def check_writable(uri: str) -> None:
    """Raise a UserError where the database of a tracking URI cannot be written: MLflow would try for a minute."""
    file = database_file(uri)
    if file is None:
        return
    writable(file.parent, name=f"the place of MLflow's database {file.name}", way_out=ELSEWHERE)
    if file.exists() and not os.access(file, os.W_OK):
        raise UserError(f"MLflow's database {file} cannot be written: change its rights, or {ELSEWHERE}")


def check(uri: str) -> None:
    """Look at the database of a tracking URI before MLflow opens it, and so changes it.

    Raises
    ------
    UserError
        If it is none, is half made, or is of an older or a newer MLflow.
    """
    file = database_file(uri)
    if file is None or _is_empty(file):
        return
    found = _look(file)
    while found is not None and found.half_made and time.time() - file.stat().st_mtime < QUIET_SECONDS:
        time.sleep(0.2)  # MLflow itself may be making it
        found = _look(file)
    if found is None or found.revision == _head():
        return
    if found.half_made:
        rest = " and ".join(str(path) for path in (file, *file.parent.glob(f"{file.name}-*")))
        raise UserError(
            f"MLflow's database {file} is half made, since its making was interrupted, and holds no run: delete {rest}, "
            "then start again"
        )
    if found.revision is None or found.revision in _revisions():
        raise UserError(
            f"MLflow's database {file} is of an older MLflow than the installed {mlflow.__version__}: make a copy of it, "
            f"then let `mlflow db upgrade sqlite:///{file}` bring it up to date while nothing else uses it"
        )
    raise UserError(
        f"MLflow's database {file} is of a newer MLflow than the installed {mlflow.__version__}, which does not know its "
        f"form {found.revision}: install that MLflow, or {ELSEWHERE}"
    )


@dataclass(frozen=True)
class _State:
    """What a database of MLflow's says: its revision, and whether it has an experiment, which is made last of all."""

    revision: str | None
    used: bool

    @property
    def half_made(self) -> bool:
        return not self.used and self.revision != _head()


def _is_empty(file: Path) -> bool:
    """Whether there is no file, or one without a byte, as SQLite makes it when it connects."""
    return not file.exists() or (file.is_file() and file.stat().st_size == 0)


def _part(file: Path) -> Path:
    """Where a database grows."""
    return file.with_name(f".{file.name}.part")


def _lock(file: Path) -> Path:
    return file.with_name(f".{file.name}.lock")


def _make(file: Path) -> None:
    """Make a database, unless another process has done it; remove what one that was killed has left."""
    part = _part(file)
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with exclusive(_lock(file), WAIT_SECONDS):
            for left in file.parent.glob(f"{part.name}*"):
                left.unlink()
            if _is_empty(file):
                _fill(part)
                _put(part, file)
    except BusyError as error:
        raise UserError(
            f"{error.holder} has been making MLflow's database {file} for {WAIT_SECONDS:g} seconds: wait for it, or end "
            f"it{error.hint}"
        ) from error
    except (OSError, sqlalchemy.exc.OperationalError) as error:
        reason = str(getattr(error, "orig", None) or error)
        raise UserError(f"MLflow's database {file} cannot be made ({reason}); {ELSEWHERE}") from error


def _fill(file: Path) -> None:
    """Let MLflow make a database in a file, and bring it to the disk once, where SQLite would after each step."""
    from mlflow.store.tracking.sqlalchemy_store import SqlAlchemyStore  # here: it takes long, and few need it

    with _without_sync():
        store = SqlAlchemyStore(f"sqlite:///{file}", DEFAULT_LOCAL_FILE_AND_ARTIFACT_PATH)
    store.engine.dispose()
    with file.open("rb") as whole:
        os.fsync(whole.fileno())


@contextlib.contextmanager
def _without_sync() -> Iterator[None]:
    def relax(connection: object, record: object) -> None:
        if isinstance(connection, sqlite3.Connection):
            connection.execute("PRAGMA synchronous = OFF")

    sqlalchemy.event.listen(sqlalchemy.Engine, "connect", relax)
    try:
        yield
    finally:
        sqlalchemy.event.remove(sqlalchemy.Engine, "connect", relax)


def _put(part: Path, file: Path) -> None:
    """Move a database to its place, but not over one that MLflow itself has begun there in the meantime."""
    if not file.exists():
        try:
            os.link(part, file)
        except FileExistsError:
            pass
        except OSError:  # no hard links here
            part.replace(file)
    elif _is_empty(file):
        part.replace(file)
    part.unlink(missing_ok=True)


def _look(file: Path) -> _State | None:
    """What is there; None where nothing of MLflow is, or somebody locks it, which MLflow waits for."""
    if not file.is_file():
        raise UserError(f"MLflow's database {file} must be a file, found something else; {ELSEWHERE}")
    try:
        with contextlib.closing(sqlite3.connect(f"{file.as_uri()}?mode=rw", uri=True, timeout=0)) as database:
            tables = {name for (name,) in database.execute("SELECT name FROM sqlite_master")}
            if not tables & {"alembic_version", "experiments"}:
                return None
            revision = _first(database, tables, "alembic_version", "version_num")
            return _State(revision, _first(database, tables, "experiments", "name") is not None)
    except sqlite3.OperationalError:
        return None
    except sqlite3.DatabaseError as error:
        raise UserError(
            f"{file} must be a SQLite database of MLflow's, found none ({error}): bring back a copy of it, or {ELSEWHERE}"
        ) from None


def _first(database: sqlite3.Connection, tables: set[str], table: str, column: str) -> str | None:
    """A value of a table; None where there is none, or no such table."""
    row = database.execute(f"SELECT {column} FROM {table} LIMIT 1").fetchone() if table in tables else None
    return None if row is None else str(row[0])


@functools.cache
def _scripts() -> ScriptDirectory:
    return ScriptDirectory(str(Path(mlflow.__file__).parent / "store" / "db_migrations"))


def _head() -> str:
    """The revision of a database that the installed MLflow makes."""
    return ", ".join(_scripts().get_heads())


def _revisions() -> set[str]:
    return {script.revision for script in _scripts().walk_revisions()}
