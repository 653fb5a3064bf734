"""The validation score by which a training chooses its best epoch."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import numpy as np

SELECTIONS = ("rank_ic", "authors", "loss")


def validation_score(
    selection: str,
    record: Mapping[str, float],
    past: Sequence[Mapping[str, float]],
    weights: Mapping[str, float],
    classes: Collection[str],
) -> float:
    """Score an epoch; higher is better.

    Parameters
    ----------
    selection
        One of `SELECTIONS`, as `TrainerOptions` describes them.
    record
        The epoch's record.
    past
        Records of the earlier epochs of its phase.
    weights
        Trained task -> constant weight of its loss.
    classes
        The trained tasks that predict a class.

    Returns
    -------
    float
        NaN, which is never the best, where it needs a RankIC and the epoch has none.
    """
    if selection == "rank_ic":
        return record["valid/rank_ic"]
    if selection == "loss":
        return -sum(weight * record[f"valid/loss/{name}"] for name, weight in weights.items())
    # the phase's first epoch, unless its scores were all equal
    first = next((epoch for epoch in past if np.isfinite(epoch["valid/rank_ic"])), record)
    keys = ["valid/rank_ic", *(f"valid/accuracy/{name}" for name in classes)]
    return sum(_relative_gain(record[key], first[key]) for key in keys)


def _relative_gain(value: float, first: float) -> float:
    """Gain over `first`, relative where `first` is not 0."""
    return (value - first) / abs(first) if first else value - first
