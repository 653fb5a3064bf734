"""`qlib-ext check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def check(
    workflow: Annotated[
        Path, typer.Argument(help="A workflow file, as `qrun` takes it.", show_default=False)
    ],
) -> None:
    """Check a workflow as a whole, without running it: every argument, and whether its parts fit each other and the store.

    Nothing is trained, no run is begun, and no class is imported that the workflow may not name.
    """
    import logging  # all here, so that `qlib-ext --help` stays quick

    import qlib

    from qlib_ext.data.expression_text import guard
    from qlib_ext.record.runs import checked_uri
    from qlib_ext.record.workflow.read import read_workflow
    from qlib_ext.record.workflow.settings import check_settings
    from qlib_ext.record.workflow.task import check_task

    config = read_workflow(workflow)
    check_settings(config)
    given = config["qlib_init"]
    uri = ((given.get("exp_manager") or {}).get("kwargs") or {}).get("uri")
    if uri is not None:
        checked_uri(uri)
    store = {key: given[key] for key in ("provider_uri", "region") if key in given}
    qlib.init(**store, kernels=1, logging_level=logging.ERROR)
    guard()
    check_task(config["task"])
    typer.echo(f"{workflow}: nothing is wrong with it that can be known before its data are read")
