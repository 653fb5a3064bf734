"""One call from a trained run and a store to the list of a day and the orders of the next."""

from __future__ import annotations

import logging
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pandas as pd
import qlib
from mlflow.tracking import MlflowClient
from qlib.config import REG_CN, REG_TW, REG_US

from qlib_ext.checks import UserError, one_of
from qlib_ext.market.store import QlibStore, synthetic_note
from qlib_ext.recommend.daily_list import daily_list
from qlib_ext.recommend.holdings import Holdings, check_cash, read_holdings
from qlib_ext.recommend.memory import Memory
from qlib_ext.recommend.orders import looks_back, next_orders
from qlib_ext.recommend.scoring import find_day, last_scored, score, score_from_file
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.tracking.artifacts import unchecked_note
from qlib_ext.tracking.runs import find_run


@dataclass(frozen=True)
class Recommendation:
    """What a run says of a day.

    Attributes
    ----------
    day
        The day t; the list is known at its close and traded on the next.
    listed
        From `qlib_ext.recommend.daily_list.daily_list`.
    orders
        The table of `qlib_ext.recommend.orders.next_orders`; None where no account was given.
    notes, warnings
        What a reader should know, and what must be looked into first, as sentences.
    source
        Run, store, universe, cash and the day of the trade, ready for JSON.
    memory
        What the strategy remembers after the orders, where it was asked for.
    """

    day: pd.Timestamp
    listed: pd.DataFrame
    orders: pd.DataFrame | None
    notes: list[str]
    warnings: list[str]
    source: dict[str, Any]
    memory: Memory | None = None


def recommend(
    client: MlflowClient,
    wanted: str,
    store_path: str | Path | None = None,
    *,
    date: str | None = None,
    current: Path | None = None,
    cash: float | None = None,
    scores: Path | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str | None = None,
    on_the_day: bool = False,
    memory: Path | None = None,
) -> Recommendation:
    """Score a day with a trained run, and ask its strategy for the orders of the next. Sets Qlib up on the store.

    Parameters
    ----------
    client
        Of the MLflow store that has the run.
    wanted
        The run, as `qlib_ext.tracking.runs.find_run` takes it.
    store_path
        The store to score; by default the one that the run was made with.
    date
        A day of the store; by default its newest, or with `on_the_day` the one before.
    current
        CSV file of holdings, as `qlib_ext.recommend.holdings.read_holdings` reads it.
    cash
        In currency; without `current` the account holds nothing else.
    scores
        A file of scores, in the place of the run's model; `date` is then by default the file's newest day. A run that was
        given the scores of another run is scored by the model of that one, and a walk-forward by its newest fold.
    columns, encoding
        Of that file, as `qlib_ext.data.score_file.read_scores` takes them.
    on_the_day
        The store has the day of the trade: orders are by its prices, limits and suspensions, as in the backtest.
    memory
        File of what the strategy remembers of earlier calls, which may not be there yet; it is read, and what is to be written
        comes back.

    Raises
    ------
    UserError
        In one line, if anything does not fit.
    """
    if cash is not None:
        check_cash(cash)
    for name, given in (("--on-the-day", on_the_day), ("--memory", memory is not None)):
        if given and current is None and cash is None:
            raise UserError(
                f"`{name}` goes with orders, and there is no account: give `--current FILE` or `--cash`"
            )
    with tempfile.TemporaryDirectory() as folder:
        run = TrainedRun.open(client, find_run(client, wanted), Path(folder) / "run", learned=False)
        scorer = None if scores is not None else _scorer(client, run, Path(folder))
        root = store_path if store_path is not None else run.artifacts.tags.get("store")
        if root is None:
            raise UserError(
                f"the run {run.run_id} does not say where its data lay: name the store by `--store DIR`"
            )
        store = QlibStore(root)
        account = None
        if current is not None:
            account = read_holdings(current, store, cash)
        elif cash is not None:
            account = Holdings(cash)
        region = one_of("region of the run", run.region, (REG_CN, REG_US, REG_TW))
        qlib.init(
            provider_uri=str(store.root),
            region=region,
            kernels=1,
            logging_level=logging.ERROR,
            clear_mem_cache=True,
        )
        if scores is not None:
            scored = score_from_file(run, store, scores, date, columns=columns, encoding=encoding)
        else:
            assert scorer is not None
            wanted_day = find_day(store, date, before=on_the_day)
            after = last_scored(run) if account is not None and looks_back(run) else None
            scored = score(scorer, store, wanted_day, asked=date is not None, after=after)
        day = scored.day
        trained = scorer or run
        listed = daily_list(run, store, scored, trained)
        notes, warnings = scored.notes, scored.warnings
        if scores is None:
            age(run, day, notes, warnings)
        if run.artifacts.unchecked:
            notes.append(unchecked_note([run.name]))
        if store.sample:
            warnings.insert(0, synthetic_note(store.sample.get("seed")))
        unseen = listed.index[listed["new"] & listed["rank"].notna()]
        if len(unseen):
            shown = f"{', '.join(unseen[:5])}{', ...' if len(unseen) > 5 else ''}"
            notes.append(
                f"{len(unseen)} of the scored stocks have no day in the training, the model has never seen them: {shown}"
            )
        if trained.segment("train") is not None and listed["training_days"].isna().all():
            notes.append(
                "the store does not reach back to the training: which stocks are new to the model is unknown"
            )
        orders = None
        if account is not None:
            orders = next_orders(
                run, store, listed, account, day, scored.past, on_the_day=on_the_day, memory=memory
            )
            notes += orders.notes
        source = {
            "run": run.run_id,
            "run_name": run.name,
            "scores": scores.name if scores is not None else scorer.run_id if scorer is not None else None,
            "store": str(store.root),
            "day": f"{day:%Y-%m-%d}",
            "universe": run.summary["universe"],
            "cash": None if account is None else account.cash,
            "trade_day": None if orders is None else f"{orders.day:%Y-%m-%d}",
        }
    if orders is None:
        return Recommendation(day, listed, None, notes, warnings, source)
    return Recommendation(day, listed, orders.table, notes, warnings, source, orders.memory)


def _scorer(client: MlflowClient, run: TrainedRun, folder: Path) -> TrainedRun:
    """The run whose model scores for a run: itself, the run whose scores it was given, or its newest fold."""
    met = [run.run_id]
    while (other := run.scored_by()) is not None:
        found = find_run(client, other)
        if found.info.run_id in met:
            raise UserError(f"the runs {' and '.join(met)} name each other as the one that made their scores")
        met.append(found.info.run_id)
        run = TrainedRun.open(client, found, folder / f"scorer{len(met)}", learned=False)
    run.check_learned()
    members = [
        TrainedRun.open(client, find_run(client, member), folder / f"member{k}")
        for k, member in enumerate(run.member_runs())
    ]
    return replace(run, members=tuple(members))


def age(run: TrainedRun, day: pd.Timestamp, notes: list[str], warnings: list[str]) -> None:
    """Say of a walk-forward which fold scores, and from when on another one is due."""
    fold = run.newest_fold()
    if fold is None:
        return
    due = pd.Timestamp(fold["due"])
    notes.append(
        f"scored by fold {fold['fold']}, the newest of the walk-forward: trained on days up to {fold['train'][1]}, chosen on days "
        f"up to {fold['valid'][1]}"
    )
    if day < due:
        notes.append(f"the next fold is due on {due:%Y-%m-%d}")
        return
    warnings.append(
        f"the model is due for retraining since {due:%Y-%m-%d}, {(day - due).days} days before this one: run the workflow again on "
        "this store"
    )
