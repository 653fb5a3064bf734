"""The rows of the leaderboard as tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from benchmarks.grid.plan import merged
from benchmarks.trainings.runs import only_what_is_read
from qlib_ext.checks import UserError, one_of
from qlib_ext.workflow.read import read_workflow

ROOT = Path(__file__).parents[2]
ROWS = Path(__file__).with_name("rows.yaml")
CANDIDATES = Path(__file__).with_name("candidates.yaml")
SEEDS = 3
SEED = "$SEED"


@dataclass(frozen=True)
class Row:
    """A model with all that it is given.

    Attributes
    ----------
    name
        Of the row.
    workflow
        File of `workflows`.
    variables
        Of its template.
    model
        Another model, `{class, kwargs}`, or changes of the kwargs of the workflow's own.
    seeds
        How many trainings are asked for.
    scored_from
        First day that is judged, where its folds begin earlier.
    members
        Rows of whose scores it is the mean, each standardised by day; it has no workflow then. Where it asks for seeds, it is
        made of each seed apart; else once, of all.
    topk, n_drop
        How many stocks an ensemble holds, and how many of them it replaces a day, where not as the workflows do.
    """

    name: str
    workflow: str = ""
    variables: Mapping[str, str] = field(default_factory=dict)
    model: Mapping[str, Any] = field(default_factory=dict)
    seeds: int = SEEDS
    scored_from: str | None = None
    members: Sequence[str] = ()
    topk: int | None = None
    n_drop: int | None = None


@dataclass(frozen=True)
class Case:
    """A row and a seed."""

    row: Row
    seed: int

    @property
    def name(self) -> str:
        """Of its run."""
        return f"{self.row.name} seed {self.seed}"

    def task(self) -> dict[str, Any]:
        """The task of its workflow."""
        variables = {**self.row.variables, "SEED": str(self.seed), "DEVICE": "auto"}
        task: dict[str, Any] = read_workflow(ROOT / "workflows" / self.row.workflow, variables)["task"]
        changes = _seeded(self.row.model, self.seed)
        if "class" in changes:
            task["model"] = changes
        else:
            task["model"]["kwargs"] = merged(task["model"]["kwargs"], changes)
        return only_what_is_read(task)


def read_rows(path: Path = ROWS) -> dict[str, Row]:
    """Name -> row, in the file's order.

    Raises
    ------
    UserError
        If a row has a field that is none.
    """
    rows = {}
    for name, given in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        if unknown := {*given} - {*Row.__dataclass_fields__}:
            known = ", ".join(each for each in Row.__dataclass_fields__ if each != "name")
            raise UserError(f"`{name}` may have {known}, found {', '.join(sorted(unknown))}")
        rows[name] = Row(name, **({"seeds": 1, **given} if "members" in given else given))
    return rows


def cases(rows: Mapping[str, Row], names: Sequence[str], seeds: Sequence[int]) -> list[Case]:
    """Each row that is trained with each seed it asks for, seeds outermost: a board that is cut short has every row once."""
    for name in names:
        one_of("rows", name, tuple(rows))
    trained = [rows[name] for name in names if not rows[name].members]
    return [Case(row, seed) for seed in seeds for row in trained if seed < row.seeds]


def ensembles(rows: Mapping[str, Row], seeds: Sequence[int]) -> list[tuple[str, Row, list[str]]]:
    """Of each ensemble the name of its run, its row and the names of the members' runs."""
    found = []
    for row in rows.values():
        if not row.members:
            continue
        if row.seeds == 1:
            found.append((row.name, row, [case.name for case in cases(rows, row.members, seeds)]))
            continue
        for seed in seeds:
            # a member that asks for one seed, as what is sure does, is that of all
            members = [Case(rows[name], min(seed, rows[name].seeds - 1)).name for name in row.members]
            found.append((f"{row.name} seed {seed}", row, members))
    return found


def _seeded(changes: Any, seed: int) -> Any:
    if isinstance(changes, Mapping):
        return {key: _seeded(change, seed) for key, change in changes.items()}
    return seed if changes == SEED else changes
