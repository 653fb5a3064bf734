"""`qlib-ext report`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.options import TrackingUri
from qlib_ext.terminal import quiet_imports, say

RUNS = Path("reports/runs")


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
    tracking_uri: TrackingUri = None,
) -> None:
    """Make the report of a run again from its artifacts; the market's data are not needed."""
    import tempfile  # all here, so that `qlib-ext --help` stays quick

    with quiet_imports():  # Qlib's strategies bring gym, which has something to say
        from qlib_ext.records.makers import makers

    from qlib_ext.cli.older import tell_of_older, tell_of_unchecked
    from qlib_ext.paths import writable
    from qlib_ext.report import standard
    from qlib_ext.tracking.artifacts import put
    from qlib_ext.tracking.runs import connect, find_run

    writable(out or RUNS, name="`--out`", way_out="name another")
    client = connect(tracking_uri)
    found = find_run(client, run)
    tell_of_older(client, [found])
    with tempfile.TemporaryDirectory() as folder:
        document, artifacts = standard.of_run(client, found.info.run_id, Path(folder), makers=makers())
        page = document.render(artifacts)
        pictures = document.pictures(artifacts) if figures else {}
    place = out if out is not None else RUNS / standard.folder_name(artifacts)
    put(place / "report.html", page)
    for name, picture in pictures.items():
        put(place / "figures" / name, picture)
    if found.info.status != "FINISHED":
        say(f"The run is {found.info.status}: its report shows what it left so far.", err=True)
    tell_of_unchecked({artifacts.info["run_name"]: artifacts.unchecked})
    left_out = [part.title for part in artifacts.info["left_out"]]
    if left_out:
        say(
            f"Left out, for want of artifacts: {', '.join(left_out)}. The page's last section says what makes them."
        )
    say((place / "report.html").resolve())
