"""`qlib-ext soup`."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.finished import of_run
from qlib_ext.cli.options import Name, Store, TrackingUri


def soup(
    runs: Annotated[
        list[str],
        typer.Argument(
            metavar="RUN...",
            help="Runs of one network on the same data (id, first digits of it, name, or experiment for all of its finished "
            "ones).",
            show_default=False,
        ),
    ],
    kind: Annotated[
        str,
        typer.Option(
            help="`greedy`: a run goes in where the validation RankIC does not fall; `uniform`: all."
        ),
    ] = "greedy",
    name: Name = None,
    store: Store = None,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Average the weights of finished runs, chosen on validation, and make the records and the report of the mean.

    Nothing is trained, and the test segment is not read in choosing.
    """
    from qlib_ext.terminal import quiet_imports  # all here, so that `qlib-ext --help` stays quick

    with quiet_imports():
        from qlib_ext.recommend.trained import TrainedRun
        from qlib_ext.workflow import scored, soup
    from qlib_ext.tracking.runs import connect, find_runs, use

    use(tracking_uri)
    client = connect()
    found = find_runs(client, runs)
    with tempfile.TemporaryDirectory() as folder:
        first = TrainedRun.open(client, found[0], Path(folder), learned=False)
        region, own = first.region, first.artifacts.tags.get("store")
    root = store or own
    if root is None:
        raise UserError(
            f"the run {first.run_id} does not say where its data lay: name the store by `--store DIR`"
        )
    task = soup.of_runs(first.config, [run.info.run_id for run in found], kind)
    experiment = name or f"{first.artifacts.info['experiment']} soup"
    return of_run(scored.run_task(task, Path(root), region, experiment), runs)
