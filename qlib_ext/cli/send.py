"""`qlib-ext send`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.terminal import say


def send(
    folder: Annotated[
        Path | None,
        typer.Argument(
            help="Folder of runs that are not sent, or of one; MLFLOW_OUTBOX or mlflow_outbox by default."
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow server; the one that the run logged to by default.")
    ] = None,
) -> Answer:
    """Send to the MLflow server what runs could not send while it was away."""
    from qlib_ext.tracking.outbox import outbox_root, send_all  # here, so that `qlib-ext --help` stays quick

    sent = {}
    for run_id, entries in send_all(outbox_root() if folder is None else folder.expanduser(), tracking_uri):
        say(f"{run_id}: sent {entries} {'entry' if entries == 1 else 'entries'}; the run is complete")
        sent[run_id] = entries
    return Answer({"sent": sent}, then=" ".join(["qlib-ext report", *list(sent)[-1:]]))
