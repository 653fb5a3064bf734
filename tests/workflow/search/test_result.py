"""What is said and shown of a search, of trials that are made up."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import optuna
import pytest

from qlib_ext.workflow.search.page import render
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.result import Found, header
from qlib_ext.workflow.search.study import Study, Tried, importance

SPACE: dict[str, Any] = {
    "RATE": {"float": [0.01, 0.1], "log": True},
    "task.model.kwargs.size": {"int": [1, 9]},
    "kind": {"choice": ["<a>", "b"]},
}
PLAN = Plan.of({"space": SPACE, "rungs": [{"N_EPOCHS": 2}, {"N_EPOCHS": 4, "seeds": 3}]})


def tried(number: int, *values: float, seeds: tuple[float, ...] = (), **more: Any) -> Tried:
    """A trial that was worth so much on each rung."""
    words = {
        "RATE": 0.01 * (number + 1),
        "task.model.kwargs.size": number + 1,
        "kind": "<a>" if number % 2 else "b",
    }
    state = "complete" if len(values) == 2 else "stopped" if values else "failed"
    by_seed = dict(enumerate(seeds or values[-1:]))
    return Tried(
        number, state, words, dict(enumerate(values)), by_seed, 60.0, number == 0, more.get("error", "")
    )


def begun(study: Study) -> optuna.Trial:
    trial = study.ask()
    assert trial is not None
    return trial


FOUND = Found(
    "w.yaml",
    PLAN,
    (
        tried(0, 0.03),
        tried(1, 0.05, 0.06, seeds=(0.05, 0.06, 0.07)),
        tried(2, 0.04, 0.055, seeds=(0.055, 0.055, 0.055)),
        tried(3, error="UserError: <no room>"),
    ),
    {"RATE": 0.7, "task.model.kwargs.size": 0.3},
    {0: ("2015-01-01", "2016-12-28")},
    None,
    {"Validation": "2015-01-01 to 2016-12-28", "Store": "cn"},
)


class TestWords:
    def test_the_best_is_one_of_the_last_rung(self) -> None:
        best = FOUND.best
        assert best is not None
        assert best.number == 1
        assert best.deviation == pytest.approx(0.01)
        assert [trial.number for trial in FOUND.ranked] == [1, 2, 0, 3]

    def test_what_cannot_be_told_apart_is_said(self) -> None:
        said = " ".join(FOUND.sentences())
        assert "4 configurations tried: 2 on the last rung, 1 stopped below it, 1 failed." in said
        assert "No day of the test segment was read" in said
        assert "0.0050 ahead of the next one on the last rung, no more than its seeds differ" in said
        assert "settles nothing" not in said

    def test_one_seed_settles_nothing(self) -> None:
        found = dataclasses.replace(FOUND, tried=(tried(0, 0.03, 0.04),))
        assert any("The workflow as it stood is the best" in line for line in found.sentences())
        assert any("trained with 1 seed, which settles nothing" in line for line in found.sentences())

    def test_days_that_other_folds_score_are_named(self) -> None:
        found = dataclasses.replace(FOUND, read_too=("2015-01-05", "2016-06-30"))
        (line,) = [line for line in found.sentences() if "scored by earlier folds" in line]
        assert "2015-01-05 to 2016-06-30" in line
        assert not any("No day of the test segment" in each for each in found.sentences())

    def test_without_a_trial_on_the_last_rung_none_is_the_best(self) -> None:
        found = dataclasses.replace(FOUND, tried=FOUND.tried[:1])
        assert found.best is None
        assert any("none is named the best" in line for line in found.sentences())
        assert "No trial has come to the last rung yet" in render(found)

    def test_above_the_best_workflow_stands_where_it_comes_from(self) -> None:
        best = FOUND.best
        assert best is not None
        lines = header(FOUND, best).splitlines()
        assert all(line.startswith("# ") for line in lines)
        assert "Trial 1 of `qlib-ext search` on w.yaml, the best of 4: " in lines[0]
        assert "RankIC 0.0600 on validation, mean of 3 seeds (deviation 0.0100)" in lines[0]

    def test_the_table_has_a_row_a_trial(self) -> None:
        table = FOUND.table().set_index("trial")
        assert table["rank_ic"].tolist()[:3] == [0.03, 0.06, 0.055]
        assert math.isnan(table.loc[3, "rank_ic"])
        assert table.loc[3, "error"] == "UserError: <no room>"


class TestPage:
    def test_it_has_history_importance_slices_trials_and_where_they_were_stopped(self) -> None:
        page = render(FOUND)
        for name in ("history", "importance", "slice-0", "slice-1", "slice-2"):
            assert f'id="chart-{name}"' in page
        for text in ("stopped, rung 1 of 2", "N_EPOCHS 4, 3 seeds", "0 (as it stood)", "PED-ANOVA"):
            assert text in page
        assert "&lt;no room&gt;" in page
        assert "<no room>" not in page

    def test_nothing_tried_is_a_page_too(self) -> None:
        assert "No trial has begun." in render(dataclasses.replace(FOUND, tried=(), importance={}))


class TestStudy:
    @pytest.fixture
    def study(self, tmp_path: Path) -> Study:
        return Study(tmp_path, PLAN, "same", workers=1)

    def test_it_is_that_of_the_folder(self, study: Study, tmp_path: Path) -> None:
        trial = begun(study)
        study.note(trial, "key", {"rank_ic": 0.1, "seconds": 2.0})
        again = Study(tmp_path, PLAN, "same", workers=1)
        (left,) = again.left_open()
        assert left.number == 0
        assert again.results(left) == {"key": {"rank_ic": 0.1, "seconds": 2.0}}
        assert again.tried()[0].state == "open"
        assert again.plan.space.suggest(left) == trial.params, "what was drawn stays"

    def test_a_trial_climbs_while_it_is_among_the_best_third(self, study: Study) -> None:
        ends = []
        for value in (0.1, 0.2, 0.3, 0.25, 0.31):
            trial = begun(study)
            ends.append(study.judge(trial, 0, {0: value}))
        assert ends == [True, True, True, False, True]
        assert study.judge(study.left_open()[0], 1, {0: 0.1, 1: 0.3, 2: 0.5}) is False
        first = study.tried()[0]
        assert (first.state, first.value) == ("complete", pytest.approx(0.3))

    def test_whether_a_trial_goes_on_is_decided_once(
        self, study: Study, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def killed(*args: Any, **kwargs: Any) -> None:
            raise KeyboardInterrupt

        values = (0.7, 0.8, 0.9, 0.1)
        monkeypatch.setattr(study.study, "tell", killed)
        for value in values[:3]:
            assert study.judge(begun(study), 0, {0: value})
        with pytest.raises(KeyboardInterrupt):
            study.judge(begun(study), 0, {0: values[3]})
        again = Study(tmp_path, PLAN, "same", workers=1)
        left = zip(again.left_open(), values, strict=True)
        assert [again.judge(trial, 0, {0: value}) for trial, value in left] == [True, True, True, False]
        assert [trial.state for trial in again.tried()] == ["open", "open", "open", "stopped"]

    @pytest.mark.parametrize(
        "space",
        [
            {"n": {"int": [1, 2]}, "x": {"float": [0.1, 0.3], "step": 0.1, "when": {"n": 2}}},
            {"n": {"int": [1, 4]}},
            {"n": {"int": [1, 4], "log": True}},  # which no grid can take
        ],
    )
    def test_no_values_are_tried_twice_and_those_that_are_left_are(
        self, tmp_path: Path, space: dict[str, Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("qlib_ext.workflow.search.study.MOST_REPEATS", 20)
        study = Study(tmp_path, Plan.of({"space": space, "sampler": "random"}), "same", workers=1)
        for _ in range(4):
            begun(study)
        assert study.ask() is None
        found = {tuple(round(x, 9) for x in trial.words.values()) for trial in study.tried()}
        assert len(found) == len(study.tried()) == study.begun == 4

    def test_a_trial_without_a_value_is_stopped(self, study: Study) -> None:
        trial = begun(study)
        assert study.judge(trial, 0, {0: math.nan}) is False
        assert study.tried()[0].state == "stopped"

    def test_the_parameter_that_decides_is_the_most_important(self, study: Study) -> None:
        for k in range(30):
            trial = begun(study)
            words = trial.params
            assert k not in (8, 29) or importance(study) == {}, "of so few it is noise"
            study.judge(trial, 0, {0: words["task.model.kwargs.size"] + k * 1e-9})
        found = importance(study)
        assert next(iter(found)) == "task.model.kwargs.size"
        assert sum(found.values()) == pytest.approx(1)
        assert study.study.sampler.__class__ is optuna.samplers.TPESampler
