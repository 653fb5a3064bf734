"""The audit of an ensemble: that of each of its members."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mlflow.tracking import MlflowClient

from qlib_ext.lookahead.findings import Result
from qlib_ext.lookahead.folds import AUDIT, together
from qlib_ext.tracking.artifacts import RunArtifacts, stored


def of_runs(runs: Sequence[Mapping[str, Any]], client: MlflowClient) -> Result:
    """What the members' own audits found, together.

    Parameters
    ----------
    runs
        With the `run_id` of each member, as `model.ensemble.ensemble.Ensemble` has them.
    client
        Of the MLflow store that has the runs.
    """
    audits = {}
    for number, run in enumerate(runs, 1):
        if stored(client, run["run_id"], [AUDIT]):
            with tempfile.TemporaryDirectory() as folder:
                kept = RunArtifacts.download(client, run["run_id"], [AUDIT], Path(folder))
                audits[number] = Result.from_json(kept.json(AUDIT), f"of the run {run['run_id']}")
    return together(audits, len(runs), "member")
