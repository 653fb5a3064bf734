"""Qlib's recorder, for a server that may be away for a while and for people who read what it logs."""

from __future__ import annotations

import copy
import logging
import os
import time
from collections.abc import Callable, Mapping
from pathlib import PurePosixPath
from typing import Any

from mlflow.entities import Metric, RunTag
from mlflow.exceptions import MlflowException
from qlib.utils.exceptions import LoadObjectError
from qlib.workflow.recorder import MLflowRecorder

from qlib_ext.checks import UserError
from qlib_ext.masking import masked
from qlib_ext.records.base import check_records
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.tracking import git
from qlib_ext.tracking.availability import REQUEST_ERRORS, is_unavailable, wait_seconds
from qlib_ext.tracking.buffered_client import BufferedMlflowClient
from qlib_ext.tracking.parameters import parameters, without_passwords
from qlib_ext.tracking.runs import PARENT
from qlib_ext.tracking.tags import task_tags
from qlib_ext.workflow.ensemble import with_members
from qlib_ext.workflow.walk_forward import walked

logger = logging.getLogger(__name__)

SCORES = "signal/predictions.parquet"
PARAMS_AT_ONCE = 100  # MLflow takes no more in one request


class Recorder(MLflowRecorder):
    """Qlib's recorder on MLflow, for a server that may be away for a while.

    It checks the task's records before the training, and asks git only in a repository. What cannot be sent is kept
    (`qlib_ext.tracking.outbox`), where Qlib's thread of logging ends without a word at the first error.

    Attributes
    ----------
    on_finished
        Called when the run has ended as FINISHED and the server has all of it; never, when it ends otherwise.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.client = BufferedMlflowClient(self._uri)
        if masked(self._uri) != self._uri:  # MLflow prints where the run is to be seen, with the password
            os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
        self.on_finished: list[Callable[[], None]] = []
        self._ended = False
        self._saved: dict[str, Any] = {}

    def start_run(self) -> Any:
        """Start the run, or take it up."""
        self._ended = False
        return super().start_run()

    def end_run(self, status: str = MLflowRecorder.STATUS_S) -> None:
        """End the run, and tell those who wait for its good end.

        Raises
        ------
        UserError
            If a finished run could not be sent in MLFLOW_WAIT_SECONDS; all of it is kept, and the message says how it
            is sent later. Or if there is no room to keep it either; then the run has failed, and its checkpoint is
            there to be taken up.
        """
        if self._ended:
            return
        self._ended = True
        finished = status == MLflowRecorder.STATUS_FI
        unsent: UserError | None = None
        if finished:
            self._enter_ledger()
        self._log_checksums()
        if not self._delivered(wait_seconds() if finished else 0.0):
            unsent, status = self._kept_end(status)
        try:
            super().end_run(status)
        except REQUEST_ERRORS as error:
            if not is_unavailable(error):
                raise
            unsent = unsent or self._kept_end(status)[0]
        self.client.forget(self.id)
        if finished and unsent is None:
            for call in self.on_finished:
                call()
        self.on_finished.clear()
        if unsent is not None and finished:
            raise unsent
        if unsent is not None:
            logger.warning("the run %s has ended as %s: %s", self.id, status, unsent)

    def _enter_ledger(self) -> None:
        """Enter a run that looked at test days into the ledger of trials, where none of its records did.

        A fold is a part of the trial that the run above it is.
        """
        try:
            if PARENT in self.client.get_run(self.id).data.tags:
                return
            if any(item == SCORES for item in self.list_artifacts("signal")) and not self.list_artifacts(
                "ledger"
            ):
                LedgerRecord(self).generate()
        except (OSError, UserError, *REQUEST_ERRORS) as error:
            logger.warning("the run %s is not in the ledger of trials: %s", self.id, masked(str(error)))

    def _log_checksums(self) -> None:
        """Let damage to the run's files be noticed later; a run that cannot have it ends as it would without."""
        try:
            self.client.log_checksums(self.id)
        except (OSError, UserError, *REQUEST_ERRORS) as error:
            logger.warning("the run %s keeps no checksums of its files: %s", self.id, masked(str(error)))

    def _delivered(self, seconds: float) -> bool:
        """Whether the server has all of the run, or takes it now."""
        try:
            return self.client.deliver(self.id, seconds)
        except REQUEST_ERRORS as error:
            logger.error("the server refuses a part of the run: %s", masked(str(error)))
            return False

    def _kept_end(self, status: str) -> tuple[UserError, str]:
        """Keep the end of the run for later: what its user must know, and the status with which it ends."""
        try:
            kept = self.client.keep_end(self.id, status)
        except UserError as error:  # there is no room to keep it either
            return error, MLflowRecorder.STATUS_FA
        message = (
            f"{masked(self.uri)} has not got all of the run {self.id}. The rest is kept in {kept}; once the server is "
            f"back, `qlib-ext send {kept}` completes the run"
        )
        return UserError(message), status

    def log_metrics(self, step: int | None = None, **kwargs: Any) -> None:
        """Log metrics of one step in one request."""
        now = int(time.time() * 1000)
        batch = [Metric(name, float(value), now, step or 0) for name, value in kwargs.items()]
        self.client.log_batch(self.id, metrics=batch)

    def set_tags(self, **kwargs: Any) -> None:
        """Set tags in one request."""
        self.client.log_batch(
            self.id, tags=[RunTag(name, masked(str(value))) for name, value in kwargs.items()]
        )

    def save_objects(self, local_path: Any = None, artifact_path: str | None = None, **kwargs: Any) -> None:
        """Save objects as Qlib does; the task is checked first, and what is configured is kept without passwords."""
        # Qlib saves the task first of all: the one moment before the training at which all of it is known.
        if isinstance(kwargs.get("task"), Mapping):
            # In its place, since Qlib builds the model and the dataset of this very mapping next.
            kwargs["task"].update(with_members(walked(kwargs["task"])))
            check_records(kwargs["task"], self)
            commit = git.commit()
            self.set_tags(**task_tags(kwargs["task"]), **({} if commit is None else {"git_commit": commit}))
        kept = {name: without_passwords(value) for name, value in kwargs.items()}
        super().save_objects(local_path, artifact_path, **kept)
        folder = "" if artifact_path is None else f"{artifact_path}/"
        self._saved |= {f"{folder}{name}": value for name, value in kept.items()}

    def load_object(self, name: str, unpickler: Any = None) -> Any:
        """An object that this process saved in the run; a copy of it, and nothing is unpickled.

        Parameters
        ----------
        name
            Its artifact path.
        unpickler
            Such as `pickle.Unpickler`: where it is given, the artifact is fetched and unpickled, as Qlib does it.

        Raises
        ------
        LoadObjectError
            If the run has no such artifact; Qlib's records then look in another folder.
        UserError
            If another process saved it and no unpickler is given: whoever can write to the run could have put a pickle
            there that runs a program when it is opened.
        """
        if unpickler is not None:
            return super().load_object(name, unpickler)
        if name not in self._saved:
            folder = str(PurePosixPath(name).parent)
            if name not in self.list_artifacts(None if folder == "." else folder):
                raise LoadObjectError(f"the run {self.id} has no artifact `{name}`")
            raise UserError(
                f"`{name}` of the run {self.id} is a pickle that this process did not write, and to open it is to run "
                "what it holds: take what the run keeps as Parquet, JSON and safetensors, or say that you trust it by "
                "load_object(name, unpickler=pickle.Unpickler)"
            )
        return copy.deepcopy(self._saved[name])

    def log_params(self, **kwargs: Any) -> None:
        """Log parameters as a person reads them: item by item, where Qlib logs all records as one long text."""
        params = parameters(kwargs)
        try:
            for start in range(0, len(params), PARAMS_AT_ONCE):
                self.client.log_batch(self.id, params=params[start : start + PARAMS_AT_ONCE])
        except MlflowException as error:  # of a run that is taken up with another command line
            logger.warning("parameters are as they were: %s", masked(str(error)))

    def _log_uncommitted_code(self) -> None:
        # Qlib shells out to `git diff` wherever it is, and git answers with its usage text on the terminal.
        if not git.inside_repository():
            return
        for file, arguments in {
            "code_diff.txt": ["diff"],
            "code_status.txt": ["status"],
            "code_cached.txt": ["diff", "--cached"],
        }.items():
            self.client.log_text(self.id, masked(git.output(*arguments) or ""), file)
