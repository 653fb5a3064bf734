"""Objects made in Python as the mappings that a workflow has in their place.

A run keeps what it was made of as text, so that anyone can read it, compare it and make it again. So an object that is
given where a workflow has `{class, kwargs}` stands for the call that made it.
"""

from __future__ import annotations

import datetime as dt
import functools
import inspect
import logging
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.config.allowlist import allow, is_allowed
from qlib_ext.config.build import dotted
from qlib_ext.config.rebuildable import Rebuildable

logger = logging.getLogger(__name__)

NOTEBOOK = "__main__"  # the module of what is typed into a notebook or a console
PLAIN = (str, bytes, int, float, bool, Path, dt.date, type(None))


def described(value: Any, *, name: str) -> Any:
    """A value with every object in it as `{class, kwargs}` of the call that makes it.

    Parameters
    ----------
    value
        Plain values, mappings and lists of them stay. An object of the package shows its call; a class stands for a call
        without arguments, `functools.partial` of a class for one with those; of any other object the arguments are looked
        for among its attributes, and taken if an object made with them is equal to it.
    name
        Where the value stands, for messages.

    Raises
    ------
    UserError
        If the call of an object is not known, it has learned something since (`Rebuildable.learned`), or its class cannot be
        found again by its name.

    Notes
    -----
    Whoever hands over an object trusts its code: the module of its class is allowed from here on, in this process and in
    those that it starts, as `QLIB_EXT_PACKAGES` would allow it. What of an object does not follow from its call, such as
    weights that were changed, is not in the mapping.

    Examples
    --------
    >>> from qlib_ext.model.losses.mse import MSE
    >>> described({"label": "RETURN", "loss": MSE()}, name="task")
    {'label': 'RETURN', 'loss': {'class': 'qlib_ext.model.losses.mse.MSE'}}
    """
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, PLAIN):
        return value
    if isinstance(value, Mapping):
        return {key: described(part, name=f"{name}.{key}") for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [described(part, name=f"{name}[{k}]") for k, part in enumerate(value)]
    kind, kwargs = _call(value, name)
    _check_place(kind, name)
    named: dict[str, Any] = {"class": dotted(kind)}
    return {**named, "kwargs": described(kwargs, name=name)} if kwargs else named


def in_notebook(config: Any) -> list[str]:
    """The classes that a configuration names of a notebook or a console, which no other process finds."""
    return [name for name in _classes(config) if name.startswith(f"{NOTEBOOK}.")]


def _classes(config: Any) -> Iterator[str]:
    if isinstance(config, Mapping):
        if isinstance(config.get("class"), str):
            yield config["class"]
        for part in config.values():
            yield from _classes(part)
    elif isinstance(config, (list, tuple)):
        for part in config:
            yield from _classes(part)


def _call(value: Any, name: str) -> tuple[type, dict[str, Any]]:
    """The class, and the arguments by their names."""
    if isinstance(value, type):
        return value, {}
    if isinstance(value, functools.partial) and isinstance(value.func, type):
        return value.func, _named(value.func, value.args, value.keywords, name)
    if isinstance(value, Rebuildable):
        if value.learned:
            raise UserError(
                f"`{name}` must be as its call makes it, found a {type(value).__name__} that was fitted, whose weights the run "
                f"would not have: make it anew, {type(value).__name__}(...)"
            )
        args, kwargs = value._given
        return type(value), _named(type(value), args, kwargs, name)
    kind = type(value)
    if kind.__module__.partition(".")[0] in ("numpy", "pandas", "torch") and hasattr(value, "shape"):
        raise UserError(
            f"`{name}` must be made of texts, numbers and objects that are, found data, a {kind.__name__}: what a run is made "
            "of is kept as text, and data come from the store or from a file"
        )
    found = _by_attributes(value)
    if found is None:
        raise UserError(
            f"`{name}` is a {kind.__name__} of which the arguments are not known, so that the run could not be made again: give "
            f"the class with its arguments, functools.partial({kind.__name__}, ...), and no object that was used already"
        )
    return kind, found


def _named(kind: type, args: tuple[Any, ...], kwargs: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Arguments by their names, those of `**` among the others."""
    try:
        signature = inspect.signature(kind)
        bound = signature.bind_partial(*args, **kwargs).arguments
    except TypeError as error:
        raise UserError(f"`{name}` does not fit {kind.__name__}: {error}") from error
    found: dict[str, Any] = {}
    for key, value in bound.items():
        sort = signature.parameters[key].kind
        if sort is inspect.Parameter.VAR_POSITIONAL:
            raise UserError(
                f"`{name}` must give the arguments of {kind.__name__} by their names, found `*{key}`"
            )
        found |= value if sort is inspect.Parameter.VAR_KEYWORD else {key: value}
    return found


def _by_attributes(value: Any) -> dict[str, Any] | None:
    """Arguments that make an object equal to this one; None where none are found."""
    kind, own = type(value), getattr(value, "__dict__", None)
    if own is None or hasattr(value, "setup_data"):  # to make a dataset is to load its data
        return None
    try:
        parameters = inspect.signature(kind).parameters.values()
    except (TypeError, ValueError):
        return None
    given = {p.name: own[p.name] for p in parameters if p.name in own}
    candidates = [given]
    if any(
        p.kind is inspect.Parameter.VAR_KEYWORD for p in parameters
    ):  # kept in a mapping, as LGBModel does
        kept = [x for x in own.values() if isinstance(x, dict) and all(isinstance(key, str) for key in x)]
        candidates += [{**x, **given} for x in kept]
    for call in candidates:
        if _makes(kind, call, own):
            for key in [*call]:  # what is so by default need not be said
                less = {other: x for other, x in call.items() if other != key}
                call = less if _makes(kind, less, own) else call
            return call
    return None


def _makes(kind: type, call: Mapping[str, Any], own: Mapping[str, Any]) -> bool:
    try:
        return bool(vars(kind(**call)) == own)
    except (TypeError, ValueError, KeyError, AttributeError, RuntimeError):
        return False


def _check_place(kind: type, name: str) -> None:
    """The class must be found by its name; where no configuration could name it before, it can from here on."""
    module = sys.modules.get(kind.__module__)
    if "." in kind.__qualname__:
        raise UserError(
            f"`{name}` must be of a class that is found by its name, found {kind.__qualname__}: define it at the top of a "
            "module, or of the notebook"
        )
    if getattr(module, kind.__name__, None) is not kind:
        raise UserError(
            f"`{name}` is of a {kind.__name__} that was defined anew since: make the object again with the class of now"
        )
    if is_allowed(kind.__module__):
        return
    allow(kind.__module__)
    where = (
        f"{kind.__name__} is defined in this notebook: put it into a module"
        if kind.__module__ == NOTEBOOK
        else f"{dotted(kind)} is of a package of yours: set QLIB_EXT_PACKAGES={kind.__module__} there"
    )
    logger.warning(
        "%s, or another process cannot make the run again, nor `qlib-ext recommend` score with it. Its tables, its report, "
        "comparisons and new backtests of its scores need nothing of it.",
        where,
    )
