"""Qlib's experiment manager, mended where a run would end with the wrong status or with the wrong words."""

from __future__ import annotations

import copy
import errno
import logging
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from types import FrameType, TracebackType
from typing import Any

import requests
from mlflow.entities import Metric, Param, RunTag
from mlflow.exceptions import MlflowException
from qlib.workflow import R
from qlib.workflow.exp import MLflowExperiment
from qlib.workflow.expm import MLflowExpManager
from qlib.workflow.recorder import MLflowRecorder
from sqlalchemy.exc import SQLAlchemyError

from qlib_ext.checks import UserError
from qlib_ext.features.expression_text import guard
from qlib_ext.masking import mask_logs, masked
from qlib_ext.records.base import check_records
from qlib_ext.tracking import git
from qlib_ext.tracking.outbox import BufferedMlflowClient, be_patient, is_away, wait_seconds
from qlib_ext.tracking.runs import DEFAULT_DATABASE, checked_uri, connect, keep_to_ourselves
from qlib_ext.tracking.tags import task_tags
from qlib_ext.workflow.read import workflow_of_qrun
from qlib_ext.workflow.settings import check_settings
from qlib_ext.workflow.task import check_task

logger = logging.getLogger(__name__)

PARAMS_AT_ONCE = 100  # MLflow takes no more in one request
OF_MODELS = (
    "mlflow.experimentKind",
    "custom_model_development",
)  # to MLflow's page; it has one for prompts too
NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
LONGEST_PARAM = 500  # characters; MLflow's page shows all of it in one cell


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
        kept = lost = None
        try:
            complete = self.client.deliver(self.id, wait_seconds() if finished else 0.0)
        except (MlflowException, requests.RequestException) as error:
            logger.error("the server refuses a part of the run: %s", masked(str(error)))
            complete = False
        if not complete:
            kept, lost = self._keep_end(status)
        try:
            super().end_run(status if lost is None else MLflowRecorder.STATUS_FA)
        except (MlflowException, requests.RequestException) as error:
            if not is_away(error):
                raise
            if complete:
                kept, lost = self._keep_end(status)
            complete = False
        self.client.forget(self.id)
        if finished and complete:
            for call in self.on_finished:
                call()
        self.on_finished.clear()
        if lost is not None:
            if finished:
                raise lost
            logger.error("that the run %s is %s could not be noted: %s", self.id, status, lost)
        if kept is not None:
            message = (
                f"{masked(self.uri)} has not got all of the run {self.id}. The rest is kept in {kept}; once the server "
                f"is back, `qlib-ext send {kept}` completes the run"
            )
            if finished:
                raise UserError(message)
            logger.warning(message)

    def _keep_end(self, status: str) -> tuple[Path | None, UserError | None]:
        """Keep the end of the run for later: where it lies, or why that is not possible."""
        try:
            return self.client.keep_end(self.id, status), None
        except UserError as error:
            return None, error

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
            check_records(kwargs["task"], self)
            commit = git.commit()
            self.set_tags(**task_tags(kwargs["task"]), **({} if commit is None else {"git_commit": commit}))
        kept = {name: _without_passwords(value) for name, value in kwargs.items()}
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
        UserError
            If another process saved it and no unpickler is given: whoever can write to the run could have put a pickle
            there that runs a program when it is opened.
        """
        if unpickler is not None:
            return super().load_object(name, unpickler)
        if name not in self._saved:
            raise UserError(
                f"`{name}` of the run {self.id} is a pickle that this process did not write, and to open it is to run "
                "what it holds: take what the run keeps as Parquet, JSON and safetensors, or say that you trust it by "
                "load_object(name, unpickler=pickle.Unpickler)"
            )
        return copy.deepcopy(self._saved[name])

    def log_params(self, **kwargs: Any) -> None:
        """Log parameters as a person reads them: item by item, where Qlib logs all records as one long text.

        Dates are written as dates. Passwords in URIs are hidden, and what is longer than a few lines is cut: the whole
        is in the artifact `config.yaml`.
        """
        flat: dict[str, Any] = {}
        for name, value in kwargs.items():
            flat |= _flatten(name, value)
        params = [Param(name, _readable(value)) for name, value in flat.items()]
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


def _flatten(name: str, value: Any) -> dict[str, Any]:
    """`{"record": [{"class": "m.A"}]}` as `{"record.A.class": "m.A"}`; lists of plain values stay whole.

    By its class an item has the same name in every run, wherever it stands in its list.
    """
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        parts = dict(zip(_item_names(value), value, strict=True))
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in parts.items():
        flat |= _flatten(f"{name}.{key}", part)
    return flat


def _item_names(items: list[Any]) -> list[str]:
    """Classes without their modules, a number behind those that come again; places where an item has no class."""
    classes = [
        str(part.get("class", "")).rpartition(".")[2] if isinstance(part, Mapping) else "" for part in items
    ]
    return [
        (name if name not in classes[:k] else f"{name}-{classes[: k + 1].count(name)}") if name else str(k)
        for k, name in enumerate(classes)
    ]


def _without_passwords(value: Any) -> Any:
    """A configuration without them: Qlib keeps all of it, the tracking URI too. Other objects stay as they are."""
    if isinstance(value, str):
        return masked(value)
    if type(value) is dict:
        return {key: _without_passwords(part) for key, part in value.items()}
    if type(value) is list:
        return [_without_passwords(part) for part in value]
    return value


def _readable(value: Any) -> str:
    written = masked(_written(value))
    return (
        written if len(written) <= LONGEST_PARAM else f"{written[: LONGEST_PARAM - 1]}\N{HORIZONTAL ELLIPSIS}"
    )


def _written(value: Any) -> str:
    """`[datetime.date(2017, 1, 1)]` as `[2017-01-01]`."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)


class Experiment(MLflowExperiment):
    """Qlib's experiment on MLflow, whose runs are recorded by `Recorder`."""

    def create_recorder(self, recorder_name: str | None = None) -> Recorder:
        """A recorder of a new run."""
        return Recorder(self.id, self._uri, recorder_name or self._default_rec_name)

    def _get_recorder(self, recorder_id: str | None = None, recorder_name: str | None = None) -> Recorder:
        found = super()._get_recorder(recorder_id=recorder_id, recorder_name=recorder_name)
        return Recorder(self.id, self._uri, mlflow_run=self._client.get_run(found.id))


class ExperimentManager(MLflowExpManager):
    """Runs of Qlib workflows on an MLflow store.

    Parameters
    ----------
    uri
        MLflow's tracking URI: a database such as `sqlite:///mlflow.db`, or a server such as
        `http://localhost:5000`. By default the environment's MLFLOW_TRACKING_URI, and without one
        `sqlite:///mlflow.db`. Qlib prints what a workflow's template takes from the environment: a URI with a password
        belongs into the variable, and the variable not into a template.
    default_exp_name
        Name of the experiment where a workflow gives none.

    Raises
    ------
    UserError
        If `uri` names MLflow's file store, which MLflow 3.13 and later refuse.

    Departures
    ----------
    Qlib's manager, except that

    - a `UserError` ends the run as FAILED and prints its message alone, without a traceback; the process ends
      with status 1, as with any other exception;
    - an interruption (Ctrl-C, SIGTERM) ends the run as KILLED; under Qlib, SIGTERM leaves it RUNNING for ever;
    - a run without a name gets one of experiment and time, where Qlib names every run `mlflow_recorder`;
    - parameters in lists of mappings, such as the records, are logged one by one under their classes, dates as dates;
    - tags say model, method, tasks, universe, seed, strategy and commit (`qlib_ext.tracking.tags`), from the start;
    - MLflow's telemetry is off, unless MLFLOW_DISABLE_TELEMETRY says otherwise;
    - a workflow that `qrun` runs is checked as a whole before its run begins, and the package's records are built once
      before the training in any case, so that mistakes show at once;
    - an expression is read before Qlib evaluates it (`qlib_ext.features.expression_text`);
    - outside a git repository nothing is asked of git.
    """

    def __init__(self, uri: str | None = None, default_exp_name: str = "Experiment"):
        _install_excepthook()  # for what goes wrong before a run starts, here too
        _show_messages()
        keep_to_ourselves()
        be_patient()
        wait_seconds()  # a wrong setting is said now, not at the end of a run
        if uri is None:
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_DATABASE}"
        super().__init__(uri=checked_uri(uri), default_exp_name=default_exp_name)
        mask_logs("qlib", "qlib_ext", "mlflow")
        guard()  # from here on Qlib evaluates no text that is no expression
        workflow = workflow_of_qrun() if multiprocessing.parent_process() is None else None
        if workflow is not None:
            check_settings(workflow)
            check_task(workflow["task"])

    def start_exp(
        self,
        *,
        experiment_id: str | None = None,
        experiment_name: str | None = None,
        recorder_id: str | None = None,
        recorder_name: str | None = None,
        uri: str | None = None,
        resume: bool = False,
        **kwargs: Any,
    ) -> Experiment:
        """Start a run, or take one up again."""
        _install_excepthook()  # again: Qlib puts its own after this manager is built
        _raise_on_sigterm()
        if (uri or self.uri).startswith("http"):
            connect(uri or self.uri)  # a server that is not there, or refuses us, is said now and in one line
        if recorder_id is None and recorder_name is None and not resume:
            recorder_name = f"{experiment_name or self._default_exp_name} {datetime.now():%Y-%m-%d %H:%M:%S}"
        try:
            return super().start_exp(
                experiment_id=experiment_id,
                experiment_name=experiment_name,
                recorder_id=recorder_id,
                recorder_name=recorder_name,
                uri=None if uri is None else checked_uri(uri),
                resume=resume,
                **kwargs,
            )
        except (MlflowException, SQLAlchemyError) as error:
            if isinstance(error, MlflowException) and not is_away(error):
                raise
            raise UserError(
                f"no run can be started in {masked(uri or self.uri)} ({masked(str(error)).splitlines()[0][:200]}): wait "
                "until nothing else locks it, make room on its disk, or set MLFLOW_TRACKING_URI to another store"
            ) from error

    def create_exp(self, experiment_name: str | None = None) -> Experiment:
        """Create an experiment of a new name."""
        made = super().create_exp(experiment_name)
        self.client.set_experiment_tag(made.id, *OF_MODELS)
        return Experiment(made.id, made.name, self.uri)

    def _get_exp(self, experiment_id: str | None = None, experiment_name: str | None = None) -> Experiment:
        found = super()._get_exp(experiment_id=experiment_id, experiment_name=experiment_name)
        return Experiment(found.id, found.name, self.uri)


class _Excepthook:
    """Ends the active run with the status that the exception deserves, then reports the exception."""

    def __init__(self, previous: Any):
        self.previous = previous

    def __call__(self, kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, UserError):
            _end_run("FAILED")
            sys.stderr.write(f"\n{masked(str(error))}\n")
        elif isinstance(error, OSError) and error.errno in NO_ROOM:
            _end_run("FAILED")
            sys.stderr.write(
                f"\nno room left on the disk ({masked(str(error))}): make some, and take the run up with RESUME=1; its "
                "last checkpoint is whole\n"
            )
        elif issubclass(kind, KeyboardInterrupt):
            run_id = _end_run("KILLED")
            sys.stderr.write("\nInterrupted" + (f"; run {run_id} is marked KILLED.\n" if run_id else ".\n"))
        elif masked(str(error)) != str(error):  # what came before this hook shows the message as it is
            _end_run("FAILED")
            sys.stderr.write(masked("".join(traceback.format_exception(kind, error, trace))))
        else:
            self.previous(kind, error, trace)


def _install_excepthook() -> None:
    if not isinstance(sys.excepthook, _Excepthook):
        sys.excepthook = _Excepthook(sys.excepthook)


def _end_run(status: str) -> str | None:
    """End the active run, and return its id; None where there is none."""
    manager = getattr(R, "exp_manager", None)  # none before qlib.init is through
    experiment = getattr(manager, "active_experiment", None)
    recorder = getattr(experiment, "active_recorder", None)
    if recorder is None:
        return None
    R.end_exp("FAILED")  # Qlib knows no status for a run that was stopped from outside
    if status != "FAILED":
        recorder.client.set_terminated(recorder.id, status)
    return recorder.id


class Terminated(KeyboardInterrupt):
    """The process was asked to end by SIGTERM, as `docker stop` and batch systems do."""


def _raise_on_sigterm() -> None:
    """Make SIGTERM end the run in order, like Ctrl-C, unless the program has plans of its own for it."""
    if threading.current_thread() is not threading.main_thread():
        return
    if signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL:
        return
    owner = os.getpid()

    def terminate(number: int, frame: FrameType | None) -> None:
        if os.getpid() != owner:  # a worker that inherited this handler: the run is not its to end
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            os.kill(os.getpid(), signal.SIGTERM)
            return
        raise Terminated("SIGTERM")

    signal.signal(signal.SIGTERM, terminate)


def _show_messages() -> None:
    """Let the package's own messages reach the terminal, and not a line for each migration and each artifact."""
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")
    for chatty in ("alembic", "mlflow.store.db.utils"):
        logging.getLogger(chatty).setLevel(logging.WARNING)
    package = logging.getLogger("qlib_ext")
    if not package.handlers:
        handler = logging.StreamHandler()
        handler.setFormatter(logging.Formatter("%(message)s"))
        package.addHandler(handler)
        package.setLevel(logging.INFO)
