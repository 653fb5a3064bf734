"""The classes that a task names, seen before any of them is imported.

Qlib builds `{class, module_path, kwargs}` wherever it stands, and takes more than a workflow needs: functions, files of
Python, pickles. What the package builds itself goes through `qlib_ext.config.build`; this look covers what Qlib builds.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.config.allowlist import check_allowed
from qlib_ext.config.renamed import check_current

PICKLES = (".pkl", ".pickle", ".joblib", ".pt", ".pth")
# Arguments of Qlib's own classes that it evaluates as Python.
EVALUATED = {"TRAModel": ("model_type",)}


def check_classes(config: Any, name: str, seen: set[int] | None = None) -> None:
    """Hold all that a configuration names, at any depth, against the allowed packages.

    Parameters
    ----------
    config
        A part of a workflow, in the types of YAML.
    name
        Where it stands, for messages.
    seen
        Mappings and lists that were looked at: YAML's anchors may name one many times, and many of them each other.

    Raises
    ------
    UserError
        If a class is no text, of a package that is not allowed, or called otherwise since an earlier version; if something is to be built by a function, from a
        file of Python, or from a pickle; if an argument that Qlib evaluates as Python is more than a name.
    """
    seen = set() if seen is None else seen
    if isinstance(config, (Mapping, list, tuple)):
        if id(config) in seen:
            return
        seen.add(id(config))
    if isinstance(config, Mapping):
        if "class" in config or "module_path" in config:
            _check_class(config, name)
        elif "func" in config and isinstance(config["func"], str) and "." in config["func"]:
            raise UserError(
                f"`{name}` must name a class, found the function {brief(config['func'])}: Qlib would call it"
            )
        for key, value in config.items():
            check_classes(value, f"{name}.{key}", seen)
    elif isinstance(config, (list, tuple)):
        for k, value in enumerate(config):
            check_classes(value, f"{name}[{k}]", seen)
    elif isinstance(config, str) and (
        config.startswith("file:") or PurePath(config).suffix.lower() in PICKLES
    ):
        raise UserError(
            f"`{name}` must not be a file that is unpickled, which runs whatever it holds; found {brief(config)}: describe the "
            "object by `class` and `kwargs`"
        )


def _check_class(config: Mapping[str, Any], name: str) -> None:
    path, module = config.get("class"), config.get("module_path")
    if not isinstance(path, str) or not path:
        raise UserError(
            f"`{name}.class` must be a dotted class such as `package.module.Class`, found {brief(path)}"
        )
    if module is not None and not isinstance(module, str):
        raise UserError(f"`{name}.module_path` must be a dotted module, found {brief(module)}")
    if module is not None and (module.endswith(".py") or "/" in module or "\\" in module):
        raise UserError(
            f"`{name}.module_path` must be a dotted module, found the file {brief(module)}: put it into a package that Python "
            "finds, and allow that by the environment (docs/security.md)"
        )
    dotted = f"{module}.{path}" if module else path
    check_current(dotted, name=name)
    if "." in dotted:  # a bare name is one of Qlib's, in the module that Qlib looks it up in
        check_allowed(dotted.rpartition(".")[0], name=name, path=dotted)
    kwargs = config.get("kwargs")
    for argument in EVALUATED.get(path.rpartition(".")[2], ()):
        given = kwargs.get(argument) if isinstance(kwargs, Mapping) else None
        if given is not None and not (isinstance(given, str) and given.isidentifier()):
            raise UserError(
                f"`{name}.kwargs.{argument}` must be a name, found {brief(given)}: Qlib evaluates it"
            )
