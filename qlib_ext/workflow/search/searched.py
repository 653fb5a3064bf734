"""A workflow in which values are set: by the variables of its template, and by paths into what it says."""

from __future__ import annotations

import copy
import inspect
import io
import json
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment
from ruamel.yaml import YAML

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.config.build import in_one_form, locate
from qlib_ext.workflow.read import read_workflow, rendered
from qlib_ext.workflow.search.space import Values

KWARGS = "kwargs"
PARTS = ("model", "dataset")  # what of a task can change what a search looks at


class SearchedWorkflow:
    """A workflow file whose values can be set.

    Parameters
    ----------
    path
        As `qrun` takes it.

    Attributes
    ----------
    config : dict
        What the file says in this environment.
    variables : frozenset of str
        Of its template.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.environment = dict(os.environ)
        self.config = read_workflow(path, self.environment)
        text = path.read_text(encoding="utf-8") if path.is_file() else ""
        self.variables = frozenset(
            jinja2.meta.find_undeclared_variables(ImmutableSandboxedEnvironment().parse(text))
        )

    def check_name(self, name: str, given: Values | None = None) -> None:
        """Raise a UserError where a name is neither a variable nor a path into the workflow's model or dataset.

        The last part of a path may be new, as an argument that the workflow leaves at its default. `given` is written into
        the workflow before.
        """
        if name in self.variables:
            return
        *before, _ = parts_of(name)
        config = self.with_values(given or {})
        known = [*self.variables, *paths(config["task"], "task")]
        try:
            parent = at(config, before)
        except (KeyError, IndexError, TypeError, ValueError) as error:
            raise UserError(
                f"`space.{name}` must name a variable of {self.path.name} or a path into it, found none"
                f"{nearest(name, known)}"
            ) from error
        if len(before) < 2 or before[0] != "task" or not isinstance(parent, (Mapping, list)):
            raise UserError(
                f"`space.{name}` must name a value below task.model or task.dataset, or a variable of {self.path.name} "
                f"({', '.join(sorted(self.variables)) or 'it has none'}), found none{nearest(name, known)}"
            )

    def value(self, name: str) -> Any:
        """What the workflow has at a path, or the default that it leaves there; None where neither is known."""
        *before, last = parts_of(name)
        try:
            return at(self.config, [*before, last])
        except (KeyError, IndexError, TypeError, ValueError):
            return self._default(before, last)

    def _default(self, before: list[str], name: str) -> Any:
        try:
            path = in_one_form(at(self.config, before[:-1]), name)["class"] if before[-1] == KWARGS else ""
        except (KeyError, IndexError, TypeError, ValueError):
            return None
        known = inspect.signature(locate(path, name=name)).parameters.get(name) if path else None
        return None if known is None or known.default is inspect.Parameter.empty else known.default

    def with_values(self, values: Values) -> dict[str, Any]:
        """The workflow as it would be with some values."""
        variables, others = self._apart(values)
        config = copy.deepcopy(
            self.config if not variables else read_workflow(self.path, self.environment | variables)
        )
        for name, value in others.items():
            put(config, name, value)
        return config

    def text(self, values: Values) -> str:
        """The workflow with some values written in, and nothing left that the environment decides; comments stay."""
        variables, others = self._apart(values)
        base = "BASE_CONFIG_PATH" in self.config
        rt = YAML(typ="rt")  # which keeps comments, and builds no objects of tags
        rt.width, rt.preserve_quotes = 10_000, True
        if base:  # what it takes from another file is written in
            config = self.with_values(values)
            config.pop("BASE_CONFIG_PATH")
        else:
            config = rt.load(rendered(self.path, self.environment | variables))
            for name, value in others.items():
                put(config, name, value)
        into = io.StringIO()
        rt.dump(config, into)
        return into.getvalue()

    def _apart(self, values: Values) -> tuple[dict[str, str], dict[str, Any]]:
        """Variables as text, and paths."""
        variables = {name: _text(value) for name, value in values.items() if name in self.variables}
        return variables, {name: value for name, value in values.items() if name not in self.variables}


def parts_of(name: str) -> list[str]:
    """`a.b.0` as its parts."""
    return name.split(".")


def at(config: Any, parts: list[str]) -> Any:
    """What lies at a path; a class without arguments has none."""
    for part in parts:
        if part == KWARGS and _takes_none(config):
            config = {}
        else:
            config = config[int(part)] if isinstance(config, list) else config[part]
    return config


def put(config: Any, name: str, value: Any) -> None:
    """Set what lies at a path."""
    *before, last = parts_of(name)
    if before and before[-1] == KWARGS and _takes_none(described := at(config, before[:-1])):
        described[KWARGS] = {}
    parent = at(config, before)
    parent[int(last) if isinstance(parent, list) else last] = copy.deepcopy(value)


def _takes_none(config: Any) -> bool:
    """Whether it is a class that is given no arguments."""
    return isinstance(config, Mapping) and "class" in config and config.get(KWARGS) is None


def paths(config: Any, start: str) -> Iterator[str]:
    """The paths of all values that are no mapping and no list."""
    if isinstance(config, (Mapping, list)):
        parts = config.items() if isinstance(config, Mapping) else enumerate(config)
        for key, part in parts:
            yield from paths(part, f"{start}.{key}")
    else:
        yield start


def differing(one: Any, other: Any, start: str) -> list[str]:
    """The paths at which two configurations differ."""
    if isinstance(one, Mapping) and isinstance(other, Mapping):
        keys = dict.fromkeys([*one, *other])
        gone = object()
        return [
            path
            for key in keys
            for path in differing(one.get(key, gone), other.get(key, gone), f"{start}.{key}")
        ]
    if isinstance(one, list) and isinstance(other, list) and len(one) == len(other):
        return [
            path
            for k, pair in enumerate(zip(one, other, strict=True))
            for path in differing(*pair, f"{start}.{k}")
        ]
    return [] if type(one) is type(other) and one == other else [start]


def _text(value: Any) -> str:
    """A value as a template writes it, and YAML reads it."""
    if isinstance(value, str):
        return value
    if isinstance(value, float):
        shown = repr(value)
        return (
            shown.replace("e", ".0e") if "e" in shown and "." not in shown else shown
        )  # 1e-05 is a text in YAML
    try:
        return json.dumps(value)
    except (TypeError, ValueError) as error:
        raise UserError(f"a variable of a template must be plain values, found {brief(value)}") from error
