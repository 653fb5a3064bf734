"""Options that commands share, and those that are given many times: KEY=VALUE, and words divided by commas."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import fields
from pathlib import Path
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

# Of scores, and of how they are traded.
Store = Annotated[
    Path | None,
    typer.Option(metavar="DIR", help="The store, in Qlib's format; of a run that of its data by default."),
]
Universe = Annotated[
    str | None, typer.Option(help="Universe to choose from; by default the only one of the store.")
]
Benchmark = Annotated[
    str | None,
    typer.Option(help="Index to compare with, or `none`; by default the only one of the store."),
]
Label = Annotated[
    str | None,
    typer.Option(
        metavar="EXPRESSION",
        help="Return to hold the scores against; by default that from the close of t + 1 to that of t + 2.",
    ),
]
Horizon = Annotated[
    int | None, typer.Option(min=1, help="Or: the return over so many days from the close of t + 1.")
]
Start = Annotated[str | None, typer.Option(help="First day of the scores to take.")]
End = Annotated[str | None, typer.Option(help="Last day of the scores to take.")]
Portfolio = Annotated[
    Path | None,
    typer.Option(
        metavar="FILE",
        help="YAML with `strategy` and where needed `backtest`, as under BacktestRecord in a workflow.",
    ),
]
TopK = Annotated[int | None, typer.Option("--topk", min=1, help="Stocks to hold, in the strategy.")]
NDrop = Annotated[int | None, typer.Option("--n-drop", min=0, help="Stocks to replace a day at most.")]
Name = Annotated[
    str | None,
    typer.Option(help="Experiment on MLflow that gets the run; by default named after the scores."),
]
Columns = Annotated[
    list[str] | None,
    typer.Option(
        metavar="FIELD=NAME",
        help="Column of the file of scores that is datetime, instrument or score, where it is not recognised.",
        show_default=False,
    ),
]
Encoding = Annotated[
    str | None,
    typer.Option(help="Of a CSV file of scores, such as gbk; utf-8 by default.", show_default=False),
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
