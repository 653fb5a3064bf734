"""Runs of earlier versions: what of theirs is not read, and what cannot be checked."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from qlib_ext.config.renamed import ARTIFACTS, METRICS, SINCE, new_name
from qlib_ext.terminal import say

if TYPE_CHECKING:
    from mlflow.entities import Run
    from mlflow.tracking import MlflowClient


def tell_of_unchecked(runs: Mapping[str, Sequence[str]]) -> None:
    """Say in one line which runs have no checksum of what was read of them: name of the run -> those artifacts."""
    from qlib_ext.tracking.artifacts import unchecked_note

    names = [name for name, unchecked in runs.items() if unchecked]
    if names:
        say(unchecked_note(names), err=True)


def tell_of_older(client: MlflowClient, runs: Sequence[Run]) -> None:
    """Say in one line which runs were made before the names of today, and what of theirs has another name now.

    Parameters
    ----------
    client
        Of the store that has the runs.
    runs
        Those that are about to be read.
    """
    from qlib_ext.tracking.artifacts import stored  # here, so that `qlib-ext --help` stays quick

    older = [run for run in runs if any(map(new_name, run.data.params.values()))]
    if not older:
        return
    artifacts = {path for run in older for path in stored(client, run.info.run_id, ARTIFACTS)}
    metrics = {old for old in METRICS for run in older for name in run.data.metrics if name.startswith(old)}
    said = [f"artifact `{old}` is `{new}` now" for old, new in ARTIFACTS.items() if old in artifacts]
    said += [f"metrics `{old}...` are `{new}...` now" for old, new in METRICS.items() if old in metrics]
    names = ", ".join(run.info.run_name or run.info.run_id[:8] for run in older[:3])
    more = f" and {len(older) - 3} more" if len(older) > 3 else ""
    say(
        f"Made by a version before {SINCE}: {names}{more}"
        + (f". What has another name since then is not read: {'; '.join(said)}" if said else ""),
        err=True,
    )
