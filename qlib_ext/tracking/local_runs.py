"""What this process knows of the runs that it makes, should the server be away when somebody asks."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path

from mlflow.entities import FileInfo, Metric, Param, Run, RunData, RunTag

from qlib_ext.paths import inside
from qlib_ext.tracking.place import local_folder


class LocalRuns:
    """Runs as the server would know them, and their files.

    Parameters
    ----------
    remote
        Whether the runs' artifacts lie with a server; otherwise they lie on this disk, whatever the database is at.

    Attributes
    ----------
    known
        The runs by their ids.
    """

    def __init__(self, remote: bool) -> None:
        self.remote = remote
        self.known: dict[str, Run] = {}
        self._copies: tempfile.TemporaryDirectory[str] | None = None

    def update(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Add what is logged to a known run."""
        run = self.known[run_id]
        values = {**run.data.metrics, **{item.key: item.value for item in metrics}}
        data = RunData(
            metrics=[Metric(key, value, 0, 0) for key, value in values.items()],
            params=[Param(*pair) for pair in {**run.data.params, **_texts(params)}.items()],
            tags=[RunTag(*pair) for pair in {**run.data.tags, **_texts(tags)}.items()],
        )
        self.known[run_id] = Run(run.info, data)

    def keep_file(self, run_id: str, source: Path, path: str) -> None:
        """Keep a copy of an artifact for as long as the run lasts."""
        copy = inside(self._copies_of(run_id), path, what="an artifact")
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)

    def fetch(self, run_id: str, path: str, folder: str | None) -> str | None:
        """Where an artifact lies on this machine; copied into `folder` where one is given. None where it lies nowhere."""
        for root in self._places(run_id):
            file = inside(root, path, what="an artifact")
            if not file.is_file():
                continue
            if folder is None and root != self._copies_of(run_id):
                return str(file)  # as MLflow does with what lies on this disk
            target = Path(folder or tempfile.mkdtemp()) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            return str(target)
        return None

    def files(self, run_id: str, path: str | None) -> Iterator[FileInfo]:
        """Files and folders of the run that lie on this machine, one level of them."""
        for root in self._places(run_id):
            folder = root / (path or "")
            for item in folder.iterdir() if folder.is_dir() else ():
                size = None if item.is_dir() else item.stat().st_size
                yield FileInfo(item.relative_to(root).as_posix(), item.is_dir(), size)

    def forget(self, run_id: str) -> None:
        """Remove the copies of a run's files."""
        if self._copies is not None:
            shutil.rmtree(self._copies_of(run_id), ignore_errors=True)

    def _copies_of(self, run_id: str) -> Path:
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="mlflow-run-")
        return inside(Path(self._copies.name), run_id, what="a run's id")

    def _places(self, run_id: str) -> Iterator[Path]:
        """Folders of this machine that hold files of the run: the copies, and a database's own."""
        yield self._copies_of(run_id)
        if not self.remote and run_id in self.known:
            folder = local_folder(self.known[run_id].info.artifact_uri)
            if folder is not None:
                yield folder


def _texts(items: Sequence[Param] | Sequence[RunTag]) -> dict[str, str]:
    return {item.key: item.value for item in items}
