"""Drift between two segments, on panels that are written down."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.metrics.drift import population_stability_index
from qlib_ext.records.fold import drift_table, spread, values_of


def windows(*days: torch.Tensor) -> Any:
    return [SimpleNamespace(features=day) for day in days]


def features(places: dict[str, tuple[int, ...]]) -> Any:
    return SimpleNamespace(feature_places=lambda: places)


@pytest.mark.parametrize(
    ("days", "number", "expected"), [(5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8]), (1, 2, [0])]
)
def test_days_are_spread_from_the_first_to_the_last(days: int, number: int, expected: list[int]) -> None:
    assert spread(days, number).tolist() == expected


def test_windows_are_looked_at_on_three_of_their_days() -> None:
    day = torch.arange(2 * 5 * 2, dtype=torch.float32).reshape(2, 5, 2)  # [N, T, F]
    found = values_of(windows(day, day + 100), [0, 1], features({"a": (0,), "b": (1,)}))
    assert sorted(found["a"]) == [0, 4, 8, 10, 14, 18, 100, 104, 108, 110, 114, 118]
    assert (found["b"] - found["a"]).unique().tolist() == [1.0]


def test_lags_of_a_feature_are_seen_together() -> None:
    day = torch.tensor([[[1.0, 2.0, 9.0]]])  # one stock, a window of a day, three names
    found = values_of(windows(day), [0], features({"a": (0, 1), "b": (2,)}))
    assert found.to_dict("list") == {"a": [1.0, 2.0], "b": [9.0, 9.0]}


def test_drift_is_of_the_test_days_in_units_of_the_training() -> None:
    draw = np.random.default_rng(4)
    train = pd.DataFrame({"still": draw.normal(size=500), "moved": draw.normal(size=500), "flat": 1.0})
    test = train.assign(moved=train["moved"] * 1.0 + 2.0)
    found = drift_table(train, test)
    assert found.loc["still"].tolist() == [0.0, 0.0]
    assert found.loc["flat"].tolist() == [0.0, 0.0]
    assert found.loc["moved", "psi"] == population_stability_index(train["moved"], test["moved"]) > 0.25
    assert found.loc["moved", "shift"] == pytest.approx(2 / train["moved"].std(ddof=0))
