"""`qlib-ext relocate`."""

from __future__ import annotations

import os
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
    # `..` goes by its letters: the old folder is not there any more, and the database has it without
    before, now = (Path(os.path.normpath(folder.expanduser().absolute())) for folder in (old, new))
    runs = place.relocate(client.tracking_uri, before, now)
    say(f"The artifacts of {runs} run{'' if runs == 1 else 's'} are looked for in {now} now")
    return Answer({"runs": runs, "folder": now})
