"""Trainings one after the other, and what is kept of each: small daily series, from which reports are made."""

from __future__ import annotations

import json
import os
import re
import resource
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import pandas as pd
from mlflow.tracking import MlflowClient

from benchmarks.grid.kept import ranking
from qlib_ext.market.store import QlibStore
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.ensemble.member_scores import VALIDATION, MemberScores, combine_tables
from qlib_ext.model.walk_forward import RUNS
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.runs import all_runs
from qlib_ext.workflow import scored

FOLDS = "folds/folds.csv"
SIGNAL = ("signal/predictions.parquet", "signal/labels.parquet")
VALID = "validation.parquet"
TRADED = ("backtest/daily.parquet", "benchmarks/daily.parquet")
METRICS = ("IC", "RankIC", "RankICIR", "benchmarks/random_below")
# What is kept of a workflow's records: what a comparison reads.
RECORDS = (
    "SignalRecord",
    "RankingRecord",
    "BacktestRecord",
    "BenchmarksRecord",
    "PortfolioRecord",
    "LedgerRecord",
)


class Case(Protocol):
    """A training that is asked for."""

    @property
    def name(self) -> str:
        """Of its run: the kind, and `seed N`."""

    def task(self) -> dict[str, Any]:
        """The task of a workflow."""


def workplace(folder: Path) -> MlflowClient:
    """Go into a folder, which is made where it is not there, with an MLflow database of its own; the client of that."""
    folder.mkdir(parents=True, exist_ok=True)
    os.chdir(folder)
    os.environ["MLFLOW_TRACKING_URI"] = f"sqlite:///{Path('mlflow.db').resolve()}"
    return MlflowClient(os.environ["MLFLOW_TRACKING_URI"])


def place(folder: Path, name: str) -> Path:
    """The folder of a run."""
    return folder / re.sub(r"[^\w.+-]+", "_", name)


def is_kept(folder: Path, name: str) -> bool:
    """Whether a run is there, whole: `run.json` is written last."""
    return (place(folder, name) / "run.json").is_file()


def facts_of(folder: Path, name: str) -> dict[str, Any]:
    """What `run.json` says of a run."""
    said: dict[str, Any] = json.loads((place(folder, name) / "run.json").read_text(encoding="utf-8"))
    return said


def only_what_is_read(task: dict[str, Any]) -> dict[str, Any]:
    """A task that makes no record but those that are kept, and takes up an unfinished training."""
    task["record"] = [record for record in task["record"] if record["class"].endswith(RECORDS)]
    if "resume" in task["model"]["kwargs"]:
        task["model"]["kwargs"]["resume"] = 1
    return task


def run_case(
    case: Case,
    store: Path,
    client: MlflowClient,
    folder: Path,
    experiment: str,
    scored_from: str | None = None,
) -> None:
    """Run a case that is not kept yet, and keep it; folds that are finished are not trained again.

    Where its scores are judged from a later day than its first, as of a walk whose first folds are a beginning, an account of
    their own trades those.
    """
    if is_kept(folder, case.name):
        return
    began = _processor_seconds()
    run_id = scored.run_task(case.task(), store, "cn", experiment)
    if scored_from is not None:
        tables = MemberScores.read(client, {case.name: run_id}, validation=False).predictions
        run_id = _trade(tables, store, experiment, start=scored_from)
    keep(case.name, run_id, client, folder, processor_seconds=_processor_seconds() - began)


def run_ensemble(
    name: str,
    members: Sequence[str],
    store: Path,
    client: MlflowClient,
    folder: Path,
    experiment: str,
    topk: int | None = None,
    n_drop: int | None = None,
) -> None:
    """Trade the mean of the members' scores, each standardised by day, as a run of scores that are given.

    `topk` stocks are held and `n_drop` replaced a day, as in the workflows where they are not said.
    Nothing is done where a member is not kept yet, where its run is of another MLflow store, and where the ensemble is kept of
    these members.
    """
    if not all(is_kept(folder, member) for member in members):
        return
    if is_kept(folder, name) and facts_of(folder, name)["members"] == [*members]:
        return
    runs = {member: facts_of(folder, member)["run_id"] for member in members}
    here = {run.info.run_id for run, _ in all_runs(client)}
    if lost := [member for member, run_id in runs.items() if run_id not in here]:
        print(f"{name} waits: the scores of {', '.join(lost)} are in another MLflow store")
        return
    tables = MemberScores.read(client, runs, validation=False).predictions
    began = _processor_seconds()
    run_id = _trade(tables, store, experiment, topk=topk, n_drop=n_drop)
    spent = [_processor_seconds() - began, *(facts_of(folder, each)["processor_seconds"] for each in members)]
    known = None if None in spent else sum(spent)
    keep(name, run_id, client, folder, members=members, processor_seconds=known)


def _trade(tables: Sequence[pd.DataFrame], store: Path, experiment: str, **how: Any) -> str:
    """Trade the mean of scores, each standardised by day; the id of the run."""
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "scores.parquet"
        combine_tables(tables, MeanZScore())[["score"]].to_parquet(file)
        task = scored.of_file(file, QlibStore(store), universe="csi300", **how)
        return scored.run_task(task, store, "cn", experiment)


def keep(
    name: str,
    run_id: str,
    client: MlflowClient,
    folder: Path,
    members: Sequence[str] = (),
    processor_seconds: float | None = None,
) -> None:
    """Keep the daily figures of a run, its folds, and what it cost.

    Writes `daily.parquet` (IC, RankIC and Precision as `benchmarks.grid.kept.ranking` has them; return after cost of the portfolio, of
    its index, and of the universe at equal weight, and turnover), `validation.parquet` (the same measures of ranking on the days
    that a model was chosen by, where it scores them), `folds.csv` of a walk-forward, and `run.json`. Processor seconds are those
    of this call to run it, an ensemble's with those of its members: what an earlier call had trained is not in them.
    """
    target = place(folder, name)
    target.mkdir(parents=True, exist_ok=True)
    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory() as work:
        there = stored(client, run_id, [*SIGNAL, *TRADED, VALIDATION, FOLDS, RUNS])
        kept = RunArtifacts.download(client, run_id, there, Path(work))
        scores, labels = (kept.table(path) for path in SIGNAL)
        traded, naive = (kept.table(path) for path in TRADED)
        daily = ranking(scores["score"], labels).join(
            pd.DataFrame(
                {
                    "portfolio": traded["return"] - traded["cost"],
                    "index": traded["benchmark"],
                    "equal_weight": naive["equal_weight"],
                    "turnover": traded["turnover"],
                }
            ),
            how="outer",
        )
        _write(daily, target / "daily.parquet")
        if VALIDATION in there:
            chosen_by = kept.table(VALIDATION)
            _write(ranking(chosen_by["score"], chosen_by.drop(columns="score")), target / VALID)
        seconds = (run.info.end_time - run.info.start_time) / 1000
        if FOLDS in there:
            folds = kept.table(FOLDS)
            folds.to_csv(target / "folds.csv")
            # of all folds, whenever they were trained; the run above has waited for those of its own
            waited = 60 * folds.loc[folds["trained"], "minutes"].sum()
            seconds += 60 * folds["minutes"].sum() - min(waited, seconds)
    facts: Mapping[str, Any] = {
        "name": name,
        "run_id": run_id,
        "members": [*members],
        "seconds": round(seconds),
        "processor_seconds": None if processor_seconds is None else round(processor_seconds),
        "fingerprint": run.data.tags.get("data_fingerprint", ""),
        "commit": run.data.tags.get("git_commit", ""),
        "device": run.data.tags.get("device", "cpu"),
        "metrics": {key: run.data.metrics[key] for key in METRICS if key in run.data.metrics},
    }
    (target / "run.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")


def _write(daily: pd.DataFrame, file: Path) -> None:
    daily.astype("float32").to_parquet(file, compression="zstd")


def _processor_seconds() -> float:
    """Of this process and of those it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(each.ru_utime + each.ru_stime for each in used)
