from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.capacity import Capacity
from tests.portfolio.problems import day_of, risk_of

# An account of 100: a day's mean is 0.2, 0.1 and 0 of it.
TRADED = np.array([[10, 20, np.nan], [30, np.nan, np.nan]])


def test_by_hand() -> None:
    known = day_of(3, held=[0.5, 0.0, 0.1], account=100.0, planes={"traded_value": TRADED})
    box = Capacity(traded=0.5, held=2.0, days=2).box(known)
    np.testing.assert_allclose(box.high, [0.4, 0.05, 0.1])  # of the first no more than a tenth can be sold
    np.testing.assert_allclose(box.low, [0.4, -0.05, 0.0])
    assert box.words == (
        "holdings of at most 2 days of traded value and trades of at most 50% of a day's traded value"
    )
    assert Capacity(traded=0.5, days=2).notes(known, risk_of(3)) == [
        "the traded value of 1 stock is not known: none of them is bought"
    ]


def test_looks_no_further_back_than_its_days() -> None:
    known = day_of(3, account=100.0, planes={"traded_value": TRADED})
    np.testing.assert_allclose(Capacity(held=1.0, days=1).box(known).high, [0.3, 0, 0])


@pytest.mark.parametrize(
    ("given", "said"), [({}, "found neither"), ({"traded": 0}, "`traded` must be above 0")]
)
def test_what_is_wrong_is_said(given: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        Capacity(**given)


def test_a_store_without_traded_values_is_said() -> None:
    with pytest.raises(UserError, match="the portfolio needs `traded_value` of the store"):
        Capacity(held=1.0).box(day_of(3))
