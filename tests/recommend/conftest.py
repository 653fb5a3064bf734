"""A store of 2016 and 2017, two small runs made on what of it lies before the spring of 2017, and the rest as later days."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import pandas as pd
import pytest
import qlib
import yaml
from mlflow.tracking import MlflowClient
from qlib.model.trainer import task_train

from qlib_ext.market.store import QlibStore, write_store
from qlib_ext.market.synthetic.sample import SampleMarket

ROOT = Path(__file__).parent.parent.parent
TRAINED_UNTIL = pd.Timestamp("2017-03-31")
SEGMENTS = {
    "train": ["2016-04-01", "2016-08-31"],
    "valid": ["2016-09-01", "2016-11-30"],
    "test": ["2016-12-01", "2017-12-31"],
}
Change = Callable[[dict[str, np.ndarray], pd.DatetimeIndex, list[str]], None]
Cut = Callable[..., QlibStore]


@pytest.fixture(scope="session")
def newest(tmp_path_factory: pytest.TempPathFactory) -> QlibStore:
    """The store as it is today."""
    root = tmp_path_factory.mktemp("market") / "newest"
    SampleMarket(seed=3, stocks=24, start="2016-01-04", end="2017-06-30").write(root)
    return QlibStore(root)


@pytest.fixture(scope="session")
def cut(newest: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> Cut:
    """Make a store of some days of `newest`; `change` may alter its bars, field -> `[D, S]`, in place."""

    def made(start: Any = None, end: Any = None, change: Change | None = None) -> QlibStore:
        calendar, codes = newest.calendar, newest.instruments()
        first = calendar[0] if start is None else pd.Timestamp(start)
        last = calendar[-1] if end is None else pd.Timestamp(end)
        kept = (calendar >= first) & (calendar <= last)
        fields = newest.fields("SH000300")
        bars = dict(zip(fields, newest.read(fields, codes)[:, kept].astype(float), strict=True))
        if change is not None:
            change(bars, calendar[kept], codes)
        memberships = {}
        for universe in newest.universes():
            spells = newest.membership(universe)
            spells = spells[(spells["start"] <= last) & (spells["end"] >= first)]
            memberships[universe] = spells.assign(end=spells["end"].clip(upper=last))
        root = tmp_path_factory.mktemp("cut") / "store"
        store = write_store(root, calendar[kept], codes, bars, memberships)
        shutil.copytree(newest.root / "side", root / "side")
        return store

    return made


@pytest.fixture(scope="session")
def trained(cut: Cut) -> QlibStore:
    """The store as it was when the models were trained."""
    return cut(end=TRAINED_UNTIL)


@pytest.fixture(scope="session")
def client(trained: QlibStore, tmp_path_factory: pytest.TempPathFactory) -> MlflowClient:
    """MLflow's store with a run of each workflow, smaller and without the records that nobody asks here."""
    folder = tmp_path_factory.mktemp("runs")
    before = Path.cwd()
    os.chdir(folder)  # MLflow puts artifacts beside its database, in the working directory
    given = {"QLIB_DATA": str(trained.root), "N_EPOCHS": 1, "HIDDEN_SIZE": 8, "PANEL_CACHE": "off"}
    for workflow in ("mimstocr_csi300", "lightgbm_csi300"):
        text = (ROOT / "workflows" / f"{workflow}.yaml").read_text(encoding="utf-8")
        config = yaml.safe_load(jinja2.Template(text).render(given))
        task = config["task"]
        task["dataset"]["kwargs"]["segments"] = SEGMENTS
        begin, end = SEGMENTS["train"]
        task["dataset"]["kwargs"]["handler"]["kwargs"] |= {"fit_start_time": begin, "fit_end_time": end}
        task["record"] = [
            record
            for record in task["record"]
            if record["class"].endswith(("SignalRecord", "BacktestRecord"))
        ]
        task["record"][-1]["kwargs"]["strategy"]["kwargs"] = {"topk": 6, "n_drop": 2}
        if workflow.startswith("lightgbm"):
            small = {
                "num_boost_round": 8,
                "num_leaves": 15,
                "num_threads": 1,
                "lambda_l1": 0.0,
                "lambda_l2": 0.0,
            }
            task["model"]["kwargs"] |= small
            # of side data, too: the tables of the store have rows of later days than its bars
            sides = ["CSRank(side.planted_score.score)", "Age(side.market_value.market_value)"]
            handler = task["dataset"]["kwargs"]["handler"]["kwargs"]
            members = [
                handler["features"],
                {"class": "qlib_ext.features.expressions.Expressions", "kwargs": {"expressions": sides}},
            ]
            handler["features"] = {"class": "qlib_ext.features.union.Union", "kwargs": {"members": members}}
        # said in full: MLflow remembers the store of whatever ran before in this process, by a relative name too
        config["qlib_init"]["exp_manager"]["kwargs"]["uri"] = f"sqlite:///{folder / 'mlflow.db'}"
        qlib.init(**config["qlib_init"])
        task_train(task, config["experiment_name"])
    os.chdir(before)
    return MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
