from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.weight_bounds import WeightBounds
from tests.portfolio.problems import day_of


def test_the_narrowest_holds() -> None:
    known = day_of(3, benchmark=np.array([0.6, 0.4, 0.0]))
    box = WeightBounds(0.5, above_benchmark=0.05, below_benchmark=0.45).box(known)
    np.testing.assert_allclose(box.high, [0.5, 0.45, 0.05])
    np.testing.assert_allclose(box.low, [0.15, -np.inf, -np.inf])
    assert box.words == (
        "weights of at most 50% and at most 5% above the benchmark's and at most 45% below the benchmark's"
    )


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "found none of them"),
        ({"most": 0}, "`most` must be above 0"),
        ({"above_benchmark": -1}, "`above_benchmark`"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        WeightBounds(**given)
