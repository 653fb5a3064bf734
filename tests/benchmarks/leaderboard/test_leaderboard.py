"""Rows of the leaderboard are tasks that pass the workflow's check, and its page says what may be said of few seeds."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from qlib.utils import init_instance_by_config

from benchmarks.leaderboard.report import BASELINES, write
from benchmarks.leaderboard.rows import CANDIDATES, Case, Row, cases, ensembles, read_rows
from benchmarks.trainings.kinds import ENSEMBLES
from benchmarks.trainings.runs import place
from qlib_ext.checks import UserError
from qlib_ext.config.security import check_classes
from qlib_ext.data.folds import FoldPlan
from qlib_ext.model.combiners.mean_z_score import MeanZScore
from qlib_ext.model.trainings.warm_start import can_start
from qlib_ext.workflow.read import read_workflow

ROOT = Path(__file__).parents[3]
BASELINE = BASELINES[0]
CHOSEN_ON, TEST_YEARS = ["2015-01-01", "2016-12-31"], ["2017-01-01", "2020-12-31"]
DAYS = pd.bdate_range("2017-01-03", periods=200, name="datetime")


ROWS, CHOSEN_FROM = read_rows(), read_rows(CANDIDATES)
TRAINED = [row for rows in (ROWS, CHOSEN_FROM) for row in rows.values() if not row.members]


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_a_row_is_a_task_with_its_seed(row: Row) -> None:
    task = Case(row, 7).task()
    check_classes(task, name="task")
    model = task["model"]["kwargs"]
    assert model.get("seed", 7) == 7
    made = init_instance_by_config(task["model"])
    assert f"{type(made).__module__}.{type(made).__name__}" == task["model"]["class"]
    assert "$SEED" not in json.dumps(task, default=str)
    segments = task["dataset"]["kwargs"]["segments"]
    walked = segments.get("walk_forward", {})
    days = [walked["start"], walked["end"]] if walked else segments["test"]
    first = row.scored_from or str(days[0])
    assert [first, str(days[1])] == (CHOSEN_ON if row in CHOSEN_FROM.values() else TEST_YEARS)
    assert "cn" in json.dumps(task["record"]), "the exchange's rules of the date"


def test_candidates_are_judged_before_the_test_and_ensembles_are_of_rows() -> None:
    assert CHOSEN_ON[1] < TEST_YEARS[0]
    for rows in (ROWS, CHOSEN_FROM):
        found = [row for row in rows.values() if row.members]
        assert found
        assert all(rows[member].workflow for row in found for member in row.members)
        assert all(row.name.startswith(ENSEMBLES) == (row.seeds == 1) for row in found), "read by its name"
        assert cases(rows, [row.name for row in found], [0]) == []


def test_the_recommended_workflow_is_what_the_board_has_measured() -> None:
    row, variables = ROWS["Recommended"], {"SEED": "1", "RESUME": "1"}
    task = read_workflow(ROOT / "workflows" / "recommended_csi300.yaml", variables)["task"]
    (trading,) = (each for each in task["record"] if each["class"].endswith("BacktestRecord"))
    assert trading["kwargs"]["strategy"]["kwargs"] == {"topk": row.topk, "n_drop": row.n_drop}
    ensemble = init_instance_by_config(task["model"])
    assert isinstance(ensemble.combiner, MeanZScore)
    plan = FoldPlan.of(task["dataset"]["kwargs"]["segments"]["walk_forward"])
    for name, member in zip(row.members, ensemble.members.values(), strict=True):
        measured = Case(ROWS[name], 1).task()
        assert member["model"] == measured["model"]
        kwargs = (member.get("dataset") or task["dataset"])["kwargs"]
        assert kwargs["handler"] == measured["dataset"]["kwargs"]["handler"]
        own = FoldPlan.of(measured["dataset"]["kwargs"]["segments"]["walk_forward"])
        assert replace(own, warm_start=True) == plan
        assert own.warm_start == can_start(member["model"])


def test_an_ensemble_is_of_all_seeds_or_of_each_apart() -> None:
    sure, drawn = Row("Sure", "a.yaml", seeds=1), Row("Drawn", "b.yaml")
    both = ("Sure", "Drawn")
    made = (Row("Ensemble", seeds=1, members=both), Row("Apart", members=both))
    rows = {row.name: row for row in (sure, drawn, *made)}
    found = [(name, members) for name, _, members in ensembles(rows, [0, 2])]
    assert found == [
        ("Ensemble", ["Sure seed 0", "Drawn seed 0", "Drawn seed 2"]),
        ("Apart seed 0", ["Sure seed 0", "Drawn seed 0"]),
        ("Apart seed 2", ["Sure seed 0", "Drawn seed 2"]),
    ]


def test_seeds_come_last_and_a_row_has_no_more_than_it_asks_for() -> None:
    rows = read_rows()
    names = ["Linear, Alpha158", BASELINE]
    found = [case.name for case in cases(rows, names, [0, 1])]
    assert found == ["Linear, Alpha158 seed 0", f"{BASELINE} seed 0", f"{BASELINE} seed 1"]
    with pytest.raises(UserError, match="rows"):
        cases(rows, ["LightGBN"], [0])


def test_a_row_with_an_unknown_field_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "rows.yaml"
    file.write_text("One: {workflow: a.yaml, epochs: 3}", encoding="utf-8")
    with pytest.raises(UserError, match="epochs"):
        read_rows(file)


def kept(folder: Path, name: str, ahead: float) -> None:
    """A run whose luck is the days' own, and whose lead is the same on each of them."""
    draw = np.random.default_rng(0)
    daily = pd.DataFrame({"rank_ic/RETURN": draw.normal(0.03, 0.05, len(DAYS)) + ahead}, index=DAYS)
    for column in ("ic/RETURN", "ranked/ic/RETURN", "precision/30/RETURN", "base_rate/RETURN", "turnover"):
        daily[column] = 0.5
    for column in ("portfolio", "index", "equal_weight"):
        daily[column] = draw.normal(0, 0.01, len(DAYS))
    daily["portfolio"] += ahead / 10
    target = place(folder, name)
    target.mkdir(parents=True)
    daily.to_parquet(target / "daily.parquet")
    facts = {
        "name": name,
        "seconds": 1800,
        "processor_seconds": 3600,
        "metrics": {"benchmarks/random_below": 0.9},
    }
    (target / "run.json").write_text(json.dumps(facts), encoding="utf-8")


def test_nobody_is_ahead_by_fewer_than_three_seeds(tmp_path: Path) -> None:
    for seed in range(3):
        kept(tmp_path / "runs", f"{BASELINE} seed {seed}", 0)
        kept(tmp_path / "runs", f"STL, Alpha360 seed {seed}", 0.01)
    kept(tmp_path / "runs", "EW, Alpha360 seed 0", 0.02)
    kept(tmp_path / "choice", "MASTER, Alpha158 seed 0", 0.02)
    page = write(tmp_path).read_text(encoding="utf-8")
    said = {
        line.split(" | ")[0][2:]: line for line in page.split("## Against")[1].splitlines() if " | " in line
    }
    assert said["STL, Alpha360"].endswith("| RankIC and return |")
    assert "+0.0100 (+0.0100 to +0.0100)" in said["STL, Alpha360"]
    assert said["EW, Alpha360"].endswith("| too few seeds to say |")
    assert page.index("| EW, Alpha360 |") < page.index("| STL, Alpha360 |"), "the highest RankIC first"
    assert (
        f"| {BASELINE} | 3 against 3 | -0.0100 (-0.0100 to -0.0100) | -24.3% (-24.3% to -24.3%) | nothing that is shown |"
        in page
    )
    assert "EW, Alpha360 (1 of 3 seeds)" in page
    assert "| 1.00 |" in page, "core-hours"
    choice = (tmp_path / "choice" / "README.md").read_text(encoding="utf-8")
    assert "| MASTER, Alpha158 | 1 |" in choice
    assert "Linear, Alpha158 (0 of 1 seeds)" in choice


def test_an_empty_board_says_so(tmp_path: Path) -> None:
    assert "Nothing is kept yet." in write(tmp_path).read_text(encoding="utf-8")
