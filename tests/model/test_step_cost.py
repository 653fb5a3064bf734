"""The benchmark of sizes measures the trainer's own step at the sizes that it names."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).parents[2] / "benchmarks" / "step_cost.py"


@pytest.fixture(scope="module")
def step_cost():
    spec = importlib.util.spec_from_file_location("step_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["step_cost"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["step_cost"]


@pytest.fixture
def trainers(step_cost, monkeypatch):
    """The trainers that the benchmark makes, each counting its passes task by task."""
    made = []

    class Watched(step_cost.Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.jacobians = 0
            self.shapes = []
            self.network.register_forward_pre_hook(
                lambda network, given: self.shapes.append(tuple(given[0].features.shape))
            )
            made.append(self)

        def _jacobian(self, *args, **kwargs):
            self.jacobians += 1
            return super()._jacobian(*args, **kwargs)

    monkeypatch.setattr(step_cost, "Trainer", Watched)
    return made


@pytest.mark.parametrize(
    ("name", "fields", "tasks", "balancer", "jacobians"),
    [("ResNeXt", 3, 1, "EW", 0), ("ResNeXt", 7, 3, "CQB", 1), ("MCCNN", 4, 2, "EW", 0)],
)
def test_a_step_is_the_trainers_with_so_many_fields_and_tasks(
    step_cost, trainers, name, fields, tasks, balancer, jacobians
):
    step = step_cost.sized_step(name, fields, tasks, balancer, 5, step_cost.Setup("cpu", 1, 1))
    (trainer,) = trainers
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    step()
    assert type(trainer.network.backbone).__name__ == name
    assert trainer.shapes == [(5, 20, fields)]
    assert [task.classification for task in trainer.tasks] == [k % 2 == 0 for k in range(tasks)]
    assert trainer.jacobians == jacobians
    assert not all(torch.equal(x, y) for x, y in zip(before, trainer.network.parameters(), strict=True))


def test_every_backbone_by_fields_and_resnext_by_tasks(step_cost, tmp_path, capsys):
    out = tmp_path / "found.json"
    sizes = ["--features", "3", "5", "--tasks", "1", "3"]
    arguments = ["sizes", "--stocks", "4", "--repeats", "1", *sizes, "--json", str(out)]
    assert step_cost.main(arguments) == 0
    found = json.loads(out.read_text())
    assert found["bars"] == []
    rows = {row["name"]: row for row in found["rows"]}
    expected = {f"{name} F{f} K2 EW" for name in step_cost.SIZED for f in (3, 5)}
    expected |= {f"ResNeXt F20 K{k} {balancer}" for k in (1, 3) for balancer in ("EW", "CQB")}
    assert rows.keys() == expected | {"ResNeXt F20 K2 EW"}
    assert found["reference"] == "ResNeXt F20 K2 EW"
    for row in rows.values():
        assert row["memory_ratio"] == row["megabytes"] / rows["ResNeXt F20 K2 EW"]["megabytes"]
    assert rows["DSN F5 K2 EW"]["megabytes"] > rows["DSN F3 K2 EW"]["megabytes"]
    assert "ResNeXt F20 K3 CQB" in capsys.readouterr().out


@pytest.mark.parametrize("name", ["features", "tasks"])
def test_messages(step_cost, capsys, name):
    assert step_cost.main(["sizes", f"--{name}", "0"]) == 2
    assert f"`{name}` must be at least 1, found 0" in capsys.readouterr().out
