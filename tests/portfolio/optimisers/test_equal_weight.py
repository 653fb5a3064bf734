from __future__ import annotations

import numpy as np

from qlib_ext.portfolio.optimisers.equal_weight import EqualWeight
from tests.portfolio.problems import problem_of


def test_bounds_alone_make_a_difference() -> None:
    upper = np.array([1.0, 0.1, 1.0, 0.0, 1.0])
    np.testing.assert_allclose(EqualWeight().solve(problem_of(5, upper=upper)), [0.3, 0.1, 0.3, 0, 0.3])
