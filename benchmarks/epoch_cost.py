"""What an epoch of the trainer costs, beside a bare PyTorch loop of the same passes.

    python benchmarks/epoch_cost.py --store ../shared/market/cn

An epoch is measured on a stretch of days of each segment of a workflow and carried over to all of them by their number.
The bare loop has nothing but one pass forward and one a task backward, on panels that lie ready: no gathering of
windows, no balancer, no optimizer, no progress bar. Seconds are those of the processor, so that other work on the machine
counts little; the contestants take turns, and the shortest time of each counts.
The trainer evaluates train and validation; what the test segment would cost beside them is shown, and counted.

Exit status: 0 when every bar is met, 1 when one is missed, 2 when there was nothing to measure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import json
import logging
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
import torch
import yaml
from rich.console import Console
from rich.table import Table

from qlib_ext.checks import UserError, integer
from qlib_ext.config.build import build
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.memory import reuse_freed_memory
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task, daily_losses
from qlib_ext.model.trainer import Trainer

ROOT = Path(__file__).parents[1]
PRECISIONS = ("float32", "bfloat16")
TRAINING, EVALUATION = 1.15, 1 / 3  # the bars: over the bare loop, and over the epoch's training


@dataclass(frozen=True)
class Epoch:
    """Processor seconds of a whole epoch in one precision, and the bars' ratios."""

    precision: str
    bare: float
    training: float
    evaluation: float
    test: float

    @property
    def over_bare(self) -> float:
        """Training over the bare loop."""
        return self.training / self.bare

    @property
    def evaluated(self) -> float:
        """Evaluation of train, validation and test over training."""
        return (self.evaluation + self.test) / self.training

    @property
    def met(self) -> bool:
        """Whether both bars are met."""
        return self.over_bare <= TRAINING and self.evaluated <= EVALUATION


@dataclass(frozen=True)
class Stretch:
    """Some days of each segment, and how many each has in all."""

    panels: Mapping[str, DailyPanels]
    days: Mapping[str, int]


def load(store: Path, workflow: Path, stretch: int) -> Stretch:
    """The `stretch` days in the middle of each segment of a workflow, on a store."""
    import qlib

    from qlib_ext.data.dataset import DailyPanelDataset

    reuse_freed_memory()  # as `fit` does, for the bare loop too

    text = jinja2.Template(workflow.read_text(encoding="utf-8")).render(
        QLIB_DATA=str(store), PANEL_CACHE="off"
    )
    kwargs = yaml.safe_load(text)["task"]["dataset"]["kwargs"]
    qlib.init(provider_uri=str(store), region="cn", kernels=1, logging_level=logging.WARNING)
    whole = DailyPanelDataset(**kwargs)
    device = torch.device("cpu")
    full = {name: whole.panels(name, device) for name in ("train", "valid", "test")}
    short = {}
    for name, panels in full.items():
        dates = panels.index().get_level_values("datetime").unique()
        if len(dates) < stretch:
            raise UserError(f"`days` must be at most the {len(dates)} days of `{name}`, found {stretch}")
        first = (len(dates) - stretch) // 2
        short[name] = [f"{dates[first]:%Y-%m-%d}", f"{dates[first + stretch - 1]:%Y-%m-%d}"]
    part = DailyPanelDataset(
        **{**kwargs, "segments": short, "handler": whole.handler, "purge": False, "cache": None}
    )
    return Stretch(
        {name: part.panels(name, device) for name in short},
        {name: len(panels) for name, panels in full.items()},
    )


def make_trainer(workflow: Path, hidden_size: int, precision: str) -> Trainer:
    """The workflow's own network, tasks and balancer."""
    text = jinja2.Template(workflow.read_text(encoding="utf-8")).render(HIDDEN_SIZE=hidden_size)
    kwargs = yaml.safe_load(text)["task"]["model"]["kwargs"]
    torch.manual_seed(0)
    tasks = [Task.from_config(name, config) for name, config in kwargs["tasks"].items()]
    tasks = [replace(task, classes=5 if task.classification else None) for task in tasks]
    network = MultiTaskNetwork(kwargs["backbone"], tasks, num_features=6, lookback_days=60)
    balancer = build(kwargs["balancer"], Balancer, name="balancer")
    options = TrainerOptions(precision=precision)
    return Trainer(network, tasks, balancer, options, seed=0, device=torch.device("cpu"))


def measure(trainer: Trainer, stretch: Stretch, repeats: int) -> Epoch:
    """Seconds of an epoch, from the stretch."""
    train = stretch.panels["train"]
    labels = tuple(task.label for task in trainer.tasks)
    days = {name: panels.labelled(labels) for name, panels in stretch.panels.items()}
    ready = [train[int(position)] for position in days["train"]]
    contestants: dict[str, tuple[Callable[[], object], float]] = {
        "bare": (partial(bare_loop, trainer, ready), stretch.days["train"] / len(ready)),
        "training": (
            partial(trainer._train_epoch, train, days["train"]),
            stretch.days["train"] / len(ready),
        ),
        "train": (
            partial(trainer.evaluator.losses, train, days["train"]),
            stretch.days["train"] / len(ready),
        ),
    }
    for name in ("valid", "test"):
        panels = stretch.panels[name]
        work = partial(trainer.evaluator.losses_and_scores, panels, days[name])
        contestants[name] = (work, stretch.days[name] / len(panels))
    best = dict.fromkeys(contestants, np.inf)
    for turn in range(repeats + 1):
        for name, (run, share) in contestants.items():
            started = time.process_time()
            with contextlib.redirect_stderr(io.StringIO()):  # the progress bar's
                run()
            if turn:  # the first does not count
                best[name] = min(best[name], share * (time.process_time() - started))
    precision = trainer.options.precision
    return Epoch(precision, best["bare"], best["training"], best["train"] + best["valid"], best["test"])


def bare_loop(trainer: Trainer, panels: Sequence[DailyPanel]) -> None:
    """Forward, losses, and a backward pass for each task: what any loop would have to do."""
    trainer.network.train()
    for panel in panels:
        losses = daily_losses(trainer.tasks, trainer.network(panel, trainer.options.precision), panel)
        for k, head in enumerate(trainer.heads):
            torch.autograd.grad(losses[k], [*trainer.shared, *head], retain_graph=k < len(losses) - 1)


def render(epochs: Sequence[Epoch], title: str) -> Table:
    """A row a precision."""
    table = Table(title=title, title_justify="left")
    table.add_column("precision", no_wrap=True)
    columns = (
        "bare loop, s",
        "training, s",
        "× bare",
        "evaluation, s",
        "with test, s",
        "with test ÷ training",
    )
    for name in columns:
        table.add_column(name, justify="right")
    for epoch in epochs:
        table.add_row(
            epoch.precision,
            f"{epoch.bare:.1f}",
            f"{epoch.training:.1f}",
            f"{epoch.over_bare:.3f}",
            f"{epoch.evaluation:.1f}",
            f"{epoch.evaluation + epoch.test:.1f}",
            f"{epoch.evaluated:.3f}",
        )
    return table


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every bar is met."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", type=Path, required=True, help="Qlib data directory")
    parser.add_argument("--workflow", type=Path, default=ROOT / "workflows" / "mimstocr_csi300.yaml")
    parser.add_argument("--hidden-size", type=int, default=128)
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=PRECISIONS)
    parser.add_argument("--days", type=int, default=20, help="of each segment, to measure on")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--json", type=Path, help="file for every figure")
    given = parser.parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    before = os.getloadavg()[0]
    try:
        integer("hidden_size", given.hidden_size, 1)
        integer("repeats", given.repeats, 1)
        torch.set_num_threads(integer("threads", given.threads, 1))
        stretch = load(given.store, given.workflow, integer("days", given.days, 2))
        epochs = [
            measure(make_trainer(given.workflow, given.hidden_size, precision), stretch, given.repeats)
            for precision in given.precisions
        ]
    except UserError as error:
        console.print(str(error), style="bold", markup=False)
        return 2
    counted = ", ".join(f"{name} {days:,}" for name, days in stretch.days.items())
    console.print(
        render(epochs, f"An epoch of {given.workflow.stem}, hidden size {given.hidden_size}; days: {counted}")
    )
    for epoch in epochs:
        console.print(
            f"{epoch.precision}: training {epoch.over_bare:.3f} of the bare loop, at most {TRAINING:g}; evaluation "
            f"with test {epoch.evaluated:.3f} of training, at most {EVALUATION:.3f}: {'met' if epoch.met else 'MISSED'}",
            markup=False,
        )
    console.print(
        f"{given.threads} of {os.cpu_count()} CPUs; load average before the run: {before:.2f}", markup=False
    )
    if given.json:
        about = {"cpus": os.cpu_count(), "load_average_before": before, "python": platform.python_version()}
        found: dict[str, Any] = {
            "machine": about | {"torch": version("torch")},
            "threads": given.threads,
            "days": dict(stretch.days),
            "epochs": [asdict(epoch) | {"met": epoch.met} for epoch in epochs],
        }
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(epoch.met for epoch in epochs) else 1


if __name__ == "__main__":
    raise SystemExit(main())
