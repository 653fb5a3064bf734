"""`qlib-ext check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.terminal import say


def check(
    workflow: Annotated[
        Path, typer.Argument(help="A workflow file, as `qrun` takes it.", show_default=False)
    ],
) -> Answer:
    """Check a workflow as a whole, without running it: every argument, and whether its parts fit each other and the store.

    Nothing is trained, no run is begun, and no class is imported that the workflow may not name.
    """
    from qlib_ext.terminal import quiet_imports

    with quiet_imports():  # here, so that `qlib-ext --help` stays quick
        from qlib_ext.workflow.check import check_workflow

    check_workflow(workflow)
    say(f"{workflow}: nothing is wrong with it that can be known before its data are read")
    return Answer({"workflow": workflow}, then=f"qrun {workflow}")
