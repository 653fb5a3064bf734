"""Models that can begin from the weights of another run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from qlib.model.base import Model

from qlib_ext.config.build import build, locate

START_FROM = "start_from"  # their argument, the id of that run


def can_start(model: Mapping[str, Any]) -> bool:
    """Whether a model, `{class, kwargs}`, can begin from the weights of a run; of an ensemble, whether a member can."""
    kind = locate(model["class"], name="model")
    if START_FROM not in inspect.signature(kind).parameters:
        return False
    if not hasattr(kind, "starters"):
        return True
    ensemble: Any = build(model, Model, name="model")
    return bool(ensemble.starters())
