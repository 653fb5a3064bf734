"""Qlib's experiment manager, mended where a run would end with the wrong status or with the wrong words."""

from __future__ import annotations

import logging
import multiprocessing
import os
from datetime import datetime
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient
from qlib.workflow.exp import MLflowExperiment
from qlib.workflow.expm import MLflowExpManager
from sqlalchemy.exc import SQLAlchemyError

from qlib_ext.checks import UserError, nearest, one_of
from qlib_ext.features.expression_text import guard
from qlib_ext.masking import mask_logs, masked
from qlib_ext.paths import shortened, writable
from qlib_ext.terminal import quiet_imports, quiet_libraries, quiet_qlib, show_messages
from qlib_ext.tracking import database
from qlib_ext.tracking.availability import is_unavailable, set_timeouts, wait_seconds
from qlib_ext.tracking.outbox import outbox_root
from qlib_ext.tracking.place import ROOT, check_place, local_folder
from qlib_ext.tracking.runs import (
    DEFAULT_DATABASE,
    checked_uri,
    connect,
    deleted_message,
    disable_telemetry,
)
from qlib_ext.workflow.process_end import install_excepthook, raise_on_signals
from qlib_ext.workflow.read import workflow_of_qrun

with quiet_imports():  # Qlib's strategies bring gym, which has something to say
    from qlib_ext.workflow.recorder import Recorder
    from qlib_ext.workflow.settings import OF_MANAGER, check_settings
    from qlib_ext.workflow.task import check_task

logger = logging.getLogger(__name__)

LONGEST_NAME = 200  # bytes of an experiment in a run's name, of which MLflow's databases take 250
# To MLflow's page, which has one for prompts too.
OF_MODELS = ("mlflow.experimentKind", "custom_model_development")


class UnknownNameError(UserError, AttributeError):
    """Something that this module has not."""


def __getattr__(name: str) -> Any:
    """Say in one line what Qlib looks for here in vain: it builds the manager before anything can check a workflow."""
    if name.startswith("__"):
        raise AttributeError(name)
    install_excepthook()
    raise UnknownNameError(f"`{__name__}` has no class `{name}`{nearest(name, globals())}")


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
        If `uri` names MLflow's file store, which MLflow 3.13 and later refuse, or an argument is unknown.

    Departures
    ----------
    Qlib's manager, except that

    - a `UserError` ends the run as FAILED and prints its message alone, without a traceback; the process ends
      with status 1, as with any other exception;
    - an interruption (Ctrl-C, SIGTERM), or several at once, ends the run as KILLED; under Qlib, SIGTERM leaves it RUNNING
      for ever;
    - a run without a name gets one of experiment and time, where Qlib names every run `mlflow_recorder`;
    - parameters in lists of mappings, such as the records, are logged one by one under their classes, dates as dates;
    - tags say model, method, tasks, universe, seed, strategy and commit (`qlib_ext.tracking.tags`), from the start;
    - MLflow's telemetry is off, unless MLFLOW_DISABLE_TELEMETRY says otherwise;
    - a workflow that `qrun` runs is checked as a whole before its run begins, and the package's records are built once
      before the training in any case, so that mistakes show at once;
    - an expression is read before Qlib evaluates it (`qlib_ext.features.expression_text`);
    - outside a git repository nothing is asked of git.
    """

    def __init__(self, uri: str | None = None, default_exp_name: str = "Experiment", **unknown: Any):
        install_excepthook()  # for what goes wrong before a run starts, here too
        for key in unknown:
            one_of("key of qlib_init.exp_manager.kwargs", key, OF_MANAGER)
        show_messages()
        disable_telemetry()
        set_timeouts()
        wait_seconds()  # a wrong setting is said now, not at the end of a run
        if uri is None:
            uri = os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{DEFAULT_DATABASE}"
        super().__init__(uri=checked_uri(uri), default_exp_name=default_exp_name)
        mask_logs("qlib", "qlib_ext", "mlflow")
        guard()  # from here on Qlib evaluates no text that is no expression
        workflow = workflow_of_qrun() if multiprocessing.parent_process() is None else None
        if workflow is None:
            quiet_libraries()
            return
        database.check_writable(uri)
        database.check(uri)
        check_settings(workflow)
        quiet_libraries(workflow["qlib_init"].get("logging_level", logging.WARNING))
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
        install_excepthook()  # again: Qlib puts its own after this manager is built
        raise_on_signals()
        if (uri or self.uri).startswith("http"):
            connect(uri or self.uri)  # a server that is not there, or refuses us, is said now and in one line
            self._look_at_outbox()
        if recorder_id is None and recorder_name is None and not resume:
            # to the microsecond: runs that start at once have names of their own
            recorder_name = f"{shortened(experiment_name or self._default_exp_name, LONGEST_NAME)} {datetime.now():%Y-%m-%d %H:%M:%S.%f}"
        database.prepare(uri or self.uri)
        try:
            if experiment_id is None:
                self._check_experiment(uri or self.uri, experiment_name or self._default_exp_name)
            with quiet_qlib():  # it warns that the experiment of a first run is new
                experiment = super().start_exp(
                    experiment_id=experiment_id,
                    experiment_name=experiment_name,
                    recorder_id=recorder_id,
                    recorder_name=recorder_name,
                    uri=None if uri is None else checked_uri(uri),
                    resume=resume,
                    **kwargs,
                )
        except (MlflowException, SQLAlchemyError) as error:
            if isinstance(error, MlflowException) and not is_unavailable(error):
                raise
            raise UserError(
                f"no run can be started in {masked(uri or self.uri)} ({masked(str(error)).splitlines()[0][:200]}): wait "
                "until nothing else locks it, make room on its disk, or set MLFLOW_TRACKING_URI to another store"
            ) from error
        begun = experiment.active_recorder
        logger.info("Run %s (%s)", begun.name, begun.id)
        return experiment

    def _check_experiment(self, uri: str, name: str) -> None:
        """Refuse the name of a deleted experiment, and one whose artifacts cannot be written or would go astray."""
        client = MlflowClient(tracking_uri=checked_uri(uri))
        found = client.get_experiment_by_name(name)
        if found is not None and found.lifecycle_stage == "deleted":
            raise UserError(deleted_message(found))
        if found is not None:
            check_place(client, name, found.artifact_location)
            folder = local_folder(found.artifact_location)
        else:
            folder = None if uri.startswith("http") else Path(ROOT)
        if folder is not None:
            writable(folder, name="the place of the run's artifacts", way_out="start it in another folder")

    def _look_at_outbox(self) -> None:
        """Warn where nothing of a run could be kept: it needs no place as long as the server answers."""
        try:
            writable(
                outbox_root(), name="MLFLOW_OUTBOX", way_out="name another, or nothing can be kept of a run"
            )
        except UserError as error:
            logger.warning("should the server go away: %s", error)

    def create_exp(self, experiment_name: str | None = None) -> Experiment:
        """Create an experiment of a new name."""
        made = super().create_exp(experiment_name)
        self.client.set_experiment_tag(made.id, *OF_MODELS)
        return Experiment(made.id, made.name, self.uri)

    def _get_exp(self, experiment_id: str | None = None, experiment_name: str | None = None) -> Experiment:
        found = super()._get_exp(experiment_id=experiment_id, experiment_name=experiment_name)
        return Experiment(found.id, found.name, self.uri)
