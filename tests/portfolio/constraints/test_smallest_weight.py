from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.smallest_weight import SmallestWeight
from tests.portfolio.problems import day_of


def test_what_cannot_be_sold_is_kept_however_small() -> None:
    known = day_of(3, held=[0.01, 0.01, 0], sellable=np.array([False, True, True]))
    assert SmallestWeight(0.05).kept(np.array([0.01, 0.01, 0.98]), known).tolist() == [True, False, True]


@pytest.mark.parametrize("least", [0, 1.5, -0.1])
def test_what_is_wrong_is_said(least: float) -> None:
    with pytest.raises(UserError, match="`least` must lie in"):
        SmallestWeight(least)
