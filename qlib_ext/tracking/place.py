"""Where a database says that the artifacts of its runs lie, after its folder was moved or copied.

MLflow notes the folder of artifacts in full when it makes an experiment, beside the database by default. A project
that is moved takes the database along, and the note still leads to the old place.
"""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlparse
from urllib.request import url2pathname

from mlflow.tracking import MlflowClient
from sqlalchemy import create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from qlib_ext.checks import UserError
from qlib_ext.masking import masked

ROOT = "mlruns"  # MLflow's folder of artifacts, beside the database
COLUMNS = (("experiments", "artifact_location"), ("runs", "artifact_uri"))


def local_folder(artifact_uri: str | None) -> Path | None:
    """The folder of this machine that holds artifacts; None where a server or a bucket has them."""
    place = urlparse(artifact_uri or "")
    return Path(url2pathname(place.path)) if place.scheme in ("", "file") and place.path else None


def moved(uri: str, artifact_uri: str | None) -> tuple[Path, Path] | None:
    """The old and the new folder of artifacts, where those of a SQLite database came along with it.

    They did where the database has them beside it, and where it says is nothing, or another database's own.
    """
    folder = local_folder(artifact_uri)
    name = make_url(uri).database if uri.startswith("sqlite:") else None
    if folder is None or not name:
        return None
    database = Path(name).absolute()
    old = next((place for place in (folder, *folder.parents) if place.name == ROOT), None)
    if old is None or old.parent.resolve() == database.parent.resolve():
        return None
    new = database.parent / ROOT
    others = (old.parent / database.name).is_file()
    came_along = (new / folder.relative_to(old)).is_dir()
    return (old, new) if came_along and (others or not folder.is_dir()) else None


def check_place(client: MlflowClient, experiment: str, artifact_uri: str | None) -> None:
    """Raise a UserError where a new run would write into the folder that the project was moved or copied from."""
    places = moved(client.tracking_uri, artifact_uri)
    if places is not None:
        raise UserError(
            f"the experiment `{experiment}` keeps its artifacts in {local_folder(artifact_uri)}, from before the project "
            f"was moved or copied: {_command(*places)}, or give the workflow another `experiment_name`"
        )


def check_there(client: MlflowClient, run_id: str) -> None:
    """Raise a UserError where the folder of a run's artifacts is not there: they were written, and went elsewhere."""
    uri = client.get_run(run_id).info.artifact_uri
    folder = local_folder(uri)
    if folder is None or folder.is_dir():
        return
    places = moved(client.tracking_uri, uri)
    looked = f"the artifacts of the run {run_id} are looked for in {folder}, which is not there"
    if places is not None:
        raise UserError(f"{looked}, since the project was moved: {_command(*places)}")
    runs = folder.parents[1]  # of the experiment: where it is there, this run has written nothing yet
    root = next((place for place in folder.parents if place.name == ROOT), runs)
    if not (runs.is_dir() or root.is_dir()):
        raise UserError(
            f"{looked}: bring the folder back, or name where it lies now by `qlib-ext relocate {root} NEW`"
        )


def relocate(uri: str, old: Path, new: Path) -> int:
    """Tell a database that artifacts lie in another folder, and return of how many runs.

    Parameters
    ----------
    uri
        Of the database.
    old, new
        Folders in full; everything below `old` is looked for below `new` from now on. No file is moved.

    Raises
    ------
    UserError
        If `new` is not there, the database cannot be changed, or nothing in it lies below `old`.
    """
    if not new.is_dir():
        raise UserError(f"NEW must be the folder that holds the artifacts now, found no folder at {new}")
    if "://" not in uri or uri.startswith("http"):
        raise UserError(f"the places of a server's artifacts are the server's to change: found {masked(uri)}")
    counts = []
    try:
        engine = create_engine(uri)
        with engine.begin() as connection:
            for table, column in COLUMNS:
                for before, after in ((str(old), str(new)), (old.as_uri(), new.as_uri())):
                    changed = connection.execute(
                        text(
                            f"UPDATE {table} SET {column} = :after || substr({column}, :length + 1) "
                            f"WHERE substr({column}, 1, :length) = :before"
                        ),
                        {"after": f"{after}/", "before": f"{before}/", "length": len(before) + 1},
                    )
                    counts.append(changed.rowcount)
        engine.dispose()
    except SQLAlchemyError as error:
        raise UserError(
            f"the database {masked(uri)} cannot be changed: {masked(str(error)).splitlines()[0][:200]}"
        ) from None
    if not any(counts):
        raise UserError(f"nothing in {masked(uri)} lies below {old}")
    return sum(counts[2:])


def _command(old: Path, new: Path) -> str:
    return f"`qlib-ext relocate {old} {new}` tells the database where they lie now"
