"""`qlib-ext ledger`."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer, exits
from qlib_ext.terminal import cell, console, empty_table, say

SHOWN = 30


@exits({1: "a run says that it is in the ledger, and is not", 2: "a line of the ledger was changed"})
def ledger(
    store: Annotated[Path, typer.Argument(help="Qlib data directory.")],
    tracking_uri: Annotated[
        str | None,
        typer.Option(
            help="MLflow store whose runs must all be in the ledger; MLFLOW_TRACKING_URI by default."
        ),
    ] = None,
    csv: Annotated[bool, typer.Option("--csv", help="Print all trials as CSV and nothing else.")] = False,
) -> Answer:
    """Show every look at the test days of a store, and check that no line was changed or taken out."""
    import os  # here, so that `qlib-ext --help` stays quick

    from qlib_ext.tracking import ledger as trials
    from qlib_ext.tracking.runs import all_tags, connect

    path = trials.ledger_path(store)
    if not path.exists() and not store.expanduser().is_dir():
        raise UserError(f"expected a store at `{store}`, or its ledger `{path}`, found neither")
    known = trials.entries(path)
    table = trials.tabulate(known)
    if csv:
        say(table.to_csv().rstrip("\n"), lines=True)
    else:
        shown = empty_table(f"Trials, {path.name}")
        for name in ("", "When", "Run", "Test days", "RankIC", "Ratio a day"):
            shown.add_column(name, overflow="fold")
        for entry in known[-SHOWN:]:
            trial = entry.trial
            figures = ("" if value is None else f"{value:.4f}" for value in (trial.rank_ic, trial.ratio))
            cells = (
                entry.number,
                trial.time[:16],
                trial.name or trial.run_id[:8],
                f"{trial.first} {trial.last}",
                *figures,
            )
            shown.add_row(*(cell(str(each)) for each in cells))
        console().print(shown)
        say(f"{len(known)} trials in {path}; every line follows from the one before it")
    uri = tracking_uri or os.environ.get("MLFLOW_TRACKING_URI")
    missing = trials.taken_out(path, all_tags(connect(uri), trials.TAG)) if uri else []
    if missing:
        say(
            f"{len(missing)} runs say that they are in a ledger of this name, and are not in this one: {', '.join(missing[:5])}",
            err=True,
        )
    looks = [{"number": entry.number, **asdict(entry.trial), "hash": entry.hash} for entry in known]
    return Answer({"ledger": path, "trials": looks, "missing": missing}, 1 if missing else 0)
