"""A run's way to an MLflow server that may be away for a while: what cannot be sent is kept, and sent later.

A folder `<outbox>/<run id>` holds what the server has not got: `unsent.jsonl`, a line for each batch of metrics,
parameters and tags, each artifact and the end of the run, in their order; `artifacts/`, the files of those artifacts;
and `run.json`, whose run it is. It is there only while something is unsent.
"""

from __future__ import annotations

import json
import logging
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any
from urllib.parse import urlparse
from urllib.request import url2pathname

import requests
from mlflow.entities import (
    Experiment,
    FileInfo,
    Metric,
    Param,
    Run,
    RunData,
    RunTag,
)
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.masking import masked
from qlib_ext.paths import inside

logger = logging.getLogger(__name__)

FOLDER = "MLFLOW_OUTBOX"  # environment: where the folders lie
DEFAULT_FOLDER = "mlflow_outbox"
WAIT = "MLFLOW_WAIT_SECONDS"  # environment: how long the end of a run waits for the server
DEFAULT_WAIT_SECONDS = 600.0
FIRST_PAUSE, LONGEST_PAUSE = 2.0, 60.0  # seconds between two tries
PROBE_SECONDS = 3.0
# A training waits for a request a minute and a half at most, not MLflow's twenty; the environment's own settings come
# first.
PATIENCE: Mapping[str, str] = {
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "2",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "30",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "120",
}
LOG, ARTIFACTS, WHOSE = "unsent.jsonl", "artifacts", "run.json"


def be_patient() -> None:
    """Set how long a request to MLflow may take, unless the environment says so already."""
    for name, value in PATIENCE.items():
        os.environ.setdefault(name, value)


def outbox_root() -> Path:
    """The folder of all outboxes: MLFLOW_OUTBOX, by default `mlflow_outbox` in the working directory."""
    return Path(os.environ.get(FOLDER) or DEFAULT_FOLDER).expanduser().absolute()


def wait_seconds() -> float:
    """How long the end of a run waits for the server: MLFLOW_WAIT_SECONDS, by default ten minutes."""
    text = os.environ.get(WAIT) or str(DEFAULT_WAIT_SECONDS)
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise UserError(f"`{WAIT}` must be a number of seconds of at least 0, found {text!r}")
    return seconds


def is_away(error: BaseException) -> bool:
    """Whether an error says that a server does not answer or is not well, so that a later try may go through."""
    if isinstance(error, requests.RequestException):
        response = error.response
        return response is None or response.status_code == 429 or response.status_code >= 500
    if isinstance(error, MlflowException):
        return int(error.get_http_status_code()) == 429 or int(error.get_http_status_code()) >= 500
    return isinstance(error, ConnectionError)


class Outbox:
    """What of one run the server has not got, on disk.

    Parameters
    ----------
    folder
        Of this run; made when there is something to keep.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    @property
    def empty(self) -> bool:
        """Whether the server has everything."""
        return not (self.folder / LOG).is_file()

    def keep(self, entry: Mapping[str, Any], whose: Mapping[str, Any]) -> None:
        """Add an entry; it is on disk when this returns.

        Raises
        ------
        UserError
            If it cannot be written either.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / WHOSE).is_file():
                _put(self.folder / WHOSE, json.dumps(whose, indent=2) + "\n")
            self._append(f"{json.dumps(entry)}\n".encode())
        except OSError as error:
            raise self._no_place(error) from error

    def _append(self, line: bytes) -> None:
        """Add a line behind the last whole one; what a crash or a full disk cut short goes."""
        with (self.folder / LOG).open("ab+") as file:
            file.seek(0)
            file.truncate(file.read().rfind(b"\n") + 1)
            file.write(line)
            file.flush()
            os.fsync(file.fileno())

    def _no_place(self, error: OSError) -> UserError:
        return UserError(
            f"MLflow does not take what the run logs, and it cannot be kept in {self.folder} ({error.strerror or error}): "
            f"make room or name another folder by {FOLDER}, then take the run up with RESUME=1"
        )

    def keep_file(self, source: Path, path: str, whose: Mapping[str, Any]) -> None:
        """Add an artifact."""
        target = inside(self.folder / ARTIFACTS, path, what="an artifact")
        beside = target.with_name(f"{target.name}.part")
        try:
            target.parent.mkdir(parents=True, exist_ok=True)
            try:
                shutil.copyfile(source, beside)
                beside.replace(target)
            finally:
                beside.unlink(missing_ok=True)
        except OSError as error:
            raise self._no_place(error) from error
        self.keep({"artifact": path}, whose)

    def entries(self) -> list[dict[str, Any]]:
        """What is unsent, the oldest first. A last line that was cut short by a crash is left out."""
        lines = (
            (self.folder / LOG).read_text(encoding="utf-8").splitlines(keepends=True)
            if not self.empty
            else []
        )
        return [json.loads(line) for line in lines if line.endswith("\n")]

    def send(self, client: MlflowClient, run_id: str) -> int:
        """Send everything, in order, and return how many entries those were.

        What was sent is forgotten at once, so a try that fails half-way loses nothing. A batch that reached the server
        though its answer was lost is sent again, which changes nothing: a metric has the time of its making, and MLflow
        keeps equal points once.

        Raises
        ------
        MlflowException, requests.RequestException
            If the server does not take one; the rest stays.
        """
        entries = self.entries()
        sent = 0
        try:
            for entry in entries:
                self._send_one(client, run_id, entry)
                sent += 1
        finally:
            if sent == len(entries):
                shutil.rmtree(self.folder, ignore_errors=True)
            elif sent:
                _put(self.folder / LOG, "".join(json.dumps(entry) + "\n" for entry in entries[sent:]))
        return sent

    def _send_one(self, client: MlflowClient, run_id: str, entry: Mapping[str, Any]) -> None:
        # the methods of MlflowClient itself: those of BufferedMlflowClient would keep again what they cannot send
        if "artifact" in entry:
            path = PurePosixPath(entry["artifact"])
            folder = None if str(path.parent) == "." else str(path.parent)
            file = inside(
                self.folder / ARTIFACTS, entry["artifact"], what="an artifact"
            )  # nothing else is sent
            MlflowClient.log_artifact(client, run_id, str(file), folder)
        elif "status" in entry:
            MlflowClient.set_terminated(client, run_id, entry["status"], entry["end_time"])
        else:
            MlflowClient.log_batch(client, run_id, *_batch_of(entry))


class BufferedMlflowClient(MlflowClient):
    """An MLflow client that never fails a run because its server is away.

    What is logged and cannot be sent goes to the outbox, and from then on everything does, so that the order is kept;
    every now and then, and at the end, it is tried again. The files of the run are kept in a temporary folder as well
    while it lasts, so that a record can read what another wrote with the server away.

    Parameters
    ----------
    uri
        MLflow's tracking URI.

    Notes
    -----
    A request that the server refuses (a wrong password, a parameter changed) is an error as ever. After a failed
    request the next try comes after 2 seconds, then after twice as long each time, a minute at most; a server is first
    asked whether it is there at all, which takes 3 seconds at most.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(tracking_uri=uri)
        self.uri = uri
        self.remote = uri.startswith(("http://", "https://"))
        self.root = outbox_root()
        self._lock = threading.RLock()
        self._pause = FIRST_PAUSE
        self._next_try = 0.0
        self._away = False
        self._copies: tempfile.TemporaryDirectory[str] | None = None
        self._runs: dict[str, Run] = {}
        self._experiments: dict[str, Experiment] = {}

    # -- what a run logs -------------------------------------------------------------------------------------

    def log_batch(
        self,
        run_id: str,
        metrics: Sequence[Metric] = (),
        params: Sequence[Param] = (),
        tags: Sequence[RunTag] = (),
        synchronous: bool | None = None,
    ) -> None:
        if not (metrics or params or tags):
            return
        with self._lock:
            self._remember(run_id, metrics, params, tags)
            if not self._ready(run_id):
                self._outbox(run_id).keep(_entry_of(metrics, params, tags), self._whose(run_id))
                return
            try:
                super().log_batch(run_id, metrics, params, tags)
            except (MlflowException, requests.RequestException) as error:
                self._went_away(error)
                self._outbox(run_id).keep(_entry_of(metrics, params, tags), self._whose(run_id))

    def log_metric(
        self,
        run_id: str,
        key: str,
        value: float,
        timestamp: int | None = None,
        step: int | None = None,
        synchronous: bool | None = None,
        dataset_name: str | None = None,
        dataset_digest: str | None = None,
        model_id: str | None = None,
    ) -> None:
        made = int(time.time() * 1000) if timestamp is None else timestamp
        self.log_batch(run_id, metrics=[Metric(key, float(value), made, step or 0)])

    def log_param(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> Any:
        self.log_batch(run_id, params=[Param(key, str(value))])
        return value

    def set_tag(self, run_id: str, key: str, value: Any, synchronous: bool | None = None) -> None:
        self.log_batch(run_id, tags=[RunTag(key, str(value))])

    def log_artifact(self, run_id: str, local_path: str | Path, artifact_path: str | None = None) -> None:
        with self._lock:
            source = Path(local_path)
            path = str(PurePosixPath(artifact_path or "") / source.name)
            if self.remote:
                self._keep_copy(run_id, source, path)
            if self._ready(run_id):
                try:
                    super().log_artifact(run_id, str(source), artifact_path)
                    return
                except (MlflowException, requests.RequestException) as error:
                    self._went_away(error)
            if not self.remote:
                self._keep_copy(run_id, source, path)
            self._outbox(run_id).keep_file(source, path, self._whose(run_id))

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        root = Path(local_dir)
        for file in sorted(root.rglob("*")):
            if file.is_file():
                folder = PurePosixPath(artifact_path or "") / file.parent.relative_to(root).as_posix()
                self.log_artifact(run_id, file, None if str(folder) == "." else str(folder))

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        with self._lock:
            if self._ready(run_id):
                try:
                    super().set_terminated(run_id, status, end_time)
                    return
                except (MlflowException, requests.RequestException) as error:
                    self._went_away(error)
            self.keep_end(run_id, status or "FINISHED")

    # -- what a run reads of itself --------------------------------------------------------------------------

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        with self._lock:
            found = {item.path: item for item in self._here(run_id, path)}
            if self._ready(run_id) or not found:
                try:
                    found |= {item.path: item for item in super().list_artifacts(run_id, path)}
                except (MlflowException, requests.RequestException) as error:
                    self._went_away(error)
            return sorted(found.values(), key=lambda item: item.path)

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        for root in self._places(run_id):
            file = inside(root, path, what="an artifact")
            if not file.is_file():
                continue
            if dst_path is None and root != self._copy(run_id, ""):
                return str(file)  # as MLflow does with what lies on this disk
            target = Path(dst_path or tempfile.mkdtemp()) / path
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(file, target)
            return str(target)
        return super().download_artifacts(run_id, path, dst_path)

    def get_run(self, run_id: str) -> Run:
        with self._lock:
            if self._ready(run_id) or run_id not in self._runs:
                try:
                    return super().get_run(run_id)
                except (MlflowException, requests.RequestException) as error:
                    if run_id not in self._runs:
                        raise
                    self._went_away(error)
            return self._runs[run_id]

    def get_experiment(self, experiment_id: str) -> Experiment:
        if experiment_id not in self._experiments:
            self._experiments[experiment_id] = super().get_experiment(experiment_id)
        return self._experiments[experiment_id]

    # -- the end ---------------------------------------------------------------------------------------------

    def deliver(self, run_id: str, seconds: float = 0.0) -> bool:
        """Send what is left of a run, trying for some time; say whether the server has everything.

        Raises
        ------
        MlflowException, requests.RequestException
            If the server refuses something.
        """
        outbox = self._outbox(run_id)
        until = time.monotonic() + seconds
        told = False
        while not outbox.empty:
            with self._lock:
                self._next_try = 0.0
                if self._ready(run_id):
                    break
            if time.monotonic() >= until:
                return False
            if not told:
                logger.warning(
                    "%s does not answer; the run is done and waits for it, %.0f seconds at most (%s)",
                    masked(self.uri),
                    seconds,
                    WAIT,
                )
                told = True
            time.sleep(min(FIRST_PAUSE, max(0.0, until - time.monotonic())))
        return True

    def keep_end(self, run_id: str, status: str) -> Path:
        """Keep the end of a run for later, and return where all of it lies."""
        outbox = self._outbox(run_id)
        entry = {"status": status, "end_time": int(time.time() * 1000)}
        outbox.keep(entry, self._whose(run_id))
        return outbox.folder

    def forget(self, run_id: str) -> None:
        """Remove the temporary copies of a run's files."""
        if self._copies is not None:
            shutil.rmtree(inside(Path(self._copies.name), run_id, what="a run's id"), ignore_errors=True)

    # ---------------------------------------------------------------------------------------------------------

    def _ready(self, run_id: str) -> bool:
        """Whether the next request may go straight to the server: nothing of the run waits, or it has just gone."""
        outbox = self._outbox(run_id)
        if outbox.empty and not self._away:
            return True
        if time.monotonic() < self._next_try:
            return False
        if not self._answers():
            self._later()
            return False
        if not outbox.empty:
            try:
                sent = outbox.send(self, run_id)
            except (MlflowException, requests.RequestException) as error:
                self._went_away(error)
                return False
            logger.warning(
                "%s answers again: sent what was kept of the run (%d entries)", masked(self.uri), sent
            )
        self._away, self._pause = False, FIRST_PAUSE
        return True

    def _answers(self) -> bool:
        """A quick look whether the server is there: a request to one that is not takes its time."""
        if not self.remote:
            return True
        try:
            reply = requests.get(f"{_without_password(self.uri)}/health", timeout=PROBE_SECONDS)
        except requests.RequestException:
            return False
        return reply.status_code < 500

    def _went_away(self, error: Exception) -> None:
        """Note that a request failed because the server is away; what it refuses is raised."""
        if not is_away(error):
            raise error
        if not self._away:
            logger.warning(
                "%s does not answer (%s): what the run logs is kept in %s and sent later",
                masked(self.uri),
                masked(str(error)).splitlines()[0][:200],
                self.root,
            )
        self._away = True
        self._later()

    def _later(self) -> None:
        self._next_try = time.monotonic() + self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def _outbox(self, run_id: str) -> Outbox:
        return Outbox(inside(self.root, run_id, what="a run's id"))

    def _whose(self, run_id: str) -> dict[str, Any]:
        run = self._runs.get(run_id)
        return {
            "run_id": run_id,
            "run_name": None if run is None else run.info.run_name,
            "tracking_uri": _without_password(self.uri),
            "host": socket.gethostname(),
            "process": os.getpid(),
        }

    def _remember(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Know the run as the server would, should it be away when somebody asks."""
        if run_id not in self._runs:
            if self._away:
                return
            try:
                self._runs[run_id] = super().get_run(run_id)  # at its beginning: it has just been made
                self.get_experiment(self._runs[run_id].info.experiment_id)
            except (MlflowException, requests.RequestException) as error:
                self._went_away(error)
                return
        run = self._runs[run_id]
        values = {**run.data.metrics, **{item.key: item.value for item in metrics}}
        data = RunData(
            metrics=[Metric(key, value, 0, 0) for key, value in values.items()],
            params=[Param(*pair) for pair in {**run.data.params, **_texts(params)}.items()],
            tags=[RunTag(*pair) for pair in {**run.data.tags, **_texts(tags)}.items()],
        )
        self._runs[run_id] = Run(run.info, data)

    def _copy(self, run_id: str, path: str) -> Path:
        if self._copies is None:
            self._copies = tempfile.TemporaryDirectory(prefix="mlflow-run-")
        root = inside(Path(self._copies.name), run_id, what="a run's id")
        return inside(root, path, what="an artifact") if path else root

    def _keep_copy(self, run_id: str, source: Path, path: str) -> None:
        copy = self._copy(run_id, path)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(source, copy)

    def _places(self, run_id: str) -> Iterator[Path]:
        """Folders of this machine that hold files of the run: the temporary one, and a database's own."""
        yield self._copy(run_id, "")
        if not self.remote and run_id in self._runs:
            uri = urlparse(self._runs[run_id].info.artifact_uri)
            if uri.scheme in ("", "file"):  # it is on this disk, whatever the database is at
                yield Path(url2pathname(uri.path))

    def _here(self, run_id: str, path: str | None) -> Iterator[FileInfo]:
        """Files and folders of the run that lie on this machine, one level of them."""
        for root in self._places(run_id):
            folder = root / (path or "")
            for item in folder.iterdir() if folder.is_dir() else ():
                size = None if item.is_dir() else item.stat().st_size
                yield FileInfo(item.relative_to(root).as_posix(), item.is_dir(), size)


def send_all(root: Path, uri: str | None = None) -> Iterator[tuple[str, int]]:
    """Send what finished or fallen runs have left in their outboxes, and tell of each run how many entries that were.

    Parameters
    ----------
    root
        Folder of outboxes, or one of them.
    uri
        MLflow's tracking URI; by default the one that the run logged to. Its password comes from the environment.

    Raises
    ------
    UserError
        If there is nothing there, the run is still being made, or the server does not take it.
    """
    be_patient()
    folders = [root] if (root / WHOSE).is_file() else sorted(path.parent for path in root.glob(f"*/{WHOSE}"))
    if not folders:
        raise UserError(
            f"{root} holds nothing unsent: name a folder of MLFLOW_OUTBOX, or there is nothing to do"
        )
    for folder in folders:
        whose = json.loads((folder / WHOSE).read_text(encoding="utf-8"))
        if whose["host"] == socket.gethostname() and _is_alive(whose["process"]):
            raise UserError(
                f"the run {whose['run_id']} is still being made by process {whose['process']}, which sends it itself"
            )
        outbox = Outbox(folder)
        client = MlflowClient(tracking_uri=uri or whose["tracking_uri"])
        try:
            sent = outbox.send(client, whose["run_id"])
        except (MlflowException, requests.RequestException) as error:
            raise UserError(
                f"the run {whose['run_id']} could not be sent to {masked(client.tracking_uri)}, it stays in {folder}: "
                f"{masked(str(error)).splitlines()[0][:300]}"
            ) from error
        yield whose["run_id"], sent


def _entry_of(metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]) -> dict[str, Any]:
    """A batch as JSON; numbers as text, since JSON has neither infinity nor NaN."""
    return {
        "metrics": [[item.key, repr(float(item.value)), item.timestamp, item.step] for item in metrics],
        "params": [[item.key, item.value] for item in params],
        "tags": [[item.key, item.value] for item in tags],
    }


def _batch_of(entry: Mapping[str, Any]) -> tuple[list[Metric], list[Param], list[RunTag]]:
    metrics = [Metric(key, float(value), made, step) for key, value, made, step in entry["metrics"]]
    return metrics, [Param(*pair) for pair in entry["params"]], [RunTag(*pair) for pair in entry["tags"]]


def _put(path: Path, text: str) -> None:
    """Write a file, whole or not at all."""
    beside = path.with_name(f"{path.name}.part")
    try:
        beside.write_text(text, encoding="utf-8")
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def _texts(items: Sequence[Param] | Sequence[RunTag]) -> dict[str, str]:
    return {item.key: item.value for item in items}


def _without_password(uri: str) -> str:
    """A URI that may lie in a file: `http://name:secret@host` without name and secret."""
    scheme, mark, rest = uri.partition("://")
    place, slash, path = rest.partition("/")
    return f"{scheme}{mark}{place.rpartition('@')[2]}{slash}{path}" if mark else uri


def _is_alive(process: int) -> bool:
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # somebody else's
        return True
    return True
