"""The run that is under way in this process."""

from __future__ import annotations

from typing import Any

from qlib.workflow import R


def active_recorder() -> Any:
    """Qlib's recorder of the running experiment, or None outside of one."""
    manager = getattr(R, "exp_manager", None) if R.__dict__.get("_provider") is not None else None
    experiment = getattr(manager, "active_experiment", None)
    return None if experiment is None else experiment.active_recorder


def end_run(status: str) -> str | None:
    """End the active run, and return its id; None where there is none."""
    manager = getattr(R, "exp_manager", None)  # none before qlib.init is through
    experiment = getattr(manager, "active_experiment", None)
    recorder = getattr(experiment, "active_recorder", None)
    if recorder is None:
        return None
    R.end_exp("FAILED")  # Qlib knows no status for a run that was stopped from outside
    if status != "FAILED":
        recorder.client.set_terminated(recorder.id, status)
    return recorder.id
