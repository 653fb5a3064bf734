"""`qlib-ext relocate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.terminal import say


def relocate(
    old: Annotated[Path, typer.Argument(help="Folder in which MLflow looks for artifacts.")],
    new: Annotated[Path, typer.Argument(help="Folder in which they lie now.")],
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow database; MLFLOW_TRACKING_URI or mlflow.db by default.")
    ] = None,
) -> Answer:
    """Tell MLflow's database where artifacts lie, after the project's folder was moved or copied. No file is touched."""
    from qlib_ext.tracking import place  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.tracking.runs import connect

    client = connect(tracking_uri)
    runs = place.relocate(client.tracking_uri, old.expanduser().absolute(), new.expanduser().absolute())
    say(f"The artifacts of {runs} run{'' if runs == 1 else 's'} are looked for in {new.absolute()} now")
    return Answer({"runs": runs, "folder": new.absolute()})
