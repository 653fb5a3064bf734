"""A source by its name and options, as a command line or a configuration has them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlib_ext.config.build import build
from qlib_ext.files import load_yaml
from qlib_ext.market.fetch.named import class_path
from qlib_ext.market.fetch.source import Source


def built_source(name: str, options: Mapping[str, Any]) -> Source:
    """The source of a name.

    Parameters
    ----------
    name
        A module of `qlib_ext.market.fetch.sources`, or a dotted class of a package that may be named.
    options
        Its arguments; of texts `50` is a number, `true` and `false` are what they say, `[a, b]` is a list: all else, such as
        the ticker ON, stays a text.

    Raises
    ------
    UserError
        If there is no such source, or an argument does not fit.
    """
    given = {key: _value(value) for key, value in options.items()}
    return build({"class": class_path(name), "kwargs": given}, Source, name="source")


def _value(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    try:
        found = load_yaml(value)
    except ValueError:
        return value
    if isinstance(found, bool):  # YAML takes on, off, yes and no for one, too
        return found if value.strip().lower() in ("true", "false") else value
    return found if isinstance(found, (int, float, list)) else value
