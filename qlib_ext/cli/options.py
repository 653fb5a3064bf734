"""Options that commands share, and those that are given many times: KEY=VALUE, and words divided by commas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from typing import Annotated, Any

import typer

from qlib_ext.checks import UserError, brief

TrackingUri = Annotated[
    str | None,
    typer.Option(
        metavar="URI",
        help="MLflow store: a database or a server. MLFLOW_TRACKING_URI or sqlite:///mlflow.db by default.",
    ),
]


def pairs(
    option: str, given: Iterable[str] | None, example: str, *, empty: bool = True, alone: bool = False
) -> dict[str, str]:
    """The mapping of an option such as `--column`, whose values look like `example`; a UserError where one does not.

    `empty` says whether `KEY=` is a value, the empty one, and `alone` whether a value may stand without a key, whose key
    is the empty one. No key may be given twice.
    """
    found: dict[str, str] = {}
    for text in given or ():
        key, sign, value = text.partition("=")
        if not sign and alone:
            key, value = "", key
        elif not (sign and key and (value or empty)):
            raise UserError(f"`{option}` must be as in {example}, found {brief(text)}")
        if key in found:
            raise UserError(
                f"`{option}` must be given once for {key or 'all others'}, found {brief(text)} again"
            )
        found[key] = value
    return found


def words(given: Iterable[str] | None) -> list[str]:
    """`A,B` and `C` are three words."""
    return [word.strip() for text in given or () for word in text.split(",") if word.strip()]


def settings_of(ctx: typer.Context, kind: Any) -> dict[str, Any]:
    """The options of a command that have the name of a field of the dataclass `kind`."""
    return {field.name: ctx.params[field.name] for field in fields(kind) if field.name in ctx.params}
