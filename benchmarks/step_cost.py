"""What a training step costs: backbones against their recurrent part, balancers against equal weighting, sizes.

    python benchmarks/step_cost.py backbones
    python benchmarks/step_cost.py balancers
    python benchmarks/step_cost.py sizes
    python benchmarks/step_cost.py stocks

A step is one trading day, on random features of the size of Alpha360: of a backbone forward and backward, of a
balancer all that the trainer does. `sizes` shows all that the trainer does for ResNeXt and its baselines, by the number
of fields and of tasks; `stocks` shows MASTER by the number of stocks, beside the same with the whole matrix of attention. Times are minima over repeats, in which the contestants take turns, so that a busy
moment of the machine strikes all of them. Peak memory is what the tensors of a step take at once, beyond the model and
the day's features.

Exit status: 0 when every bar is met, 1 when one is missed, 2 when there was nothing to measure.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any
from unittest.mock import patch

os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler tells its every start and stop otherwise

import pandas as pd
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import leaky_relu

from qlib_ext.checks import UserError, integer
from qlib_ext.config.build import build
from qlib_ext.data.panel import DailyPanel, DailyPanels
from qlib_ext.model.backbones import gats
from qlib_ext.model.backbones.base import Backbone, build_backbone
from qlib_ext.model.balancers.base import Balancer
from qlib_ext.model.network import MultiTaskNetwork
from qlib_ext.model.options import TrainerOptions
from qlib_ext.model.task import Task, daily_losses
from qlib_ext.model.trainer import LOOK_EVERY, Trainer

Step = Callable[[], None]  # what is measured

FEATURES, LOOKBACK_DAYS, HIDDEN_SIZE, LAYERS = 6, 60, 128, 2  # Alpha360, and the authors' networks


@dataclass(frozen=True)
class Setup:
    """How to measure."""

    device: str
    threads: int
    repeats: int
    seed: int = 0


@dataclass(frozen=True)
class Row:
    """What one contestant's step costs, absolutely and as a multiple of the reference's; None where not measured."""

    name: str
    stocks: int
    seconds: float | None
    megabytes: float | None
    time_ratio: float | None
    memory_ratio: float | None
    note: str = ""


@dataclass(frozen=True)
class Bar:
    """A limit, and what was found."""

    name: str
    at_most: float
    found: float

    @property
    def met(self) -> bool:
        return self.found <= self.at_most


@dataclass(frozen=True)
class Report:
    """One part of the benchmark."""

    title: str
    reference: str
    rows: tuple[Row, ...]
    bars: tuple[Bar, ...]


# ---- measuring ----------------------------------------------------------------------------------------------------


def day(stocks: int, setup: Setup, concepts: int = 0, shape: tuple[int, int] | None = None) -> DailyPanel:
    """A day of random features, `shape` (T, F); each stock in one of `concepts` industries where there are any."""
    draw = torch.Generator().manual_seed(setup.seed)
    industry = torch.arange(stocks) % concepts if concepts else None
    return DailyPanel(
        date=pd.Timestamp("2020-01-02"),
        features=torch.randn(stocks, *(shape or (LOOKBACK_DAYS, FEATURES)), generator=draw).to(setup.device),
        instruments=torch.arange(stocks).to(setup.device),
        market_value=torch.rand(stocks, generator=draw).exp().to(setup.device),
        labels={},
        raw_labels={},
        concepts=None
        if industry is None
        else torch.nn.functional.one_hot(industry, concepts).float().to(setup.device),
    )


def seconds(steps: Mapping[str, Step], setup: Setup) -> dict[str, float]:
    """The shortest time of each step; they take turns, after one turn that does not count."""
    best = dict.fromkeys(steps, float("inf"))
    for turn in range(setup.repeats + 1):
        for name, step in steps.items():
            started = _now(setup)
            step()
            taken = _now(setup) - started
            if turn:
                best[name] = min(best[name], taken)
    return best


def peak_megabytes(step: Step, setup: Setup) -> float:
    """What the tensors of a step take at their peak, beyond what was there before it, in 10^6 bytes.

    Every allocation of torch counts, those inside its operators too, and nothing else: unlike resident memory this is
    the same each time, and owes nothing to what the C library keeps. Measure a step that has not run yet, so that it
    frees nothing that stood before it.
    """
    if setup.device == "cuda":
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        step()
        torch.cuda.synchronize()
        return (torch.cuda.max_memory_allocated() - before) / 1e6
    with torch.profiler.profile(
        activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True
    ) as profile:
        step()
    assert profile.profiler is not None
    events = [event for event in profile.profiler.kineto_results.events() if event.name() == "[memory]"]
    events.sort(key=lambda event: event.start_ns())
    return max(itertools.accumulate(event.nbytes() for event in events)) / 1e6


def _now(setup: Setup) -> float:
    if setup.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter()


# ---- backbones ----------------------------------------------------------------------------------------------------


def dense_attend(values: Tensor, receiver: Tensor, sender: Tensor, negative_slope: float) -> Tensor:
    """The same average by a matrix of N × N scores, to show what the sorted form saves."""
    scores = leaky_relu(receiver.unsqueeze(1) + sender.unsqueeze(0), negative_slope)  # [N, N]
    return scores.softmax(dim=1) @ values  # [N, D]


REFERENCE = "GRU alone"
OURS, DENSE, QLIB = "GATs", "GATs, N × N scores", "GATs of Qlib, N × N × 2D"
ATTENTION = {"attention alone": gats.attend, "attention alone, N × N scores": dense_attend}
GATS_RATIO, GATS_STOCKS = 1.15, 300
LARGEST_TENSOR_GB = 4.0  # Qlib's GATs is left out where its N × N × 2D tensor is larger: it holds several
OTHERS = ("LSTM", "ALSTM", "Transformer", "RSR", "HIST")
CONCEPTS = 30  # industries of RSR and HIST


def backbone_step(name: str, stocks: int, setup: Setup) -> Step:
    """Forward and backward of one backbone on one day, of which the sum of squares is the loss."""
    panel = day(stocks, setup, CONCEPTS)
    torch.manual_seed(setup.seed)
    backbone = _backbone(name).to(setup.device)
    features = panel.features.transpose(1, 2).flatten(1) if name == QLIB else None  # [N, F * T]

    def step() -> None:
        backbone.zero_grad(set_to_none=True)
        with patch.object(gats, "attend", dense_attend if name == DENSE else gats.attend):
            embedding = backbone(panel if features is None else features)
        embedding.square().sum().backward()

    return step


def attention_step(name: str, stocks: int, setup: Setup) -> Step:
    """Forward and backward of one way to attend, on random states and scores."""
    draw = torch.Generator().manual_seed(setup.seed)
    values = torch.randn(stocks, HIDDEN_SIZE, generator=draw).to(setup.device).requires_grad_()
    receiver, sender = torch.randn(2, stocks, generator=draw).to(setup.device).requires_grad_().unbind(0)

    def step() -> None:
        context = ATTENTION[name](values, receiver, sender, 0.01)
        torch.autograd.grad(context.square().sum(), [values, receiver, sender])

    return step


def make_step(name: str, stocks: int, setup: Setup) -> Step:
    """The step of a contestant."""
    return (attention_step if name in ATTENTION else backbone_step)(name, stocks, setup)


def _backbone(name: str) -> torch.nn.Module:
    if name == QLIB:
        with contextlib.redirect_stdout(io.StringIO()):  # Qlib tells which other models it cannot import
            from qlib.contrib.model.pytorch_gats import GATModel

        return GATModel(d_feat=FEATURES, hidden_size=HIDDEN_SIZE, num_layers=LAYERS)
    kind = {REFERENCE: "GRU", OURS: "GATs", DENSE: "GATs"}.get(name, name)
    path = f"qlib_ext.model.backbones.{kind.lower()}.{kind}"
    kwargs = {"hidden_size": HIDDEN_SIZE, "num_layers": LAYERS}
    return build(
        {"class": path, "kwargs": kwargs},
        Backbone,
        name="backbone",
        num_features=FEATURES,
        lookback_days=LOOKBACK_DAYS,
    )


def measure_backbones(given: argparse.Namespace, setup: Setup, say: Callable[[str], None]) -> Report:
    """GATs beside its recurrent part alone; every other backbone too where asked to."""
    rows: list[Row] = []
    for stocks in given.stocks:
        integer("stocks", stocks, 1)
        say(f"{stocks:,} stocks ...")
        names = [REFERENCE, OURS, DENSE, QLIB, *ATTENTION, *(OTHERS if given.all else ())]
        notes = dict.fromkeys(names, "")
        tensor = 4 * stocks**2 * 2 * HIDDEN_SIZE / 1e9
        if tensor > LARGEST_TENSOR_GB:
            names.remove(QLIB)
            notes[QLIB] = f"not run: one tensor of {tensor:.1f} GB"
        peaks = {name: peak_megabytes(make_step(name, stocks, setup), setup) for name in names}
        times = seconds({name: make_step(name, stocks, setup) for name in names}, setup)
        rows += [
            Row(
                name,
                stocks,
                times.get(name),
                peaks.get(name),
                times[name] / times[REFERENCE] if name in times else None,
                peaks[name] / peaks[REFERENCE] if name in peaks else None,
                note,
            )
            for name, note in notes.items()
        ]
    bars = [
        Bar(f"{what} of a GATs step at {GATS_STOCKS} stocks, times {REFERENCE}", GATS_RATIO, ratio)
        for row in rows
        if (row.name, row.stocks) == (OURS, GATS_STOCKS)
        for what, ratio in (("time", row.time_ratio), ("peak memory", row.memory_ratio))
        if ratio is not None
    ]
    title = f"A step of {HIDDEN_SIZE} × {LAYERS} on {LOOKBACK_DAYS} days of {FEATURES} fields"
    return Report(title, REFERENCE, tuple(rows), tuple(bars))


# ---- balancers ----------------------------------------------------------------------------------------------------

EQUAL, PASSES = "EW", "the passes of DB-MTL alone"
BALANCERS = {
    EQUAL: "equal.EqualWeighting",
    "CQB": "cqb.CQB",
    "DB-MTL": "db_mtl.DBMTL",
    "CAGrad": "cagrad.CAGrad",
}
TORCHJD: dict[str, dict[str, Any]] = {
    "aggregation.UPGrad": {},
    "aggregation.PCGrad": {},
    "aggregation.NashMTL": {},
    "aggregation.MGDA": {},
    "aggregation.IMTLG": {},
    "aggregation.AlignedMTL": {},
    "aggregation.FairGrad": {"alpha": 1.0},
    "aggregation.CAGrad": {"c": 0.4},
    "scalarization.UW": {},
    "scalarization.DWA": {},
    "scalarization.FAMO": {},
}
# Name, of which other one it is a multiple, and at most which.
BALANCER_RATIOS = (("CQB", EQUAL, 1.7), ("DB-MTL", EQUAL, 1.7), ("CAGrad", "DB-MTL", 1.2))
BALANCER_STOCKS = 300
TASKS: dict[str, dict[str, Any]] = {
    "score": {"label": "RETURN", "loss": {"class": "qlib_ext.model.losses.mse.MSE"}},
    "momentum": {
        "label": "MOMENTUM",
        "loss": {
            "class": "qlib_ext.model.losses.weighted_sum.WeightedSum",
            "kwargs": {
                "losses": [
                    {"class": "qlib_ext.model.losses.cross_entropy.CrossEntropy"},
                    {"class": "qlib_ext.model.losses.approx_ndcg.ApproxNDCG"},
                ],
                "weights": [0.5, 0.5],
            },
        },
        "classes": 5,
    },
}


class OneDay(DailyPanels):
    """A segment that has the same day at every position."""

    def __init__(self, panel: DailyPanel) -> None:
        self.panel = panel

    def __getitem__(self, position: int) -> DailyPanel:
        return self.panel


def labelled_day(stocks: int, setup: Setup) -> DailyPanel:
    """A day with a return and a momentum class of each stock."""
    draw = torch.Generator().manual_seed(setup.seed)
    labels = {
        "RETURN": torch.randn(stocks, generator=draw).to(setup.device),
        "MOMENTUM": torch.randint(5, (stocks,), generator=draw).float().to(setup.device),
    }
    return replace(day(stocks, setup), labels=labels)


def balancer_step(name: str, stocks: int, precision: str, setup: Setup) -> Step:
    """A step of the trainer under one balancer: forward, losses, backward, balance, optimizer."""
    torch.manual_seed(setup.seed)
    tasks = [Task.from_config(task, config) for task, config in TASKS.items()]
    lstm = {"hidden_size": HIDDEN_SIZE, "num_layers": LAYERS}
    network = MultiTaskNetwork(
        {"class": "qlib_ext.model.backbones.lstm.LSTM", "kwargs": lstm},
        tasks,
        num_features=FEATURES,
        lookback_days=LOOKBACK_DAYS,
    )
    balancer = build(_balancer(name), Balancer, name="balancer")
    options = TrainerOptions(precision=precision)
    trainer = Trainer(network, tasks, balancer, options, seed=setup.seed, device=torch.device(setup.device))
    network.train()
    days = OneDay(labelled_day(stocks, setup))
    if name == PASSES:
        return lambda: _passes(trainer, days)
    position = LOOK_EVERY + 1  # not one of those at which the trainer looks at the gradients under EW too
    return lambda: _nothing(trainer._step(days, position))


def _balancer(name: str) -> dict[str, Any]:
    if name in TORCHJD:
        method = {"class": f"torchjd.{name}", "kwargs": TORCHJD[name]}
        kind = "TorchJDAggregator" if name.startswith("aggregation") else "TorchJDScalarizer"
        return {"class": f"qlib_ext.model.balancers.torchjd.{kind}", "kwargs": {"method": method}}
    return {"class": f"qlib_ext.model.balancers.{BALANCERS.get(name, BALANCERS[EQUAL])}"}


def _passes(trainer: Trainer, days: OneDay) -> None:
    """One pass forward and one a task backward, and nothing else."""
    predictions = trainer.network(days[0], trainer.options.precision)
    losses = daily_losses(trainer.tasks, predictions, days[0])
    for k, head in enumerate(trainer.heads):
        torch.autograd.grad(losses[k], [*trainer.shared, *head], retain_graph=k < len(losses) - 1)


def _nothing(result: object) -> None:
    """Drop what a step gives back."""


def measure_balancers(given: argparse.Namespace, setup: Setup, say: Callable[[str], None]) -> Report:
    """The balancers of the paper beside equal weighting; TorchJD's too where asked to."""
    rows: list[Row] = []
    names = [*BALANCERS, PASSES, *(TORCHJD if given.all else ())]
    bars: list[Bar] = []
    for stocks in given.stocks:
        integer("stocks", stocks, 2)
        say(f"{stocks:,} stocks ...")
        times = seconds({name: balancer_step(name, stocks, given.precision, setup) for name in names}, setup)
        rows += [Row(name, stocks, times[name], None, times[name] / times[EQUAL], None) for name in names]
        if stocks == BALANCER_STOCKS:
            bars = [
                Bar(
                    f"time of a {name} step at {stocks} stocks, times {other}",
                    at_most,
                    times[name] / times[other],
                )
                for name, other, at_most in BALANCER_RATIOS
            ]
    title = f"A step of {len(TASKS)} tasks on an LSTM of {HIDDEN_SIZE} × {LAYERS}, {given.precision}"
    return Report(title, EQUAL, tuple(rows), tuple(bars))


# ---- sizes --------------------------------------------------------------------------------------------------------

RESNEXT = "ResNeXt"
SIZED = (RESNEXT, "LSTM", "Transformer", "DSN", "MCCNN")  # with the defaults of their classes
WINDOW_DAYS, COMMON_FIELDS, COMMON_TASKS = 20, 20, 2  # where another size varies
KINDS = {"direction": "cross_entropy.CrossEntropy", "return": "mse.MSE"}


def sized_step(name: str, fields: int, tasks: int, balancer: str, stocks: int, setup: Setup) -> Step:
    """A step of the trainer on F fields and K tasks, directions and returns in turn, each with an MLP head."""
    torch.manual_seed(setup.seed)
    built: list[Task] = []
    labels: dict[str, Tensor] = {}
    draw = torch.Generator().manual_seed(setup.seed)
    for k in range(tasks):
        kind = tuple(KINDS)[k % 2]
        values = (
            torch.randint(2, (stocks,), generator=draw).float()
            if kind == "direction"
            else torch.randn(stocks, generator=draw)
        )
        labels[f"{kind}_{k}"] = values.to(setup.device)
        config: dict[str, Any] = {
            "label": f"{kind}_{k}",
            "loss": {"class": f"qlib_ext.model.losses.{KINDS[kind]}"},
            "head": {"class": "qlib_ext.model.heads.mlp.MLPHead"},
        }
        if kind == "direction":
            config["classes"] = 2
        built.append(Task.from_config(f"{kind}_{k}", config))
    network = MultiTaskNetwork(
        {"class": f"qlib_ext.model.backbones.{name.lower()}.{name}"},
        built,
        num_features=fields,
        lookback_days=WINDOW_DAYS,
    )
    trainer = Trainer(
        network,
        built,
        build(_balancer(balancer), Balancer, name="balancer"),
        TrainerOptions(selection="loss"),
        seed=setup.seed,
        device=torch.device(setup.device),
    )
    network.train()
    days = OneDay(replace(day(stocks, setup, shape=(WINDOW_DAYS, fields)), labels=labels))
    return lambda: _nothing(trainer._step(days, LOOK_EVERY + 1))


def measure_sizes(given: argparse.Namespace, setup: Setup, say: Callable[[str], None]) -> Report:
    """Each backbone by its number of fields F, and ResNeXt by its number of tasks K under two balancers."""
    for name in ("features", "tasks"):
        for value in getattr(given, name):
            integer(name, value, 1)
    reference = _sized(RESNEXT, COMMON_FIELDS, COMMON_TASKS, EQUAL)
    wanted = {reference: (RESNEXT, COMMON_FIELDS, COMMON_TASKS, EQUAL)}
    for fields, name in itertools.product(given.features, SIZED):
        wanted[_sized(name, fields, COMMON_TASKS, EQUAL)] = (name, fields, COMMON_TASKS, EQUAL)
    for tasks, balancer in itertools.product(given.tasks, (EQUAL, "CQB")):
        wanted[_sized(RESNEXT, COMMON_FIELDS, tasks, balancer)] = (RESNEXT, COMMON_FIELDS, tasks, balancer)
    rows: list[Row] = []
    for stocks in given.stocks:
        integer("stocks", stocks, 2)
        say(f"{stocks:,} stocks ...")
        peaks = {
            label: peak_megabytes(sized_step(*size, stocks, setup), setup) for label, size in wanted.items()
        }
        times = seconds({label: sized_step(*size, stocks, setup) for label, size in wanted.items()}, setup)
        rows += [
            Row(
                label,
                stocks,
                times[label],
                peaks[label],
                times[label] / times[reference],
                peaks[label] / peaks[reference],
            )
            for label in wanted
        ]
    return Report(f"A step of the trainer on windows of {WINDOW_DAYS} days", reference, tuple(rows), ())


def _sized(name: str, fields: int, tasks: int, balancer: str) -> str:
    return f"{name} F{fields} K{tasks} {balancer}"


# ---- stocks -------------------------------------------------------------------------------------------------------

FUSED, WHOLE = "MASTER", "MASTER, N × N scores"
MASTER_DAYS, MASTER_FIELDS, MASTER_MARKET, MASTER_SIZE, STOCK_HEADS = (
    8,
    158,
    63,
    64,
    2,
)  # Alpha158, and three indices
LARGEST_SCORES_GB = 0.5  # a step holds several of that size


def master_step(name: str, stocks: int, setup: Setup) -> Step:
    """Forward and backward of MASTER on one day; of `WHOLE` with every matrix of attention written out."""
    torch.manual_seed(setup.seed)
    status = torch.randn(MASTER_MARKET).to(setup.device)
    panel = replace(day(stocks, setup, shape=(MASTER_DAYS, MASTER_FIELDS)), market_status=status)
    backbone = build_backbone(
        {
            "class": "qlib_ext.model.backbones.master.MASTER",
            "kwargs": {"hidden_size": MASTER_SIZE, "num_stock_heads": STOCK_HEADS},
        },
        num_features=MASTER_FIELDS,
        lookback_days=MASTER_DAYS,
        num_market=MASTER_MARKET,
    ).to(setup.device)

    def step() -> None:
        backbone.zero_grad(set_to_none=True)
        with sdpa_kernel(SDPBackend.MATH) if name == WHOLE else contextlib.nullcontext():
            embedding = backbone(panel)
        embedding.square().sum().backward()

    return step


def measure_stocks(given: argparse.Namespace, setup: Setup, say: Callable[[str], None]) -> Report:
    """MASTER by the number of stocks."""
    rows: list[Row] = []
    for stocks in given.stocks:
        integer("stocks", stocks, 1)
        say(f"{stocks:,} stocks ...")
        scores = 4 * stocks**2 * MASTER_DAYS * STOCK_HEADS / 1e9
        note = f"not run: one tensor of {scores:.1f} GB" if scores > LARGEST_SCORES_GB else ""
        names = [FUSED] if note else [FUSED, WHOLE]
        peaks = {name: peak_megabytes(master_step(name, stocks, setup), setup) for name in names}
        times = seconds({name: master_step(name, stocks, setup) for name in names}, setup)
        rows += [
            Row(
                name, stocks, times[name], peaks[name], times[name] / times[FUSED], peaks[name] / peaks[FUSED]
            )
            for name in names
        ]
        if note:
            rows.append(Row(WHOLE, stocks, None, None, None, None, note))
    title = f"A step of MASTER of width {MASTER_SIZE} on {MASTER_DAYS} days of {MASTER_FIELDS} fields"
    return Report(title, FUSED, tuple(rows), ())


# ---- the report ---------------------------------------------------------------------------------------------------


def render(report: Report) -> Table:
    """A row a contestant and size."""
    table = Table(title=report.title, title_justify="left")
    for name in ("stocks", "", "time, s", f"× {report.reference}", "peak, MB", f"× {report.reference}"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for row in report.rows:
        table.add_row(
            f"{row.stocks:,}",
            row.name,
            _number(row.seconds, ".4f"),
            _number(row.time_ratio, ".3f"),
            _number(row.megabytes, ",.0f"),
            _number(row.memory_ratio, ".3f"),
        )
    return table


def _number(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def machine(setup: Setup) -> dict[str, Any]:
    """What the figures were made on."""
    return {
        "cpus": os.cpu_count(),
        "load_average_before": [round(load, 2) for load in os.getloadavg()],
        "gpu": torch.cuda.get_device_name() if setup.device == "cuda" else None,
        "python": platform.python_version(),
        **{name: version(name) for name in ("torch", "pyqlib")},
    }


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parts = parser.add_subparsers(dest="part", required=True)
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    common.add_argument("--threads", type=int, default=1, help="of a CPU step")
    common.add_argument("--repeats", type=int, default=5, help="turns that count; the shortest is shown")
    common.add_argument("--json", type=Path, help="write all figures to this file")
    backbones = parts.add_parser("backbones", parents=[common], help="GATs against its recurrent part alone")
    backbones.add_argument("--stocks", type=int, nargs="+", default=[300, 1000, 5000])
    backbones.add_argument("--all", action="store_true", help="show the other backbones too")
    backbones.set_defaults(measure=measure_backbones)
    balancers = parts.add_parser(
        "balancers", parents=[common], help="CQB, DB-MTL and CAGrad against equal weighting"
    )
    balancers.add_argument("--stocks", type=int, nargs="+", default=[BALANCER_STOCKS])
    balancers.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    balancers.add_argument("--all", action="store_true", help="show methods of TorchJD too")
    balancers.set_defaults(measure=measure_balancers)
    sizes = parts.add_parser("sizes", parents=[common], help="ResNeXt and its baselines by fields and tasks")
    sizes.add_argument("--stocks", type=int, nargs="+", default=[BALANCER_STOCKS])
    sizes.add_argument("--features", type=int, nargs="+", default=[5, 20, 80], help="F, fields of a day")
    sizes.add_argument("--tasks", type=int, nargs="+", default=[1, 2, 4, 8], help="K")
    sizes.set_defaults(measure=measure_sizes)
    stocks = parts.add_parser("stocks", parents=[common], help="MASTER by the number of stocks")
    stocks.add_argument("--stocks", type=int, nargs="+", default=[300, 1000, 2000, 5000])
    stocks.set_defaults(measure=measure_stocks)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Measure, print, and say by the exit status whether every bar is met."""
    given = _parser().parse_args(arguments)
    console = Console(width=None if sys.stdout.isatty() else 120)
    try:
        setup = Setup(
            given.device,
            integer("threads", given.threads, 1),
            integer("repeats", given.repeats, 1),
        )
        if setup.device == "cuda" and not torch.cuda.is_available():
            raise UserError("`device` is cuda, and this torch finds no CUDA device: use cpu")
        torch.set_num_threads(setup.threads)
        about = machine(setup)
        report: Report = given.measure(given, setup, lambda text: console.print(text, markup=False))
    except UserError as error:
        console.print(str(error), style="bold", markup=False)
        return 2
    console.print(render(report))
    for row in report.rows:
        if row.note:
            console.print(f"{row.name}, {row.stocks:,} stocks: {row.note}", markup=False)
    _print_bars(console, report.bars)
    load = about["load_average_before"][0]
    where = about["gpu"] or f"{setup.threads} of {about['cpus']} CPUs"
    console.print(f"on {where}; load average before the run: {load:g}", markup=False)
    if given.json:
        bars = [asdict(bar) | {"met": bar.met} for bar in report.bars]
        found = {"setup": asdict(setup), "machine": about, **asdict(report), "bars": bars}
        given.json.write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")
    return 0 if all(bar.met for bar in report.bars) else 1


def _print_bars(console: Console, bars: Iterable[Bar]) -> None:
    for bar in bars:
        verdict = "met" if bar.met else "MISSED"
        console.print(f"{bar.name}: {bar.found:.3f}, at most {bar.at_most:g}: {verdict}", markup=False)


if __name__ == "__main__":
    raise SystemExit(main())
