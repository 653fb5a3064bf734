"""A little market of one year, and the LightGBM workflow made small on it, for tests of many trainings below one run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import jinja2
import pytest
import yaml

from qlib_ext.market.store import QlibStore
from qlib_ext.market.synthetic.sample import SampleMarket

ROOT = Path(__file__).parent.parent.parent
RECORDS = ("SignalRecord", "LookaheadRecord", "RankingRecord", "BacktestRecord")


def little_store(folder: Path) -> QlibStore:
    """Twenty stocks over 2016."""
    SampleMarket(seed=3, stocks=20, start="2016-01-04", end="2016-12-30").write(folder / "store")
    return QlibStore(folder / "store")


def little_task(
    segments: Mapping[str, Any], audit: Mapping[str, int], records: Sequence[str] = RECORDS
) -> dict[str, Any]:
    """The task of a few small trees; `audit` are the arguments of its look-ahead audit."""
    text = (ROOT / "workflows" / "lightgbm_csi300.yaml").read_text(encoding="utf-8")
    task: dict[str, Any] = yaml.safe_load(jinja2.Template(text).render(PANEL_CACHE="off", TOPK=4, N_DROP=1))[
        "task"
    ]
    task["model"]["kwargs"] |= {
        "num_boost_round": 4,
        "num_leaves": 7,
        "num_threads": 1,
        "lambda_l1": 0.0,
        "lambda_l2": 0.0,
    }
    task["dataset"]["kwargs"]["segments"] = dict(segments)
    task["record"] = [record for record in task["record"] if record["class"].endswith(tuple(records))]
    for record in task["record"]:
        if record["class"].endswith("LookaheadRecord"):
            record["kwargs"] = dict(audit)
    return task


@contextmanager
def at_work(folder: Path) -> Iterator[Path]:
    """In a folder whose MLflow store is that of the environment."""
    before = Path.cwd()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{folder / 'mlflow.db'}")
        os.chdir(folder)
        try:
            yield folder
        finally:
            os.chdir(before)
