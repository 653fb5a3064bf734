"""From a grid in YAML to the runs it asks for: each a complete task of a workflow."""

from __future__ import annotations

import copy
import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import jinja2
import yaml

from qlib_ext.checks import UserError, integer, one_of

# What a task says of how it is run and shown, not of what comes out of it: left out of a run's digest, so that a
# new section of the report makes no finished run unfinished.
HOW = {"model": ("resume", "checkpoint_dir", "device", "keep_epochs"), "dataset": ("cache",)}
SHOWS = tuple(
    f"qlib_ext.records.{name}"
    for name in (
        "attribution.AttributionRecord",
        "benchmarks.BenchmarksRecord",
        "construction.ConstructionRecord",
        "ensemble.EnsembleRecord",
        "importance.ImportanceRecord",
        "ledger.LedgerRecord",
        "quality.QualityRecord",
        "lookahead.LookaheadRecord",
        "portfolio.PortfolioRecord",
        "report.ReportRecord",
        "signal_analysis.SignalAnalysisRecord",
        "sweeps.SweepRecord",
        "trades.TradesRecord",
    )
)


@dataclass(frozen=True)
class Budget:
    """What a run may cost.

    Attributes
    ----------
    epochs, patience
        Most epochs, and epochs without a better validation score before training stops.
    hidden_size
        Width of every backbone.
    precision
        `float32` or `bfloat16`.
    """

    epochs: int = 100
    patience: int = 30
    hidden_size: int = 128
    precision: str = "float32"

    def __post_init__(self) -> None:
        integer("epochs", self.epochs, 1)
        integer("patience", self.patience, 1)
        integer("hidden_size", self.hidden_size, 1)
        one_of("precision", self.precision, ("float32", "bfloat16"))


@dataclass(frozen=True, order=True)
class Cell:
    """One place in the grid."""

    universe: str
    backbone: str
    method: str
    seed: int

    def __str__(self) -> str:
        return f"{self.universe} {self.backbone} {self.method} seed {self.seed}"


@dataclass(frozen=True)
class Job:
    """A run that is asked for.

    Attributes
    ----------
    cell
        Its place in the grid.
    budget
        What it may cost.
    config
        The workflow, rendered and changed: `qlib_init` and `task`.
    name
        Name of its MLflow run: the cell, and a digest of the task and the data. Equal names are equal runs.
    fingerprint
        Of the data.
    backtests
        Name -> `{strategy, exchange_kwargs}`: other rules that its scores are traded by once more.
    """

    cell: Cell
    budget: Budget
    config: Mapping[str, Any]
    name: str
    fingerprint: str = ""
    backtests: Mapping[str, Any] = field(default_factory=dict)


class Grid:
    """Universes, backbones and methods by name, and how each changes a workflow.

    The YAML file has four mappings. `universes`: name -> workflow file, or `{workflow, environment, values}` with
    variables that the file is rendered with, and values that stand in changes for `$<name>`. `backbones`: name -> changes. `methods`:
    name -> changes. `tables`: name -> list of methods, to ask for many at once. Changes are any of `model` and
    `dataset` (merged into the kwargs of the task's model and dataset; a null removes a key, another `class` replaces
    the whole mapping) and `records` (dotted class of a record or of a section of the report -> changes of its
    kwargs, or null to leave it out). A fifth mapping, `records`, changes those of every run; a sixth, `backtests`,
    has other rules by name that the scores of every run (of the `universes` named there) are traded by once more.

    Parameters
    ----------
    path
        The YAML file; workflow files are relative to `root`.
    root
        The project's directory.

    Raises
    ------
    UserError
        If a part is missing or a table names a method that is not there.
    """

    def __init__(self, path: Path, root: Path) -> None:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
        for part in ("universes", "backbones", "methods", "tables"):
            if not isinstance(content.get(part), Mapping):
                raise UserError(f"`{path}` must have a mapping `{part}`, found {content.get(part)!r}")
        self.root = root
        self.universes: dict[str, dict[str, Any]] = {
            name: {"workflow": given} if isinstance(given, str) else dict(given)
            for name, given in content["universes"].items()
        }
        self.backbones: dict[str, dict[str, Any]] = dict(content["backbones"])
        self.methods: dict[str, dict[str, Any]] = dict(content["methods"])
        self.tables: dict[str, list[str]] = dict(content["tables"])
        self.records: dict[str, Any] = dict(content.get("records") or {})
        self.backtests: dict[str, Any] = dict(content.get("backtests") or {})
        for table, methods in self.tables.items():
            for method in methods:
                one_of(f"a method of tables.{table}", method, tuple(self.methods))

    def cells(
        self,
        universes: Sequence[str],
        backbones: Sequence[str],
        methods: Sequence[str],
        seeds: Sequence[int],
    ) -> list[Cell]:
        """The product, seeds outermost, so that a grid that is cut short has every method once; each cell once."""
        for name, given, known in (
            ("universes", universes, self.universes),
            ("backbones", backbones, self.backbones),
            ("methods", methods, self.methods),
        ):
            for each in given:
                one_of(name, each, tuple(known))
        for seed in seeds:
            integer("seeds", seed, 0)
        return list(
            dict.fromkeys(
                Cell(universe, backbone, method, seed)
                for seed in seeds
                for universe in universes
                for backbone in backbones
                for method in methods
            )
        )

    def expand(self, names: Iterable[str]) -> list[str]:
        """Methods by name, and all of a table by the table's name; each once."""
        found: list[str] = []
        for name in names:
            one_of("methods", name, (*self.methods, *self.tables))
            found += self.tables.get(name, [name])
        return list(dict.fromkeys(found))

    def job(
        self,
        cell: Cell,
        budget: Budget,
        *,
        store: Path,
        tracking_uri: str,
        fingerprint: str,
        panel_cache: Path | None = None,
        keep_epochs: bool = False,
    ) -> Job:
        """The run of a cell.

        Parameters
        ----------
        cell, budget
            What to run, and what it may cost.
        store
            Qlib data directory.
        tracking_uri
            MLflow's.
        fingerprint
            Of the store's content; part of the run's name.
        panel_cache
            Where prepared panels are kept, for all runs together; None keeps none.
        keep_epochs
            Keep the weights of every epoch: the test curve is computed from them, after the training.
        """
        config = self._rendered(
            cell.universe,
            {
                "QLIB_DATA": str(store),
                "N_EPOCHS": str(budget.epochs),
                "HIDDEN_SIZE": str(budget.hidden_size),
                "PRECISION": budget.precision,
                "SEED": str(cell.seed),
                "DEVICE": "auto",
                "RESUME": "1",
                "PANEL_CACHE": "off" if panel_cache is None else str(panel_cache),
            },
        )
        config["qlib_init"]["exp_manager"]["kwargs"]["uri"] = tracking_uri
        task = config["task"]
        task["model"]["kwargs"]["trainer"]["patience"] = budget.patience
        task["model"]["kwargs"]["keep_epochs"] = keep_epochs
        task["record"] = _records(task["record"], self.records)
        for changes in (self.backbones[cell.backbone], self.methods[cell.method]):
            changes = _with_values(changes, self.universes[cell.universe].get("values") or {})
            for part in ("model", "dataset"):
                task[part]["kwargs"] = merged(task[part]["kwargs"], changes.get(part) or {})
            task["record"] = _records(task["record"], changes.get("records") or {})
        task["model"]["kwargs"]["backbone"].setdefault("kwargs", {}).setdefault(
            "hidden_size", budget.hidden_size
        )
        name = f"{cell} {_digest(task, fingerprint)}"
        backtests = {
            name: rules
            for name, rules in self.backtests.items()
            if cell.universe in rules.get("universes", [cell.universe])
        }
        return Job(cell, budget, config, name, fingerprint, backtests)

    def _rendered(self, universe: str, variables: Mapping[str, str]) -> dict[str, Any]:
        of = self.universes[universe]
        path = self.root / of["workflow"]
        environment = {**of.get("environment", {}), **variables}
        text = jinja2.Template(path.read_text(encoding="utf-8")).render(environment)
        config = yaml.safe_load(text)
        kwargs = config["task"]["dataset"]["kwargs"]
        if "train" in kwargs["segments"]:  # said in full, as it is in the names of the runs that are kept
            begin, end = kwargs["segments"]["train"]
            kwargs["handler"]["kwargs"] = {"fit_start_time": begin, "fit_end_time": end} | kwargs["handler"][
                "kwargs"
            ]
        return config


def merged(base: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """`base` with `changes`: mappings key by key, null removes, and a mapping with another `class` replaces."""
    result = copy.deepcopy(dict(base))
    for key, change in changes.items():
        old = result.get(key)
        if change is None:
            result.pop(key, None)
        elif isinstance(change, Mapping) and isinstance(old, Mapping) and not _other_class(old, change):
            result[key] = merged(old, change)
        else:
            result[key] = copy.deepcopy(change)
    return result


def _with_values(changes: Any, values: Mapping[str, Any]) -> Any:
    """`changes` with a universe's values in the place of `$<name>`."""
    if isinstance(changes, Mapping):
        return {key: _with_values(change, values) for key, change in changes.items()}
    if isinstance(changes, list):
        return [_with_values(change, values) for change in changes]
    if isinstance(changes, str) and changes.startswith("$"):
        name = changes[1:]
        if name not in values:
            raise UserError(
                f"`{changes}` must be a value of the universe, which has {', '.join(values) or 'none'}"
            )
        return values[name]
    return changes


def _other_class(old: Mapping[str, Any], new: Mapping[str, Any]) -> bool:
    return "class" in new and new["class"] != old.get("class")


def _records(
    records: Sequence[Mapping[str, Any]], changes: Mapping[str, Mapping[str, Any] | None]
) -> list[dict[str, Any]]:
    """Records, and the sections of a report among them, changed by class."""
    kept = []
    for record in records:
        name = record["class"]
        if name in changes and changes[name] is None:
            continue
        kwargs = merged(record.get("kwargs", {}), changes.get(name) or {})
        if "sections" in kwargs:
            kwargs["sections"] = _records(kwargs["sections"], changes)
        kept.append({"class": name, **({"kwargs": kwargs} if kwargs else {})})
    return kept


def _digest(task: Mapping[str, Any], fingerprint: str) -> str:
    content: dict[str, Any] = {"fingerprint": fingerprint}
    for part, how in HOW.items():
        kwargs = {key: value for key, value in task[part]["kwargs"].items() if key not in how}
        content[part] = {"class": task[part]["class"], "kwargs": kwargs}
    content["record"] = [record for record in task["record"] if record["class"] not in SHOWS]
    text = json.dumps(content, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()


class Plan:
    """The runs that were asked for so far, in a file beside their logs: what a report can say was not run.

    Parameters
    ----------
    path
        JSON file; it need not be there yet.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.rows: list[dict[str, Any]] = (
            json.loads(path.read_text(encoding="utf-8")) if path.exists() else []
        )

    def add(self, jobs: Iterable[Job], *, store: str, fingerprint: str) -> None:
        """Take note of runs; one that is there already stays once."""
        known = {row["name"] for row in self.rows}
        for job in jobs:
            if job.name not in known:
                facts = {"name": job.name, **asdict(job.cell), **asdict(job.budget)}
                self.rows.append({**facts, "store": store, "fingerprint": fingerprint})
        self.path.parent.mkdir(parents=True, exist_ok=True)
        written = self.path.with_suffix(".new")
        written.write_text(json.dumps(self.rows, indent=1) + "\n", encoding="utf-8")
        written.replace(self.path)
