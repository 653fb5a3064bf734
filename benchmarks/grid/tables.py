"""How the tables of a grid are put together."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from benchmarks.grid.results import Result

NONE = "–"


def by(runs: Sequence[Result], *keys: str) -> dict[tuple[Any, ...], list[Result]]:
    """Runs by what they share (fields of the cell, or `setting`), in the order in which they were asked for."""
    groups: dict[tuple[Any, ...], list[Result]] = {}
    for run in runs:
        values = tuple(run.setting if key == "setting" else getattr(run.cell, key) for key in keys)
        groups.setdefault(values, []).append(run)
    return groups


def spread(values: pd.Series) -> str:
    """Mean, and the standard deviation over seeds in 1e-3, as the paper prints it."""
    return printed(values.mean(), 1e3 * values.std(ddof=1) if len(values) > 1 else np.nan)


def percent(values: pd.Series) -> str:
    """Mean in per cent, and the standard deviation over seeds in points."""
    mean = f"{values.mean():.2%}"
    return f"{mean} ({100 * values.std(ddof=1):.2f})" if len(values) > 1 else mean


def printed(mean: float, deviation: float = np.nan) -> str:
    """A mean, and a deviation in 1e-3 where there is one."""
    if np.isnan(mean):
        return NONE
    return f"{mean:.4f}" if np.isnan(deviation) else f"{mean:.4f} ({deviation:.1f})"
