"""The keywords that a function hands on, held against those that there are."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection, Iterable
from typing import Any

from qlib_ext.checks import UserError, nearest


def check_keywords(what: str, given: Iterable[str], known: Collection[str]) -> None:
    """Raise a UserError for a keyword that is not known, with the nearest that is.

    Examples
    --------
    >>> check_keywords("`evaluate`", ["univers"], {"universe", "label"})
    Traceback (most recent call last):
        ...
    qlib_ext.checks.UserError: `evaluate` has no place for `univers` (did you mean universe?); it takes label, universe
    """
    for key in given:
        if key not in known:
            raise UserError(
                f"{what} has no place for `{key}`{nearest(key, known)}; it takes {', '.join(sorted(known))}"
            )


def keywords_of(*functions: Callable[..., Any]) -> set[str]:
    """The names of what functions or classes take, but for what they hand on.

    Examples
    --------
    >>> sorted(keywords_of(lambda a, *, b=1, **given: None))
    ['a', 'b']
    """
    return {
        name
        for function in functions
        for name, parameter in inspect.signature(function).parameters.items()
        if parameter.kind is not inspect.Parameter.VAR_KEYWORD
    }
