"""A workflow file read as `qrun` reads it, but for what a template could do beside filling in values."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import jinja2.meta
import jinja2.nodes
import qlib
from jinja2.sandbox import ImmutableSandboxedEnvironment
from qlib.utils.data import update_config
from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError

from qlib_ext.checks import UserError, brief
from qlib_ext.files import check_yaml, read_text
from qlib_ext.workflow.render import LETTERS, is_simple, render_apart


def read_workflow(path: Path, environment: Mapping[str, str] | None = None) -> dict[str, Any]:
    """Fill in the values of the environment, and read the YAML.

    Parameters
    ----------
    path
        The file.
    environment
        Variable -> value; the process's own by default.

    Raises
    ------
    UserError
        If the file is not there, is no regular file or a very large one, is no template or no YAML, names a key twice or a
        day that does not exist, or its template reaches for more than values. Of a base nothing is shown but its name.

    Departures
    ----------
    Qlib renders a template without a sandbox, where it can run any program; here it cannot. What Qlib's own reader raises
    as a traceback is one line here.
    """
    config = _loaded(rendered(path, os.environ if environment is None else environment), path)
    base = config.get("BASE_CONFIG_PATH")
    if base is None:
        return config
    if not isinstance(base, str):
        raise UserError(f"`BASE_CONFIG_PATH` must be a file, found {brief(base)}")
    found = Path(base) if Path(base).exists() else path.absolute().parent / base  # as Qlib looks for it
    return update_config(_base(found), config)


def rendered(path: Path, environment: Mapping[str, str]) -> str:
    """The text of a workflow with the values of the environment filled in; raises as `read_workflow`."""
    return _rendered(_text(path), path, environment)


def variables_of(path: Path) -> set[str]:
    """The variables that a workflow file fills in; a UserError where it cannot be read."""
    try:
        tree = ImmutableSandboxedEnvironment().parse(_text(path))
    except jinja2.TemplateError as error:
        raise UserError(f"the workflow {path} is no template that fills in values: {error}") from error
    return jinja2.meta.find_undeclared_variables(tree)


def workflow_of_qrun() -> dict[str, Any] | None:
    """The workflow that this process runs by `qrun FILE`, or None where it was started otherwise.

    Qlib hands its experiment manager no workflow, and looks at `task` only once a run has begun. So the file that the
    command line names is read here once more. What is no file on a disk, such as a pipe, can be read only once: None.
    """
    program, *arguments = sys.argv or [""]
    module = Path(qlib.__file__).parent / "cli" / "run.py"  # of `python -m qlib.cli.run`
    if Path(program).stem != "qrun" and Path(program) != module:
        return None
    parser = argparse.ArgumentParser(add_help=False)  # in the forms that `qrun` takes
    for name in ("config_path", "experiment_name", "uri_folder"):
        parser.add_argument(f"-{name[0]}", f"--{name}", f"--{name.replace('_', '-')}")
    parser.add_argument("words", nargs="*")
    given = parser.parse_known_args(arguments)[0]
    path = Path(given.config_path or next(iter(given.words), ""))
    return read_workflow(path) if path.is_file() else None


def _base(path: Path) -> dict[str, Any]:
    """A workflow that another one names: whoever wrote that one may not see what is in every file of this machine."""
    text = _text(path)
    try:
        config = _loaded(text, path)
    except UserError:
        config = {}
    if not {"qlib_init", "task"} & set(config):
        raise UserError(
            f"`BASE_CONFIG_PATH` must be a workflow with qlib_init or task, found {path}, which is none"
        )
    return config


def _text(path: Path) -> str:
    try:
        return read_text(path, LETTERS)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"the workflow {path} cannot be read: {error}") from error


def _rendered(text: str, path: Path, environment: Mapping[str, str]) -> str:
    sandbox = ImmutableSandboxedEnvironment()
    try:
        tree = sandbox.parse(text)
        wanted = {node.name for node in tree.find_all(jinja2.nodes.Name)}
        given = {name: environment[name] for name in sorted(wanted) if name in environment}
        return sandbox.from_string(text).render(given) if is_simple(tree) else render_apart(text, given)
    except (
        jinja2.TemplateError,
        ArithmeticError,
        TypeError,
        ValueError,
        AttributeError,
        RecursionError,
        SyntaxError,
        MemoryError,
    ) as error:
        line = getattr(error, "lineno", None)
        where = f" in line {line}" if line else ""
        raise UserError(f"the workflow {path} is no template that fills in values{where}: {error}") from error


def _loaded(text: str, path: Path) -> dict[str, Any]:
    try:
        _check_size(text, path)
        config = YAML(typ="safe", pure=True).load(text)
    except YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        where = "" if mark is None else f" in line {mark.line + 1}"
        problem = getattr(error, "problem", None) or str(error)
        raise UserError(f"the workflow {path} is no YAML{where}: {' '.join(problem.split())}") from error
    except UserError:
        raise
    except ValueError as error:  # of a date such as 2015-02-30
        raise UserError(f"the workflow {path} has a value that cannot be read: {error}") from error
    if not isinstance(config, dict):
        raise UserError(
            f"the workflow {path} must be a mapping with qlib_init and task, found {type(config).__name__}"
        )
    return config


def _check_size(text: str, path: Path) -> None:
    try:
        check_yaml(YAML(typ="safe", pure=True).parse(text))
    except ValueError as error:
        raise UserError(f"the workflow {path} cannot be taken: {error}") from error
