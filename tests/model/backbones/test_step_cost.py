"""The benchmark of backbones measures what it says, at sizes that cost nothing."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch

from qlib_ext.model.backbones import gats

SCRIPT = Path(__file__).parents[3] / "benchmarks" / "step_cost.py"


@pytest.fixture(scope="module")
def step_cost():
    spec = importlib.util.spec_from_file_location("step_cost", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules["step_cost"] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules["step_cost"]


@pytest.fixture
def setup(step_cost):
    return step_cost.Setup(device="cpu", threads=1, repeats=2)


@pytest.fixture
def tiny(step_cost, monkeypatch):
    """Networks and windows of the smallest size; the bars are those of 8 stocks."""
    for name, value in {"HIDDEN_SIZE": 8, "LOOKBACK_DAYS": 3, "GATS_STOCKS": 8, "CONCEPTS": 3}.items():
        monkeypatch.setattr(step_cost, name, value)


class TestPeak:
    def test_counts_what_is_there_at_once(self, step_cost, setup):
        def together():
            return torch.empty(250_000), torch.empty(500_000)

        def one_after_the_other():
            for _ in range(3):
                torch.empty(500_000).sum()

        assert step_cost.peak_megabytes(together, setup) == pytest.approx(3.0, abs=1e-4)
        assert step_cost.peak_megabytes(one_after_the_other, setup) == pytest.approx(2.0, abs=1e-4)

    def test_counts_the_backward_pass_and_what_operators_take(self, step_cost, setup):
        x = torch.ones(250_000, requires_grad=True)
        forward = step_cost.peak_megabytes(lambda: x.exp().exp(), setup)
        both = step_cost.peak_megabytes(lambda: x.exp().exp().sum().backward(), setup)
        assert both > forward == pytest.approx(2.0, abs=1e-4)

    def test_sees_a_tensor_of_n_by_n(self, step_cost, setup):
        sorted_, dense = (
            step_cost.peak_megabytes(step_cost.attention_step(name, 1500, setup), setup)
            for name in step_cost.ATTENTION
        )
        assert dense > 2 * 4 * 1500**2 / 1e6
        assert sorted_ < 16 * 8 * 1500 * step_cost.HIDDEN_SIZE / 1e6

    def test_is_the_same_each_time(self, step_cost, setup, tiny):
        found = {step_cost.peak_megabytes(step_cost.make_step("GATs", 20, setup), setup) for _ in range(3)}
        assert len(found) == 1


def test_the_shortest_of_the_turns_that_count(step_cost, setup, monkeypatch):
    clock, taken, turns = [0.0], {"a": iter([1.0, 5.0, 4.0]), "b": iter([9.0, 2.0, 3.0])}, []

    def step(name):
        turns.append(name)
        clock[0] += next(taken[name])

    monkeypatch.setattr(step_cost, "_now", lambda setup: clock[0])
    steps = {name: lambda name=name: step(name) for name in taken}
    assert step_cost.seconds(steps, setup) == {"a": 4.0, "b": 2.0}
    assert turns == ["a", "b"] * 3


def test_a_step_fills_the_gradients_anew(step_cost, setup, tiny, monkeypatch):
    made = []
    original = step_cost._backbone
    monkeypatch.setattr(step_cost, "_backbone", lambda name: made.append(original(name)) or made[-1])
    step = step_cost.make_step("GATs", 8, setup)
    step()
    first = [parameter.grad.clone() for parameter in made[0].parameters()]
    step()
    assert all(torch.equal(one, p.grad) for one, p in zip(first, made[0].parameters(), strict=True))
    assert all(gradient.abs().sum() > 0 for gradient in first)


def test_the_dense_contestant_is_the_same_network_by_another_way(step_cost, setup, tiny, monkeypatch):
    called = []
    dense = step_cost.dense_attend
    monkeypatch.setattr(step_cost, "dense_attend", lambda *x: called.append(1) or dense(*x))
    step_cost.make_step("GATs", 8, setup)()
    assert not called
    step_cost.make_step(step_cost.DENSE, 8, setup)()
    assert called
    assert gats.attend.__module__ == gats.__name__
    given = torch.randn(9, 4), torch.randn(9), torch.randn(9)
    torch.testing.assert_close(dense(*given, 0.01), gats.attend(*given, 0.01))


class TestMain:
    def test_every_contestant_and_the_bars(self, step_cost, tiny, tmp_path, capsys):
        out = tmp_path / "found.json"
        arguments = ["backbones", "--stocks", "8", "9", "--repeats", "1", "--all", "--json", str(out)]
        status = step_cost.main(arguments)
        found = json.loads(out.read_text())
        assert status == int(not all(bar["met"] for bar in found["bars"]))
        assert [bar["at_most"] for bar in found["bars"]] == [1.15, 1.15]
        names = {
            "GRU alone",
            "GATs",
            "GATs of Qlib, N × N × 2D",
            "LSTM",
            "ALSTM",
            "Transformer",
            "RSR",
            "HIST",
        }
        for stocks in (8, 9):
            rows = {row["name"]: row for row in found["rows"] if row["stocks"] == stocks}
            assert names < rows.keys()
            reference = rows["GRU alone"]
            for row in rows.values():
                assert row["time_ratio"] == row["seconds"] / reference["seconds"]
                assert row["memory_ratio"] == row["megabytes"] / reference["megabytes"]
        ours = next(row for row in found["rows"] if (row["name"], row["stocks"]) == ("GATs", 8))
        assert [bar["found"] for bar in found["bars"]] == [ours["time_ratio"], ours["memory_ratio"]]
        assert "peak memory of a GATs step at 8 stocks" in capsys.readouterr().out

    def test_master_by_the_number_of_stocks(self, step_cost, monkeypatch, tmp_path, capsys):
        sizes = {"MASTER_DAYS": 3, "MASTER_FIELDS": 4, "MASTER_SIZE": 8, "LARGEST_SCORES_GB": 5e-4}
        for name, value in sizes.items():
            monkeypatch.setattr(step_cost, name, value)
        out = tmp_path / "found.json"
        arguments = ["stocks", "--stocks", "50", "100", "200", "--repeats", "1", "--json", str(out)]
        assert step_cost.main(arguments) == 0
        megabytes = {
            (row["name"], row["stocks"]): row["megabytes"] for row in json.loads(out.read_text())["rows"]
        }
        fused = [megabytes["MASTER", stocks] for stocks in (50, 100, 200)]
        assert fused[2] - fused[1] == pytest.approx(2 * (fused[1] - fused[0]), rel=0.05)  # linear
        whole = [megabytes["MASTER, N × N scores", stocks] for stocks in (50, 100, 200)]
        assert whole[1] > 3 * whole[0]
        assert whole[2] is None
        assert "not run: one tensor of 0.0 GB" in capsys.readouterr().out

    @pytest.mark.parametrize(("ratio", "status"), [(1e9, 0), (1e-9, 1)])
    def test_the_exit_status_tells_of_the_bars(self, step_cost, tiny, monkeypatch, ratio, status):
        monkeypatch.setattr(step_cost, "GATS_RATIO", ratio)
        monkeypatch.setattr(step_cost, "LARGEST_TENSOR_GB", 0.0)
        assert step_cost.main(["backbones", "--stocks", "8", "--repeats", "1"]) == status

    def test_what_is_too_large_is_left_out_and_named(self, step_cost, tiny, monkeypatch, capsys):
        monkeypatch.setattr(step_cost, "LARGEST_TENSOR_GB", 0.0)
        step_cost.main(["backbones", "--stocks", "5", "--repeats", "1"])
        assert "not run: one tensor of 0.0 GB" in capsys.readouterr().out

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (["--stocks", "0"], "`stocks` must be at least 1, found 0"),
            (["--repeats", "0"], "`repeats` must be at least 1, found 0"),
            (["--threads", "0"], "`threads` must be at least 1, found 0"),
        ],
    )
    def test_messages(self, step_cost, capsys, arguments, message):
        assert step_cost.main(["backbones", *arguments]) == 2
        assert message in capsys.readouterr().out
