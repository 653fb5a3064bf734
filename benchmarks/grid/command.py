"""The command line that the grids of runs share: `run` what is not finished yet, `report` what is."""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mlflow import MlflowClient

from benchmarks.grid.plan import Budget, Grid, Plan
from benchmarks.grid.work import Outcome
from qlib_ext.checks import UserError
from qlib_ext.terminal import visible

ROOT = Path(__file__).parents[2]
Write = Callable[[argparse.Namespace, str], list[Path]]  # options of `report`, tracking URI -> files


@dataclass(frozen=True)
class Defaults:
    """What is run where the command line does not say otherwise."""

    universes: tuple[str, ...]
    backbones: tuple[str, ...]
    methods: tuple[str, ...]
    budget: Budget


@dataclass(frozen=True)
class Command:
    """A grid as a command.

    Attributes
    ----------
    name
        Of the module under `benchmarks`, of the MLflow experiment, and of the folder under `reports`.
    about
        What `--help` says of it.
    defaults
        Of its options.
    write
        Makes the report; a function that imports what it needs when it is called.
    keeps
        Whether finished runs are kept small in the repository, for the report to be made from these alone.
    """

    name: str
    about: str
    defaults: Defaults
    write: Write
    keeps: bool = False

    @property
    def grid(self) -> Path:
        """The grid's file."""
        return ROOT / "benchmarks" / self.name / "grid.yaml"

    def arguments(self, given: Sequence[str] | None = None) -> argparse.Namespace:
        """Read the command line."""
        parser = argparse.ArgumentParser(prog=f"python -m benchmarks.{self.name}", description=self.about)
        commands = parser.add_subparsers(dest="command", required=True)
        run = commands.add_parser("run", help="run what is not finished yet")
        report = commands.add_parser("report", help="write tables and figures of what is finished")
        folder = Path(f"{self.name}_runs")
        for command in (run, report):
            command.add_argument(
                "--work", type=Path, default=folder, help=f"plan, checkpoints, logs (default: {folder})"
            )
            command.add_argument(
                "--uri", default=None, help="MLflow tracking URI (default: a database in --work)"
            )
            if self.keeps:
                kept = Path("reports") / self.name / "runs"
                command.add_argument(
                    "--runs", type=Path, default=kept, help=f"finished runs, kept small (default: {kept})"
                )
        own = self.defaults
        run.add_argument(
            "--store", type=Path, default=os.environ.get("QLIB_DATA"), help="Qlib data directory"
        )
        run.add_argument("--universes", nargs="+", default=[*own.universes])
        run.add_argument("--backbones", nargs="+", default=[*own.backbones])
        run.add_argument(
            "--methods", nargs="+", default=[*own.methods], help="methods, or tables of grid.yaml"
        )
        run.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
        run.add_argument("--epochs", type=int, default=own.budget.epochs)
        run.add_argument("--patience", type=int, default=own.budget.patience)
        run.add_argument("--hidden-size", type=int, default=own.budget.hidden_size)
        run.add_argument("--precision", default=own.budget.precision, choices=["float32", "bfloat16"])
        run.add_argument("--address", default=None, help="of a Ray cluster; without it, this machine")
        run.add_argument("--workers", type=int, default=1, help="runs side by side on this machine")
        run.add_argument("--cpus", type=int, default=1, help="CPUs a run takes")
        run.add_argument("--gpus", type=float, default=0.0, help="GPUs a run takes; a fraction shares one")
        run.add_argument("--list", action="store_true", help="say what would be run, and stop")
        report.add_argument("--out", type=Path, default=Path("reports") / self.name)
        return parser.parse_args(given)

    def run(self, options: argparse.Namespace) -> int:
        """Run the grid; the exit status is 1 where a run failed."""
        from benchmarks.grid.cluster import Resources
        from benchmarks.grid.cluster import run as run_jobs
        from benchmarks.grid.kept import is_kept
        from benchmarks.grid.work import finished
        from qlib_ext.market.store import QlibStore

        if options.store is None:
            raise UserError("`--store` must name a Qlib data directory, or QLIB_DATA: found neither")
        resources = Resources(options.address, options.workers, options.cpus, options.gpus)
        grid = Grid(self.grid, ROOT)
        budget = Budget(options.epochs, options.patience, options.hidden_size, options.precision)
        cells = grid.cells(options.universes, options.backbones, grid.expand(options.methods), options.seeds)
        store = QlibStore(options.store)
        fingerprint = store.fingerprint()
        uri = tracking_uri(options.uri, options.work)
        jobs = [
            grid.job(
                cell,
                budget,
                store=store.root.resolve(),
                tracking_uri=uri,
                fingerprint=fingerprint,
                panel_cache=(options.work / "panel_cache").resolve(),
                keep_epochs=self.keeps,
            )
            for cell in cells
        ]
        options.work.mkdir(parents=True, exist_ok=True)
        runs = options.runs if self.keeps else None
        if runs is None:
            done = {*finished(MlflowClient(uri), self.name, [job.name for job in jobs])}
        else:
            done = {job.name for job in jobs if is_kept(runs, job.name)}
        _make_experiment(MlflowClient(uri), self.name)
        left = [job for job in jobs if job.name not in done]
        print(f"{len(jobs)} runs asked for, {len(done)} finished before, {len(left)} to run")
        if options.list:
            print("\n".join(f"{'done' if job.name in done else 'to run'}  {job.name}" for job in jobs))
            return 0
        Plan(options.work / "plan.json").add(jobs, store=str(store.root.resolve()), fingerprint=fingerprint)
        began = time.monotonic()

        def on_outcome(outcome: Outcome, so_far: int, of: int) -> None:
            minutes = (time.monotonic() - began) / 60
            remaining = minutes / so_far * (of - so_far)
            print(
                f"[{so_far}/{of}] {outcome.name}: {outcome.how}{': ' if outcome.message else ''}{outcome.message}"
                f"{' on node ' if outcome.node else ''}{outcome.node[:8]} ({minutes:.1f} min so far, about {remaining:.0f} to go)",
                flush=True,
            )

        outcomes = run_jobs(
            left,
            experiment=self.name,
            work=options.work,
            runs=runs,
            resources=resources,
            on_outcome=on_outcome,
        )
        return 1 if any(outcome.how == "failed" for outcome in outcomes) else 0

    def report(self, options: argparse.Namespace) -> int:
        """Write the report."""
        for path in self.write(options, tracking_uri(options.uri, options.work)):
            print(path)
        return 0

    def main(self, given: Sequence[str] | None = None) -> int:
        """Run as a command."""
        options = self.arguments(given)
        try:
            return self.run(options) if options.command == "run" else self.report(options)
        except UserError as error:
            print(f"error: {visible(error)}", file=sys.stderr)
            return 2


def tracking_uri(given: str | None, work: Path) -> str:
    """Where the runs are logged."""
    return given or f"sqlite:///{(work / 'mlflow.db').resolve()}"


def _make_experiment(client: MlflowClient, name: str) -> None:
    """Make the experiment before workers do so at the same time."""
    if client.get_experiment_by_name(name) is None:
        client.create_experiment(name)
