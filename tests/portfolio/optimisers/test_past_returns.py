from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.portfolio.optimisers.past_returns import past_returns
from qlib_ext.portfolio.problem import Infeasible
from tests.portfolio.problems import day_of


def test_it_takes_the_last_days_of_the_stocks() -> None:
    known = day_of(5)
    np.testing.assert_array_equal(past_returns(known, 7, np.array([3, 1])), known.returns[-7:, [3, 1]])


def test_a_stock_without_a_return_has_the_mean_of_the_others() -> None:
    known = day_of(3)
    known.returns[-1] = [0.02, np.nan, 0.04]
    known.returns[-2] = np.nan
    found = past_returns(known, 2, np.arange(3))
    np.testing.assert_allclose(found, [[known.market[-2]] * 3, [0.02, 0.03, 0.04]])


def test_too_few_days_are_said() -> None:
    known = day_of(3, returns=np.zeros((1, 3)), market=np.zeros(1))
    with pytest.raises(Infeasible, match="past returns are needed, found 1"):
        past_returns(known, 250, np.arange(3))
