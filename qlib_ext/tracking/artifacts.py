"""What a run left behind, as the report reads it: a folder of artifacts, and the run's own record of itself."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from pathlib import Path, PurePosixPath
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.masking import masked
from qlib_ext.paths import inside
from qlib_ext.tracking.checksums import MANIFEST, checksum, from_text
from qlib_ext.tracking.place import check_there, local_folder

UNKNOWN = "no record that is known"
BEFORE = "0.2"  # the last version whose runs have no checksums


def missing_message(reader: str, missing: Iterable[str], makers: Mapping[str, str]) -> str:
    """One message that names the artifacts that `reader` lacks and what writes them.

    `makers` has the records by the artifact paths that they make; a path that it does not name is some other record's.
    """
    lacking = "; ".join(f"`{path}`, written by {makers.get(path, UNKNOWN)}" for path in missing)
    return (
        f"{reader} needs artifacts that this run does not have: {lacking}. "
        "A record comes before those that read it in `task.record`"
    )


def stored(client: MlflowClient, run_id: str, paths: Iterable[str]) -> list[str]:
    """Those of the artifact paths that a run on MLflow has, each once.

    Raises
    ------
    UserError
        If the folder that has them is not there.
    """
    wanted = [*dict.fromkeys(paths)]
    folders = dict.fromkeys(str(PurePosixPath(path).parent) for path in wanted)
    found = {
        item.path
        for folder in folders
        for item in client.list_artifacts(run_id, None if folder == "." else folder)
        if not item.is_dir
    }
    if not found:
        check_there(client, run_id)
    return [path for path in wanted if path in found]


def _check_source(artifact_uri: str | None, path: str) -> None:
    """An artifact on this machine must lie among the run's: MLflow would follow a link to any file."""
    folder = local_folder(artifact_uri)
    if folder is not None:
        inside(folder, path, what="an artifact")


class DamagedError(UserError):
    """An artifact that is there, and is not what the run wrote."""


def damaged(path: str, error: object, makers: Mapping[str, str]) -> DamagedError:
    """What to raise of an artifact that is there and cannot be read."""
    reason = (str(error).strip() or type(error).__name__).splitlines()[0][:200]
    return DamagedError(
        f"the artifact `{path}` is damaged or only half there ({reason}): make it again by a run of the workflow "
        f"({f'{makers[path]} makes it; ' if path in makers else ''}RESUME=1 trains nothing twice)"
    )


@contextlib.contextmanager
def reading(reader: str, paths: Iterable[str]) -> Iterator[None]:
    """Take an error of a reader of this package for what it says of the artifacts: they are not as this version writes them.

    Parameters
    ----------
    reader
        What reads, for messages.
    paths
        The artifacts that it reads.
    """
    try:
        yield
    except UserError:
        raise
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        said = (str(error).strip() or "no more is known").splitlines()[0][:200]
        raise UserError(
            f"{reader} cannot be made from {', '.join(f'`{path}`' for path in paths)}: they are not as this version writes "
            f"them ({type(error).__name__}: {said}); make them again by a run of the workflow"
        ) from error


def check_bytes(
    file: Path, path: str, checksums: Mapping[str, str], makers: Mapping[str, str] | None = None
) -> None:
    """Raise a DamagedError where a file does not hold what the run wrote; one without a checksum passes."""
    if path in checksums and checksum(file) != checksums[path]:
        raise damaged(path, "its checksum is not that of what the run wrote", makers or {})


def read_checksums(client: MlflowClient, run_id: str) -> dict[str, str]:
    """Artifact path -> checksum, as the run's manifest has them; empty where it has none.

    Raises
    ------
    DamagedError
        If the manifest is not what the run wrote.
    """
    if not stored(client, run_id, [MANIFEST]):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            return from_text(Path(client.download_artifacts(run_id, MANIFEST, folder)).read_text("utf-8"))
        except ValueError as error:
            raise DamagedError(
                f"the artifact `{MANIFEST}` of the run {run_id} is damaged ({error}), so damage to the others would go "
                "unnoticed: run the workflow again, or delete that file to read the run as it is"
            ) from error


def unchecked_note(runs: Sequence[str]) -> str:
    """What to say of runs, by their names, of which an artifact was read that has no checksum."""
    shown = ", ".join(runs[:3]) + (f" and {len(runs) - 3} more" if len(runs) > 3 else "")
    return (
        f"{shown}: no checksums of what was read, as of runs that version {BEFORE} made or that were killed, so damage to "
        "the files would go unnoticed"
    )


def read_table(file: Path, path: str, makers: Mapping[str, str]) -> pd.DataFrame:
    """Read a Parquet file, or a CSV file with its first column as index.

    Parameters
    ----------
    file
        Where it lies.
    path
        Its artifact path, for messages.
    makers
        Artifact path -> the record that makes it, for messages too.

    Raises
    ------
    DamagedError
        If it is no such file, or was cut short: a table as CSV ends with the end of a line.
    """
    try:
        if file.suffix == ".parquet":
            return pd.read_parquet(file)
        if not file.read_bytes().endswith(b"\n"):
            raise ValueError("its last line has no end")
        return pd.read_csv(file, index_col=0)
    except (ValueError, OSError) as error:  # pyarrow's and pandas' own are kinds of these
        raise damaged(path, error, makers) from error


def put(path: Path, content: str | bytes) -> None:
    """Write a file in its folder, whole or not at all; what was there before stays until then."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        beside.write_bytes(content.encode() if isinstance(content, str) else content)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


@dataclasses.dataclass(frozen=True)
class RunArtifacts:
    """A read-only view of one run.

    Parameters
    ----------
    root
        Folder that holds the artifacts under their artifact paths.
    params, metrics, tags
        As MLflow has them: names to text, names to numbers, names to text.
    info
        What else is known of the run: `run_id`, `run_name`, `experiment`, `started`, `tracking_uri` and `command`, both
        without passwords.
    makers
        Artifact path -> the record that makes it, for messages about what is missing.
    unchecked
        Artifact paths of which the run keeps no checksum, so that damage to them would go unnoticed.
    """

    root: Path
    params: Mapping[str, str] = dataclasses.field(default_factory=dict)
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
    info: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    makers: Mapping[str, str] = dataclasses.field(default_factory=dict)
    unchecked: Sequence[str] = ()

    @classmethod
    def download(
        cls,
        client: MlflowClient,
        run_id: str,
        paths: Iterable[str],
        root: Path,
        makers: Mapping[str, str] | None = None,
    ) -> RunArtifacts:
        """Fetch artifacts of a run on MLflow, and what MLflow knows of the run.

        Parameters
        ----------
        client
            Of the store that has the run.
        run_id
            The run's id.
        paths
            Artifact paths to fetch; the run must have them.
        root
            An empty folder to fetch into.
        makers
            As of the class.

        Raises
        ------
        UserError
            If a path leads out of the folder, or to something outside of a run's artifacts on this machine.
        DamagedError
            If an artifact is not what the run wrote.
        """
        run = client.get_run(run_id)
        paths, makers = [*paths], makers or {}
        checksums = read_checksums(client, run_id) if paths else {}
        for path in paths:
            target = inside(root, path, what="an artifact")
            _check_source(run.info.artifact_uri, path)
            # Stores differ in how they lay out what they hand over.
            with tempfile.TemporaryDirectory() as folder:
                found = client.download_artifacts(run_id, path, folder)
                check_bytes(Path(found), path, checksums, makers)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.move(found, target)
        started = datetime.fromtimestamp(run.info.start_time / 1000)
        return cls(
            root,
            params=run.data.params,
            metrics=run.data.metrics,
            tags=run.data.tags,
            info={
                "run_id": run_id,
                "run_name": run.info.run_name,
                "experiment": client.get_experiment(run.info.experiment_id).name,
                "started": f"{started:%Y-%m-%d %H:%M}",
                "tracking_uri": masked(client.tracking_uri),
                "command": masked(run.data.params.get("cmd-sys.argv", "")),
            },
            makers=makers,
            unchecked=[path for path in paths if path not in checksums],
        )

    def maker(self, path: str) -> str:
        """The record that makes the artifact, or that none is known."""
        return self.makers.get(path, UNKNOWN)

    def has(self, path: str) -> bool:
        """Whether the run has the artifact."""
        return inside(self.root, path, what="an artifact").is_file()

    def table(self, path: str) -> pd.DataFrame:
        """A Parquet artifact, or a CSV artifact with its first column as index.

        Raises
        ------
        UserError
            If the run has not got it, or it cannot be read.
        """
        return read_table(self._file(path), path, self.makers)

    def json(self, path: str) -> Any:
        """A JSON artifact."""
        try:
            return json.loads(self.text(path))
        except (json.JSONDecodeError, RecursionError) as error:
            raise damaged(path, error, self.makers) from error

    def text(self, path: str) -> str:
        """A text artifact."""
        try:
            return self._file(path).read_text(encoding="utf-8")
        except UnicodeDecodeError as error:
            raise damaged(path, error, self.makers) from error

    def metric(self, name: str) -> float:
        """A metric of the run.

        Raises
        ------
        UserError
            If the run has not logged it.
        """
        if name not in self.metrics:
            known = ", ".join(sorted(self.metrics)) or "none"
            raise UserError(f"the run has no metric `{name}`; it has {known}")
        return self.metrics[name]

    def _file(self, path: str) -> Path:
        if not self.has(path):
            raise UserError(missing_message("the report", [path], self.makers))
        return self.root / path
