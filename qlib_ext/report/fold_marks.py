"""Where in a chart over days a walk-forward changes to another fold."""

from __future__ import annotations

from collections.abc import Mapping

import pandas as pd

from qlib_ext.tracking.artifacts import RunArtifacts

FOLDS = "folds/folds.csv"  # for `optional` of a section that marks them


def fold_marks(run: RunArtifacts) -> Mapping[str, object]:
    """Name -> first day that each fold but the first scores; none where the run is no walk-forward."""
    if not run.has(FOLDS):
        return {}
    starts = run.table(FOLDS)["test_start"]
    return {f"fold {number}": pd.Timestamp(day) for number, day in starts.iloc[1:].items()}
