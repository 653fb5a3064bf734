"""From a nested YAML mapping to a checked object.

A mapping `{class: package.module.Class, kwargs: {...}}` names one object by its dotted class. There is no
registry: a new backbone, loss, balancer, strategy or section is a new file that a workflow names.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any, TypeVar

from qlib_ext.checks import UserError, nearest

T = TypeVar("T")


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
        If the module or the class does not exist; the message names the nearest classes there.
    """
    module_name, _, class_name = path.rpartition(".") if isinstance(path, str) else ("", "", "")
    if not module_name:
        raise UserError(
            f"`{name}.class` must be a dotted class such as `package.module.Class`, found {path!r}"
        )
    try:
        module = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name and not (module_name == error.name or module_name.startswith(error.name + ".")):
            raise  # the module is there, something that it imports is not
        raise UserError(
            f"`{name}.class` names a module that does not exist: `{module_name}` (from {path!r})"
        ) from error
    found = getattr(module, class_name, None)
    if not inspect.isclass(found):
        classes = [key for key, value in vars(module).items() if inspect.isclass(value)]
        raise UserError(
            f"`{name}.class` names no class: `{class_name}` is not in `{module_name}`{nearest(class_name, classes)}"
        )
    return found


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
        If the mapping has other keys, the class is unknown or of another kind, or the arguments do not fit its
        signature. Never a `TypeError`: Qlib's own builder swallows those.
    """
    if isinstance(config, kind):
        return config
    if not isinstance(config, Mapping) or "class" not in config or set(config) - {"class", "kwargs"}:
        raise UserError(
            f"`{name}` must be a mapping with `class` and, where needed, `kwargs`; found {config!r}"
        )
    found = locate(config["class"], name=name)
    if not issubclass(found, kind):
        raise UserError(f"`{name}.class` must be a {kind.__name__}, found {config['class']}")
    kwargs = config.get("kwargs") or {}
    if not isinstance(kwargs, Mapping):
        raise UserError(f"`{name}.kwargs` must be a mapping, found {kwargs!r}")
    parameters = inspect.signature(found).parameters
    if not any(p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters.values()):
        for key in kwargs:
            if key not in parameters:
                raise UserError(
                    f"`{name}.kwargs` has no place for `{key}`{nearest(key, parameters)}; "
                    f"{found.__name__} takes {', '.join(parameters) or 'no arguments'}"
                )
    for key in given:
        if key in kwargs:
            raise UserError(
                f"`{name}.kwargs` must not set `{key}`: it is given by the program, found {kwargs[key]!r}"
            )
    try:
        inspect.signature(found).bind(**kwargs, **given)
    except TypeError as error:
        raise UserError(f"`{name}.kwargs` do not fit {found.__name__}: {error}") from error
    return found(**kwargs, **given)
