"""Runs as the records leave them on MLflow, made up so that what differs among them is known."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from mlflow import MlflowClient
from mlflow.entities import Metric, Param, RunTag

from qlib_ext.report.comparison.compared import Comparison, compare
from qlib_ext.report.comparison.runs import READS, ComparedRun, view
from qlib_ext.tracking.artifacts import RunArtifacts

PARAMS = {
    "cmd-sys.argv": "qrun a.yaml",
    "model.class": "qlib_ext.model.multi_task.MultiTaskModel",
    "model.kwargs.backbone.class": "qlib_ext.model.backbones.lstm.LSTM",
    "model.kwargs.balancer.class": "qlib_ext.model.balancers.cqb.CQB",
    "model.kwargs.balancer.kwargs.beta": "0.5",
    "model.kwargs.tasks.score.label": "RETURN",
    "model.kwargs.tasks.momentum.label": "MOMENTUM",
    "model.kwargs.trainer.n_epochs": "20",
    "model.kwargs.seed": "0",
    "dataset.kwargs.handler.kwargs.instruments": "csi300",
    "dataset.kwargs.segments.test": "[datetime.date(2017, 1, 1), datetime.date(2017, 12, 31)]",
    "record.0.class": "qlib_ext.records.signal.SignalRecord",
    "record.1.class": "qlib_ext.records.backtest.BacktestRecord",
    "record.1.kwargs.strategy.class": "qlib_ext.strategy.topk_dropout.TopkDropout",
    "record.1.kwargs.strategy.kwargs.topk": "50",
    "record.2.class": "qlib_ext.records.report.ReportRecord",
    "record.2.kwargs.out_dir": "reports/runs",
}
EQUAL = {
    "model.kwargs.balancer.class": "qlib_ext.model.balancers.equal.EqualWeighting",
    "model.kwargs.balancer.kwargs.beta": None,
}
SETUP = {
    "start": "2017-01-04",
    "end": "2017-12-29",
    "account": 1e8,
    "benchmark": "SH000300",
    "exchange": {"open_cost": 0.0005, "close_cost": 0.0015},
    "days_per_year": 243.0,
}


@dataclass(frozen=True)
class Content:
    """What a run leaves: parameters, tags, metrics, and its artifacts by path."""

    params: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    tables: Mapping[str, pd.DataFrame]
    texts: Mapping[str, str]


def content(
    *,
    seed: int = 0,
    skill: float = 0.03,
    days: int = 120,
    params: Mapping[str, str | None] | None = None,
    tags: Mapping[str, str] | None = None,
    metrics: Mapping[str, float] | None = None,
    setup: Mapping[str, Any] | None = None,
    summary: Mapping[str, Any] | None = None,
    without: tuple[str, ...] = (),
) -> Content:
    """Make up a run.

    `skill` is the mean of its daily IC and, in per cent, of its daily excess return. `params` are laid over `PARAMS`
    (None takes one away), `setup` over `SETUP`; artifacts whose path begins with one of `without` are not there.
    """
    laid: dict[str, str | None] = {**PARAMS, "model.kwargs.seed": str(seed), **(params or {})}
    told = {"universe": "csi300", "data_fingerprint": "0123", "git_commit": "abcdef0123", **(tags or {})}
    described = {
        "universe": "csi300",
        "fingerprint": told["data_fingerprint"],
        "labels": {"RETURN": "Ref($close, -2) / Ref($close, -1) - 1"},
        "segments": {"test": {"start": "2017-01-03", "end": "2017-12-29"}},
        **(summary or {}),
    }
    measured = {
        "IC": skill,
        "RankIC": skill * 1.1,
        "train/loss/score": 0.9,
        "backtest/annualised_excess_return": skill,
    }
    texts = {
        "backtest/setup.json": json.dumps({**SETUP, **(setup or {})}),
        "data/summary.json": json.dumps(described),
    }
    gone = without or ("no such path",)
    return Content(
        params={key: value for key, value in laid.items() if value is not None},
        tags=told,
        metrics={**measured, **(metrics or {})},
        tables={
            path: table for path, table in tables(seed, skill, days).items() if not path.startswith(gone)
        },
        texts={path: text for path, text in texts.items() if not path.startswith(gone)},
    )


def tables(seed: int, skill: float, days: int) -> dict[str, pd.DataFrame]:
    """Daily figures, as the records write them."""
    common = np.random.default_rng(0)  # what a day does to all runs alike
    own = np.random.default_rng([seed, int(1e4 * (1 + skill))])
    calendar = pd.DatetimeIndex(pd.bdate_range("2017-01-03", periods=days), name="datetime")
    ic = skill + common.normal(0, 0.1, days) + own.normal(0, 0.02, days)
    index = common.normal(0.0003, 0.01, days)
    excess = skill / 100 + own.normal(0, 0.004, days)
    return {
        "ranking/daily.parquet": pd.DataFrame(
            {
                "ic/RETURN": ic,
                "rank_ic/RETURN": 1.1 * ic,
                "ic/NEXT_RETURN": ic + 1,
                "rank_ic/NEXT_RETURN": ic + 1,
            },
            index=calendar,
        ),
        "backtest/daily.parquet": pd.DataFrame(
            {"return": index + excess + 0.0002, "cost": 0.0002, "benchmark": index}, index=calendar
        ).iloc[1:],
    }


class Shelf:
    """Runs that were read, made up without MLflow, which is slow."""

    def __init__(self, home: Path):
        self.home = home
        self.runs: list[ComparedRun] = []

    def run(self, name: str = "", *, experiment: str = "main", **kwargs: Any) -> str:
        """Add a run as `content` makes it up, later than the others; its id."""
        made = content(**kwargs)
        number = len(self.runs)
        root = self.home / str(number)
        for path, table in made.tables.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            table.to_parquet(root / path)
        for path, text in made.texts.items():
            (root / path).parent.mkdir(parents=True, exist_ok=True)
            (root / path).write_text(text)
        info = {
            "run_id": f"{number:032x}",
            "run_name": name,
            "experiment": experiment,
            "started": f"2020-01-01 00:{number:02}",
        }
        found = RunArtifacts(root, made.params, made.metrics, made.tags, info)
        self.runs.append(view(found, [path for path in READS if not found.has(path)]))
        return str(info["run_id"])

    def compared(self, draws: int = 200, **kwargs: Any) -> Comparison:
        """All of them compared."""
        return compare(self.runs, draws=draws, **kwargs)


class Store:
    """An MLflow store in a folder, and runs in it; `blank` is an empty database, which takes long to make."""

    def __init__(self, home: Path, blank: Path | None = None):
        self.home = home
        if blank is not None:
            shutil.copy(blank, home / "mlflow.db")
        self.uri = f"sqlite:///{home}/mlflow.db"
        self.client = MlflowClient(self.uri)
        self._started = 1_600_000_000_000

    def experiment(self, name: str) -> str:
        """Its id; it is made where there is none."""
        found = self.client.get_experiment_by_name(name)
        if found is not None:
            return str(found.experiment_id)
        return str(self.client.create_experiment(name, artifact_location=(self.home / "artifacts").as_uri()))

    def run(
        self, name: str = "", *, experiment: str = "main", status: str = "FINISHED", **kwargs: Any
    ) -> str:
        """Make a run as `content` makes it up, and return its id."""
        self._started += 60_000
        made = content(**kwargs)
        run_id = self.client.create_run(
            self.experiment(experiment), run_name=name or None, start_time=self._started
        ).info.run_id
        for path, table in made.tables.items():
            file = self.home / Path(path).name
            table.to_parquet(file)
            self.client.log_artifact(run_id, str(file), str(Path(path).parent))
        for path, text in made.texts.items():
            self.client.log_text(run_id, text, path)
        self.client.log_batch(
            run_id,
            metrics=[Metric(key, value, 0, 0) for key, value in made.metrics.items()],
            params=[Param(key, value) for key, value in made.params.items()],
            tags=[RunTag(key, value) for key, value in made.tags.items()],
        )
        if status != "RUNNING":
            self.client.set_terminated(run_id, status)
        return str(run_id)


@pytest.fixture(scope="session")
def blank(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An MLflow database without a run."""
    home = tmp_path_factory.mktemp("blank")
    Store(home).client.search_experiments()
    return home / "mlflow.db"


@pytest.fixture
def shelf(tmp_path: Path) -> Shelf:
    """Room for made-up runs."""
    return Shelf(tmp_path)


@pytest.fixture(scope="module")
def full_shelf(tmp_path_factory: pytest.TempPathFactory) -> Shelf:
    """Two groups of three seeds, one of them clearly better."""
    made = Shelf(tmp_path_factory.mktemp("shelf"))
    for seed in range(3):
        made.run(f"equal {seed}", seed=seed, skill=0.02, params=EQUAL)
    for seed in range(3):
        made.run(f"cqb {seed}", seed=seed, skill=0.05)
    return made


@pytest.fixture(scope="module")
def comparison(full_shelf: Shelf) -> Comparison:
    """Of the full shelf."""
    return full_shelf.compared()


@pytest.fixture(scope="module")
def store(blank: Path, tmp_path_factory: pytest.TempPathFactory) -> Store:
    """Two runs on MLflow that can be compared, and some that cannot."""
    made = Store(tmp_path_factory.mktemp("store"), blank)
    made.run("equal 0", skill=0.02, params=EQUAL)
    made.run("cqb 0", skill=0.05)
    made.run("still training", seed=3, status="RUNNING")
    made.run("empty", seed=4, without=("ranking", "backtest"))
    broken = made.run("broken", seed=5)
    made.client.log_text(broken, "no parquet", "ranking/daily.parquet")
    return made
