"""Which class a source of this package is, by the name of its module."""

from __future__ import annotations

import importlib
import inspect
import pkgutil

from qlib_ext.checks import one_of
from qlib_ext.market.fetch import sources
from qlib_ext.market.fetch.source import Source


def names() -> list[str]:
    """Names of the sources that come with the package."""
    return sorted(module.name for module in pkgutil.iter_modules(sources.__path__))


def class_path(name: str) -> str:
    """The dotted class of a source: that of the module of this name, or `name` itself where it has a dot.

    Raises
    ------
    UserError
        If there is no such module.
    """
    if "." in name:
        return name
    module = importlib.import_module(f"{sources.__name__}.{one_of('SOURCE', name, names())}")
    (found,) = (
        kind
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, Source) and kind.__module__ == module.__name__
    )
    return f"{found.__module__}.{found.__qualname__}"
