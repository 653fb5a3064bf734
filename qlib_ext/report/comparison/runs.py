"""What of each run is compared: its settings, its metrics and its daily series."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import mlflow.exceptions
import pandas as pd
from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.masking import masked
from qlib_ext.metrics.bootstrap import span_of
from qlib_ext.report.comparison.settings import seed_of, settings
from qlib_ext.report.verdict import synthetic
from qlib_ext.tracking.artifacts import DamagedError, RunArtifacts, stored

RANKING = "ranking/daily.parquet"
BACKTEST = "backtest/daily.parquet"
SETUP = "backtest/setup.json"
SUMMARY = "data/summary.json"
READS = (RANKING, BACKTEST, SETUP, SUMMARY)
LEDGER = "ledger/trials.csv"

IC, RANK_IC, RETURN, INDEX, EXCESS = "IC", "RankIC", "return", "index", "excess"


@dataclass(frozen=True)
class ComparedRun:
    """A finished run.

    Attributes
    ----------
    run_id, name, experiment, started, seed
        As MLflow has them; an en dash where there is no seed.
    settings
        As `qlib_ext.report.comparison.settings.settings` reads them.
    tags, metrics
        As MLflow has them, tags without MLflow's own.
    daily
        By day, of `IC` and `RankIC` (against the first label), `return` (of the account, after cost), `index` and
        `excess` (the difference of these two), what the run has.
    span_days
        Days of return that the first label looks at.
    conditions
        What must be the same for figures to be comparable: name -> text; what the run does not say is not in it.
    lacking
        Artifacts that it would have been read for and does not have.
    synthetic
        What is said of a run on a synthetic market; empty of another.
    unchecked
        Artifacts that were read and of which the run keeps no checksum.
    trials
        The ledger of trials up to this run, of those that looked at some of the same test days; empty where it is not known.
    """

    run_id: str
    name: str
    experiment: str
    started: str
    seed: str
    settings: Mapping[str, str]
    tags: Mapping[str, str]
    metrics: Mapping[str, float]
    daily: pd.DataFrame
    span_days: int = 1
    conditions: Mapping[str, str] = field(default_factory=dict)
    lacking: Sequence[str] = ()
    synthetic: str = ""
    unchecked: Sequence[str] = ()
    trials: pd.DataFrame = field(default_factory=pd.DataFrame)

    @property
    def traits(self) -> dict[str, str]:
        """All by which runs can be grouped: settings, tags, experiment, seed and the run's name."""
        own = {"experiment": self.experiment, "seed": self.seed, "name": self.name or self.run_id[:8]}
        return {**self.tags, **self.settings, **own}


@dataclass(frozen=True)
class LeftOut:
    """A run that is not compared, and why; `damaged` where its artifacts are not what it wrote."""

    run_id: str
    name: str
    why: str
    damaged: bool = False


def read(client: MlflowClient, runs: Iterable[Run]) -> tuple[list[ComparedRun], list[LeftOut]]:
    """Read the runs that can be compared, and say of the others why they cannot.

    A run is left out when it is not finished, or has neither daily ICs nor a backtest, or its artifacts cannot be
    fetched or read.
    """
    compared: list[ComparedRun] = []
    left_out: list[LeftOut] = []
    for run in runs:
        run_id, name = run.info.run_id, run.info.run_name or ""
        if run.info.status != "FINISHED":
            left_out.append(LeftOut(run_id, name, f"not finished: MLflow has it as {run.info.status}"))
            continue
        try:
            there = stored(client, run_id, (*READS, LEDGER))
            if RANKING not in there and BACKTEST not in there:
                left_out.append(LeftOut(run_id, name, f"it has neither `{RANKING}` nor `{BACKTEST}`"))
                continue
            with tempfile.TemporaryDirectory() as folder:
                found = RunArtifacts.download(client, run_id, there, Path(folder))
                compared.append(view(found, [path for path in READS if path not in there]))
        except (
            mlflow.exceptions.MlflowException,
            AttributeError,
            LookupError,
            OSError,
            StopIteration,
            TypeError,
            ValueError,
        ) as error:
            reason = masked(str(error)).strip().splitlines() or [type(error).__name__]
            why = f"its artifacts cannot be read: {reason[0][:300]}"
            left_out.append(LeftOut(run_id, name, why, isinstance(error, DamagedError)))
    return compared, left_out


def view(run: RunArtifacts, lacking: Sequence[str] = ()) -> ComparedRun:
    """What of a run is compared.

    Parameters
    ----------
    run
        With what it has of `READS`.
    lacking
        The others of them.
    """
    ranking = run.table(RANKING) if run.has(RANKING) else None
    backtest = run.table(BACKTEST) if run.has(BACKTEST) else None
    columns: dict[str, pd.Series] = {}
    label = None
    if ranking is not None:
        label = next(name for name in ranking.columns if name.startswith("ic/")).removeprefix("ic/")
        columns |= {IC: ranking[f"ic/{label}"], RANK_IC: ranking[f"rank_ic/{label}"]}
    if backtest is not None:
        after = backtest["return"] - backtest["cost"]
        columns[RETURN] = after
        if "benchmark" in backtest:
            columns |= {INDEX: backtest["benchmark"], EXCESS: after - backtest["benchmark"]}
    daily = pd.DataFrame(columns).sort_index()
    daily.index = pd.DatetimeIndex(daily.index)
    return ComparedRun(
        run_id=str(run.info["run_id"]),
        name=str(run.info["run_name"]),
        experiment=str(run.info["experiment"]),
        started=str(run.info["started"]),
        seed=seed_of(run.params, run.tags),
        settings=settings(run.params),
        tags={name: value for name, value in run.tags.items() if not name.startswith("mlflow.")},
        metrics=dict(run.metrics),
        daily=daily,
        span_days=_span_days(run, label),
        conditions=_conditions(run, label),
        lacking=[*lacking],
        synthetic=synthetic(run),
        unchecked=run.unchecked,
        trials=run.table(LEDGER) if run.has(LEDGER) else pd.DataFrame(),
    )


def _span_days(run: RunArtifacts, label: str | None) -> int:
    summary: dict[str, Any] = run.json(SUMMARY) if run.has(SUMMARY) else {}
    return span_of(label, summary.get("label_days", {}))


def _conditions(run: RunArtifacts, label: str | None) -> dict[str, str]:
    summary: dict[str, Any] = run.json(SUMMARY) if run.has(SUMMARY) else {}
    setup: dict[str, Any] = run.json(SETUP) if run.has(SETUP) else {}
    test = summary.get("segments", {}).get("test")
    asked = settings(run.params).get("dataset.kwargs.segments.test")
    rule = summary.get("labels", {}).get(label)
    exchange = ", ".join(f"{key} {value}" for key, value in setup.get("exchange", {}).items())
    if setup.get("rules"):
        exchange += f" (digest {setup['rules']['digest']})"
    account = setup.get("account")
    found = {
        "test segment": f"{test['start']} to {test['end']}" if test else asked,
        "universe": summary.get("universe") or run.tags.get("universe"),
        "data": summary.get("fingerprint") or run.tags.get("data_fingerprint"),
        "label": None if label is None else f"{label} = {rule}" if rule else label,
        "days traded": f"{setup['start']} to {setup['end']}" if "start" in setup else None,
        "index": setup.get("benchmark"),
        "costs and fills": exchange or None,
        "account": f"{account:,.0f}" if isinstance(account, (int, float)) else None,
        "trading days of a year": f"{setup['days_per_year']:g}" if "days_per_year" in setup else None,
    }
    return {name: str(value) for name, value in found.items() if value is not None}
