"""The data of the runs of an index, and what is wrong with them: as the newest run on each found it, or as looked at now."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from qlib_ext.checks import UserError
from qlib_ext.market.finding import QualityReport
from qlib_ext.report.index.runs import IndexedRun
from qlib_ext.tracking.artifacts import RunArtifacts, reading, stored

SUMMARY, QUALITY = "data/summary.json", "data/quality.json"
MOST = 50  # states of data of which the artifacts are read


@dataclass(frozen=True)
class DataState:
    """Data that runs were made on.

    Attributes
    ----------
    fingerprint
        Of calendar, members and bars.
    runs
        How many were made on them.
    newest
        The newest of these that finished; else the newest.
    name, first, last, universe
        Of the store, as that run has it; empty where it is not known.
    synthetic
        Whether a program drew them.
    audit
        What that run found wrong with them; None where it did not look.
    """

    fingerprint: str
    runs: int
    newest: IndexedRun
    name: str = ""
    first: str = ""
    last: str = ""
    universe: str = ""
    synthetic: bool = False
    audit: QualityReport | None = None


def states(client: MlflowClient, runs: Sequence[IndexedRun]) -> tuple[list[DataState], int]:
    """The data of runs, those of the newest run first, at most `MOST`; and how many more there are."""
    by_data: dict[str, list[IndexedRun]] = {}
    for run in runs:
        if run.fingerprint:
            by_data.setdefault(run.fingerprint, []).append(run)
    found = [_state(client, fingerprint, of_it) for fingerprint, of_it in [*by_data.items()][:MOST]]
    return found, len(by_data) - len(found)


def _state(client: MlflowClient, fingerprint: str, runs: Sequence[IndexedRun]) -> DataState:
    newest = next((run for run in runs if run.status == "FINISHED"), runs[0])
    state: dict[str, Any] = {"fingerprint": fingerprint, "runs": len(runs), "newest": newest}
    try:
        there = stored(client, newest.run_id, [SUMMARY, QUALITY])
        with tempfile.TemporaryDirectory() as folder, reading("the health of the data", [SUMMARY, QUALITY]):
            kept = RunArtifacts.download(client, newest.run_id, there, Path(folder))
            if SUMMARY in there:
                said = kept.json(SUMMARY)
                state |= {
                    "name": str(said["store"]),
                    "first": str(said["store_start"]),
                    "last": str(said["store_end"]),
                    "universe": str(said["universe"]),
                    "synthetic": bool(said.get("synthetic")),
                }
            if QUALITY in there:
                state["audit"] = QualityReport.from_json(kept.json(QUALITY))
    except (UserError, MlflowException, OSError):
        return DataState(fingerprint, len(runs), newest)  # the page says that it is not known
    return DataState(**state)
