from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.beta_band import BetaBand
from qlib_ext.portfolio.constraints.limits import Linear
from tests.portfolio.problems import day_of, risk_of


def test_a_stock_with_few_returns_counts_as_the_market() -> None:
    known = day_of(3)
    known.returns[:-20, 1] = np.nan
    band = BetaBand(0.9, 1.1, fewest=30)
    (limit,) = band.limits(known, risk_of(3))
    assert isinstance(limit, Linear)
    assert limit.matrix[0, 1] == 1
    assert limit.matrix[0, 0] == pytest.approx(
        np.cov(known.returns[:, 0], known.market)[0, 1] / known.market.var(ddof=1)
    )
    assert limit.words == "beta between 0.9 and 1.1"
    assert band.notes(known, risk_of(3)) == ["the beta of 1 stock is not known: 1, the market's, is taken"]


def test_looks_no_further_back_than_its_days() -> None:
    known = day_of(2)
    before = BetaBand(0.9, 1.1, days=30, fewest=20).limits(known, risk_of(2))[0]
    known.returns[:-30] = 0.5
    after = BetaBand(0.9, 1.1, days=30, fewest=20).limits(known, risk_of(2))[0]
    assert isinstance(before, Linear)
    assert isinstance(after, Linear)
    np.testing.assert_array_equal(before.matrix, after.matrix)


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UserError, match="`low` must be at most `high`, found 2 and 1"):
        BetaBand(2, 1)
