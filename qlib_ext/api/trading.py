"""Scores of a run traded again, and how Python says by what."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from qlib_ext.checks import UserError, brief
from qlib_ext.config.described import described


def trade_run(
    wanted: str,
    portfolio: Path | Mapping[str, Any] | None = None,
    *,
    topk: int | None = None,
    n_drop: int | None = None,
    store: Path | None = None,
    name: str | None = None,
) -> str:
    """Trade the scores of a run on MLflow again; the id of the new run.

    Parameters
    ----------
    wanted
        As `qlib_ext.tracking.runs.find_run` takes it.
    portfolio
        A file for `qlib_ext.workflow.scored.read_portfolio`, or what it would read, which may leave out the strategy.
    topk, n_drop
        Numbers of the strategy.
    store
        Directory of the market; by default that of the run's data.
    name
        Experiment of the new run; by default that of the run, `traded again`.

    Raises
    ------
    UserError
        Of what does not fit, before anything is run.
    """
    from qlib_ext.recommend.trained import TrainedRun
    from qlib_ext.tracking.runs import connect, find_run
    from qlib_ext.workflow import scored

    client = connect()
    traded = scored.read_portfolio(portfolio) if isinstance(portfolio, Path) else portfolio
    with tempfile.TemporaryDirectory() as folder:
        run = TrainedRun.open(client, find_run(client, wanted), Path(folder), learned=False)
        region = run.region
    task = scored.of_run(run.config, run.run_id, traded, topk=topk, n_drop=n_drop)
    root = store or run.artifacts.tags.get("store")
    if root is None:
        raise UserError(
            f"the run {run.run_id} does not say where its data lay: name the store by `--store DIR`, in Python by `store=`"
        )
    return scored.run_task(
        task, Path(root), region, name or f"{run.artifacts.info['experiment']} traded again"
    )


def portfolio_of(strategy: Any, backtest: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """What a portfolio's file would say; None where nothing is said."""
    found: dict[str, Any] = {}
    if isinstance(strategy, Path) or (
        isinstance(strategy, str) and Path(strategy).suffix in (".yaml", ".yml")
    ):
        from qlib_ext.workflow.scored import read_portfolio

        found = read_portfolio(Path(strategy).expanduser())
    elif isinstance(strategy, str):
        raise UserError(
            f"`strategy` must be an object, a class, `{{class, kwargs}}` or a YAML file, found {brief(strategy)}"
        )
    elif strategy is not None:
        found = {"strategy": described(strategy, name="strategy")}
    if backtest is not None:
        found["backtest"] = {**found.get("backtest", {}), **described(backtest, name="backtest")}
    return found or None
