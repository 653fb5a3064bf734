"""The folds of a walk-forward beside each other: what each was worth, before and after its training ended."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError, instance
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.metrics.cross_section import pearson, spearman
from qlib_ext.metrics.portfolio_series import series_of
from qlib_ext.metrics.risk import cumulative_return, information_ratio
from qlib_ext.model.walk_forward import RUNS
from qlib_ext.records.base import Record
from qlib_ext.records.columns import matrices, require_column
from qlib_ext.tracking.artifacts import RunArtifacts

DAILY, DRIFT = "fold/daily.parquet", "fold/drift.csv"


class FoldsRecord(Record):
    """What each fold of a walk-forward was worth, and how its features and its RankIC moved after its training.

    Writes `folds/folds.csv`, by number of the fold:

    - `run_id`, `trained` (by this run, or an earlier one), `minutes` of its run;
    - `train_start`, `train_end`, `valid_start`, `valid_end`, `test_start`, `test_end`, the days of which its scores count;
    - `days`, `IC` and `RankIC` of its scores there;
    - `RankIC/train`, `RankIC/valid`, `RankIC/test`, on some days of each segment (`FoldRecord`);
    - `psi`, the mean over features of the population stability index, and `moved`, the share of features above 0.25;
    - where there was a backtest before: `return`, `excess_return` over the index, both after cost, `information_ratio`,
      `turnover` a day.

    And `folds/drift.csv`, the index by feature, a column a fold. Logs `folds`, their number, and `folds/positive`, the share of
    them whose RankIC is above zero.

    Parameters
    ----------
    recorder
        Given by Qlib.
    label
        Raw label of the ICs, and of those by segment, unless the task has a `FoldRecord` of its own.

    Raises
    ------
    UserError
        If the run has no such label, or is no walk-forward.
    """

    needs = (RUNS, "signal/predictions.parquet", "signal/labels.parquet")
    makes = ("folds/folds.csv", "folds/drift.csv")
    of_model = True

    def __init__(self, recorder: Any, label: str = "RETURN"):
        super().__init__(recorder)
        self.label = instance("label", label, str)

    def check_before(self, spec: DatasetSpec) -> None:
        """The label, against those of the dataset."""
        spec.require_raw_label("label", self.label)

    def _generate(self) -> None:
        runs = self.load_json(RUNS)
        daily, traded = self._daily_ic(), self._traded()
        year = 0.0 if traded is None else float(self.load_json("backtest/setup.json")["days_per_year"])
        rows, moved = {}, {}
        for run in runs:
            own, drift = self._of_run(run)
            first, last = run["scores"]
            rows[run["fold"]] = {
                **own,
                "days": len(daily.loc[first:last]),
                **daily.loc[first:last].mean().to_dict(),
                **({} if traded is None else _traded_in(traded.loc[first:last], year)),
            }
            moved[run["fold"]] = drift
        table = pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="fold")
        self.save_csv("folds/folds.csv", table)
        self.save_csv("folds/drift.csv", pd.DataFrame(moved).rename_axis(index="feature"))
        self.log_metrics({"folds": len(table), "folds/positive": float((table["RankIC"] > 0).mean())})

    def _daily_ic(self) -> pd.DataFrame:
        predictions, labels = (
            self.load_table(f"signal/{name}.parquet") for name in ("predictions", "labels")
        )
        require_column("label", self.label, labels)
        days, _, (score, truth) = matrices(predictions.index, predictions["score"], labels[self.label])
        return pd.DataFrame({"IC": pearson(score, truth), "RankIC": spearman(score, truth)}, index=days)

    def _traded(self) -> pd.DataFrame | None:
        return self.load_table("backtest/daily.parquet") if self.has("backtest/daily.parquet") else None

    def _of_run(self, run: Mapping[str, Any]) -> tuple[dict[str, Any], pd.Series]:
        """What the run of a fold says of itself, and the drift of its features."""
        figures, drift = of_training(self.recorder.client, run["run_id"])
        bounds = {"train": run["train"], "valid": run["valid"], "test": run["scores"]}
        return {
            "run_id": run["run_id"],
            "trained": run["trained"],
            "minutes": figures.pop("minutes"),
            **{
                f"{name}_{end}": day
                for name, days in bounds.items()
                for end, day in zip(("start", "end"), days, strict=True)
            },
            **figures,
        }, drift


def of_training(client: MlflowClient, run_id: str) -> tuple[dict[str, float], pd.Series]:
    """What one of many trainings says of itself (`FoldRecord`): minutes, RankIC by segment, drift; and that of each feature."""
    with tempfile.TemporaryDirectory() as folder:
        kept = RunArtifacts.download(client, run_id, [DAILY, DRIFT], Path(folder))
        daily, drift = kept.table(DAILY), kept.table(DRIFT)
    info = client.get_run(run_id).info
    if info.end_time is None:
        raise UserError(f"the run {run_id} must have ended, found {info.status}")
    means = daily["rank_ic"].groupby(level="segment").mean()
    return {
        "minutes": (info.end_time - info.start_time) / 60_000,
        **{f"RankIC/{segment}": means[segment] for segment in ("train", "valid", "test")},
        "psi": drift["psi"].mean(),
        "moved": (drift["psi"] > 0.25).mean(),
    }, drift["psi"]


def _traded_in(part: pd.DataFrame, year: float) -> dict[str, float]:
    """What the portfolio earned on the days of a fold; `year` is the trading days in one."""
    if part.empty:
        return {}
    series = series_of(part, per_year=year)
    found = {
        "return": cumulative_return(series["portfolio_with_cost"].growth),
        "turnover": part["turnover"].mean(),
    }
    if "excess_with_cost" in series:
        found["excess_return"] = cumulative_return(series["excess_with_cost"].growth)
        own = series["portfolio_with_cost"].daily
        found["information_ratio"] = information_ratio(own, part["benchmark"], year)
    return found
