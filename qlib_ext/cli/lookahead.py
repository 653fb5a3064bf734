"""`qlib-ext lookahead`."""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from qlib_ext.cli.answer import Answer, exits
from qlib_ext.cli.options import TrackingUri
from qlib_ext.terminal import say

if TYPE_CHECKING:
    from qlib_ext.lookahead.findings import Result


@exits({1: "something leaks"})
def lookahead(
    workflow: Annotated[Path, typer.Argument(metavar="WORKFLOW", help="The YAML file, as for qrun.")],
    dates: Annotated[
        int, typer.Option(help="Days t of which everything is compared where all after t differs.", min=1)
    ] = 200,
    refits: Annotated[
        int, typer.Option(help="How many times everything is built anew on a changed market.", min=1)
    ] = 3,
    run: Annotated[
        str | None,
        typer.Option(help="Look at the weights of a run: id, first digits of it, name, or experiment."),
    ] = None,
    seed: Annotated[int, typer.Option(help="Of the changed markets.", min=0)] = 0,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Look for the future in what a workflow calls known."""
    from qlib_ext.terminal import quiet_imports, shown_progress

    with quiet_imports():
        from qlib_ext.lookahead.audit import audit
        from qlib_ext.lookahead.provider import start
        from qlib_ext.workflow.read import read_workflow
        from qlib_ext.workflow.settings import check_settings
        from qlib_ext.workflow.task import check_task

    logging.getLogger("qlib_ext").addHandler(logging.NullHandler())  # what matters is shown below
    config = read_workflow(workflow)
    check_settings(config)
    began = time.perf_counter()
    with (
        tempfile.TemporaryDirectory() as folder,
        shown_progress() as progress,
        contextlib.redirect_stdout(io.StringIO()),
    ):
        start(config["qlib_init"])
        check_task(config["task"], writes=False)
        found = audit(
            config["task"],
            dates=dates,
            refits=refits,
            seed=seed,
            model=None if run is None else _trained(run, tracking_uri, Path(folder)),
            progress=progress,
        )
    seconds = time.perf_counter() - began
    for line in _lines(workflow, found, seconds):
        say(line)
    document = {"workflow": workflow.name, "run": run, **found.to_json(), "seconds": round(seconds, 1)}
    return Answer(document, 1) if found.findings else Answer(document, then=f"qrun {workflow}")


def _trained(run: str, tracking_uri: str | None, folder: Path) -> Callable[[Any], Any]:
    """From a dataset to the model of a run, with what it learned."""
    import numpy as np

    from qlib_ext.recommend.trained import TrainedRun
    from qlib_ext.tracking.runs import connect, find_run

    client = connect(tracking_uri)
    trained = TrainedRun.open(client, find_run(client, run), folder)

    def made(dataset: Any) -> Any:
        features = dataset.handler.features
        for ours, theirs in zip((features.median, features.scale), trained.statistics(), strict=True):
            if not np.array_equal(ours, theirs, equal_nan=True):
                say(
                    f"warning: the run {trained.name} normalised its features by other statistics than the workflow's "
                    "training days have in this store: is it a run of this workflow, on this store?",
                    err=True,
                )
                break
        return trained.model(dataset)

    return made


def _lines(workflow: Path, found: Result, seconds: float) -> Iterator[str]:
    """The answer for the terminal."""
    facts = found.facts
    yield (
        f"{workflow.name} on {facts['store']}, {facts['universe']}: {found.dates:,} dates from {facts['first']} to "
        f"{facts['last']}, on {facts['changed_markets']} changed markets ({', '.join(facts['changed'])})"
    )
    for finding in found.findings:
        yield ""
        yield f"ALARM {finding.kind}"
        yield f"  {finding.message}"
    if not found.findings:
        yield ""
        yield "Nothing that is called known on a day follows from what came after it."
    yield ""
    for check in found.checks:
        yield f"looked at: {check.what}{f' ({check.dates:,} dates)' if check.dates else ''}"
    for note in found.notes:
        yield f"note: {note}"
    alarms = len(found.findings)
    yield ""
    yield f"{alarms} alarm{'' if alarms == 1 else 's'}; {found.dates:,} dates in {seconds:.0f} s"
