"""A client of MLflow whose run goes on while the server is away."""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import requests
from mlflow.entities import Experiment, FileInfo, Metric, Param, Run, RunTag
from mlflow.tracking import MlflowClient

from qlib_ext.masking import masked
from qlib_ext.paths import inside
from qlib_ext.tracking import availability
from qlib_ext.tracking.artifacts import check_bytes, read_checksums
from qlib_ext.tracking.availability import REQUEST_ERRORS, WAIT, Backoff, is_unavailable
from qlib_ext.tracking.checksums import MANIFEST, checksum, to_text
from qlib_ext.tracking.local_runs import LocalRuns
from qlib_ext.tracking.outbox import Outbox, outbox_root, without_password

logger = logging.getLogger(__name__)

PROBE_SECONDS = 3.0


class BufferedMlflowClient(MlflowClient):
    """An MLflow client that never fails a run because its server is away.

    What is logged and cannot be sent goes to the outbox, and from then on everything does, so that the order is kept;
    every now and then, and at the end, it is tried again. The files of the run are kept in a temporary folder as well
    while it lasts, so that a record can read what another wrote with the server away. What it logged it knows by its
    checksum, when it is read back and for those who read the run later.

    Parameters
    ----------
    uri
        MLflow's tracking URI.

    Notes
    -----
    A request that the server refuses (a wrong password, a parameter changed) is an error as ever. A server that was away
    is first asked whether it is there at all, which takes 3 seconds at most.
    """

    def __init__(self, uri: str) -> None:
        super().__init__(tracking_uri=uri)
        self.uri = uri
        self.remote = uri.startswith(("http://", "https://"))
        self.root = outbox_root()
        self._lock = threading.RLock()
        self._backoff = Backoff()
        self._local = LocalRuns(self.remote)
        self._experiments: dict[str, Experiment] = {}
        self._checksums: dict[str, dict[str, str]] = {}  # run -> artifact path -> checksum

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
            if not self._sent(run_id, super().log_batch, metrics, params, tags):
                self._outbox(run_id).keep_batch(metrics, params, tags, self._owner(run_id))

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
            if source.is_dir():
                return self.log_artifacts(run_id, str(source), path)
            if path != MANIFEST:
                self._checksums.setdefault(run_id, {})[path] = checksum(source)
            if self.remote:
                self._local.keep_file(run_id, source, path)
            if self._sent(run_id, super().log_artifact, str(source), artifact_path):
                return
            if not self.remote:
                self._local.keep_file(run_id, source, path)
            self._outbox(run_id).keep_file(source, path, self._owner(run_id))

    def log_artifacts(self, run_id: str, local_dir: str, artifact_path: str | None = None) -> None:
        root = Path(local_dir)
        for file in sorted(root.rglob("*")):
            if file.is_file():
                folder = PurePosixPath(artifact_path or "") / file.parent.relative_to(root).as_posix()
                self.log_artifact(run_id, file, None if str(folder) == "." else str(folder))

    def log_checksums(self, run_id: str) -> None:
        """Write the manifest of the run's artifacts: of what this client logged, and of what another logged before.

        Raises
        ------
        DamagedError
            If there is a manifest that is damaged.
        """
        logged = self._checksums.get(run_id)
        if logged:
            self.log_text(run_id, to_text(read_checksums(self, run_id) | logged), MANIFEST)

    def set_terminated(self, run_id: str, status: str | None = None, end_time: int | None = None) -> None:
        with self._lock:
            if not self._sent(run_id, super().set_terminated, status, end_time):
                self.keep_end(run_id, status or "FINISHED")

    # -- what a run reads of itself --------------------------------------------------------------------------

    def list_artifacts(self, run_id: str, path: str | None = None) -> list[FileInfo]:
        with self._lock:
            found = {item.path: item for item in self._local.files(run_id, path)}
            if self._ready(run_id) or not found:
                try:
                    found |= {item.path: item for item in super().list_artifacts(run_id, path)}
                except REQUEST_ERRORS as error:
                    self._went_away(error)
            return sorted(found.values(), key=lambda item: item.path)

    def download_artifacts(self, run_id: str, path: str, dst_path: str | None = None) -> str:
        found = self._local.fetch(run_id, path, dst_path) or super().download_artifacts(
            run_id, path, dst_path
        )
        check_bytes(Path(found), path, self._checksums.get(run_id, {}))
        return found

    def get_run(self, run_id: str) -> Run:
        with self._lock:
            if self._ready(run_id) or run_id not in self._local.known:
                try:
                    return super().get_run(run_id)
                except REQUEST_ERRORS as error:
                    if run_id not in self._local.known:
                        raise
                    self._went_away(error)
            return self._local.known[run_id]

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
                self._backoff.hurry()
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
            time.sleep(min(availability.FIRST_PAUSE, max(0.0, until - time.monotonic())))
        return True

    def keep_end(self, run_id: str, status: str) -> Path:
        """Keep the end of a run for later, and return where all of it lies."""
        return self._outbox(run_id).keep_end(status, self._owner(run_id))

    def forget(self, run_id: str) -> None:
        """Remove the temporary copies of a run's files."""
        self._local.forget(run_id)

    # ---------------------------------------------------------------------------------------------------------

    def _sent(self, run_id: str, request: Callable[..., Any], *arguments: Any) -> bool:
        """Make a request of a run; say whether it went to the server, or has to be kept."""
        if self._ready(run_id):
            try:
                request(run_id, *arguments)
                return True
            except REQUEST_ERRORS as error:
                self._went_away(error)
        return False

    def _ready(self, run_id: str) -> bool:
        """Whether the next request may go straight to the server: nothing of the run waits, or it has just gone."""
        outbox = self._outbox(run_id)
        if outbox.empty and not self._backoff.failed:
            return True
        if not self._backoff.due:
            return False
        if not self._answers():
            self._backoff.fail()
            return False
        if not outbox.empty:
            try:
                sent = outbox.send(self, run_id)
            except REQUEST_ERRORS as error:
                self._went_away(error)
                return False
            logger.warning(
                "%s answers again: sent what was kept of the run (%d entries)", masked(self.uri), sent
            )
        self._backoff.succeed()
        return True

    def _answers(self) -> bool:
        """A quick look whether the server is there: a request to one that is not takes its time."""
        if not self.remote:
            return True
        try:
            reply = requests.get(f"{without_password(self.uri)}/health", timeout=PROBE_SECONDS)
        except requests.RequestException:
            return False
        return reply.status_code < 500

    def _went_away(self, error: Exception) -> None:
        """Note that a request failed because the server is away; what it refuses is raised."""
        if not is_unavailable(error):
            raise error
        if not self._backoff.failed:
            logger.warning(
                "%s does not answer (%s): what the run logs is kept in %s and sent later",
                masked(self.uri),
                masked(str(error)).splitlines()[0][:200],
                self.root,
            )
        self._backoff.fail()

    def _outbox(self, run_id: str) -> Outbox:
        return Outbox(inside(self.root, run_id, what="a run's id"))

    def _owner(self, run_id: str) -> dict[str, Any]:
        """Whose outbox it is, for the command that sends it."""
        run = self._local.known.get(run_id)
        return {
            "run_id": run_id,
            "run_name": None if run is None else run.info.run_name,
            "tracking_uri": without_password(self.uri),
            "host": socket.gethostname(),
            "process": os.getpid(),
        }

    def _remember(
        self, run_id: str, metrics: Sequence[Metric], params: Sequence[Param], tags: Sequence[RunTag]
    ) -> None:
        """Know the run as the server would, should it be away when somebody asks."""
        if run_id not in self._local.known:
            if self._backoff.failed:
                return
            try:
                self._local.known[run_id] = super().get_run(run_id)  # at its beginning: it has just been made
                self.get_experiment(self._local.known[run_id].info.experiment_id)
            except REQUEST_ERRORS as error:
                self._went_away(error)
                return
        self._local.update(run_id, metrics, params, tags)
