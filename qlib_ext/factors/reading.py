"""A user's file of factors: expressions in YAML or text, or ready values in CSV or Parquet."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.factors.table import SUFFIXES as READY
from qlib_ext.factors.table import FactorTable
from qlib_ext.features.expressions import Expressions
from qlib_ext.files import load_yaml, read_text

YAML = (".yaml", ".yml")
TEXT = (".txt",)
_WORKFLOW = re.compile(r"^(task|qlib_init|BASE_CONFIG_PATH)\s*:", re.MULTILINE)
_NAMED = re.compile(r"(\w+)\s*:\s+(.*)")


def is_workflow(path: Path) -> bool:
    """Whether a file of YAML is a workflow, which may be a template, and no mapping of expressions.

    Raises
    ------
    UserError
        If there is no such file, or it is none of the kinds that are read.
    """
    kinds = (*YAML, *TEXT, *READY)
    if not path.is_file():
        raise UserError(f"WORKFLOW|FILE must be a file, found none at `{path}`")
    if not path.name.lower().endswith(kinds):
        raise UserError(
            f"WORKFLOW|FILE must be a workflow or a file that ends in {', '.join(kinds)}, found `{path.name}`"
        )
    return path.suffix.lower() in YAML and _WORKFLOW.search(_text(path)) is not None


def read_factors(path: Path, codes: Collection[str]) -> Expressions | FactorTable:
    """The factors of a file that is no workflow.

    Parameters
    ----------
    path
        YAML with a list, or a mapping from names, of expressions (also below `expressions`); text with an expression a
        line, as it stands or as `NAME: EXPRESSION`; CSV or Parquet with ready values.
    codes
        Of the store, as ready values name its stocks.

    Raises
    ------
    UserError
        If it cannot be read, holds no factor, or something that is no expression.
    """
    if path.name.lower().endswith(READY):
        return FactorTable(path, codes)
    given = _lines(_text(path)) if path.suffix.lower() in TEXT else _loaded(path)
    try:
        return Expressions(given, normalise="none", clip=None)
    except UserError as error:
        raise UserError(f"`{path}`: {error}") from error


def _loaded(path: Path) -> Any:
    try:
        given = load_yaml(_text(path))
    except ValueError as error:
        raise UserError(f"`{path}` is no YAML: {error}") from error
    if isinstance(given, dict) and set(given) == {"expressions"}:
        given = given["expressions"]
    if given is None:
        raise UserError(f"`{path}` must hold at least one expression, found none")
    return given


def _lines(text: str) -> dict[str, str]:
    """An expression a line; blank ones and comments (`#`) say nothing."""
    named: dict[str, str] = {}
    for line in text.splitlines():
        line = line.strip()
        if line and not line.startswith("#"):
            found = _NAMED.fullmatch(line)
            name, expression = found.groups() if found else (line, line)
            if name in named:
                raise UserError(f"each factor must have a name of its own, found {brief(name)} twice")
            named[name] = expression
    return named


def _text(path: Path) -> str:
    try:
        return read_text(path)
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"`{path}` cannot be read: {error}") from error
