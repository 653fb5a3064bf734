"""From a mapping in YAML to an object of skfolio, with what it is made of."""

from __future__ import annotations

import inspect
import re
from collections.abc import Mapping
from enum import Enum
from typing import Any, TypeVar

from skfolio import measures

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.config.build import check_config

T = TypeVar("T")

# What skfolio's annotations call by one word.
ALIASES: Mapping[str, tuple[type, ...]] = {
    "Measure": (measures.RiskMeasure, measures.ExtraRiskMeasure, measures.PerfMeasure, measures.RatioMeasure)
}


def skfolio_object(config: Mapping[str, Any] | T, kind: type[T], *, name: str, **given: Any) -> T:
    """Build an estimator of skfolio, named by its dotted class.

    Parameters
    ----------
    config
        `{class, kwargs}` such as `{class: skfolio.moments.LedoitWolf}`; an object of type `kind` is returned as it is. In
        `kwargs`, at any depth, a mapping with `class` stands for an object, and a word for a member of an enumeration where
        the argument is one: `CVAR` for `RiskMeasure.CVAR`.
    kind
        The type that the object must have, such as `skfolio.moments.BaseCovariance`.
    name
        Where in the configuration it stands, for messages.
    given
        Arguments that the caller adds to `kwargs`.

    Raises
    ------
    UserError
        As from `check_config`; if a word names no member of the enumeration; if a part is of another kind than the argument
        that it is for. What only data can show, skfolio says when it is fitted.

    Examples
    --------
    >>> from skfolio.moments import BaseCovariance
    >>> skfolio_object({"class": "skfolio.moments.OAS"}, BaseCovariance, name="estimator")
    OAS()
    """
    if isinstance(config, kind) and not isinstance(config, Mapping):
        return config
    found, kwargs = check_config(config, kind, name=name, **given)
    return found(
        **{key: _argument(found, key, value, f"{name}.kwargs.{key}") for key, value in kwargs.items()}
    )


def _argument(of: type, key: str, value: Any, name: str) -> Any:
    """An argument of a class, from what the configuration has for it."""
    parameter = inspect.signature(of).parameters.get(key)
    annotation = "" if parameter is None else str(parameter.annotation)
    return _converted(value, annotation, _named(of, annotation), name)


def _named(of: type, annotation: str) -> list[type]:
    """The classes that an annotation of a constructor names."""
    known = getattr(of.__init__, "__globals__", {})  # type: ignore[misc]  # of the class itself, as it is written
    found: list[type] = []
    for word in re.findall(r"\w+", annotation):
        found += ALIASES.get(word, (known[word],) if inspect.isclass(known.get(word)) else ())
    return found


def _converted(value: Any, annotation: str, named: list[type], name: str) -> Any:
    if isinstance(value, Mapping) and "class" in value:
        whole = not re.search(r"\.|Any", annotation)  # of what a dotted word allows we know nothing
        kinds = [kind for kind in named if not issubclass(kind, Enum)] if whole else []
        part = skfolio_object(value, object, name=name)
        if kinds and not isinstance(part, tuple(kinds)):
            expected = " or ".join(kind.__name__ for kind in kinds)
            raise UserError(f"`{name}.class` must be a {expected}, found {value['class']}")
        return part
    if isinstance(value, (list, tuple)):
        parts = [_converted(each, annotation, named, name) for each in value]
        pair = "list[tuple" in annotation and len(parts) == 2 and isinstance(parts[0], str)
        return tuple(parts) if pair else parts
    if isinstance(value, str):
        return _member(value, annotation, [kind for kind in named if issubclass(kind, Enum)], name)
    return value


def _member(word: str, annotation: str, kinds: list[type[Enum]], name: str) -> Any:
    """A member of an enumeration, by its name in capitals or not; the word itself where an argument is none."""
    members = {member.name.upper(): member for kind in kinds for member in kind}
    if word.upper() in members:
        return members[word.upper()]
    if kinds and not re.search(r"\bstr\b|Literal", annotation):
        raise UserError(
            f"`{name}` must be one of {', '.join(members)}, found {brief(word)}{nearest(word.upper(), members)}"
        )
    return word
