"""A search on a little market, whose trainings are made in this process: others' tests begin processes."""

from __future__ import annotations

import copy
import logging
import shutil
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import qlib
from mlflow.tracking import MlflowClient
from qlib.data.dataset import Dataset
from qlib.model.base import Model

from qlib_ext.config.build import build, locate
from qlib_ext.lookahead.provider import unrecorded
from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket
from qlib_ext.model.trainings.processes import Processes
from qlib_ext.model.trainings.side_by_side import Places
from qlib_ext.model.trainings.training import Training
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.search import Search
from qlib_ext.workflow.search.searched import SearchedWorkflow

WORKFLOW = """# A little workflow.
experiment_name: little
qlib_init:
  provider_uri: "{{ QLIB_DATA }}"
  region: cn
  kernels: 1
  exp_manager: {class: qlib_ext.workflow.experiment.ExperimentManager, kwargs: {default_exp_name: little}}
task:
  model:
    class: qlib.contrib.model.gbdt.LGBModel # trees
    kwargs:
      loss: mse
      num_boost_round: 4
      num_threads: 1
      learning_rate: {{ LEARNING_RATE | default(0.1, true) }}
      num_leaves: 7
      bagging_fraction: 0.5
      bagging_freq: 1
      seed: {{ SEED | default(0, true) }}
  dataset:
    class: qlib_ext.data.dataset.DailyPanelDataset
    kwargs:
      benchmark: SH000300
      handler:
        class: qlib_ext.data.handlers.panel.PanelHandler
        kwargs:
          instruments: csi300
          features:
            class: qlib_ext.features.alpha158.Alpha158
            kwargs: {names: [KMID, ROC5, STD20], windows: [5, 20]}
      segments: {{ SEGMENTS | default('{train: [2014-03-03, 2014-06-30], valid: [2014-07-01, 2014-08-29], test: [2014-09-01, 2014-11-28]}', true) }}
  record:
    - class: qlib_ext.records.signal.SignalRecord
    - class: qlib_ext.records.ranking.RankingRecord
"""
LEAVES = "task.model.kwargs.num_leaves"
SPACE: Mapping[str, Any] = {
    "space": {"LEARNING_RATE": {"float": [0.01, 0.3], "log": True}, LEAVES: {"int": [2, 15]}},
    "topk": 5,
    "rungs": [{}, {"seeds": 2}],
    "factor": 2,
}


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    root = tmp_path_factory.mktemp("search") / "store"
    SampleMarket(seed=3, stocks=20, start="2014-01-02", end="2014-11-28").write(root)
    return QlibStore(root)


@pytest.fixture
def workflow(store: QlibStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("QLIB_DATA", str(store.root))
    monkeypatch.setenv("QLIB_EXT_LEDGER", str(tmp_path / "trials.jsonl"))
    path = tmp_path / "w.yaml"
    path.write_text(WORKFLOW, encoding="utf-8")
    return path


class Run:
    """What a search and a record need of a recorder, on a database of its own."""

    def __init__(self, uri: str, experiment: str, name: str, tags: Mapping[str, str] | None = None) -> None:
        self.uri, self.client = uri, MlflowClient(uri)
        found = self.client.get_experiment_by_name(experiment)
        of = found.experiment_id if found else self.client.create_experiment(experiment)
        self.id = self.client.create_run(of, tags=dict(tags or {}), run_name=name).info.run_id

    def log_metrics(self, step: int, **values: float) -> None:
        for key, value in values.items():
            self.client.log_metric(self.id, key, value, step=step)

    def log_artifact(self, path: str, folder: str | None = None) -> None:
        self.client.log_artifact(self.id, path, folder)


Trained = list[Training]


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> Trained:
    """What was trained, in its order; each training is made here, one at a time."""
    seen: Trained = []
    one = threading.Lock()

    def train(self: Processes, training: Training, settings: Mapping[str, Any]) -> str:
        with one, unrecorded():
            seen.append(training)
            task = copy.deepcopy(dict(training.task))
            dataset = build(task["dataset"], Dataset, name="dataset")
            model = build(task["model"], Model, name="model")
            model.fit(dataset)
            run = Run(
                settings["exp_manager"]["kwargs"]["uri"], training.experiment, training.name, training.tags
            )
            (record,) = task["record"]
            kind = locate(record["class"], name="record")
            kind(recorder=run, model=model, dataset=dataset, **record["kwargs"]).generate()
            return str(run.id)

    monkeypatch.setattr(Processes, "train", train)
    return seen


Searches = Callable[..., Search]


@pytest.fixture
def searches(workflow: Path, tmp_path: Path) -> Searches:
    """Makes the search of a plan, in the folder `found` or another."""

    def make(changes: Mapping[str, Any] | None = None, folder: str = "found", workers: int = 1) -> Search:
        searched = SearchedWorkflow(workflow)
        settings = {"logging_level": logging.ERROR, "clear_mem_cache": True}
        qlib.init(**searched.config["qlib_init"], **settings)
        (tmp_path / folder).mkdir(exist_ok=True)
        plan = Plan.of({**SPACE, **(changes or {})})
        opened = QlibStore(Path(searched.config["qlib_init"]["provider_uri"]))
        return Search(searched, plan, opened, tmp_path / folder, Places(workers))

    return make


@pytest.fixture(scope="session")
def database(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An empty database of MLflow, which takes seconds to make."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    MlflowClient(f"sqlite:///{path}").search_experiments()
    return path


@pytest.fixture
def parent(tmp_path: Path, database: Path) -> Run:
    shutil.copy(database, tmp_path / "mlflow.db")
    return Run(f"sqlite:///{tmp_path}/mlflow.db", "little search", "little search")


def scrambled(store: QlibStore, root: Path, first: str) -> None:
    """Multiply all bars from a day on by numbers drawn at random, in a copy of a store that lies at `root`."""
    begin = int(store.calendar.searchsorted(np.datetime64(first)))
    draw = np.random.default_rng(0)
    for path in sorted(root.glob("features/*/*.bin")):
        content = np.fromfile(path, dtype="<f4")
        place = max(1, 1 + begin - int(content[0]))
        content[place:] *= draw.uniform(0.5, 2.0, len(content[place:])).astype("<f4")
        content.tofile(path)
