"""From a nested YAML mapping to a checked object.

A mapping `{class: package.module.Class, kwargs: {...}}` names one object by its dotted class. There is no
registry: a new backbone, loss, balancer, strategy or section is a new file that a workflow names. It lies in a package
that a configuration may name (`qlib_ext.config.allowlist`).
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import pkgutil
import sys
from collections.abc import Mapping
from types import ModuleType
from typing import Any, TypeVar

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.config.allowlist import check_allowed
from qlib_ext.config.renamed import check_current
from qlib_ext.terminal import quiet_imports

T = TypeVar("T")

# Packages that a class may need -> the extra that brings them.
EXTRAS = {"cvxpy": "portfolio", "skfolio": "portfolio", "sklearn": "portfolio"}


def locate(path: str, *, name: str) -> type:
    """Import the class that the dotted `path` names.

    Parameters
    ----------
    path
        `package.module.Class`.
    name
        Where in the configuration the path stands, for messages.

    Raises
    ------
    UserError
        If the class had that name in an earlier version: the message says today's. If the module is of no allowed
        package; both are said before it is imported. If the module or the class does not exist: the message names
        the nearest there.
    """
    module_name, _, class_name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module_name:
        raise UserError(
            f"`{name}.class` must be a dotted class such as `package.module.Class`, found {brief(path)}"
        )
    check_current(path, name=name)
    check_allowed(module_name, name=name, path=path)
    try:
        with quiet_imports() if module_name.startswith("qlib.") else contextlib.nullcontext():
            module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
            extra = EXTRAS.get(error.name.partition(".")[0])
            if extra is None:
                raise  # the module is there, something that it imports is not
            raise UserError(
                f"`{name}.class` {path} needs the package {error.name}, found none: pip install 'qlib-ext[{extra}]'"
            ) from error
        raise UserError(
            f"`{name}.class` names a module that does not exist: `{module_name}`{_near_module(error.name or module_name)} "
            f"(from {brief(path)})"
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise UserError(
            f"`{name}.class` names no class: `{class_name}` is not in `{module_name}`{nearest(class_name, classes)}"
        )
    check_allowed(found.__module__, name=name, path=path)  # a module may hold classes that it imported
    return found


def _near_module(missing: str) -> str:
    """A hint at the modules beside the one that does not exist."""
    parent_name, _, last = missing.rpartition(".")
    parent = sys.modules.get(parent_name)  # imported on the way to the missing one, if it exists
    beside = [module.name for module in pkgutil.iter_modules(getattr(parent, "__path__", []))]
    return nearest(last, beside)


def build(config: Mapping[str, Any] | T, kind: type[T], *, name: str, **given: Any) -> T:
    """Build the object that `config` describes.

    Parameters
    ----------
    config
        `{class: dotted path, kwargs: mapping}`; an object of type `kind` is returned as it is.
    kind
        The type that the object must have.
    name
        Where in the configuration it stands, for messages.
    given
        Arguments that the caller adds to `kwargs`.

    Raises
    ------
    UserError
        As from `check_config`. Never a `TypeError`: Qlib's own builder swallows those.
    """
    if isinstance(config, kind):
        return config
    found, kwargs = check_config(config, kind, name=name, **given)
    return found(**kwargs)


def check_config(config: Any, kind: type[T], *, name: str, **given: Any) -> tuple[type[T], dict[str, Any]]:
    """The class that `config` describes and all arguments for it, without building anything.

    Parameters
    ----------
    config, kind, name, given
        As in `build`.

    Raises
    ------
    UserError
        If the mapping has other keys, the class is unknown, abstract or of another kind, or the arguments do not fit
        its signature.
    """
    if not isinstance(config, Mapping) or "class" not in config or set(config) - {"class", "kwargs"}:
        raise UserError(
            f"`{name}` must be a mapping with `class` and, where needed, `kwargs`; found {brief(config)}"
        )
    found = locate(config["class"], name=name)
    if not issubclass(found, kind):
        raise UserError(f"`{name}.class` must be a {kind.__name__}, found {config['class']}")
    if inspect.isabstract(found):
        beside = [
            key
            for key, value in vars(sys.modules[found.__module__]).items()
            if inspect.isclass(value) and issubclass(value, found) and not inspect.isabstract(value)
        ]
        raise UserError(
            f"`{name}.class` must be a class that can be built, found {config['class']}, on which "
            f"{' and '.join(beside) or 'others'} are founded"
        )
    kwargs = config.get("kwargs") or {}
    if not isinstance(kwargs, Mapping):
        raise UserError(f"`{name}.kwargs` must be a mapping, found {brief(kwargs)}")
    parameters = inspect.signature(found).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for key in kwargs:
            if key not in parameters:
                raise UserError(
                    f"`{name}.kwargs` has no place for `{key}`{nearest(str(key), parameters)}; "
                    f"{found.__name__} takes {', '.join(parameters) or 'no arguments'}"
                )
    for key in given:
        if key in kwargs:
            raise UserError(
                f"`{name}.kwargs` must not set `{key}`: it is given by the program, found {brief(kwargs[key])}"
            )
    if not all(isinstance(key, str) for key in kwargs):
        raise UserError(f"`{name}.kwargs` must name its arguments by words, found {brief(list(kwargs))}")
    try:
        inspect.signature(found).bind(**kwargs, **given)
    except TypeError as error:
        raise UserError(f"`{name}.kwargs` do not fit {found.__name__}: {error}") from error
    return found, {**kwargs, **given}


def dotted(kind: type) -> str:
    """The dotted path of a class, as `locate` takes it."""
    return f"{kind.__module__}.{kind.__qualname__}"


def in_one_form(config: Any, name: str) -> dict[str, Any]:
    """A mapping in Qlib's form, which may name the module apart, in that of the package: `{class, kwargs}`.

    Raises
    ------
    UserError
        If it is no mapping, has other keys, or they hold something else.
    """
    if not isinstance(config, Mapping) or "class" not in config:
        raise UserError(
            f"`{name}` must be a mapping with `class` and, where needed, `kwargs`; found {brief(config)}"
        )
    for key in config:
        if key not in ("class", "module_path", "kwargs"):
            raise UserError(
                f"`{name}` has no place for `{key}`{nearest(str(key), ('class', 'module_path', 'kwargs'))}; it takes "
                "class and kwargs"
            )
    for key in ("module_path", "class"):
        if not isinstance(config.get(key, ""), (str, type(None))):
            raise UserError(f"`{name}.{key}` must be a dotted name, found {brief(config[key])}")
    kwargs = config.get("kwargs") or {}
    if not isinstance(kwargs, Mapping):
        raise UserError(f"`{name}.kwargs` must be a mapping, found {brief(kwargs)}")
    path = ".".join(filter(None, [config.get("module_path"), config["class"]]))
    return {"class": path, "kwargs": dict(kwargs)}


def classes_in(package: ModuleType, kind: type[T]) -> list[type[T]]:
    """The classes of a kind that lie in the files of a package, so that a new file needs no entry in a list."""
    return [
        found
        for file in pkgutil.iter_modules(package.__path__, f"{package.__name__}.")
        for found in vars(importlib.import_module(file.name)).values()
        if inspect.isclass(found) and issubclass(found, kind) and found.__module__ == file.name
    ]
