"""What of a run an MLflow server has not got, kept on disk until it can be sent.

A folder `<outbox>/<run id>` holds what the server has not got: `unsent.jsonl`, a line for each batch of metrics,
parameters and tags, each artifact and the end of the run, in their order; `artifacts/`, the files of those artifacts;
and `run.json`, whose run it is. It is there only while something is unsent.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from mlflow.entities import Metric, Param, RunTag
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.masking import masked
from qlib_ext.paths import inside
from qlib_ext.tracking.availability import REQUEST_ERRORS, set_timeouts

FOLDER = "MLFLOW_OUTBOX"  # environment: where the folders lie
DEFAULT_FOLDER = "mlflow_outbox"
LOG, ARTIFACTS, OWNER = "unsent.jsonl", "artifacts", "run.json"


def outbox_root() -> Path:
    """The folder of all outboxes: MLFLOW_OUTBOX, by default `mlflow_outbox` in the working directory."""
    return Path(os.environ.get(FOLDER) or DEFAULT_FOLDER).expanduser().absolute()


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

    def keep_batch(
        self,
        metrics: Sequence[Metric],
        params: Sequence[Param],
        tags: Sequence[RunTag],
        owner: Mapping[str, Any],
    ) -> None:
        """Add what was logged in one request."""
        self.keep(_entry_of(metrics, params, tags), owner)

    def keep_end(self, status: str, owner: Mapping[str, Any]) -> Path:
        """Add the end of the run, and return the folder."""
        self.keep({"status": status, "end_time": int(time.time() * 1000)}, owner)
        return self.folder

    def keep(self, entry: Mapping[str, Any], owner: Mapping[str, Any]) -> None:
        """Add an entry; it is on disk when this returns.

        Raises
        ------
        UserError
            If it cannot be written either.
        """
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not (self.folder / OWNER).is_file():
                _put(self.folder / OWNER, json.dumps(owner, indent=2) + "\n")
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

    def keep_file(self, source: Path, path: str, owner: Mapping[str, Any]) -> None:
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
        self.keep({"artifact": path}, owner)

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
    set_timeouts()
    folders = [root] if (root / OWNER).is_file() else sorted(path.parent for path in root.glob(f"*/{OWNER}"))
    if not folders:
        raise UserError(
            f"{root} holds nothing unsent: name a folder of MLFLOW_OUTBOX, or there is nothing to do"
        )
    for folder in folders:
        owner = json.loads((folder / OWNER).read_text(encoding="utf-8"))
        if owner["host"] == socket.gethostname() and _is_alive(owner["process"]):
            raise UserError(
                f"the run {owner['run_id']} is still being made by process {owner['process']}, which sends it itself"
            )
        outbox = Outbox(folder)
        client = MlflowClient(tracking_uri=uri or owner["tracking_uri"])
        try:
            sent = outbox.send(client, owner["run_id"])
        except REQUEST_ERRORS as error:
            raise UserError(
                f"the run {owner['run_id']} could not be sent to {masked(client.tracking_uri)}, it stays in {folder}: "
                f"{masked(str(error)).splitlines()[0][:300]}"
            ) from error
        yield owner["run_id"], sent


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


def without_password(uri: str) -> str:
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
