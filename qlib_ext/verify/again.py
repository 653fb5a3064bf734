"""The run of a bundle made again in a folder of its own: from the weights that it keeps, or trained from its seed."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pandas as pd
import qlib
import torch
from qlib.data.dataset import Dataset
from qlib.model.base import Model
from qlib.utils import init_instance_by_config
from qlib.workflow import R

from qlib_ext.checks import UserError
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.features.expression_text import guard
from qlib_ext.market.store import QlibStore
from qlib_ext.model.ensemble.ensemble import MEMBER, Ensemble
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.model.multi_task import MultiTaskModel
from qlib_ext.model.plain_weights import give_weights
from qlib_ext.model.soup import Soup
from qlib_ext.model.trainings.below import PREDICTIONS, identity
from qlib_ext.model.trainings.warm_start import START_FROM
from qlib_ext.model.walk_forward import FoldedModel
from qlib_ext.records.base import OF_QLIB, looks_into_the_model
from qlib_ext.tracking.ledger import VARIABLE
from qlib_ext.tracking.runs import place_kept
from qlib_ext.verify.opened import Bundle
from qlib_ext.verify.task import below, has_given_scores, portable, task_of
from qlib_ext.workflow.ensemble import with_members
from qlib_ext.workflow.run import MANAGER
from qlib_ext.workflow.scored import run_task
from qlib_ext.workflow.walk_forward import walked

NAME = "verification"
NETWORK = "training/weights.safetensors"


class KeptScores(GivenScores):
    """Scores that a bundle keeps, in the place of the file or the runs that gave them."""

    def __init__(self, table: pd.DataFrame, **given: Any):
        super().__init__(run=NAME, **given)
        self.table = table

    def fit(self, dataset: Dataset, reweighter: Any = None) -> None:
        """Nothing is trained."""

    def _read(self, store: QlibStore) -> tuple[pd.DataFrame, tuple[str, ...]]:
        return self.table, ()


def make_again(
    bundle: Bundle, store: QlibStore, place: Path, *, train: bool, threads: int | None
) -> dict[str, Path]:
    """Make the run of a bundle again; run of the bundle -> folder with the artifacts of the new one.

    Parameters
    ----------
    bundle
        What to make again.
    store
        The data, which are those of the run.
    place
        An empty folder, in which all of it happens: MLflow's database, artifacts, the ledger of trials.
    train
        Whether to train, or to take the weights that the bundle keeps.
    threads
        Of torch, as the run had them; None for those of this process.

    Raises
    ------
    UserError
        If it cannot be made.
    """
    with _apart(place, threads):
        task = _task(bundle, bundle.run)
        region = str(bundle.tags(bundle.run).get("region", "cn"))
        if train and not has_given_scores(task):
            check_trains(task)
            new = run_task(task, store.root, region, NAME)
            made = _pairs(bundle, bundle.run, place, new)
        else:
            qlib.init(
                provider_uri=str(store.root),
                region=region,
                kernels=1,
                logging_level=logging.WARNING,
                clear_mem_cache=True,
                exp_manager={"class": MANAGER, "kwargs": {"default_exp_name": NAME}},
            )
            guard()
            made = {}
            _from_weights(bundle, bundle.run, task, store, {}, made)
        return {run_id: _artifacts(place, of_it) for run_id, of_it in made.items()}


def check_trains(task: Mapping[str, Any]) -> None:
    """Raise a UserError of a task that cannot be trained by what a bundle holds."""
    model = in_one_form(task["model"], "model")
    if issubclass(locate(model["class"], name="model"), Soup):
        raise UserError(
            "the run is a mean of the weights of other runs, which its bundle does not hold: verify it without `--train`"
        )
    if model["kwargs"].get(START_FROM):
        raise UserError(
            f"the run began from the weights of the run {model['kwargs'][START_FROM]}, which its bundle does not hold: verify "
            "it without `--train`"
        )


def _task(bundle: Bundle, run_id: str) -> dict[str, Any]:
    """The task of a run, on the device of the run where it is here."""
    device = bundle.tags(run_id).get("device", "cpu")
    if device.startswith("cuda") and not torch.cuda.is_available():
        device = "cpu"
    return portable(task_of(bundle.folder(run_id)), device.partition(":")[0])


def _from_weights(
    bundle: Bundle,
    run_id: str,
    task: dict[str, Any],
    store: QlibStore,
    tags: Mapping[str, str],
    made: dict[str, str],
) -> str:
    """Score, judge and trade a run and those below it from their weights; its new id, which `made` gets of all of them."""
    folder = bundle.folder(run_id)
    task = with_members(walked(task))
    kind = locate(in_one_form(task["model"], "model")["class"], name="model")
    trains_below = issubclass(kind, (FoldedModel, Ensemble))
    if trains_below:
        _those_below(bundle, run_id, task, store, made)
        _let_it_take(task)
    with R.start(experiment_name=NAME, recorder_name=f"{NAME} of {run_id}"):
        recorder = R.get_recorder()
        recorder.set_tags(**tags)
        recorder.save_objects(task=task)  # the recorder looks at it as at the task of any run
        made[run_id] = recorder.id
        dataset = build(in_one_form(task["dataset"], "dataset"), Dataset, name="dataset")
        if has_given_scores(task):
            model: Model = KeptScores(pd.read_parquet(folder / PREDICTIONS))
            task["record"] = [each for each in task["record"] if not looks_into_the_model(each)]
        else:
            model = build(in_one_form(task["model"], "model"), Model, name="model")
        if trains_below:
            model.fit(dataset)
        else:
            _take_weights(model, folder, dataset)
        for each in task["record"]:
            given = {"model": model, "dataset": dataset}
            init_instance_by_config(
                each, recorder=recorder, default_module=OF_QLIB, try_kwargs=given
            ).generate()
    return made[run_id]


def _take_weights(model: Model, folder: Path, dataset: Any) -> None:
    """Give a model what it learned, of the artifacts in a folder; nothing is unpickled."""
    if isinstance(model, GivenScores):
        return
    if isinstance(model, MultiTaskModel) and (folder / NETWORK).is_file():
        model.restore(folder / "training", dataset)
        return
    if give_weights(model, folder):
        return
    raise UserError(
        f"the run keeps no weights of its {type(model).__name__} that can be read without a pickle, as MultiTaskModel, "
        "LGBModel and LinearModel do: verify it by `--train`"
    )


def _those_below(
    bundle: Bundle, run_id: str, task: Mapping[str, Any], store: QlibStore, made: dict[str, str]
) -> None:
    """Make the runs below one from their weights, so that the one above finds them as if they had been trained."""
    model: Any = build(in_one_form(task["model"], "model"), Model, name="model")
    ids = below(bundle.folder(run_id))
    word = MEMBER if isinstance(model, Ensemble) else model.word
    parts = (
        [*model.tasks(R.exp_manager.client).values()]
        if isinstance(model, Ensemble)
        else [*model.folds(store)]
    )
    if len(parts) != len(ids):
        raise UserError(
            f"the run {run_id} has {len(ids)} runs below it, and its task says {len(parts)} on these data: it was changed"
        )
    before: str | None = None
    for number, (part, old) in enumerate(zip(parts, ids, strict=True), 1):
        if isinstance(model, Ensemble):
            own = part
        else:
            own = model.task(part, before if model.plan.warm_start else None)
        tags = {word: f"{number} of {len(ids)}", f"{word}_identity": identity(own, store.fingerprint())}
        before = _from_weights(bundle, old, _plain(own), store, tags, made)


def _plain(task: Mapping[str, Any]) -> dict[str, Any]:
    return {**task, "record": [*task["record"]]}


def _let_it_take(task: dict[str, Any]) -> None:
    """Let a model of many trainings take those that are there."""
    kwargs = task["model"]["kwargs"]
    if "dataset" in kwargs and isinstance(kwargs["dataset"], Mapping):
        segments = kwargs["dataset"].get("kwargs", {}).get("segments", {})
        for name in ("walk_forward", "combinatorial"):
            if isinstance(segments, dict) and isinstance(segments.get(name), dict):
                segments[name]["resume"] = 1
                return
    kwargs["resume"] = 1


def _pairs(bundle: Bundle, run_id: str, place: Path, new: str) -> dict[str, str]:
    """The runs of a bundle and the new ones, paired by their place below the run above."""
    found = {run_id: new}
    for old, again in zip(below(bundle.folder(run_id)), below(_artifacts(place, new)), strict=False):
        found |= _pairs(bundle, old, place, again)
    return found


def _artifacts(place: Path, run_id: str) -> Path:
    """The folder of artifacts of a run that was made in `place`."""
    return next(place.glob(f"mlruns/*/{run_id}/artifacts"))


@contextlib.contextmanager
def _apart(place: Path, threads: int | None) -> Iterator[None]:
    """In a folder with an MLflow store and a ledger of its own, on so many threads; afterwards all is as it was."""
    before = torch.get_num_threads()
    settings = {VARIABLE: str(place / "trials.jsonl")}
    if threads is not None:
        settings["OMP_NUM_THREADS"] = str(threads)  # of the processes that train folds
    with _environment(settings), place_kept(f"sqlite:///{place / 'mlflow.db'}"), contextlib.chdir(place):
        if threads is not None:
            torch.set_num_threads(threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


@contextlib.contextmanager
def _environment(settings: Mapping[str, str]) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
