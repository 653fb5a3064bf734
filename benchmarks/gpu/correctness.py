"""Whether a step on the device is a step on the CPU, and a training that was taken up again the same to the last bit."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from benchmarks.gpu.panel_file import PanelFile
from benchmarks.gpu.parts import BACKBONES, Recipe, make, positions, weights
from benchmarks.step_cost import BALANCERS
from qlib_ext.checks import UserError
from qlib_ext.data.panel import DailyPanels
from qlib_ext.model.checkpoint import CheckpointFolder
from qlib_ext.model.trainer import Trainer

# Of the largest value: what float32 sums in another order may differ by, and what bfloat16 keeps, eight bits.
TOLERANCE = {"float32": 1e-4, "bfloat16": 2.0**-6}
NAMES = ("predictions", "losses", "gradient")


def steps(
    file: PanelFile, device: torch.device, hidden_size: int, cells: Iterable[tuple[str, str]] | None = None
) -> list[dict[str, Any]]:
    """A row for each backbone, balancer and precision: how far a step on the device is from one on the CPU.

    Columns: `predictions`, `losses` and `gradient` (what the balancer left in the shared parameters), each the largest
    difference over the largest value of the CPU, and whether all are `right`; or the `error`.
    """
    rows = []
    for backbone, balancer in cells or [(b, c) for b in BACKBONES for c in BALANCERS]:
        for precision, tolerance in TOLERANCE.items():
            recipe = Recipe(backbone, balancer, hidden_size, precision)
            row: dict[str, Any] = {"backbone": backbone, "balancer": balancer, "precision": precision}
            try:
                row |= _compared(file, recipe, device)
            except (RuntimeError, UserError) as error:
                rows.append(row | {"error": str(error).splitlines()[0][:200], "right": False})
                continue
            right = all(
                row[name] <= tolerance for name in NAMES
            )  # none that is NaN, which `max` may pass over
            rows.append(row | {"right": right})
    return rows


def _compared(file: PanelFile, recipe: Recipe, device: torch.device) -> dict[str, float]:
    """A step on either device from the same weights; the CPU's in the same precision."""
    found = []
    for where in (torch.device("cpu"), device):
        trainer = make(recipe, file, where)
        panels = file.panels("train", where)
        day = int(positions(trainer, panels)[-1])
        trainer.network.eval()
        with torch.no_grad():
            predictions = trainer.network(panels[day], recipe.precision)
        trainer.network.train()
        losses, _, _ = trainer._step(panels, day)
        gradient = torch.cat([each.grad.flatten() for each in trainer.shared if each.grad is not None])
        flat = torch.cat([each.flatten() for each in predictions.values()])
        found.append([part.detach().float().cpu() for part in (flat, losses, gradient)])
    return {name: _apart(*pair) for name, pair in zip(NAMES, zip(*found, strict=True), strict=True)}


def _apart(expected: torch.Tensor, found: torch.Tensor) -> float:
    largest = float(expected.abs().max())
    return float((found - expected).abs().max()) / largest if largest > 0 else float(found.abs().max())


def resumes(file: PanelFile, device: torch.device, hidden_size: int, days: int) -> list[dict[str, Any]]:
    """A row for LSTM, GATs and HIST: whether two epochs equal one epoch and one taken up again, and the same run twice.

    `repeated` and `resumed` say whether the weights are equal bit for bit; where they are not, the largest difference.
    """
    rows = []
    for backbone in ("LSTM", "GATs", "HIST"):
        recipe = Recipe(backbone, "CQB", hidden_size)
        with tempfile.TemporaryDirectory() as folder:

            def trained(epochs: list[int], name: str) -> dict[str, torch.Tensor]:
                for upto in epochs:
                    trainer = make(recipe, file, device)  # noqa: B023
                    trainer.options = replace(trainer.options, n_epochs=upto)
                    trainer.phases = trainer.options.plan([task.name for task in trainer.tasks])
                    trainer._begin(0)
                    kept = CheckpointFolder(Path(folder) / name, {"recipe": name})
                    parts = _first_days(file, trainer, device, days)
                    trainer.fit(*parts, folder=kept, resume=True)
                return weights(trainer)

            whole, again, resumed = trained([2], "whole"), trained([2], "again"), trained([1, 2], "resumed")
        rows.append(
            {
                "backbone": backbone,
                "repeated": _equal(whole, again),
                "resumed": _equal(whole, resumed),
            }
        )
    return rows


def _first_days(
    file: PanelFile, trainer: Trainer, device: torch.device, days: int
) -> tuple[DailyPanels, DailyPanels]:
    """Some labelled days of train and valid."""
    segments = {}
    for name in ("train", "valid"):
        panels = file.panels(name, device)
        segments[name] = file.segments[name][positions(trainer, panels)[:days]]
    part = replace(file, segments=segments)
    return part.panels("train", device), part.panels("valid", device)


def _equal(expected: dict[str, torch.Tensor], found: dict[str, torch.Tensor]) -> bool | float:
    """True, or the largest difference of a weight."""
    largest = max(float((expected[name] - found[name]).abs().max()) for name in expected)
    return True if all(torch.equal(expected[name], found[name]) for name in expected) else largest


Say = Callable[[str], None]
