"""`qlib-ext index`."""

from __future__ import annotations

import shlex
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.options import TrackingUri
from qlib_ext.terminal import console, say, shown_progress

if TYPE_CHECKING:
    from qlib_ext.market.finding import QualityReport

PAGE = Path("reports/index.html")
LISTS = Path("daily")  # where `qlib-ext daily` writes by default


def index(
    out: Annotated[
        Path, typer.Option(metavar="FILE", help="The page; links are relative to its folder.")
    ] = PAGE,
    experiment: Annotated[
        list[str] | None, typer.Option(help="Show runs of this experiment alone. May be given several times.")
    ] = None,
    data: Annotated[
        str | None,
        typer.Option(
            metavar="FINGERPRINT",
            help="Show runs on these data alone: the first digits of their fingerprint.",
        ),
    ] = None,
    store: Annotated[
        Path | None,
        typer.Option(metavar="DIR", help="Show runs on this store alone, as it is now, and audit it now."),
    ] = None,
    lists: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Folder of the lists of `qlib-ext daily`.",
            show_default="daily, where it is there",
        ),
    ] = None,
    reports: Annotated[
        bool,
        typer.Option(
            "--reports", help="Bring reports that lie with a server to this machine, beside the page."
        ),
    ] = False,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Write one page of all runs: to sort, filter and group by what differs, with a link to each report.

    It shows the newest list and the health of the data too, opens without a network, and needs no server.
    """
    from qlib_ext.files import write_whole  # all here, so that `qlib-ext --help` stays quick
    from qlib_ext.masking import masked
    from qlib_ext.paths import writable
    from qlib_ext.report.index.data import states
    from qlib_ext.report.index.document import render
    from qlib_ext.report.index.lists import newest_list
    from qlib_ext.report.index.runs import brought, read
    from qlib_ext.tracking.runs import connect

    if data is not None and store is not None:
        raise UserError("one of `--data` and `--store` must say which data are wanted, found both")
    if out.is_dir():
        raise UserError(f"`--out` must be a file, found the folder {out}: name {out / PAGE.name}")
    place = out.absolute().parent
    writable(place, name="the folder of `--out`", way_out="name another")
    audit = None
    if store is not None:
        data, audit = _looked_at(store)
    listed = newest_list(lists or LISTS)
    if listed is None and lists is not None:
        raise UserError(f"`--lists` must be a folder with lists of `qlib-ext daily`, found none in {lists}")
    client = connect(tracking_uri)
    with console(stderr=True).status("reading the runs"):
        runs = read(client, experiments=experiment or (), fingerprint=data)
        if reports:
            runs = brought(client, runs, place / f"{out.stem}-reports")
        found, more = states(client, runs)
    facts = {
        "Made by": masked(shlex.join(["qlib-ext", *sys.argv[1:]])),
        "MLflow store": masked(client.tracking_uri),
        "Experiments": ", ".join(experiment or ()) or "all",
        "Data": data or "all",
    }
    place.mkdir(parents=True, exist_ok=True)
    title = "Runs" if store is None else f"Runs on {store.resolve().name}"
    write_whole(
        out, render(title, runs, found, facts, place=place, listed=listed, audit=audit, more_data=more)
    )
    say(out.resolve())
    document = {
        "page": out.resolve(),
        "runs": len(runs),
        "reports": sum(run.report is not None for run in runs),
        "data": [state.fingerprint for state in found],
        "list": None if listed is None else listed.day,
    }
    return Answer(document)


def _looked_at(store: Path) -> tuple[str, QualityReport]:
    """The fingerprint of a store, and what is wrong with it."""
    from qlib_ext.market.quality.check import check_store
    from qlib_ext.market.store import QlibStore

    with shown_progress() as progress:
        return QlibStore(store).fingerprint(), check_store(store, progress=progress)
