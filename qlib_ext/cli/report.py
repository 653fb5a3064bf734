"""`qlib-ext report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import TrackingUri
from qlib_ext.terminal import quiet_imports, say


def report(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A run's id or the first digits of it, its name, or an experiment for its newest finished run.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder for report.html; by default reports/runs/<experiment>-<id>, where the run put its own.",
        ),
    ] = None,
    figures: Annotated[
        bool, typer.Option("--figures", help="Write every chart as PNG too, into DIR/figures.")
    ] = False,
    lang: Annotated[
        str, typer.Option(help="Language of headings, labels and verdict: en, or zh for Chinese.")
    ] = "en",
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Make the report of a run again from its artifacts; the market's data are not needed."""
    from qlib_ext.cli.older import (
        tell_of_older,
        tell_of_unchecked,
    )  # here, so that `qlib-ext --help` stays quick
    from qlib_ext.paths import writable
    from qlib_ext.report.standard import RUNS, write_report
    from qlib_ext.tracking.runs import connect, find_run

    with quiet_imports():  # Qlib's strategies bring gym, which has something to say
        from qlib_ext.records.makers import makers

    writable(out or RUNS, name="`--out`", way_out="name another")
    client = connect(tracking_uri)
    found = find_run(client, run)
    tell_of_older(client, [found])
    written = write_report(client, found, out, figures=figures, lang=lang, makers=makers())
    if written.status != "FINISHED":
        say(f"The run is {written.status}: its report shows what it left so far.", err=True)
    tell_of_unchecked({written.run.info["run_name"]: written.run.unchecked})
    if written.left_out:
        say(
            f"Left out, for want of artifacts: {', '.join(written.left_out)}. The page's last section says what makes them."
        )
    say(written.path)
    run_id = found.info.run_id
    document = {"run": run_id, "status": written.status, "report": written.path, "left_out": written.left_out}
    return Answer(document, then=f"qlib-ext compare {run_id[:8]} OTHER, for how it stands beside another run")
