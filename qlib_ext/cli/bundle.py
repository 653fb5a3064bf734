"""`qlib-ext bundle`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import TrackingUri
from qlib_ext.terminal import quiet_imports, say


def bundle(
    run: Annotated[
        str,
        typer.Argument(
            metavar="RUN",
            help="A finished run's id or the first digits of it, its name, or an experiment for its newest.",
        ),
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="File to write; by default EXPERIMENT-ID.bundle.zip in the working directory.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="The data of the run, where they no longer lie where they did."),
    ] = None,
    sign: Annotated[
        Path | None,
        typer.Option(
            metavar="KEY", help="Sign it by minisign with the secret key of this file, into FILE.minisig."
        ),
    ] = None,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Write a run as one file that anyone can execute again.

    It holds the workflow without a template, versions, the fingerprint of the data and of their parts, what the model learned,
    and every table of the run with a hash of what it says. The data themselves are not in it.
    """
    with quiet_imports():  # all here, so that `qlib-ext --help` stays quick
        from qlib_ext.verify.bundle import write_bundle
    from qlib_ext.paths import writable
    from qlib_ext.report.standard import report_folder
    from qlib_ext.tracking.runs import connect, find_run
    from qlib_ext.verify import signing

    if sign is not None:
        signing.check_program(sign)
    client = connect(tracking_uri)
    found = find_run(client, run)
    name = client.get_experiment(found.info.experiment_id).name
    target = out or Path(f"{report_folder(name, found.info.run_id)}.bundle.zip")
    writable(target.absolute().parent, name="the folder of `--out`", way_out="name another")
    written = write_bundle(client, found, target, store)
    for note in written.notes:
        say(f"note: {note}", err=True)
    tables = sum(len(each["artifacts"]) for each in written.index["runs"].values())
    say(f"run     {found.info.run_name} ({found.info.run_id})")
    say(f"data    {written.index['data']['fingerprint']}")
    say(f"scores  {written.index['scores']}")
    say(f"orders  {written.index['orders'] or 'none'}")
    say(f"tables  {tables}")
    say(f"size    {target.stat().st_size / 1e6:,.1f} MB")
    say(target.resolve())
    signature = None if sign is None else signing.sign(target, sign).resolve()
    if signature is not None:
        say(signature)
    document = {
        "bundle": target.resolve(),
        "signature": signature,
        "run": found.info.run_id,
        "data": written.index["data"]["fingerprint"],
        "scores": written.index["scores"],
        "orders": written.index["orders"],
        "tables": tables,
        "notes": written.notes,
    }
    return Answer(document, then=f"qlib-ext verify {target}, for whether it comes to the same again")
