from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.constraints.industry_band import IndustryBand
from tests.portfolio.problems import day_of, risk_of


def test_is_said_with_the_benchmark_in_it() -> None:
    known = day_of(4, benchmark=np.array([0.4, 0.1, 0.5, 0.0]), industry=np.array([0, 1, 2, 2]))
    (limit,) = IndustryBand(0.02).limits(known, risk_of(4))
    assert limit.words == "industries within 2% of the benchmark"
    assert [part.words for part in limit.parts()] == [
        "banks between 38% and 42%",
        "technology between 8% and 12%",
        "utilities between 48% and 52%",
    ]
    assert limit.excess(np.array([0.4, 0.1, 0.25, 0.25])) == pytest.approx(-0.02)
    assert limit.excess(np.array([0.5, 0.1, 0.2, 0.2])) == pytest.approx(0.08)


def test_holds_by_what_is_invested() -> None:
    known = day_of(3, benchmark=np.array([0.5, 0.3, 0.2]))
    (limit,) = IndustryBand(0.0).limits(known, risk_of(3))
    assert limit.excess(np.array([0.25, 0.15, 0.1])) == pytest.approx(0)


def test_stocks_of_no_known_industry_are_one_of_their_own() -> None:
    known = day_of(4, industry=np.array([0, -1, -1, 2]))
    (limit,) = IndustryBand(0.1).limits(known, risk_of(4))
    assert [part.words for part in limit.parts()] == [
        "banks between 15% and 35%",
        "utilities between 15% and 35%",
        "stocks of no known industry between 40% and 60%",
    ]
    assert IndustryBand(0.1).notes(known, risk_of(4)) == [
        "the industry of 2 stocks is not known: they have a band as an industry of their own"
    ]


def test_what_is_wrong_is_said() -> None:
    with pytest.raises(UserError, match="`width` must be at least 0"):
        IndustryBand(-0.1)
    with pytest.raises(UserError, match="an industry band needs industries, and the store has none"):
        IndustryBand(0.1).limits(day_of(2, industry=None), risk_of(2))
