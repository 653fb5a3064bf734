"""`qlib-ext evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from qlib_ext.checks import UserError
from qlib_ext.cli.answer import Answer
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


def evaluate(
    scores: Annotated[
        Path,
        typer.Argument(
            metavar="SCORES",
            help="CSV or Parquet: a day, a code and a score a row; or a day a row and a column a stock.",
            show_default=False,
        ),
    ],
    store: Store = None,
    universe: Universe = None,
    benchmark: Benchmark = None,
    label: Label = None,
    horizon: Horizon = None,
    start: Start = None,
    end: End = None,
    portfolio: Portfolio = None,
    topk: TopK = None,
    n_drop: NDrop = None,
    column: Columns = None,
    encoding: Encoding = None,
    name: Name = None,
    tracking_uri: TrackingUri = None,
) -> Answer:
    """Judge scores of any model: ranking, backtest, audits and report, as a run of its own. Nothing is trained.

    A score dated t is taken to be known at the close of day t, and is traded on the next.
    """
    return of_file(
        scores,
        store,
        name,
        tracking_uri,
        portfolio,
        universe=universe,
        benchmark=benchmark,
        label=label,
        horizon=horizon,
        start=start,
        end=end,
        topk=topk,
        n_drop=n_drop,
        columns=pairs("--column", column, "score=alpha", empty=False),
        encoding=encoding or "utf-8",
    )


def of_file(
    scores: Path,
    store: Path | None,
    name: str | None,
    tracking_uri: str | None,
    portfolio: Path | None,
    **given: Any,
) -> Answer:
    """Evaluate a file of scores; `given` as `qlib_ext.workflow.scored.evaluate_file` takes it."""
    from qlib_ext.terminal import quiet_imports  # all here, so that `qlib-ext --help` stays quick

    with quiet_imports():
        from qlib_ext.workflow import scored
    from qlib_ext.tracking.runs import use

    if store is None:
        raise UserError("scores of a file need the store that they are of: name it by `--store DIR`")
    use(tracking_uri)
    return of_run(scored.evaluate_file(scores, store, name=name, portfolio=portfolio, **given))
