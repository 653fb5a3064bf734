"""A training that is killed again and again, at moments drawn from all that it passes, ends as one that never was.

Twelve moments by default, one training between them. More, with all records of the workflow:

    FAULT_KILLS=100 FAULT_RECORDS=all pytest tests/faults/test_kills.py
"""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import yaml
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from tests.faults.conftest import LONELY, ROOT
from tests.interpreter import Interpreter

KILLS = int(os.environ.get("FAULT_KILLS", "12"))
INTERRUPTS = 2
EPOCHS = 3
# They say when a run was, by which command and how long an epoch took; or, as pickles, hold `resume`.
OF_THE_RUN = {
    "checksums.txt",  # of these too
    "config",
    "config.yaml",
    "task",
    "params.pkl",
    "dataset",
    "environment.json",
    "report/report.html",
}
CLOSING = "end: before the run is closed"  # MLflow has all of it by then
HISTORY = {"training/history.csv", "training/history.parquet"}


@pytest.fixture(scope="module")
def home(
    configured: Any,
    empty_database: Path,
    interpreter: Interpreter,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A folder with the runs of a straight training and of one in pieces."""
    home = tmp_path_factory.mktemp("lives")
    shutil.copy(empty_database, home / "mlflow.db")
    (home / "workflow.yaml").write_text(yaml.safe_dump(configured(N_EPOCHS=EPOCHS)), encoding="utf-8")
    plan = {name: str(home / name) for name in ("straight", "pieces")}
    plan |= {"workflow": str(home / "workflow.yaml"), "seed": 6, "kills": KILLS, "interrupts": INTERRUPTS}
    (home / "plan.json").write_text(json.dumps(plan), encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if not key.startswith("MLFLOW_TRACKING")}
    program = (str(Path(__file__).with_name("mortal.py")), str(home / "plan.json"))
    done = interpreter(*program, cwd=ROOT, env={**inherited, "OMP_NUM_THREADS": "1", "MPLBACKEND": "Agg"})
    assert done.returncode == 0, done.stderr[-3000:]
    return home


@pytest.fixture(scope="module")
def lives(home: Path) -> list[dict[str, Any]]:
    """What happened: the straight run first, then the pieces, of which the last comes to its end."""
    found = json.loads((home / "plan.lives.json").read_text(encoding="utf-8"))
    assert found[0]["exit"] == 0, found[0]["output"][-3000:]
    assert found[-1]["exit"] == 0, found[-1]["output"][-3000:]
    return found


def runs(folder: Path) -> list[Run]:
    """All of a folder, the oldest first."""
    client = MlflowClient(f"sqlite:///{folder / 'mlflow.db'}")
    experiment = client.get_experiment_by_name("mimstocr_csi300")
    return list(
        reversed(client.search_runs([experiment.experiment_id], order_by=["attributes.start_time DESC"]))
    )


def artifacts(folder: Path, run: Run) -> dict[str, Path]:
    """The files of a run, by their artifact paths."""
    root = folder / "mlruns" / run.info.experiment_id / run.info.run_id / "artifacts"
    return {path.relative_to(root).as_posix(): path for path in sorted(root.rglob("*")) if path.is_file()}


@pytest.fixture(scope="module")
def ended(home: Path, lives: list[dict[str, Any]]) -> list[tuple[Run, dict[str, Path]]]:
    """The straight run and the one that was killed, with their files."""
    both = []
    for name in ("straight", "pieces"):
        run = runs(home / name)[-1]
        assert run.info.status == "FINISHED"
        both.append((run, artifacts(home / name, run)))
    return both


class TestKills:
    def test_every_one_fell_at_its_moment(self, lives: list[dict[str, Any]]) -> None:
        pieces = lives[1:-1]
        assert len(pieces) == KILLS
        assert {life["died_at"].partition(":")[0] for life in pieces} == {
            "step",
            "measuring",
            "checkpoint",
            "file",
            "end",
        }
        assert any("half of it" in life["died_at"] for life in pieces)
        for life in pieces:
            after = life["moments"][life["moments"].index(life["died_at"]) + 1 :]
            # a run that is interrupted still writes the checksums of what it has
            assert after == [] or (life["exit"] == 1 and after == ["file: checksums.txt, time 1"]), life[
                "output"
            ]
            assert life["exit"] in (-signal.SIGKILL, 1)
        interrupted = [life for life in pieces if life["exit"] == 1]
        assert len(interrupted) == INTERRUPTS
        for life in interrupted:
            assert "is marked KILLED" in life["output"]
            assert "Traceback" not in life["output"]

    def test_no_epoch_is_trained_again(self, lives: list[dict[str, Any]]) -> None:
        whole = 0  # epochs in the checkpoint
        for life in lives[1:]:
            trained = [
                int(moment.split()[2].rstrip(",")) for moment in life["moments"] if moment.startswith("step")
            ]
            assert min(trained, default=whole) == whole
            assert ("taking up" in life["output"]) == (whole > 0)
            whole += sum("after it" in moment for moment in life["moments"])
        assert whole == EPOCHS

    def test_mlflow_says_how_each_ended(self, home: Path, lives: list[dict[str, Any]]) -> None:
        """A process that is killed cannot say so any more: its run is RUNNING there, and never taken for a finished one."""
        status = {-signal.SIGKILL: "RUNNING", 1: "KILLED", 0: "FINISHED"}
        expected = ["FINISHED" if life["died_at"] == CLOSING else status[life["exit"]] for life in lives[1:]]
        assert [run.info.status for run in runs(home / "pieces")] == expected


class TestEndsAlike:
    def test_weights(self, ended: Any) -> None:
        straight, pieces = (files["training/weights.safetensors"].read_bytes() for _, files in ended)
        assert pieces == straight

    def test_the_same_files_and_nearly_all_the_same_bytes(self, ended: Any) -> None:
        (_, straight), (_, pieces) = ended
        assert set(pieces) == set(straight)
        assert len(straight) > 20
        differ = {path for path in straight if straight[path].read_bytes() != pieces[path].read_bytes()}
        differ = {path for path in differ if "seconds-an-epoch" not in path}
        assert differ <= OF_THE_RUN | HISTORY

    def test_history_but_for_its_seconds(self, ended: Any) -> None:
        for path in HISTORY:
            read = pd.read_parquet if path.endswith(".parquet") else pd.read_csv
            straight, pieces = (read(files[path]) for _, files in ended)
            seconds = [column for column in straight if column.startswith("seconds/")]
            assert len(straight) == EPOCHS
            pd.testing.assert_frame_equal(
                pieces.drop(columns=seconds), straight.drop(columns=seconds), check_exact=True
            )

    def test_metrics_of_every_epoch_and_of_the_records(self, home: Path, ended: Any) -> None:
        logged = []
        for name, (run, _) in zip(("straight", "pieces"), ended, strict=True):
            client = MlflowClient(f"sqlite:///{home / name / 'mlflow.db'}")
            logged.append(
                {
                    metric: [(p.step, p.value) for p in client.get_metric_history(run.info.run_id, metric)]
                    for metric in run.data.metrics
                    if not metric.startswith("seconds/")
                }
            )
        assert len(logged[0]) > 30
        np.testing.assert_equal(logged[1], logged[0])

    def test_the_report(self, ended: Any) -> None:
        pages = []
        for run, files in ended:
            page = files["report/report.html"].read_text(encoding="utf-8")
            for of_this_run in (run.info.run_id, run.info.run_id[:8], run.info.run_name):
                page = page.replace(of_this_run, "RUN")
            page = re.sub(r"\d{4}-\d\d-\d\d \d\d:\d\d(:\d\d)?", "TIME", page)
            page = re.sub(r"epochs in \d+ seconds?", "epochs in SECONDS", page)
            page, charts = re.subn(
                r"<figure[^>]*seconds.*?</figure>", "", page
            )  # the chart of the epochs' seconds
            assert charts == 1
            pages.append(re.split("(?=<)", page.replace("resume: 1", "resume: 0")))
        straight, pieces = pages
        assert len(straight) > 500
        assert [(a, b) for a, b in zip(straight, pieces, strict=True) if a != b] == []

    def test_nothing_half_written_is_left_among_the_checkpoints(self, home: Path, ended: Any) -> None:
        kept = sorted(path.suffix for path in home.glob("pieces/checkpoints/*/*"))
        # what a kill left beside them is no checkpoint, and goes after a day
        assert [suffix for suffix in kept if suffix != ".part"] == [".closed", ".safetensors"]


class TestLonelyDay:
    """Days of a single stock, in the training, in validation and in the test, of the same runs."""

    def test_the_training_leaves_it_out_and_says_so(self, lives: list[dict[str, Any]]) -> None:
        assert "1 of 14 training days lack a task's labels and are left out" in lives[0]["output"]

    def test_its_one_stock_has_a_score(self, ended: Any) -> None:
        scores = pd.read_parquet(ended[0][1]["signal/predictions.parquet"])
        assert np.isfinite(scores.xs(LONELY[2], level="datetime")).all(axis=None)
        assert len(scores.xs(LONELY[2], level="datetime")) == 1

    def test_no_correlation_is_made_up_for_it(self, ended: Any) -> None:
        run, files = ended[0]
        daily = pd.read_parquet(files["ranking/daily.parquet"])
        assert np.isnan(daily.loc[LONELY[2], "rank_ic/RETURN"])
        others = daily["rank_ic/RETURN"].drop(pd.Timestamp(LONELY[2]))
        assert run.data.metrics["RankIC"] == pytest.approx(others.mean(), rel=1e-12)

    def test_the_backtest_goes_on_and_balances(self, ended: Any) -> None:
        daily = pd.read_parquet(ended[0][1]["backtest/daily.parquet"])
        assert pd.Timestamp(LONELY[2]) in daily.index
        assert np.isfinite(daily.select_dtypes("number")).all(axis=None)
