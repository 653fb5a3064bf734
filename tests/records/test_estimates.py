from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.metrics.significance import bootstrap_mean
from qlib_ext.records.estimates import estimated


def test_values_stand_beside_the_bootstrap_of_their_days() -> None:
    daily = np.random.default_rng(1).normal(0.1, 1, 80)
    values = {"mean": float(daily.mean()), "last but not of the days": 7.0}
    found = estimated(values, lambda drawn: [drawn.mean(), 7.0], daily)
    assert found["value"].tolist() == [*values.values()]
    np.testing.assert_allclose(found.loc["mean", ["low", "high"]].to_numpy(float), bootstrap_mean(daily))
    assert found.loc["last but not of the days", ["low", "high"]].tolist() == [7.0, 7.0]


@pytest.mark.parametrize("days", [0, 1])
def test_hardly_a_day_has_no_interval(days: int) -> None:
    found = estimated({"mean": 1.0}, lambda drawn: [1.0], np.ones(days))
    assert found["value"].tolist() == [1.0]
    assert found[["low", "high"]].isna().all(axis=None)
