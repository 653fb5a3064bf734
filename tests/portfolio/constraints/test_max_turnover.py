from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.max_turnover import MaxTurnover
from tests.portfolio.problems import day_of, risk_of


def test_an_account_in_cash_is_built_up_and_told() -> None:
    known = day_of(3)
    assert MaxTurnover(0.1).limits(known, risk_of(3)) == []
    assert MaxTurnover(0.1).notes(known, risk_of(3)) == ["nothing is held: turnover has no limit on this day"]


def test_counts_both_sides() -> None:
    (limit,) = MaxTurnover(0.2).limits(day_of(2, held=[0.5, 0.5]), risk_of(2))
    assert limit.excess([0.6, 0.4]) == pytest.approx(0)  # type: ignore[arg-type]
    assert limit.words == "turnover of at most 20%"


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UserError, match="`most` must be at least 0"):
        MaxTurnover(-0.1)
