"""What Qlib's own models learned, as files that are read without a pickle: LightGBM's trees, and a linear model's coefficients."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import load_file, save

BOOSTER, LINEAR = "model/booster.txt", "model/linear.safetensors"
WINDOWS = "model/windows.safetensors"  # statistics of the features that they were trained on
PLAIN = (BOOSTER, LINEAR)


def booster_of(model: Any) -> Any:
    """LightGBM's booster of a model that holds its trees as Qlib's does; None of any other."""
    booster = getattr(model, "model", None)
    return booster if type(booster).__module__.startswith("lightgbm.") else None


def weights_of(model: Any) -> dict[str, bytes]:
    """Path -> content of what a model learned: `BOOSTER` in LightGBM's own text, or `LINEAR` with coefficients ``[F]`` and intercept.

    None of a model that holds neither as Qlib's `LGBModel` and `LinearModel` do, or was not trained.
    """
    booster = booster_of(model)
    if booster is not None:
        return {BOOSTER: booster.model_to_string().encode()}  # as many trees as it predicts with
    coefficients = getattr(model, "coef_", None)
    if isinstance(coefficients, np.ndarray) and hasattr(model, "intercept_"):
        intercept = np.atleast_1d(np.asarray(model.intercept_, dtype=coefficients.dtype))
        return {LINEAR: save({"coefficients": np.ascontiguousarray(coefficients), "intercept": intercept})}
    return {}


def give_weights(model: Any, folder: Path) -> bool:
    """Give a model what the artifacts in a folder hold for it; False where they hold nothing."""
    if (folder / BOOSTER).is_file() and hasattr(model, "model"):
        import lightgbm  # here: only its own models need it

        model.model = lightgbm.Booster(model_file=str(folder / BOOSTER))
        return True
    if (folder / LINEAR).is_file() and hasattr(model, "coef_"):
        tensors = load_file(folder / LINEAR)
        model.coef_, model.intercept_ = tensors["coefficients"], tensors["intercept"][0]
        return True
    return False
