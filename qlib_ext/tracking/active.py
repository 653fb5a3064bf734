"""The run that is under way in this process."""

from __future__ import annotations

from typing import Any

from qlib.workflow import R


def active_recorder() -> Any:
    """Qlib's recorder of the running experiment, or None outside of one."""
    manager = getattr(R, "exp_manager", None) if R.__dict__.get("_provider") is not None else None
    experiment = getattr(manager, "active_experiment", None)
    return None if experiment is None else experiment.active_recorder
