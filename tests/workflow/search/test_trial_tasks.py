"""A space held against its workflow, and the workflow that comes out of a search."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml

from qlib_ext.checks import UserError
from qlib_ext.workflow.read import read_workflow
from qlib_ext.workflow.search.plan import Plan
from qlib_ext.workflow.search.searched import SearchedWorkflow, differing
from tests.workflow.search.conftest import LEAVES, Searches

ROOT = Path(__file__).parents[3]
HANDLER = "task.dataset.kwargs.handler.kwargs"


class TestCheck:
    @pytest.mark.parametrize(
        ("space", "message"),
        [
            ({"LEARNING_RAT": {"float": [0.1, 0.2]}}, "found none \\(did you mean LEARNING_RATE\\?\\)"),
            ({"task.modle.kwargs.num_leaves": {"int": [2, 3]}}, "did you mean task.model.kwargs.num_leaves"),
            ({"qlib_init.kernels": {"int": [1, 2]}}, "below task.model or task.dataset"),
            ({"task.model.kwargs.num_leavs": {"int": [2, 3]}}, "did you mean .*num_leaves"),
            (
                {"task.model.kwargs.loss": {"int": [2, 3]}},
                "of the type that the workflow has there, str 'mse'",
            ),
            ({LEAVES: {"float": [2.5, 3.5]}}, "of the type that the workflow has there, int 7"),
            (
                {f"{HANDLER}.features.kwargs.windows": {"choice": [[5, 20], [5, 20, 0]]}},
                "cannot be '\\[5, 20, 0\\]'",
            ),
            ({"QLIB_DATA": {"choice": ["a", "b"]}}, "must change the model or the dataset"),
            ({f"{HANDLER}.instruments": {"choice": ["csi300", "csi100"]}}, "compared on the same universe"),
            (
                {"task.dataset.kwargs.segments.valid.0": {"choice": ["2014-07-01", "2014-07-02"]}},
                "compared on the same validation",
            ),
        ],
    )
    def test_what_does_not_fit_is_told_before_anything_is_trained(
        self, searches: Searches, space: dict[str, Any], message: str
    ) -> None:
        with pytest.raises(UserError, match=message):
            searches({"space": space})

    def test_so_are_a_rung_and_a_label(self, searches: Searches) -> None:
        with pytest.raises(UserError, match=r"`rungs\[0\]` cannot be .*windows"):
            searches({"rungs": [{f"{HANDLER}.features.kwargs.windows": [0]}]})
        with pytest.raises(UserError, match="RETRUN"):
            searches({"label": "RETRUN"})

    def test_without_validation_there_is_nothing_to_search_by(
        self, searches: Searches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SEGMENTS", "{train: [2014-03-03, 2014-06-30], test: [2014-09-01, 2014-11-28]}")
        with pytest.raises(UserError, match="a search needs the segment `valid`"):
            searches()

    def test_a_cross_validation_keeps_no_day_apart(
        self, searches: Searches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("SEGMENTS", "{combinatorial: {folds: 3}}")
        with pytest.raises(UserError, match="leaves a search none to keep apart"):
            searches()

    def test_the_workflow_as_it_stands_is_known_by_its_variables_too(
        self, searches: Searches, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        assert searches().own == {"LEARNING_RATE": 0.1, LEAVES: 7}
        monkeypatch.setenv("LEARNING_RATE", "0.5")
        assert searches(folder="other").own is None, "which lies outside of the space"
        monkeypatch.setenv("SEED", "41")
        assert searches(folder="third").tasks.first_seed == 41


class TestText:
    def test_what_is_written_is_what_was_tried_and_comments_stay(
        self, workflow: Path, tmp_path: Path
    ) -> None:
        searched = SearchedWorkflow(workflow)
        name = f"{HANDLER}.features.kwargs.windows"
        values = {"LEARNING_RATE": 1e-05, LEAVES: 3, name: [3, 9, 27]}
        (tmp_path / "best.yaml").write_text(searched.text(values), encoding="utf-8")
        written = read_workflow(tmp_path / "best.yaml", {})
        assert written == searched.with_values(values)
        assert written["task"]["model"]["kwargs"]["learning_rate"] == 1e-05
        assert "# trees" in (tmp_path / "best.yaml").read_text(encoding="utf-8")
        changed = differing(searched.config, written, "w")
        assert changed == [
            "w.task.model.kwargs.learning_rate",
            f"w.{LEAVES}",
            f"w.{name}",
        ]

    def test_of_one_with_a_base_all_is_written_in(self, workflow: Path, tmp_path: Path) -> None:
        base = read_workflow(workflow)
        (tmp_path / "base.yaml").write_text(yaml.safe_dump({**base, "market": 1}), encoding="utf-8")
        (tmp_path / "upper.yaml").write_text("BASE_CONFIG_PATH: base.yaml\nmarket: 2\n", encoding="utf-8")
        searched = SearchedWorkflow(tmp_path / "upper.yaml")
        (tmp_path / "best.yaml").write_text(searched.text({LEAVES: 3}), encoding="utf-8")
        written = read_workflow(tmp_path / "best.yaml", {})
        assert differing({**base, "market": 2}, written, "w") == [f"w.{LEAVES}"]

    def test_arguments_are_made_where_a_class_has_none(self, workflow: Path) -> None:
        text = workflow.read_text(encoding="utf-8")
        given = "            kwargs: {names: [KMID, ROC5, STD20], windows: [5, 20]}\n"
        plain = text.replace(given, "").replace("alpha158.Alpha158", "alpha360.Alpha360")
        workflow.write_text(plain, encoding="utf-8")
        searched = SearchedWorkflow(workflow)
        name = f"{HANDLER}.features.kwargs.lookback_days"
        searched.check_name(name)
        assert searched.value(name) == 60, "the default"
        found = searched.with_values({name: 20})["task"]["dataset"]["kwargs"]["handler"]["kwargs"]["features"]
        assert found["kwargs"] == {"lookback_days": 20}
        assert "kwargs" not in searched.config["task"]["dataset"]["kwargs"]["handler"]["kwargs"]["features"]


class TestGridOfThePaper:
    def test_it_fits_the_main_workflow_and_holds_what_the_paper_chose(self) -> None:
        plan = Plan.read(ROOT / "workflows/search/momentum_csi300.yaml")
        searched = SearchedWorkflow(ROOT / "workflows/mimstocr_csi300.yaml")
        for parameter in plan.space:
            searched.check_name(parameter.name)
        assert [parameter.word(searched.value(parameter.name)) for parameter in plan.space] == [4, 6, 0.2]
        assert len(plan.space.grid()) == 36
        assert {"N_EPOCHS"} == {name for rung in plan.rungs for name in rung.values} <= searched.variables
        values = plan.space.values(plan.space.grid()[0])
        kwargs = searched.with_values(values)["task"]["model"]["kwargs"]
        assert kwargs["tasks"]["momentum"]["loss"]["kwargs"]["losses"][1]["kwargs"] == {"share": 0.1}
