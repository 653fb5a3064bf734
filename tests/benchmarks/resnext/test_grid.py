"""What the grid of the ResNeXt paper asks for can be run."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.grid.plan import Budget, Cell, Grid, Job
from qlib_ext.config.build import build
from qlib_ext.model.multi_task import MultiTaskModel

ROOT = Path(__file__).parents[3]
SMALL = Budget(epochs=1, patience=1, hidden_size=16)
GRID = Grid(ROOT / "benchmarks" / "resnext" / "grid.yaml", ROOT)
CELLS = [
    *GRID.cells(["stocks"], ["ResNeXt"], [*GRID.methods], [0]),
    *GRID.cells(["sp500", "SSE50"], [*GRID.backbones], ["joint"], [0]),
]


def job(cell: Cell) -> Job:
    return GRID.job(cell, SMALL, store=Path("/store"), tracking_uri="sqlite:///x.db", fingerprint="f")


@pytest.mark.parametrize("cell", CELLS, ids=str)
def test_every_cell_is_a_model_that_can_be_built(cell: Cell) -> None:
    config = job(cell).config["task"]["model"]
    model = build(config, MultiTaskModel, name="model")
    assert model.options.n_epochs == 1
    assert model.backbone["class"].endswith(f".{cell.backbone}")


def test_every_method_is_another_run() -> None:
    assert len({job(cell).name.rpartition(" ")[2] for cell in CELLS}) == len(CELLS)


def test_the_universe_sets_what_the_workflow_leaves_to_the_environment() -> None:
    found = {
        name: job(Cell(name, "ResNeXt", "joint", 0)).config["task"]["dataset"]["kwargs"]
        for name in ("stocks", "sp500")
    }
    assert found["stocks"]["benchmark"] == "QQQ"
    assert found["stocks"]["handler"]["kwargs"]["instruments"] == "stocks"
    assert found["sp500"]["benchmark"] == "^GSPC"
    assert found["sp500"]["handler"]["kwargs"]["instruments"] == "sp500"


@pytest.mark.parametrize("method", ["without phases", "direction alone", "return alone"])
def test_a_run_without_phases_makes_as_many_passes(method: str) -> None:
    of = {
        name: build(
            job(Cell("stocks", "ResNeXt", name, 0)).config["task"]["model"], MultiTaskModel, name="model"
        ).options.plan(["direction", "score"])
        for name in ("joint", method)
    }
    assert [phase.epochs for phase in of[method]] == [phase.epochs for phase in of["joint"]]
    assert all(set(phase.tasks) == {"direction", "score"} for phase in of[method])
