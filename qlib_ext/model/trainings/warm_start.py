"""Models that can begin from the weights of another run."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from qlib_ext.config.build import locate

START_FROM = "start_from"  # their argument, the id of that run


def can_start(model: Mapping[str, Any]) -> bool:
    """Whether a model, `{class, kwargs}`, can begin from the weights of a run; of an ensemble, whether a member can."""
    kind = locate(model["class"], name="model")
    if START_FROM not in inspect.signature(kind).parameters:
        return False
    return bool(kind(**model["kwargs"]).starters()) if hasattr(kind, "starters") else True
