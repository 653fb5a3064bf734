"""Workflows around scores that are there already: a user's file, or what a run predicted."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd

from qlib_ext.checks import UserError, brief, instance, integer, nearest, one_of
from qlib_ext.config.build import dotted, in_one_form
from qlib_ext.config.security import check_classes
from qlib_ext.data.days import as_day
from qlib_ext.data.handlers.panel import LABELS, PanelHandler
from qlib_ext.data.score_file import on_trading_days, read_scores
from qlib_ext.data.scores_only import no_features, scores_only
from qlib_ext.files import load_yaml, read_text
from qlib_ext.market.codes import is_index, region
from qlib_ext.market.importing.import_settings import FILE as IMPORT
from qlib_ext.market.spells import daily_size
from qlib_ext.market.store import QlibStore, read_mapping
from qlib_ext.model.ensemble.combined_scores import CombinedScores
from qlib_ext.model.given_scores import GivenScores
from qlib_ext.records.attribution import AttributionRecord
from qlib_ext.records.backtest import BacktestRecord
from qlib_ext.records.base import looks_into_the_model
from qlib_ext.records.benchmarks import BenchmarksRecord
from qlib_ext.records.construction import ConstructionRecord
from qlib_ext.records.ledger import LedgerRecord
from qlib_ext.records.lookahead import LookaheadRecord
from qlib_ext.records.portfolio import PortfolioRecord
from qlib_ext.records.quality import QualityRecord
from qlib_ext.records.ranking import RankingRecord
from qlib_ext.records.report import ReportRecord
from qlib_ext.records.signal import SignalRecord
from qlib_ext.records.signal_analysis import SignalAnalysisRecord
from qlib_ext.records.sweeps import SweepRecord
from qlib_ext.records.trades import TradesRecord
from qlib_ext.strategy.topk_dropout import TopkDropout
from qlib_ext.workflow.ensemble import with_ensemble_record
from qlib_ext.workflow.run import run_workflow

BEFORE_TRADING = (SignalRecord, QualityRecord, LookaheadRecord, RankingRecord)
AFTER_TRADING = (
    BenchmarksRecord,
    AttributionRecord,
    PortfolioRecord,
    ConstructionRecord,
    TradesRecord,
    SweepRecord,
    SignalAnalysisRecord,
    LedgerRecord,
    ReportRecord,
)
PORTFOLIO = ("strategy", "backtest", "start", "end", "days_per_year")
NO_INDEX = "none"  # what `--benchmark` says where there shall be none
INDICES = {  # of the universes that are called after one
    "csi100": "SH000903",
    "csi300": "SH000300",
    "csi500": "SH000905",
    "csi800": "SH000906",
    "csi1000": "SH000852",
    "sse50": "SH000016",
}
TOPK = 50  # stocks held at most
SHARE = 5  # and at most a fifth of the universe
DROPS = 10  # of which a tenth is replaced a day


def read_portfolio(path: Path) -> dict[str, Any]:
    """A strategy and what it trades on, from a YAML file with the arguments of `BacktestRecord`.

    Raises
    ------
    UserError
        If it cannot be read, is no such mapping, or names a class that no configuration may name.
    """
    try:
        found = load_yaml(read_text(path))
    except UserError:
        raise
    except (OSError, ValueError) as error:
        raise UserError(f"the portfolio `{path}` must be YAML: {error}") from error
    if not isinstance(found, Mapping) or "strategy" not in found:
        raise UserError(
            f"the portfolio `{path}` must be a mapping with `strategy`, and where needed {', '.join(PORTFOLIO[1:])}; found "
            f"{brief(found)}"
        )
    for key in found:
        if key not in PORTFOLIO:
            raise UserError(
                f"the portfolio `{path}` has no place for `{key}`{nearest(str(key), PORTFOLIO)}; it takes "
                f"{', '.join(PORTFOLIO)}"
            )
    check_classes(found, f"portfolio {path.name}")
    return dict(found)


def with_places(portfolio: Mapping[str, Any], topk: int | None, n_drop: int | None) -> dict[str, Any]:
    """The portfolio with other numbers of stocks in its strategy, where they are given."""
    given = {name: value for name, value in (("topk", topk), ("n_drop", n_drop)) if value is not None}
    strategy = in_one_form(portfolio["strategy"], "portfolio.strategy")
    return {**portfolio, "strategy": {**strategy, "kwargs": {**strategy["kwargs"], **given}}}


def of_file(
    scores: Path,
    store: QlibStore,
    *,
    universe: str | None = None,
    benchmark: str | None = None,
    label: str | None = None,
    horizon: int | None = None,
    start: str | None = None,
    end: str | None = None,
    portfolio: Mapping[str, Any] | None = None,
    topk: int | None = None,
    n_drop: int | None = None,
    columns: Mapping[str, str] | None = None,
    encoding: str = "utf-8",
) -> dict[str, Any]:
    """The task that judges and trades a file of scores.

    Parameters
    ----------
    scores
        As `qlib_ext.data.score_file.read_scores` takes it, with `columns` and `encoding`.
    store
        The market.
    universe, benchmark
        By default the only ones of the store; of benchmarks that of the portfolio, or the index that the universe is called
        after. `none` as benchmark compares with no index.
    label
        The return that the scores are held against, an expression; by default that from the close of t + 1 to the next.
    horizon
        Instead, over so many days from the close of t + 1.
    start, end
        First and last day of the scores to take.
    portfolio
        As `read_portfolio` has it; by default TopkDropout. Where it has no `exchange_kwargs`, trades are at the close, by the
        exchange's rules.
    topk, n_drop
        Numbers of the strategy, in the place of the portfolio's.

    Raises
    ------
    UserError
        If something does not fit, or the store leaves open what is not said.
    """
    if label is not None and horizon is not None:
        raise UserError(
            f"one of `--label` and `--horizon` must be given, found both: {brief(label)} and {horizon}"
        )
    found = read_scores(scores, store, columns=columns, encoding=encoding)
    dated, _ = on_trading_days(found.scores, store.calendar, scores.name)
    segment = _segment(dated, start, end, scores)
    universe = choose_universe(store, universe)
    labels = dict(LABELS)
    if label is not None:
        labels["RETURN"] = label
    if horizon is not None:
        labels["RETURN"] = f"Ref($close, -{integer('horizon', horizon, 1) + 1}) / Ref($close, -1) - 1"
    handler = {"instruments": universe, "labels": labels}
    traded, index = _traded(store, universe, segment, portfolio, benchmark, topk)
    given: dict[str, Any] = {"path": str(scores.expanduser().absolute())}
    if columns:
        given["columns"] = dict(columns)
    if encoding != "utf-8":
        given["encoding"] = encoding
    return {
        "model": _config(GivenScores, **given),
        "dataset": {
            "class": "qlib_ext.data.dataset.DailyPanelDataset",
            "kwargs": {
                "benchmark": index,
                "record_fields": ["change"],
                "handler": _config(PanelHandler, **handler, features=no_features(handler)),
                "segments": {"test": [f"{day:%Y-%m-%d}" for day in segment]},
            },
        },
        "record": _records(with_places(traded, topk, n_drop)),
    }


def of_model(
    model: Any,
    dataset: Mapping[str, Any],
    store: QlibStore,
    *,
    portfolio: Mapping[str, Any] | None = None,
    record: Sequence[Any] | None = None,
) -> dict[str, Any]:
    """The task that trains a model on a dataset, judges its scores and trades them.

    Parameters
    ----------
    model
        `{class, kwargs}` of it.
    dataset
        `{class, kwargs}` of a `DailyPanelDataset` with a segment `test`.
    store
        The market.
    portfolio
        As `read_portfolio` has it; by default TopkDropout, as for a file of scores.
    record
        `{class, kwargs}` of each record; by default those that judge any scores.

    Raises
    ------
    UserError
        If something does not fit, or the store leaves open what is not said.
    """
    task = {"model": model, "dataset": dataset}
    if record is not None:
        return {**task, "record": [*record]}
    kwargs = in_one_form(dataset, "dataset")["kwargs"]
    universe = in_one_form(kwargs.get("handler"), "dataset.handler")["kwargs"].get("instruments")
    segments = kwargs.get("segments") or {}
    named = segments.get("test") if isinstance(segments, Mapping) else None
    days = (store.calendar[0], store.calendar[-1])
    if isinstance(named, (list, tuple)) and len(named) == 2:
        days = as_day("segments.test", named[0]), as_day("segments.test", named[1])
    said = ((portfolio or {}).get("backtest") or {}).get("benchmark")
    index = said or (kwargs["benchmark"] or NO_INDEX if "benchmark" in kwargs else None)
    traded, _ = _traded(store, str(universe), days, portfolio, index, None)
    return {**task, "record": _records(traded)}


def _traded(
    store: QlibStore,
    universe: str,
    segment: tuple[pd.Timestamp, pd.Timestamp],
    portfolio: Mapping[str, Any] | None,
    benchmark: str | None,
    topk: int | None,
) -> tuple[dict[str, Any], str | None]:
    """How scores are traded, with what is not said filled in; and the index."""
    traded = dict(portfolio or _portfolio(store, universe, segment, topk))
    how = dict(instance("backtest", traded.get("backtest") or {}, Mapping))
    own = instance("backtest.benchmark", how.get("benchmark") or "", str)
    how.setdefault("exchange_kwargs", _rules(store))
    index = choose_benchmark(store, benchmark if benchmark is not None else own or None, universe)
    traded["backtest"] = {**how, "benchmark": index}
    return traded, index


def _records(traded: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The records that judge any scores, and trade them."""
    return [
        *map(_config, BEFORE_TRADING),
        _config(BacktestRecord, **traded),
        *map(_config, AFTER_TRADING),
    ]


def of_run(
    task: Mapping[str, Any],
    run: str,
    portfolio: Mapping[str, Any] | None = None,
    *,
    topk: int | None = None,
    n_drop: int | None = None,
) -> dict[str, Any]:
    """The task that trades the scores of a run again; its other records stay, but for those that look into its model.

    Parameters
    ----------
    task
        Of that run.
    run
        Its id.
    portfolio
        As `read_portfolio` has it; by default the run's own. What it does not say of `backtest` is as in the run.
    topk, n_drop
        Numbers of the strategy, in the place of the portfolio's.

    Raises
    ------
    UserError
        If neither the run nor the caller has a strategy.
    """
    records = [in_one_form(record, "record") for record in _listed(task.get("record"))]
    records = [record for record in records if not looks_into_the_model(record)]
    own: dict[str, Any] = next(
        (record["kwargs"] for record in records if record["class"] == dotted(BacktestRecord)), {}
    )
    traded = {**own, **(portfolio or {})}
    if "strategy" not in traded:
        raise UserError(
            f"the run {run} has no strategy to trade its scores by: name one by `--portfolio FILE`"
        )
    traded["backtest"] = {**(own.get("backtest") or {}), **((portfolio or {}).get("backtest") or {})}
    again = _config(BacktestRecord, **with_places(traded, topk, n_drop))
    there = {record["class"] for record in records}
    lacking = [_config(kind) for kind in AFTER_TRADING if dotted(kind) not in there]
    records = [again if record["class"] == dotted(BacktestRecord) else record for record in records]
    if again not in records:
        records = [*records, again]
    report = [record for record in [*records, *lacking] if record["class"] == dotted(ReportRecord)]
    records = [record for record in [*records, *lacking] if record not in report]
    return {
        "model": _config(GivenScores, run=run),
        "dataset": scores_only(task["dataset"]),
        "record": copy.deepcopy([*records, *report[:1]]),
    }


def of_runs(
    task: Mapping[str, Any],
    runs: Mapping[str, str],
    combine: Mapping[str, Any] | None = None,
    portfolio: Mapping[str, Any] | None = None,
    *,
    label: str = "RETURN",
    topk: int | None = None,
    n_drop: int | None = None,
) -> dict[str, Any]:
    """The task that combines the scores of several runs, judges and trades them; on the data of one of them.

    Parameters
    ----------
    task
        Of the run whose days, labels, records and portfolio are taken.
    runs
        Name -> id of each.
    combine
        `{class, kwargs}` of a combiner; by default the mean of z-scores.
    portfolio, topk, n_drop
        As `of_run` takes them.
    label
        Raw label that a combiner learns by.

    Raises
    ------
    UserError
        As from `of_run`.
    """
    found = of_run(task, next(iter(runs.values())), portfolio, topk=topk, n_drop=n_drop)
    given: dict[str, Any] = {"runs": dict(runs), "label": label}
    if combine is not None:
        given["combine"] = dict(combine)
    return with_ensemble_record({**found, "model": _config(CombinedScores, **given)})


def evaluate_file(
    scores: Path,
    store: Path,
    *,
    name: str | None = None,
    portfolio: Path | Mapping[str, Any] | None = None,
    **given: Any,
) -> str:
    """Judge and trade a file of scores, as a run of its own; the id of the run.

    Parameters
    ----------
    scores, given
        As `of_file` takes them.
    store
        Directory of the market.
    name
        Experiment of the run; by default named after the file.
    portfolio
        A file for `read_portfolio`, or what it would read.

    Raises
    ------
    UserError
        As from `of_file` and `run_task`.
    """
    market = QlibStore(store)
    traded = read_portfolio(portfolio) if isinstance(portfolio, Path) else portfolio
    task = of_file(scores, market, portfolio=traded, **given)
    return run_task(task, market.root, region_of(market), name or scores.name.partition(".")[0])


def run_task(task: Mapping[str, Any], store: Path, of_region: str, experiment: str) -> str:
    """Check a task and run it under the experiment manager, as `qrun` would; the id of its run.

    Raises
    ------
    UserError
        Before the run begins, of what is wrong with the task; later, of what only its data can tell.
    """
    workflow: dict[str, Any] = {
        "experiment_name": experiment,
        "qlib_init": {"provider_uri": str(store), "region": of_region},
        "task": task,
    }
    return run_workflow(workflow)


def region_of(store: QlibStore) -> str:
    """`cn` or `us`, by what the store says it was imported as, or else by its codes."""
    said = _imported(store).get("region")
    found = region([code for code in store.instruments() if not is_index(code)]) if said is None else said
    return one_of("region of the store", found or "us", ("cn", "us"))


def _segment(
    scores: pd.Series, start: str | None, end: str | None, path: Path
) -> tuple[pd.Timestamp, pd.Timestamp]:
    """First and last day that the scores have, within what was asked for."""
    days = scores.index.get_level_values("datetime").unique()
    first = None if start is None else as_day("--start", start)
    last = None if end is None else as_day("--end", end)
    kept = days[(days >= (first or days.min())) & (days <= (last or days.max()))]
    if not len(kept):
        there = f"{days.min():%Y-%m-%d} to {days.max():%Y-%m-%d}" if len(days) else "no trading day at all"
        raise UserError(
            f"`{path}` must have scores of trading days of the store{' from ' + start if start else ''}"
            f"{' to ' + end if end else ''}, found {there}"
        )
    return kept.min(), kept.max()


def choose_universe(store: QlibStore, name: str | None) -> str:
    """A universe of the store, by default the only one; a UserError where that is open."""
    known = store.universes()
    if name is not None:
        return one_of("universe", name, known)
    lists = [each for each in known if each != "all"] or known
    if len(lists) != 1:
        raise UserError(
            f"the store has the universes {', '.join(known)}: choose one by `--universe NAME`, in Python by `universe=`"
        )
    return lists[0]


def choose_benchmark(store: QlibStore, code: str | None, universe: str) -> str | None:
    """An instrument to compare with, by default the index that a universe is called after or the only one; `none` is None."""
    if code == NO_INDEX:
        return None
    if code is not None:
        known = store.instruments()
        if code.upper() not in known:
            raise UserError(
                f"`--benchmark` must be an instrument of the store {store.root}, or `{NO_INDEX}`, found {brief(code)}"
                f"{nearest(code.upper(), known)}"
            )
        return code.upper()
    if INDICES.get(universe) in store.instruments():
        return INDICES[universe]
    said: Sequence[str] = _imported(store).get("benchmarks") or ()
    members = set(store.membership(universe)["instrument"]) if universe != "all" else set()
    found = [each for each in said if each in store.instruments()] or [
        each for each in store.instruments() if is_index(each) and each not in members
    ]
    if len(found) == 1:
        return found[0]
    told = (
        f"the store has the indices {', '.join(found)}" if found else "the store has no index that is known"
    )
    raise UserError(
        f"{told}: name one by `--benchmark CODE`, or say `--benchmark {NO_INDEX}` to compare with none; in Python by `benchmark=`"
    )


def _imported(store: QlibStore) -> Mapping[str, Any]:
    """What `qlib-ext data import` noted."""
    kept = read_mapping(store.root / IMPORT).get("settings")
    return kept if isinstance(kept, Mapping) else {}


def _portfolio(
    store: QlibStore, universe: str, segment: tuple[pd.Timestamp, pd.Timestamp], topk: int | None
) -> dict[str, Any]:
    """TopkDropout of `topk` stocks, or of a number that suits the universe, by the rules of the exchange."""
    days = store.calendar[(store.calendar >= segment[0]) & (store.calendar <= segment[1])]
    spells = store.membership(universe)
    size = int(daily_size(days, spells[spells["instrument"].isin(store.instruments())]).median())
    topk = max(1, min(TOPK, size // SHARE)) if topk is None else topk
    return {"strategy": _config(TopkDropout, topk=topk, n_drop=max(1, topk // DROPS))}


def _rules(store: QlibStore) -> dict[str, Any]:
    """Trades at the close, by the rules of the store's exchange."""
    return {"deal_price": "close", "rules": region_of(store)}


def _config(kind: type, **kwargs: Any) -> dict[str, Any]:
    named = {"class": dotted(kind)}
    return {**named, "kwargs": kwargs} if kwargs else named


def _listed(records: Any) -> list[Any]:
    return [records] if isinstance(records, Mapping) else [*(records or ())]
