"""Scores that are there already, judged and traded: those of a run, of a file or of a table."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from qlib_ext.api import start
from qlib_ext.api.agreement import as_scores
from qlib_ext.api.keywords import check_keywords, keywords_of
from qlib_ext.api.run import Run
from qlib_ext.api.trading import portfolio_of
from qlib_ext.checks import UserError
from qlib_ext.paths import file_name

if TYPE_CHECKING:
    from qlib_ext.market.store import QlibStore

FOLDER = Path("reports/scores")  # tables of Python, as the files that a run can be made of again


def evaluate(
    scores: pd.Series | pd.DataFrame | str | Path,
    store: str | Path | QlibStore,
    *,
    strategy: Any = None,
    backtest: Mapping[str, Any] | None = None,
    name: str | None = None,
    tracking_uri: str | None = None,
    **given: Any,
) -> Run:
    """Judge and trade scores of any model, as a run of its own: what `qlib-ext evaluate` does.

    Parameters
    ----------
    scores
        Indexed (datetime, instrument), or a day a row and a stock a column; or a file of such. A score dated t is known at
        the close of day t, and is traded on the next. A table is written to `reports/scores`, so that the run can be made again.
    store
        The market.
    strategy
        An object such as `TopkDropout(topk=50, n_drop=5)`, a class, `functools.partial` of one, `{class, kwargs}`, or a file of
        YAML with `strategy` and where needed `backtest`. By default TopkDropout of a number of stocks that suits the universe.
    backtest
        Of `BacktestRecord`: `account`, `benchmark`, `exchange_kwargs`. By default at the close, by the exchange's rules.
    name
        Experiment on MLflow that gets the run; by default `scores`, or the name of the file.
    tracking_uri
        MLflow's store, from here on in this session.
    given
        `universe`, `benchmark`, `label`, `horizon`, `start`, `end`, `topk`, `n_drop`, `columns` and `encoding`, as
        `qlib_ext.workflow.scored.of_file` takes them.

    Raises
    ------
    UserError
        Before anything is run, of what does not fit.

    Examples
    --------
    >>> judged = evaluate(scores, store, universe="csi300", name="mine")
    >>> judged.status
    'FINISHED'
    """
    start.start(tracking_uri)
    from qlib_ext.workflow import scored

    check_keywords("`evaluate`", given, keywords_of(evaluate, scored.of_file) - {"portfolio"})
    market = start.store_at(store)
    path = (
        Path(scores).expanduser() if isinstance(scores, (str, Path)) else _written(scores, name or "scores")
    )
    portfolio = portfolio_of(strategy, backtest)
    called = name or (path.name.partition(".")[0] if isinstance(scores, (str, Path)) else "scores")
    return Run(scored.evaluate_file(path, market.root, name=called, portfolio=portfolio, **given))


def backtest(
    scores: Run | pd.Series | pd.DataFrame | str | Path,
    store: str | Path | QlibStore | None = None,
    *,
    strategy: Any = None,
    backtest: Mapping[str, Any] | None = None,
    topk: int | None = None,
    n_drop: int | None = None,
    name: str | None = None,
    tracking_uri: str | None = None,
    **given: Any,
) -> Run:
    """Trade scores again, with another strategy and without training: what `qlib-ext backtest` does.

    Parameters
    ----------
    scores
        A `Run`, or what names one: its id, the first digits of it, its name, or an experiment for its newest finished run. Or
        scores, as `evaluate` takes them.
    store
        The market; of a run by default that of its data.
    strategy, backtest
        As `evaluate` takes them; of a run, what is not said is as the run had it.
    topk, n_drop
        Numbers of the strategy alone.
    name, tracking_uri, given
        As `evaluate` takes them. Those of `given` are for scores alone, and a `Run` is traded on the store of MLflow that has it.

    Raises
    ------
    UserError
        Before anything is run, of what does not fit.

    Examples
    --------
    >>> fewer = backtest("tiny", strategy=TopkDropout(topk=3, n_drop=1))
    >>> fewer.table("backtest/daily").index.name
    'datetime'
    """
    if isinstance(scores, Run) and tracking_uri is not None:
        raise UserError("`tracking_uri` must be left out for a Run, which is traded on the store that has it")
    start.start(tracking_uri)
    from qlib_ext.workflow.scored import of_file

    check_keywords("`backtest`", given, keywords_of(evaluate, of_file) - {"portfolio"})
    if not isinstance(scores, Run) and (not isinstance(scores, str) or Path(scores).expanduser().is_file()):
        if store is None:
            raise UserError("scores need the store that they are of: name it by `store`")
        return evaluate(
            scores, store, strategy=strategy, backtest=backtest, name=name, topk=topk, n_drop=n_drop, **given
        )
    run = scores if isinstance(scores, Run) else Run(scores)
    if given:
        raise UserError(f"`{next(iter(given))}` is for scores, and `{run.id}` is a run, which keeps its own")
    return run.backtest(store, strategy=strategy, backtest=backtest, topk=topk, n_drop=n_drop, name=name)


def _written(scores: pd.Series | pd.DataFrame, name: str) -> Path:
    """A table of scores as a file, whose name follows from what is in it."""
    table = as_scores(scores, name="scores").dropna().rename("score")
    digest = hashlib.sha256(pd.util.hash_pandas_object(table).to_numpy().tobytes()).hexdigest()[:8]
    path = FOLDER / f"{file_name(name) or 'scores'}-{digest}.parquet"
    path.parent.mkdir(parents=True, exist_ok=True)
    table.to_frame().to_parquet(path)
    return path
