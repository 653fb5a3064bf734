from __future__ import annotations

from pathlib import Path

import pytest
import yaml
from jinja2 import Template

from qlib_ext.tracking.tags import task_tags

WORKFLOWS = sorted((Path(__file__).parents[2] / "workflows").glob("*.yaml"))


def task_of(workflow: Path) -> dict:
    return yaml.safe_load(Template(workflow.read_text(encoding="utf-8")).render())["task"]


class TestTaskTags:
    @pytest.mark.parametrize("workflow", WORKFLOWS, ids=lambda path: path.stem)
    def test_every_workflow_says_what_its_runs_are(self, workflow: Path) -> None:
        tags = task_tags(task_of(workflow))
        assert {"model", "method", "universe", "seed"} <= {*tags}, workflow
        assert all(isinstance(value, str) and value for value in tags.values())

    def test_of_a_multi_task_model(self) -> None:
        assert task_tags(task_of(Path(__file__).parents[2] / "workflows" / "mimstocr_csi300.yaml")) == {
            "model": "MultiTaskModel",
            "backbone": "LSTM",
            "balancer": "CQB",
            "tasks": "score + momentum",
            "loss": "MSE + WeightedSum(CrossEntropy, ApproxNDCG)",
            "method": "CQB",
            "seed": "0",
            "universe": "csi300",
            "strategy": "TopkDropout topk 50 n_drop 5",
        }

    def test_one_task_is_no_balancing(self) -> None:
        model = {"class": "M", "kwargs": {"tasks": {"score": {}}, "balancer": {"class": "a.Equal"}}}
        assert task_tags({"model": model})["method"] == "single task"

    @pytest.mark.parametrize("method", ["UPGrad", {"class": "torchjd.aggregation.UPGrad"}])
    def test_a_balancer_that_stands_for_several_methods(self, method: object) -> None:
        tasks = {"momentum": {}, "score": {}}
        balancer = {"class": "a.TorchJDAggregator", "kwargs": {"method": method}}
        found = task_tags({"model": {"class": "M", "kwargs": {"tasks": tasks, "balancer": balancer}}})
        assert (found["method"], found["tasks"]) == ("TorchJDAggregator UPGrad", "score + momentum")

    def test_another_model_goes_by_its_class(self) -> None:
        found = task_tags({"model": {"class": "LGBModel", "module_path": "q.gbdt", "kwargs": {"seed": 0}}})
        assert found == {"model": "LGBModel", "method": "LGBModel", "seed": "0"}

    @pytest.mark.parametrize(("kwargs", "tagged"), [({}, False), ({"judging": True}, True)])
    def test_a_training_that_knows_the_future(self, kwargs: dict, tagged: bool) -> None:
        assert ("combinatorial" in task_tags({"dataset": {"class": "D", "kwargs": kwargs}})) is tagged

    def test_a_single_record(self) -> None:
        record = {"class": "R", "kwargs": {"strategy": {"class": "a.Top", "kwargs": {"topk": 5, "w": [1]}}}}
        assert task_tags({"record": record}) == {"strategy": "Top topk 5"}

    def test_what_is_no_task_has_no_tags(self) -> None:
        assert task_tags({}) == task_tags({"model": None, "dataset": {"kwargs": None}, "record": None}) == {}
