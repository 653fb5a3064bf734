"""The benchmark of balancers measures the trainer's own step, at sizes that cost nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from qlib_ext.model.trainer import Trainer

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "step_cost.py"


@pytest.fixture(scope="module")
def step_cost():
    spec = importlib.util.spec_from_file_location("step_cost_balancers", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["step_cost_balancers"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["step_cost_balancers"]


@pytest.fixture
def setup(step_cost):
    return step_cost.Setup(device="cpu", threads=1, repeats=1)


@pytest.fixture(autouse=True)
def tiny(step_cost, monkeypatch):
    """A network and windows of the smallest size; the bars are those of 8 stocks."""
    for name, value in {"HIDDEN_SIZE": 4, "LOOKBACK_DAYS": 3, "BALANCER_STOCKS": 8}.items():
        monkeypatch.setattr(step_cost, name, value)


@pytest.fixture
def trainers(step_cost, monkeypatch):
    """The trainers that are made."""
    made = []

    class Watched(Trainer):
        def __init__(self, *args, **kwargs):
            super().__init__(*args, **kwargs)
            self.jacobians = 0
            made.append(self)

        def _jacobian(self, *args, **kwargs):
            self.jacobians += 1
            return super()._jacobian(*args, **kwargs)

    monkeypatch.setattr(step_cost, "Trainer", Watched)
    return made


@pytest.mark.parametrize(("name", "jacobians"), [("EW", 0), ("CQB", 1), ("DB-MTL", 1), ("CAGrad", 1)])
def test_a_step_moves_every_parameter_by_the_balancers_own_passes(
    step_cost, setup, trainers, name, jacobians
):
    step = step_cost.balancer_step(name, 8, "float32", setup)
    (trainer,) = trainers
    before = [parameter.clone() for parameter in trainer.network.parameters()]
    step()
    assert trainer.jacobians == jacobians
    assert type(trainer.balancer).__name__ == step_cost.BALANCERS[name].rpartition(".")[2]
    assert not any(torch.equal(x, y) for x, y in zip(before, trainer.network.parameters(), strict=True))


def test_the_passes_alone_move_nothing(step_cost, setup, trainers):
    step = step_cost.balancer_step(step_cost.PASSES, 8, "float32", setup)
    before = [parameter.clone() for parameter in trainers[0].network.parameters()]
    step()
    assert all(torch.equal(x, y) for x, y in zip(before, trainers[0].network.parameters(), strict=True))


class TestMain:
    def test_every_contestant_and_the_bars(self, step_cost, tmp_path, capsys):
        out = tmp_path / "found.json"
        arguments = ["balancers", "--stocks", "8", "9", "--repeats", "1", "--json", str(out)]
        status = step_cost.main(arguments)
        found = json.loads(out.read_text())
        assert status == int(not all(bar["met"] for bar in found["bars"]))
        assert [bar["at_most"] for bar in found["bars"]] == [1.7, 1.7, 1.2]
        rows = {(row["name"], row["stocks"]): row["seconds"] for row in found["rows"]}
        names = {"EW", "CQB", "DB-MTL", "CAGrad", "the passes of DB-MTL alone"}
        assert rows.keys() == {(name, stocks) for name in names for stocks in (8, 9)}
        for row in found["rows"]:
            assert row["time_ratio"] == row["seconds"] / rows["EW", row["stocks"]]
        expected = [("CQB", "EW"), ("DB-MTL", "EW"), ("CAGrad", "DB-MTL")]
        assert [bar["found"] for bar in found["bars"]] == [rows[x, 8] / rows[y, 8] for x, y in expected]
        assert "time of a CAGrad step at 8 stocks, times DB-MTL" in capsys.readouterr().out

    @pytest.mark.filterwarnings("ignore::UserWarning:torchjd", "ignore::RuntimeWarning:cvxpy")
    def test_torchjd_too(self, step_cost, tmp_path):
        out = tmp_path / "found.json"
        step_cost.main(["balancers", "--stocks", "4", "--repeats", "1", "--all", "--json", str(out)])
        names = {row["name"] for row in json.loads(out.read_text())["rows"]}
        assert names > {"aggregation.UPGrad", "aggregation.NashMTL", "scalarization.FAMO"}

    @pytest.mark.parametrize(("ratio", "status"), [(1e9, 0), (1e-9, 1)])
    def test_the_exit_status_tells_of_the_bars(self, step_cost, monkeypatch, ratio, status):
        monkeypatch.setattr(step_cost, "BALANCER_RATIOS", [("CQB", "EW", ratio)])
        assert step_cost.main(["balancers", "--repeats", "1", "--stocks", "8"]) == status

    def test_messages(self, step_cost, capsys):
        assert step_cost.main(["balancers", "--stocks", "1"]) == 2
        assert "`stocks` must be at least 2, found 1" in capsys.readouterr().out
