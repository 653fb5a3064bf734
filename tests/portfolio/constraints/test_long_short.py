from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.long_short import LongShort
from tests.portfolio.problems import day_of, risk_of


def test_says_gross_net_and_the_largest_short_weight() -> None:
    constraint = LongShort(gross=1.6, net=0.2, most_short=0.1)
    assert constraint.invested() == (0.2, 0.2)
    assert constraint.box(day_of(2)).low.tolist() == [-0.1, -0.1]
    (limit,) = constraint.limits(day_of(2), risk_of(2))
    assert limit.excess(np.array([1.0, -0.8])) == pytest.approx(0.2)
    assert limit.words == "long and short weights together of at most 160%"


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"gross": 0}, "`gross`"),
        ({"gross": 0.5, "net": 1.0}, "`net` must lie between"),
        ({"most_short": 0}, "`most_short`"),
    ],
)
def test_what_is_wrong_is_said(given: dict[str, float], said: str) -> None:
    with pytest.raises(UserError, match=said):
        LongShort(**given)
