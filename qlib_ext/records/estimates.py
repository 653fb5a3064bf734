"""Figures of a run, each with the interval that says how sure it is."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt
import pandas as pd

from qlib_ext.metrics.bootstrap import bootstrap_intervals, overlapping_block

LEVEL = 0.95  # what the report says of its intervals


def estimated(
    values: Mapping[str, float],
    figures: Callable[..., npt.ArrayLike],
    *daily: npt.ArrayLike,
    span_days: int = 1,
) -> pd.DataFrame:
    """Figures beside their intervals, as the report's headline reads them.

    Parameters
    ----------
    values
        Name -> figure of the run.
    figures
        Computes them, in this order, from resampled days of `daily` (`bootstrap_intervals`).
    daily
        Series ``[D]`` on the same days.
    span_days
        Days of return that a value of them looks at (`bootstrap.overlapping_block`).

    Returns
    -------
    By `figure`: `value`, `low` and `high`; the last two NaN where there is no interval.
    """
    block_days = overlapping_block(len(np.asarray(daily[0])), span_days)
    low, high = bootstrap_intervals(figures, *daily, level=LEVEL, block_days=block_days)
    index = pd.Index([*values], name="figure")
    return pd.DataFrame({"value": [*values.values()], "low": low, "high": high}, index=index)
