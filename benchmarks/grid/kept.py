"""What is kept of a finished run: a folder of some tens of kB, from which tables and figures are made.

`run.json` says what was run and with what: the cell, the budget, versions, the fingerprints of data and workflow, the
metrics. `daily.parquet` has the figures of each test day, `epochs.csv` those of each epoch.
"""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
from mlflow import MlflowClient

from benchmarks.grid.plan import Cell, Job, Plan
from benchmarks.grid.results import Result, Setting
from qlib_ext.metrics.cross_section import Floats, pearson, rank, spearman
from qlib_ext.metrics.precision import base_rate, precision_at
from qlib_ext.records.columns import matrices

if TYPE_CHECKING:
    from qlib_ext.data.dataset import DailyPanelDataset

FORMAT = 1
LABELS = ("RETURN", "NEXT_RETURN")  # the tradable one, and Equation 1's
PRECISION_AT = (10, 20, 30, 50)
TRADED = ["return", "cost", "benchmark", "turnover"]
CLASSES = "MOMENTUM"  # the label whose days have an adaptive k
ENVIRONMENT = ("Python", "qlib_ext", "pyqlib", "torch", "numpy", "pandas")


def place(runs: Path, name: str) -> Path:
    """The folder of a run, by the run's name."""
    return runs / re.sub(r"[^\w.+-]+", "_", name)


def is_kept(runs: Path, name: str) -> bool:
    """Whether a run is there, whole: `run.json` is written last."""
    return (place(runs, name) / "run.json").is_file()


def keep(job: Job, run: Any, client: MlflowClient, runs: Path) -> Path:
    """Keep what a finished run left; Qlib must be initialised with the run's store.

    Parameters
    ----------
    job
        What was run.
    run
        The MLflow run that finished it.
    client
        Of its MLflow store.
    runs
        Folder of all runs.
    """
    with tempfile.TemporaryDirectory() as folder:

        def fetch(path: str) -> Path:
            return Path(client.download_artifacts(run.info.run_id, path, folder))

        predictions = pd.read_parquet(fetch("signal/predictions.parquet"))
        labels = pd.read_parquet(fetch("signal/labels.parquet"))
        parts = [
            ranking(predictions["score"], labels),
            pd.read_parquet(fetch("backtest/daily.parquet"))[TRADED],
        ]
        setup = json.loads(fetch("backtest/setup.json").read_text(encoding="utf-8"))
        for name, variant in job.backtests.items():
            traded = trade(predictions["score"].dropna(), setup, variant)
            parts.append(traded.add_prefix(f"{name}/"))
        epochs, facts = _trained(job, fetch)
        versions = json.loads(fetch("environment.json").read_text(encoding="utf-8"))
    said = {
        "format": FORMAT,
        "name": job.name,
        **asdict(job.cell),
        **asdict(job.budget),
        "fingerprint": job.fingerprint,
        "workflow": job.name.rpartition(" ")[2],
        "commit": run.data.tags.get("git_commit", ""),
        "versions": {name: versions[name] for name in ENVIRONMENT},
        "minutes": round((run.info.end_time - run.info.start_time) / 60_000, 1),
        **facts,
        "metrics": {
            name: float(f"{value:.8g}")
            for name, value in sorted(run.data.metrics.items())
            if name not in epochs
        },
    }
    return write(place(runs, job.name), said, pd.concat(parts, axis=1).sort_index(), epochs)


def write(folder: Path, said: Mapping[str, Any], daily: pd.DataFrame, epochs: pd.DataFrame) -> Path:
    """Write the files of a run; `run.json`, by which it is known to be there, last."""
    folder.mkdir(parents=True, exist_ok=True)
    daily.astype("float32").to_parquet(folder / "daily.parquet", compression="zstd")
    epochs.to_csv(folder / "epochs.csv", index=False, float_format="%.6g")
    (folder / "run.json").write_text(json.dumps(said, indent=1) + "\n", encoding="utf-8")
    return folder


def ranking(score: pd.Series, labels: pd.DataFrame) -> pd.DataFrame:
    """IC, RankIC, Precision@N and base rate by day, against raw returns and against their ranks of the day.

    The columns of the ranks begin with `ranked/`: the label of training, which the paper's figures are measured on. A
    stock rises there when it is in the better half of its day. RankIC is the same against either.
    """
    columns: dict[str, Floats] = {}
    for label in LABELS:
        days, _, (scores, returns) = matrices(score.index, score, labels[label])
        returns = np.where(np.isnan(scores), np.nan, returns)
        count = (~np.isnan(returns)).sum(axis=1, keepdims=True)
        ranked = rank(returns) / np.maximum(count, 1) - 0.5  # as CSRankNorm, but for the factor
        columns[f"rank_ic/{label}"] = spearman(scores, returns)
        for prefix, values in (("", returns), ("ranked/", ranked)):
            columns[f"{prefix}ic/{label}"] = pearson(scores, values)
            columns |= {
                f"{prefix}precision/{n}/{label}": precision_at(scores, values, n) for n in PRECISION_AT
            }
            columns[f"{prefix}base_rate/{label}"] = base_rate(values)
    return pd.DataFrame(columns, index=days)


def trade(score: pd.Series, setup: Mapping[str, Any], variant: Mapping[str, Any]) -> pd.DataFrame:
    """`return`, `cost` and `turnover` by day of the scores, traded from and to the same days by other rules."""
    from qlib.strategy.base import BaseStrategy

    from qlib_ext.backtest.simulation import make_exchange, simulate
    from qlib_ext.config.build import build
    from qlib_ext.records.backtest import completed

    first, last = pd.Timestamp(setup["start"]), pd.Timestamp(setup["end"])
    codes = sorted(score.index.get_level_values("instrument").unique())
    exchange, _ = make_exchange(codes, first, last, completed(variant["exchange_kwargs"]))
    strategy = build(variant["strategy"], BaseStrategy, name="strategy", signal=score)
    result = simulate(strategy, exchange, first, last, account=setup["account"], benchmark=setup["benchmark"])
    return result.daily[["return", "cost", "turnover"]]


def _trained(job: Job, fetch: Callable[[str], Path]) -> tuple[pd.DataFrame, dict[str, Any]]:
    """The history by epoch with the losses of the test segment beside it, and facts of the training days."""
    from qlib_ext.config.build import build
    from qlib_ext.data.dataset import DailyPanelDataset
    from qlib_ext.model.multi_task import MultiTaskModel

    task = job.config["task"]
    dataset = build(task["dataset"], DailyPanelDataset, name="dataset")
    model = build(task["model"], MultiTaskModel, name="model")
    curve = model.learning_curve(dataset, fetch("training/epochs.safetensors"), "test")
    history = pd.read_parquet(fetch("training/history.parquet")).merge(curve, on="epoch")
    best = int(history.loc[history["best"], "epoch"].max())
    return history, {"best_epoch": best, "adaptive_k": adaptive_k(dataset)}


def adaptive_k(dataset: DailyPanelDataset) -> dict[int, int]:
    """How many training days have which k; empty without a momentum line."""
    from qlib_ext.metrics import ndcg

    if CLASSES not in dataset.label_names:
        return {}
    k = ndcg.adaptive_k(dataset.panels("train").raw_matrix(CLASSES))
    values, days = np.unique(k[k > 0], return_counts=True)
    return dict(zip(values.astype(int).tolist(), days.tolist(), strict=True))


class Kept:
    """The runs of a folder, and those of a plan that are not there yet.

    Parameters
    ----------
    runs
        Folder of all runs.
    plan
        What was asked for; None where nobody knows.
    """

    def __init__(self, runs: Path, plan: Plan | None = None) -> None:
        self.runs = runs
        found = [json.loads(file.read_text(encoding="utf-8")) for file in sorted(runs.glob("*/run.json"))]
        self.facts: dict[str, dict[str, Any]] = {said["name"]: said for said in found}
        self.done = [_result(said) for said in found]
        asked = [] if plan is None else [_result(row) for row in plan.rows]
        self.left = [one for one in asked if one.name not in self.facts]

    def metrics(self) -> pd.DataFrame:
        """A row a finished run: its cell, setting, best epoch, metrics, and the means of its days."""
        rows = []
        for result in self.done:
            said = self.facts[result.name]
            days = self.daily(result).drop(columns=TRADED).mean()
            rows.append(
                {
                    **vars(result.cell),
                    "setting": result.setting,
                    "best epoch": said["best_epoch"],
                    **said["metrics"],
                    **days.to_dict(),
                }
            )
        return pd.DataFrame(rows)

    def daily(self, result: Result) -> pd.DataFrame:
        """Figures by test day."""
        return pd.read_parquet(place(self.runs, result.name) / "daily.parquet").astype("float64")

    def epochs(self, result: Result) -> pd.DataFrame:
        """Figures by epoch."""
        return pd.read_csv(place(self.runs, result.name) / "epochs.csv")


def _result(row: Mapping[str, Any]) -> Result:
    cell = Cell(*(row[key] for key in ("universe", "backbone", "method", "seed")))
    setting = Setting(**{key: row[key] for key in Setting.__dataclass_fields__})
    return Result(cell, setting, row["name"], row.get("store", ""), None)
