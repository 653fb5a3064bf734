"""The cases: pipelines as tasks, from one YAML file."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from benchmarks.grid.plan import merged
from qlib_ext.checks import one_of

CASES = Path(__file__).with_name("cases.yaml")


@dataclass(frozen=True)
class Case:
    """A pipeline.

    Attributes
    ----------
    name
        Of the case.
    source, commit
        Where in Qlib's repository its file is, and at which commit it was read.
    task
        `dataset` and `model`.
    """

    name: str
    source: str
    commit: str
    task: Mapping[str, Any]


def read_cases(path: Path = CASES) -> dict[str, Case]:
    """Name -> case, in the file's order; one may be like another that stands before it.

    Raises
    ------
    UserError
        If a case is like one that does not stand before it.
    """
    cases: dict[str, Case] = {}
    for name, given in yaml.safe_load(path.read_text(encoding="utf-8")).items():
        task = given["task"]
        if "like" in given:
            task = merged(cases[one_of(f"like of {name}", given["like"], tuple(cases))].task, task)
        cases[name] = Case(name, given["source"], given["commit"], task)
    return cases
