"""The benchmark's cases are tasks that pass the check of their plans, and its report says what is kept and what is not."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from benchmarks.trainings.runs import place
from benchmarks.walk_forward.cases import KINDS, Case, cases
from benchmarks.walk_forward.report import write
from qlib_ext.data.folds import FoldPlan
from qlib_ext.data.segments import check_segments

DAYS = pd.bdate_range("2015-01-05", periods=250, name="datetime")


@pytest.mark.parametrize("kind", KINDS)
def test_a_case_scores_the_same_days_walking_or_not(kind: str) -> None:
    task = Case(kind, 3, "2015-01-01", "2020-12-31").task()
    segments = task["dataset"]["kwargs"]["segments"]
    if KINDS[kind].once:
        found = check_segments(segments)["test"]
    else:
        plan = FoldPlan.of(segments["walk_forward"])
        assert plan.warm_start == KINDS[kind].warm_start
        found = plan.start, plan.end
    assert found == (pd.Timestamp("2015-01-01"), pd.Timestamp("2020-12-31"))
    assert task["model"]["kwargs"]["seed"] == 3


def test_every_kind_meets_every_seed() -> None:
    assert [case.name for case in cases(["LSTM"], [0, 1], "a", "b")] == ["LSTM seed 0", "LSTM seed 1"]


def kept(folder: Path, name: str, ic: float) -> None:
    draw = np.random.default_rng([*name.encode()])
    daily = pd.DataFrame({"rank_ic/RETURN": draw.normal(ic, 0.1, len(DAYS))}, index=DAYS)
    for column in ("portfolio", "index", "equal_weight"):
        daily[column] = draw.normal(0, 0.01, len(DAYS))
    target = place(folder, name)
    target.mkdir(parents=True)
    daily.to_parquet(target / "daily.parquet")
    (target / "run.json").write_text(json.dumps({"name": name, "processor_seconds": 1800}), encoding="utf-8")


def test_the_report_holds_kinds_against_each_other_and_names_what_was_not_run(tmp_path: Path) -> None:
    for name, ic in (
        ("LSTM seed 0", 0.05),
        ("LSTM seed 1", 0.09),
        ("LSTM, once seed 0", 0.02),
        ("Ensemble LSTM", 0.1),
    ):
        kept(tmp_path / "runs", name, ic)
    (tmp_path / "head.md").write_text("# What came out\n", encoding="utf-8")
    page = write(tmp_path / "runs", tmp_path).read_text(encoding="utf-8")
    assert page.startswith("# What came out")
    rows = [line.split(" | ") for line in page.splitlines() if line.startswith("| LSTM | ")]
    means = [
        pd.read_parquet(place(tmp_path / "runs", f"LSTM seed {k}") / "daily.parquet")["rank_ic/RETURN"].mean()
        for k in (0, 1)
    ]
    (found,) = rows
    assert found[1:3] == ["2", "250"]
    assert found[3].startswith(f"{np.mean(means):.4f} (")
    assert found[4] == f"{min(means):.4f} to {max(means):.4f}"
    assert found[-1] == "0.50 |", "core-hours"
    assert "| walking forward against training once, LSTM | 2 against 1 |" in page
    assert "| seeds together against one of them | 1 against 2 |" in page
    assert "warm start against cold" not in page
    assert "Not run: LightGBM Alpha360; LightGBM Alpha360, once; LightGBM Alpha158; LSTM, warm start." in page
    assert (tmp_path / "wealth.png").stat().st_size > 5000


def test_nothing_kept_is_said(tmp_path: Path) -> None:
    assert "Nothing is kept yet." in write(tmp_path / "none", tmp_path).read_text(encoding="utf-8")
