"""The runs that an index shows: what MLflow knows of each, without opening its artifacts, and where its report lies."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path

from mlflow.entities import Run
from mlflow.tracking import MlflowClient

from qlib_ext.paths import inside
from qlib_ext.report.comparison.groups import differing, telling
from qlib_ext.report.comparison.settings import ABSENT, label, seed_of, settings, shown
from qlib_ext.report.standard import RUNS, report_folder
from qlib_ext.tracking.artifacts import RunArtifacts, stored
from qlib_ext.tracking.place import local_folder
from qlib_ext.tracking.runs import PARENT, all_runs

REPORT = "report/report.html"
# Tags, and settings, that a reader looks for first -> what they are called.
CALLED: Mapping[str, str] = {
    "method": "Method",
    "backbone": "Backbone",
    "tasks": "Tasks",
    "loss": "Loss",
    "scores": "Scores of",
    "universe": "Universe",
    "strategy": "Strategy",
    "walk_forward": "Walk-forward",
    "data": "Data",
    "dataset.kwargs.segments.test": "Test",
    "status": "Status",
}
DAYS = re.compile(r"\[(\d{4}-\d\d-\d\d), (\d{4}-\d\d-\d\d)\]")
MOST_COLUMNS = 10  # of what differs
# What the package puts behind the name of an experiment where nobody named the run; the column beside has it, too.
MOMENT = re.compile(r" \d{4}-\d\d-\d\d \d\d:\d\d:\d\d(\.\d+)?$")


@dataclass(frozen=True)
class IndexedRun:
    """A run of an index.

    Attributes
    ----------
    run_id, name, experiment, started, status, seed
        As MLflow has them; the name without the moment behind it, `started` to the minute, of the seed an en dash where there is
        none.
    fingerprint
        Of its data; empty where it is not known.
    traits
        All that it may differ by: the settings that can move a result, tags, `data` and `status`.
    metrics
        As MLflow has them.
    report
        The file of its report on this machine; None where there is none.
    """

    run_id: str
    name: str
    experiment: str
    started: str
    status: str
    seed: str
    fingerprint: str
    traits: Mapping[str, str]
    metrics: Mapping[str, float]
    report: Path | None


def read(
    client: MlflowClient, *, experiments: Sequence[str] = (), fingerprint: str | None = None
) -> list[IndexedRun]:
    """The runs of a store that are no folds or members of others, the newest first.

    Parameters
    ----------
    client
        Of the store.
    experiments
        Names of those that are wanted; all by default.
    fingerprint
        Of the data that are wanted, or its first digits; any by default.
    """
    found = [
        _indexed(run, name)
        for run, name in all_runs(client)
        if PARENT not in run.data.tags and (not experiments or name in experiments)
    ]
    return [run for run in found if fingerprint is None or run.fingerprint.startswith(fingerprint)]


def columns(runs: Sequence[IndexedRun]) -> tuple[dict[str, str], int]:
    """What tells runs apart, key -> what it is called; and how many further settings differ that have no column.

    A key whose value follows from those before it has none.
    """
    traits = [run.traits for run in runs]
    keys = [*CALLED, *(key for key in differing(traits) if key not in CALLED and "." in key)]
    found = [key for key in keys if len({each.get(key, ABSENT) for each in traits}) > 1]
    told = telling(traits, found)
    kept = told[:MOST_COLUMNS]
    names = {key: CALLED.get(key) or label(key, kept) for key in kept}
    return names, len(told) - len(kept)


def value(run: IndexedRun, key: str) -> str:
    """What a run has of a column; of two days `2017-01-01 to 2020-12-31`."""
    said = shown(key, run.traits.get(key, ABSENT))
    days = DAYS.fullmatch(said)
    return f"{days[1]} to {days[2]}" if days else said


def brought(client: MlflowClient, runs: Sequence[IndexedRun], folder: Path) -> list[IndexedRun]:
    """The runs with their reports, those that lie with a server brought into `folder`, each once."""
    return [
        run if run.report is not None else replace(run, report=_brought(client, run, folder)) for run in runs
    ]


def _brought(client: MlflowClient, run: IndexedRun, folder: Path) -> Path | None:
    target = inside(folder, run.run_id, what="a run's id")
    if not (target / REPORT).is_file() and stored(client, run.run_id, [REPORT]):
        RunArtifacts.download(client, run.run_id, [REPORT], target)
    return target / REPORT if (target / REPORT).is_file() else None


def _indexed(run: Run, experiment: str) -> IndexedRun:
    tags = run.data.tags
    fingerprint = tags.get("data_fingerprint", "")
    own = {name: tags[name] for name in CALLED if name in tags}
    traits = {**settings(run.data.params), **own, "status": run.info.status.lower()}
    if fingerprint:
        traits["data"] = fingerprint[:8]
    return IndexedRun(
        run_id=run.info.run_id,
        name=MOMENT.sub("", run.info.run_name or "") or run.info.run_id[:8],
        experiment=experiment,
        started=f"{datetime.fromtimestamp((run.info.start_time or 0) / 1000):%Y-%m-%d %H:%M}",
        status=run.info.status,
        seed=seed_of(run.data.params, tags),
        fingerprint=fingerprint,
        traits=traits,
        metrics=run.data.metrics,
        report=_report(run, experiment),
    )


def _report(run: Run, experiment: str) -> Path | None:
    """Where the run put its report, or its artifact, whichever is on this machine."""
    folder = local_folder(run.info.artifact_uri)
    places = [RUNS / report_folder(experiment, run.info.run_id) / "report.html"]
    if folder is not None:
        places.append(folder / REPORT)
    return next((place for place in places if place.is_file()), None)
