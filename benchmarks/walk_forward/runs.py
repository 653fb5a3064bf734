"""Cases run one after the other, and what is kept of each: small daily series, from which a report is made."""

from __future__ import annotations

import json
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from mlflow.tracking import MlflowClient

from benchmarks.walk_forward.cases import Case
from qlib_ext.market.store import QlibStore
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.ensemble.member_scores import MemberScores, combine_tables
from qlib_ext.model.walk_forward import RUNS
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.workflow import scored

EXPERIMENT = "walk_forward"
ENSEMBLES = "Ensemble"
DAILY = ("ranking/daily.parquet", "backtest/daily.parquet", "benchmarks/daily.parquet")
FOLDS = "folds/folds.csv"


def place(folder: Path, name: str) -> Path:
    """The folder of a run."""
    return folder / re.sub(r"[^\w.+-]+", "_", name)


def is_kept(folder: Path, name: str) -> bool:
    """Whether a run is there, whole: `run.json` is written last."""
    return (place(folder, name) / "run.json").is_file()


def run_case(case: Case, store: Path, client: MlflowClient, folder: Path) -> None:
    """Run a case that is not kept yet, and keep it; folds that are finished are not trained again."""
    if not is_kept(folder, case.name):
        keep(case.name, scored.run_task(case.task(), store, "cn", EXPERIMENT), client, folder)


def run_ensemble(name: str, members: Sequence[str], store: Path, client: MlflowClient, folder: Path) -> None:
    """Trade the mean of the members' scores, each standardised by day, as a run of scores that are given."""
    if is_kept(folder, name) or not all(is_kept(folder, member) for member in members):
        return
    runs = [
        json.loads((place(folder, member) / "run.json").read_text(encoding="utf-8")) for member in members
    ]
    tables = MemberScores.read(
        client, {run["name"]: run["run_id"] for run in runs}, validation=False
    ).predictions
    with tempfile.TemporaryDirectory() as work:
        file = Path(work) / "scores.parquet"
        combine_tables(tables, MeanZScore())[["score"]].to_parquet(file)
        task = scored.of_file(file, QlibStore(store), universe="csi300")
        keep(name, scored.run_task(task, store, "cn", EXPERIMENT), client, folder, members=members)


def keep(name: str, run_id: str, client: MlflowClient, folder: Path, members: Sequence[str] = ()) -> None:
    """Keep the daily figures of a run, its folds, and what it cost.

    Writes `daily.parquet` (RankIC against RETURN; return after cost of the portfolio, of its index, and of the universe at equal
    weight), `folds.csv` of a walk-forward, and `run.json`.
    """
    target = place(folder, name)
    target.mkdir(parents=True, exist_ok=True)
    run = client.get_run(run_id)
    with tempfile.TemporaryDirectory() as work:
        there = stored(client, run_id, [*DAILY, FOLDS, RUNS])
        kept = RunArtifacts.download(client, run_id, there, Path(work))
        ranking, traded, naive = (kept.table(path) for path in DAILY)
        daily = pd.DataFrame(
            {
                "rank_ic": ranking["rank_ic/RETURN"],
                "portfolio": traded["return"] - traded["cost"],
                "index": traded["benchmark"],
                "equal_weight": naive["equal_weight"],
            }
        )
        daily.to_parquet(target / "daily.parquet")
        seconds = (run.info.end_time - run.info.start_time) / 1000
        if FOLDS in there:
            folds = kept.table(FOLDS)
            folds.to_csv(target / "folds.csv")
            # of all folds, whenever they were trained; the run above has waited for those of its own
            waited = 60 * folds.loc[folds["trained"], "minutes"].sum()
            seconds += 60 * folds["minutes"].sum() - min(waited, seconds)
    facts: dict[str, Any] = {
        "name": name,
        "run_id": run_id,
        "members": [*members],
        "seconds": round(seconds),
        "fingerprint": run.data.tags.get("data_fingerprint", ""),
        "commit": run.data.tags.get("git_commit", ""),
        "device": run.data.tags.get("device", "cpu"),
        "metrics": {
            key: run.data.metrics[key] for key in ("IC", "RankIC", "RankICIR") if key in run.data.metrics
        },
    }
    (target / "run.json").write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
