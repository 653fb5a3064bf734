from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.store import write_store
from qlib_ext.portfolio.constraints.industry_cap import IndustryCap
from tests.portfolio.problems import day_of, risk_of

INDUSTRY = np.array([0, 1, -1, -1])


def test_stocks_of_no_known_industry_have_one_cap_together() -> None:
    known = day_of(4, industry=INDUSTRY)
    (limit,) = IndustryCap(0.4).limits(known, risk_of(4))
    assert limit.excess(np.array([0.1, 0.1, 0.4, 0.4])) == pytest.approx(0.4)
    assert limit.words == "each industry of at most 40%"
    assert IndustryCap(0.4).notes(known, risk_of(4)) == [
        "the industry of 2 stocks is not known: stocks of no known industry have the cap together"
    ]


def test_a_named_industry_alone() -> None:
    known = day_of(4, industry=INDUSTRY)
    (limit,) = IndustryCap({"banks": 0.3}).limits(known, risk_of(4))
    assert limit.excess(np.array([0.3, 0.7, 0, 0])) == 0
    assert limit.words == "banks of at most 30%"
    assert IndustryCap({"banks": 0.3}).notes(known, risk_of(4)) == [
        "the industry of 2 stocks is not known: they have no cap"
    ]
    (none,) = IndustryCap({"utilities": 0.3}).limits(known, risk_of(4))  # which has no stock today
    assert none.excess(np.array([0.3, 0.7, 0, 0])) == -np.inf


@pytest.mark.parametrize("most", [-0.1, "0.3", {}, {"banks": True}, float("nan")])
def test_what_is_wrong_is_said(most: Any) -> None:
    with pytest.raises(UserError, match="`most` must be a number of at least 0, or a mapping"):
        IndustryCap(most)


def test_an_unknown_industry_is_said() -> None:
    with pytest.raises(UserError, match=r"found 'bank' \(did you mean banks\?\)"):
        IndustryCap({"bank": 0.3}).limits(day_of(3), risk_of(3))


def test_an_industry_that_the_store_has_not_is_said_before_a_day(tmp_path: Path) -> None:
    days, bars = pd.DatetimeIndex(["2020-01-02", "2020-01-03"]), {"close": np.ones((2, 1))}
    store = write_store(tmp_path, days, ["SH600000"], bars, {})
    (tmp_path / "side").mkdir()
    (tmp_path / "side" / "industry.csv").write_text(
        "instrument,start,end,industry\nSH600000,2020-01-01,2020-12-31,banks\n", encoding="utf-8"
    )
    IndustryCap({"banks": 0.3}).check_store(store, set())
    with pytest.raises(UserError, match=r"must name industries of the store .*, banks; found 'bank' \(did"):
        IndustryCap({"bank": 0.3}).check_store(store, set())
