"""Runs found again on an MLflow store, by whatever a person calls them; without Qlib."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlparse

import mlflow
import mlflow.exceptions
from mlflow.entities import Experiment, Run, ViewType
from mlflow.tracking import MlflowClient
from sqlalchemy.exc import SQLAlchemyError

from qlib_ext.checks import UserError, nearest
from qlib_ext.masking import mask_logs, masked
from qlib_ext.tracking import database

DEFAULT_DATABASE = "mlflow.db"
SHORTEST_PREFIX = 4
PARENT = "mlflow.parentRunId"  # MLflow's own tag of a run below another one, such as a fold
_PAGE = 1000


def connect(uri: str | None = None) -> MlflowClient:
    """Open the MLflow store that runs are read from.

    Parameters
    ----------
    uri
        MLflow's tracking URI: a database such as `sqlite:///mlflow.db`, or a server such as
        `http://localhost:5000`. The default is the environment's MLFLOW_TRACKING_URI, and without one the database
        `mlflow.db` of the working directory.

    Raises
    ------
    UserError
        If there is no such store, it does not answer, or it is MLflow's file store, which MLflow 3.13 and later
        refuse. A password in the URI is not shown.
    """
    uri = uri or os.environ.get("MLFLOW_TRACKING_URI") or None
    if uri is None:
        if not Path(DEFAULT_DATABASE).is_file():
            raise UserError(
                f"no MLflow store: MLFLOW_TRACKING_URI is not set and `{DEFAULT_DATABASE}` is not in {Path.cwd()}. "
                f"Name one by `--tracking-uri`, such as sqlite:////path/to/{DEFAULT_DATABASE} or http://localhost:5000"
            )
        # In full: MLflow keeps a database open by its address, wherever the process goes in the meantime.
        uri = f"sqlite:///{Path(DEFAULT_DATABASE).resolve()}"
    checked_uri(uri)
    _check_database_file(uri)
    database.check(uri)
    disable_telemetry()
    mask_logs("mlflow")
    os.environ.setdefault("MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR", "false")  # a bar for every small file
    try:
        with _one_retry():
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
    except (mlflow.exceptions.MlflowException, SQLAlchemyError, ImportError) as error:
        raise UserError(f"the MLflow store {masked(uri)} does not answer: {_reason(error)}") from None
    return client


def use(uri: str | None) -> None:
    """Let a tracking URI that a command was given be that of the environment, for all that this process does."""
    if uri is not None:
        os.environ["MLFLOW_TRACKING_URI"] = checked_uri(uri)


@contextlib.contextmanager
def place_kept(uri: str | None = None) -> Iterator[None]:
    """What is done within goes to a tracking URI, by default that of the environment, which afterwards is as it was."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    use(uri)
    try:
        yield
    finally:  # Qlib's recorder sets MLflow's own, which goes before the environment and changes it too
        mlflow.set_tracking_uri(None)  # type: ignore[arg-type]
        if before is None:
            os.environ.pop("MLFLOW_TRACKING_URI", None)
        else:
            os.environ["MLFLOW_TRACKING_URI"] = before


def find_run(client: MlflowClient, wanted: str) -> Run:
    """Find one run.

    Parameters
    ----------
    client
        From `connect`.
    wanted
        In the order in which it is looked for: the id of a run; the name of an experiment, which stands for its
        newest finished run; the name of a run; the first digits of an id, at least four.

    Raises
    ------
    UserError
        If nothing is called so, the experiment has no finished run, or several runs are meant.
    """
    found = _called(client, wanted, finished=True)
    if len(found) > 1 and _experiment(client, wanted) is None:
        raise UserError(f"{len(found)} runs are called `{wanted}`: name one by its id: {_listed(found)}")
    return found[0]


def find_runs(client: MlflowClient, wanted: Sequence[str], *, finished: bool = True) -> list[Run]:
    """Find several runs.

    Parameters
    ----------
    client
        From `connect`.
    wanted
        Each as in `find_run`, but that the name of an experiment stands for all of its finished runs, and the
        name of several runs for all of them.
    finished
        Whether only the finished runs of an experiment are meant; False takes all that are not deleted.

    Returns
    -------
    The runs in the order of `wanted`, those of an experiment from the oldest to the newest, each run once.

    Raises
    ------
    UserError
        As in `find_run`.
    """
    runs: dict[str, Run] = {}
    for name in wanted:
        for run in reversed(_called(client, name, finished=finished)):
            runs.setdefault(run.info.run_id, run)
    return list(runs.values())


def all_runs(client: MlflowClient) -> list[tuple[Run, str]]:
    """All runs that are not deleted, the newest first, each with the name of its experiment."""
    names = {experiment.experiment_id: experiment.name for experiment in _experiments(client)}
    return [(run, names[run.info.experiment_id]) for run in _pages(client, [*names], "")]


def all_tags(client: MlflowClient, name: str) -> dict[str, str]:
    """The values of a tag, by the id of the run, of all runs that have it."""
    runs = _pages(client, _experiment_ids(client), f"tags.`{name}` LIKE '%'")
    return {run.info.run_id: run.data.tags[name] for run in runs}


def checked_uri(uri: object) -> str:
    """Return a tracking URI if it names a database or a server.

    Raises
    ------
    UserError
        If it names MLflow's file store.
    """
    if not isinstance(uri, str) or urlparse(uri).scheme in ("", "file") or "://" not in uri:
        raise UserError(
            "the tracking URI must name a database or a server, such as `sqlite:///mlflow.db` or "
            f"`http://localhost:5000`: MLflow refuses its file store since 3.13; found {masked(repr(uri))}. "
            "Set MLFLOW_TRACKING_URI=sqlite:///mlflow.db, also where MLFLOW_ALLOW_FILE_STORE is set; `mlflow "
            "migrate-filestore --source mlruns --target sqlite:///mlflow.db` brings earlier runs along"
        )
    return uri


def disable_telemetry() -> None:
    """Turn off MLflow's reports of its use, unless MLFLOW_DISABLE_TELEMETRY is set: a strategy is nobody else's business."""
    if "MLFLOW_DISABLE_TELEMETRY" not in os.environ and importlib.util.find_spec("mlflow.telemetry"):
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
        importlib.import_module("mlflow.telemetry").set_telemetry_client()  # again: it was set up on import


def _check_database_file(uri: str) -> None:
    """A database file must be there: SQLite would make an empty one, in which no run is found."""
    file = database.database_file(uri)
    if file is not None and not file.exists():
        raise UserError(
            f"no MLflow database at {file}: train a model first, or name another by `--tracking-uri`"
        )


@contextlib.contextmanager
def _one_retry() -> Iterator[None]:
    """Ask a server twice and not for minutes: a person waits for the answer."""
    name = "MLFLOW_HTTP_REQUEST_MAX_RETRIES"
    if name in os.environ:
        yield
        return
    os.environ[name] = "1"
    try:
        yield
    finally:
        del os.environ[name]


def _reason(error: Exception) -> str:
    """The first line of what went wrong, short."""
    text = masked(str(error)).strip() or type(error).__name__
    return text.splitlines()[0][:300]


def _called(client: MlflowClient, wanted: str, *, finished: bool) -> list[Run]:
    """At least one run that `wanted` means, the newest first."""
    if not wanted.strip():
        raise UserError("a run or an experiment must have a name, found an empty one")
    by_id = _search(client, "run_id", wanted, exact=True)
    if by_id:
        return by_id
    experiment = _experiment(client, wanted)
    if experiment is not None:
        return _of_experiment(client, experiment, finished=finished)
    named = _search(client, "run_name", wanted, exact=True)
    if named:
        return named
    if len(wanted) >= SHORTEST_PREFIX:
        begun = _search(client, "run_id", wanted, exact=False)
        if len(begun) > 1:
            raise UserError(f"{len(begun)} runs begin with `{wanted}`: give more digits of {_listed(begun)}")
        if begun:
            return begun
    raise UserError(_unknown(client, wanted))


def _of_experiment(client: MlflowClient, experiment: Experiment, *, finished: bool) -> list[Run]:
    runs = [run for run in _pages(client, [experiment.experiment_id], "") if PARENT not in run.data.tags]
    kept = [run for run in runs if run.info.status == "FINISHED" or not finished]
    if kept:
        return kept
    others = [run.info.status for run in runs]
    counts = ", ".join(f"{others.count(status)} {status}" for status in dict.fromkeys(others))
    raise UserError(
        f"the experiment `{experiment.name}` has no finished run" + (f", only {counts}" if counts else "")
    )


def _search(client: MlflowClient, attribute: str, value: str, *, exact: bool) -> list[Run]:
    """Runs of all experiments whose attribute is `value`, or begins with it, the newest first."""
    # MLflow's filters know no escape of quotes: `_` stands for any character, and equality is judged here.
    pattern = "".join("_" if mark in "'\"`\\" else mark for mark in value) + ("" if exact else "%")
    runs = _pages(client, _experiment_ids(client), f"attributes.{attribute} LIKE '{pattern}'")
    values = [(getattr(run.info, attribute) or "", run) for run in runs]
    return [run for found, run in values if (found == value if exact else found.startswith(value))]


def _pages(client: MlflowClient, experiment_ids: Sequence[str], filter_string: str) -> list[Run]:
    if not experiment_ids:
        return []
    return _all_pages(
        client.search_runs, list(experiment_ids), filter_string, order_by=["attributes.start_time DESC"]
    )


def _all_pages(search: Callable[..., Any], *arguments: Any, **named: Any) -> list[Any]:
    """What a search of MLflow's finds, all pages of it."""
    found: list[Any] = []
    token = None
    while True:
        page = search(*arguments, max_results=_PAGE, page_token=token, **named)
        found.extend(page)
        token = page.token
        if not token:
            return found


def _experiments(client: MlflowClient) -> list[Experiment]:
    return _all_pages(client.search_experiments)


def _experiment_ids(client: MlflowClient) -> list[str]:
    return [experiment.experiment_id for experiment in _experiments(client)]


def _experiment(client: MlflowClient, name: str) -> Experiment | None:
    """The experiment of that name; None where there is none, or it was deleted."""
    found = client.get_experiment_by_name(name)
    return found if found is not None and found.lifecycle_stage == "active" else None


def _listed(runs: Sequence[Run], most: int = 5) -> str:
    shown = [f"{run.info.run_id} ({run.info.run_name})" for run in runs[:most]]
    return ", ".join(shown) + (f" and {len(runs) - most} more" if len(runs) > most else "")


def deleted_message(experiment: Experiment) -> str:
    """What to say of an experiment that was deleted."""
    return (
        f"the experiment `{experiment.name}` was deleted: `mlflow experiments restore --experiment-id "
        f"{experiment.experiment_id}` brings it back, with MLFLOW_TRACKING_URI set; or take another name"
    )


def _unknown(client: MlflowClient, wanted: str) -> str:
    gone = client.get_experiment_by_name(wanted)
    if gone is not None:
        return deleted_message(gone)
    deleted = client.search_runs(
        _experiment_ids(client), run_view_type=ViewType.DELETED_ONLY, max_results=_PAGE
    )
    for run in deleted:
        if wanted in (run.info.run_id, run.info.run_name):
            return (
                f"the run `{wanted}` was deleted: `mlflow runs restore --run-id {run.info.run_id}` brings it back, with "
                "MLFLOW_TRACKING_URI set"
            )
    experiments = [experiment.name for experiment in _experiments(client)]
    newest = client.search_runs(_experiment_ids(client), max_results=_PAGE) if experiments else []
    near = nearest(wanted, [*experiments, *dict.fromkeys(run.info.run_name or "" for run in newest)])
    return (
        f"no run or experiment `{wanted}` in {masked(client.tracking_uri)}{near}; experiments: "
        f"{', '.join(experiments[:10]) or 'none'}"
    )
