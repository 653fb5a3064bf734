"""Where the time of an epoch goes on the device, step by step, beside a bare loop and the authors' way."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from typing import Any

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells its every start and stop otherwise

import numpy as np
import torch

from benchmarks.gpu.panel_file import PanelFile
from benchmarks.gpu.parts import Recipe, make, positions
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model.task import daily_losses
from qlib_ext.model.trainer import Trainer

# What waits for the device: a value read back, and the calls by which CUDA itself waits.
WAITS = (
    "aten::_local_scalar_dense",
    "cudaStreamSynchronize",
    "cudaDeviceSynchronize",
    "cudaEventSynchronize",
)


def epochs(
    file: PanelFile, device: torch.device, hidden_size: int, days: int, repeats: int
) -> list[dict[str, Any]]:
    """A row for LSTM, GATs and HIST in either precision.

    Seconds of a whole epoch (1,210 days of CSI300, say), carried over from `days` steps by their number: `gather` (windows
    and labels), `forward` (network and losses), `backward` (all that the balancer asks for, and the optimizer), `steps` (the
    trainer's own steps, one after the other), `evaluation` (train and valid), `bare` (forward and a pass a task on panels that
    lie ready) and `authors` (a day's table of features moved to the device for each step, and losses read after it). `waits` is
    how often a step waits for the device, by call.
    """
    rows = []
    for backbone in ("LSTM", "GATs", "HIST"):
        for precision in ("float32", "bfloat16"):
            recipe = Recipe(backbone, "CQB", hidden_size, precision)
            rows.append(
                {"backbone": backbone, "precision": precision, **_epoch(file, recipe, device, days, repeats)}
            )
    return rows


def _epoch(file: PanelFile, recipe: Recipe, device: torch.device, days: int, repeats: int) -> dict[str, Any]:
    trainer = make(recipe, file, device)
    padded = torch.from_numpy(file.padded).to(device)
    train, valid = (file.panels(name, device, padded) for name in ("train", "valid"))
    every = positions(trainer, train)
    chosen = every[:: max(1, len(every) // days)][:days]
    trainer.network.train()
    ready = [train[int(day)] for day in chosen]
    tables = [panel.features.flatten(1).cpu().numpy() for panel in ready]
    share = len(every) / len(chosen)

    def timed(work: Callable[[], object]) -> float:
        best = np.inf
        for turn in range(repeats + 1):
            _wait(device)
            started = time.perf_counter()
            work()
            _wait(device)
            if turn:  # the first one makes plans and caches
                best = min(best, time.perf_counter() - started)
        return best * share

    valid_days = positions(trainer, valid)[: len(chosen)]
    valid_share = len(file.segments["valid"]) / max(1, len(valid_days))
    seconds = {
        "gather": timed(lambda: [train[int(day)] for day in chosen]),
        "forward": timed(lambda: [_forward(trainer, panel) for panel in ready]),
        "bare": timed(lambda: _bare(trainer, ready)),
        "steps": timed(lambda: [trainer._step(train, int(day)) for day in chosen]),
        "authors": timed(lambda: _authors(trainer, ready, tables, file, device)),
        "evaluation": timed(lambda: trainer.evaluator.losses(train, chosen))
        + timed(lambda: trainer.evaluator.losses_and_scores(valid, valid_days)) / share * valid_share,
    }
    seconds["backward"] = seconds["steps"] - seconds["gather"] - seconds["forward"]
    seconds["epoch"] = seconds["steps"] + seconds["evaluation"]
    return {**seconds, "waits": _waits(trainer, train, chosen, device)}


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def _forward(trainer: Trainer, panel: DailyPanel) -> torch.Tensor:
    return daily_losses(trainer.tasks, trainer.network(panel, trainer.options.precision), panel)


def _bare(trainer: Trainer, panels: list[DailyPanel]) -> None:
    for panel in panels:
        losses = _forward(trainer, panel)
        for k, head in enumerate(trainer.heads):
            torch.autograd.grad(losses[k], [*trainer.shared, *head], retain_graph=k < len(losses) - 1)


def _authors(
    trainer: Trainer,
    ready: list[DailyPanel],
    tables: list[np.ndarray],
    file: PanelFile,
    device: torch.device,
) -> None:
    """As a loop over tables does it: features of a day come from the CPU's memory, and each loss is read at once."""
    shape = (file.features.lookback_days, len(file.features.names))
    optimizer = torch.optim.Adam(trainer.network.parameters(), lr=2e-4)
    for panel, table in zip(ready, tables, strict=True):
        moved = torch.from_numpy(table.copy()).to(device).unflatten(1, shape)
        losses = _forward(trainer, replace(panel, features=moved))
        optimizer.zero_grad()
        losses.sum().backward()
        torch.nn.utils.clip_grad_value_(trainer.network.parameters(), 3.0)
        optimizer.step()
        [float(loss) for loss in losses.detach()]


def _waits(trainer: Trainer, train: DailyPanels, days: np.ndarray, device: torch.device) -> dict[str, float]:
    """How often a step waits for the device, by call, mean over the days."""
    kinds = [torch.profiler.ProfilerActivity.CPU]
    if device.type == "cuda":
        kinds.append(torch.profiler.ProfilerActivity.CUDA)
    with torch.profiler.profile(activities=kinds) as profile:
        for day in days:
            trainer._step(train, int(day))
    counts = Counter(event.key for event in profile.events() if event.key in WAITS)
    return {name: count / len(days) for name, count in counts.items()}
