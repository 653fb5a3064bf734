"""Drift of a distribution, by hand and in its limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.drift import FLOOR, population_stability_index


def test_by_hand() -> None:
    reference = [1.0, 2.0, 3.0, 4.0]  # one half below the median, one half above
    sample = [1.0, 1.0, 1.0, 4.0]
    expected = (0.75 - 0.5) * math.log(0.75 / 0.5) + (0.25 - 0.5) * math.log(0.25 / 0.5)
    assert population_stability_index(reference, sample, bins=2) == pytest.approx(expected)


def test_the_same_values_do_not_drift_and_missing_ones_do_not_count() -> None:
    values = np.random.default_rng(1).normal(size=(50, 4))
    assert population_stability_index(values, values) == 0.0
    assert population_stability_index(values, np.append(values, np.nan)) == 0.0


def test_it_is_of_both_and_no_scale_counts() -> None:
    draw = np.random.default_rng(2)
    one, other = draw.normal(size=400), draw.normal(0.5, 1, 400)
    assert population_stability_index(3 * one + 1, 3 * other + 1) == pytest.approx(
        population_stability_index(one, other)
    )
    assert population_stability_index(one, other) > population_stability_index(one, other - 0.4)


def test_an_empty_bin_counts_as_a_small_share() -> None:
    found = population_stability_index([0.0, 1.0], [2.0, 3.0], bins=2)
    expected = (FLOOR - 0.5) * math.log(FLOOR / 0.5) + 0.5 * math.log(1 / 0.5)
    assert found == pytest.approx(expected)


def test_without_values_there_is_none() -> None:
    assert math.isnan(population_stability_index([np.nan], [1.0]))
    with pytest.raises(UserError, match="`bins` must be at least 2"):
        population_stability_index([1.0], [1.0], bins=1)
