"""A workflow run from Python: its file, its mapping, or objects in the place of its parts."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from qlib_ext.api import start
from qlib_ext.api.dataset import Dataset
from qlib_ext.api.run import Run
from qlib_ext.api.trading import portfolio_of
from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.config.described import described, in_notebook

if TYPE_CHECKING:
    from qlib_ext.market.store import QlibStore


def train(
    workflow: str | Path | Mapping[str, Any] | None = None,
    *,
    model: Any = None,
    dataset: Any = None,
    strategy: Any = None,
    backtest: Mapping[str, Any] | None = None,
    record: Sequence[Any] | None = None,
    store: str | Path | QlibStore | None = None,
    name: str | None = None,
    tracking_uri: str | None = None,
    **variables: object,
) -> Run:
    """Train a model, judge its scores and trade them, as a run on MLflow.

    Parameters
    ----------
    workflow
        A YAML file as `qrun` takes it, or what is in one; objects may stand wherever it has `{class, kwargs}`.
    variables
        Values of the file's template, such as `QLIB_DATA="cn"` and `SEED=1`; the environment's count where none is given.
    model
        Without a workflow: a model, such as `MultiTaskModel(...)` or `LGBModel(...)`.
    dataset
        With it: a `Dataset`, or what makes a `DailyPanelDataset`.
    strategy, backtest
        With it: how the scores are traded, as `qlib_ext.api.evaluate` takes it.
    record
        With it: the records in their order, in the place of those that judge and trade any scores.
    store
        With it: the market; that of the `Dataset` by default.
    name
        Experiment on MLflow that gets the run; that of the workflow, or the class of the model, by default.
    tracking_uri
        MLflow's store, from here on in this session. Without it the place that a workflow names, for its run alone; or the
        environment's MLFLOW_TRACKING_URI, or `sqlite:///mlflow.db` in the working directory.

    Returns
    -------
    The finished run.

    Raises
    ------
    UserError
        Before the run begins, of whatever does not fit.

    Notes
    -----
    An object stands for the call that made it (`qlib_ext.config.described`): the run is the same as one of YAML, and keeps
    YAML. What is defined in the notebook itself is told, since no other process can make it again.

    Examples
    --------
    >>> run = train("workflows/mimstocr_csi300.yaml", QLIB_DATA="cn", SEED=1)
    >>> run = train(model=LGBModel(num_leaves=31), dataset=store.dataset("csi300"))
    """
    start.start(tracking_uri)
    parts = {
        "model": model,
        "dataset": dataset,
        "strategy": strategy,
        "backtest": backtest,
        "record": record,
        "store": store,
    }
    given = [key for key, value in parts.items() if value is not None]
    if workflow is not None and given:
        raise UserError(
            f"`{given[0]}` must be left out where a workflow is given, which has its own; change it in the mapping"
        )
    if workflow is None and variables:
        raise UserError(
            f"`train` has no place for `{next(iter(variables))}`{nearest(next(iter(variables)), [*parts, 'workflow', 'name'])}"
            " without a workflow whose template takes it"
        )
    path = Path(workflow).expanduser() if isinstance(workflow, (str, Path)) else None
    if path is not None:
        config = _read(path, variables)
    elif workflow is not None:
        if variables:
            raise UserError(
                f"`{next(iter(variables))}` is for the template of a file, found a mapping: change it there"
            )
        config = described(workflow, name="workflow")
    else:
        config = _of_parts(model, dataset, portfolio=(strategy, backtest), record=record, store=store)
    if name is not None:
        config["experiment_name"] = name
    return _run(config, path, tracking_uri)


def _read(path: Path, variables: Mapping[str, object]) -> dict[str, Any]:
    """A workflow's file with the values of the environment, and with those given."""
    from qlib_ext.workflow.read import read_workflow, variables_of

    known = variables_of(path)
    for key in variables:
        if key not in known:
            raise UserError(
                f"the workflow {path} has no variable `{key}`{nearest(key, known)}; it has {', '.join(sorted(known)) or 'none'}"
            )
    return read_workflow(path, {**os.environ, **{key: str(value) for key, value in variables.items()}})


def _of_parts(
    model: Any,
    dataset: Any,
    *,
    portfolio: tuple[Any, Mapping[str, Any] | None],
    record: Sequence[Any] | None,
    store: str | Path | QlibStore | None,
) -> dict[str, Any]:
    """A workflow around a model and a dataset."""
    from qlib_ext.workflow import scored

    if model is None or dataset is None:
        raise UserError("`train` must be given a workflow, or `model` and `dataset`")
    if store is None and isinstance(dataset, Dataset):
        store = dataset.store
    if store is None:
        raise UserError(
            "`store` must be given, where the dataset is no `qlib_ext.api.Dataset`, which has its own"
        )
    market = start.store_at(store)
    start.read(market)
    traded = portfolio_of(*portfolio)
    if record is not None and traded is not None:
        raise UserError(
            "`strategy` and `backtest` must be left out where `record` is given: name a BacktestRecord there"
        )
    of_data = dataset.config if isinstance(dataset, Dataset) else described(dataset, name="dataset")
    task = scored.of_model(
        described(model, name="model"),
        of_data,
        market,
        portfolio=traded,
        record=None if record is None else described([*record], name="record"),
    )
    called = str(task["model"].get("class", "model")).rpartition(".")[2]
    return {
        "experiment_name": called,
        "qlib_init": {"provider_uri": str(market.root.absolute()), "region": scored.region_of(market)},
        "task": task,
    }


def _run(config: dict[str, Any], path: Path | None, tracking_uri: str | None) -> Run:
    """Run a workflow that is all mappings, and open its run where it lies."""
    from qlib_ext.data.fold_datasets import walks_forward
    from qlib_ext.tracking.runs import connect
    from qlib_ext.workflow.run import run_workflow

    task = config.get("task")
    if not isinstance(task, Mapping):
        raise UserError(f"a workflow must have a `task`, found {brief(config)}")
    here = in_notebook(task)
    if here and walks_forward(task.get("dataset")):
        raise UserError(
            f"a walk-forward trains in processes of their own, which do not find {here[0]}: put the class into a module, such as "
            "my_models.py, and import it from there"
        )
    said = _of_manager(config)
    if tracking_uri is not None:
        said.pop("uri", None)
    run = run_workflow(config, path)
    return Run.at(connect(said.get("uri")), run)


def _of_manager(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a workflow gives its experiment manager, `uri` where it names MLflow's store."""
    found: Any = config
    for key in ("qlib_init", "exp_manager", "kwargs"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return found if isinstance(found, dict) else {}
