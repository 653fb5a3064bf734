"""`qlib-ext backtest`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer
from qlib_ext.cli.evaluate import of_file
from qlib_ext.cli.finished import of_run
from qlib_ext.cli.options import (
    Benchmark,
    Columns,
    Encoding,
    End,
    Horizon,
    Label,
    Name,
    NDrop,
    Portfolio,
    Start,
    Store,
    TopK,
    TrackingUri,
    Universe,
    pairs,
)


def backtest(
    scores: Annotated[
        str,
        typer.Argument(
            metavar="RUN|SCORES",
            help="A run (id, first digits of it, name, or experiment for its newest), or a file of scores.",
            show_default=False,
        ),
    ],
    portfolio: Portfolio = None,
    topk: TopK = None,
    n_drop: NDrop = None,
    store: Store = None,
    universe: Universe = None,
    benchmark: Benchmark = None,
    label: Label = None,
    horizon: Horizon = None,
    start: Start = None,
    end: End = None,
    column: Columns = None,
    encoding: Encoding = None,
    name: Name = None,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Trade scores again that a run has made, or those of a file, with any strategy. Nothing is trained.

    The options from `--universe` to `--encoding` are for a file; a run keeps its own.
    """
    given = {
        "universe": universe,
        "benchmark": benchmark,
        "label": label,
        "horizon": horizon,
        "start": start,
        "end": end,
    }
    columns = pairs("--column", column, "score=alpha", empty=False)
    path = Path(scores).expanduser()
    if path.is_file():
        places = {"topk": topk, "n_drop": n_drop}
        reading = {"columns": columns, "encoding": encoding or "utf-8"}
        return of_file(path, store, name, tracking_uri, portfolio, **given, **places, **reading)
    for option, value in {**given, "column": columns, "encoding": encoding}.items():
        if value:
            raise UserError(
                f"`--{option}` is for a file of scores, and `{scores}` is none: a run keeps its own, and `--portfolio FILE` can "
                "say what it is traded by"
            )
    return _of_run(scores, portfolio, topk, n_drop, store, name, tracking_uri)


def _of_run(
    wanted: str,
    portfolio: Path | None,
    topk: int | None,
    n_drop: int | None,
    store: Path | None,
    name: str | None,
    tracking_uri: str | None,
) -> Answer:
    from qlib_ext.terminal import quiet_imports  # all here, so that `qlib-ext --help` stays quick

    with quiet_imports():
        from qlib_ext.api.trading import trade_run
    from qlib_ext.tracking.runs import use

    use(tracking_uri)
    made = trade_run(wanted, portfolio, topk=topk, n_drop=n_drop, store=store, name=name)
    return of_run(made, [wanted])
