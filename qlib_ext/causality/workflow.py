"""A workflow's file as `qrun` reads it."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jinja2
import yaml
from jinja2.sandbox import ImmutableSandboxedEnvironment
from qlib.utils.data import update_config

from qlib_ext.checks import UserError
from qlib_ext.classes import check_classes


def read_workflow(path: Path) -> dict[str, Any]:
    """Render a workflow with the environment, as `qrun` does, and lay it over its base configuration.

    Parameters
    ----------
    path
        A YAML file; values in double braces are variables of the environment. `BASE_CONFIG_PATH` names a
        configuration that it builds on, beside it or in the working directory, which is not rendered.

    Raises
    ------
    UserError
        If a file is not there, is no template or no YAML, or names no `qlib_init` or `task`.
    """
    if not path.is_file():
        raise UserError(
            f"`WORKFLOW` must be a YAML file such as workflows/mimstocr_csi300.yaml, found `{path}`"
        )
    try:
        template = ImmutableSandboxedEnvironment().from_string(path.read_text(encoding="utf-8"))
        rendered = template.render(dict(os.environ))
    except (jinja2.TemplateError, UnicodeDecodeError) as error:
        raise UserError(f"`{path}` cannot be rendered: {error}") from error
    config = _mapping(rendered, path)
    base = config.get("BASE_CONFIG_PATH")
    if base:
        places = [Path(base), path.absolute().parent / base]
        found = next((place for place in places if place.is_file()), None)
        if found is None:
            raise UserError(f"`BASE_CONFIG_PATH` of `{path}` must name a file, found {base!r}")
        config = update_config(_mapping(found.read_text(encoding="utf-8"), found), config)
    for part in ("qlib_init", "task"):
        if not isinstance(config.get(part), Mapping):
            raise UserError(f"`{path}` must have `{part}`, a mapping, found {config.get(part)!r:.100}")
    check_classes(config["task"], "task")  # before any of it is built
    return config


def _mapping(text: str, path: Path) -> dict[str, Any]:
    try:
        config = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UserError(f"`{path}` is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(config, dict):
        raise UserError(f"`{path}` must hold a mapping, found {type(config).__name__}")
    return config
