from __future__ import annotations

import itertools

import numpy as np
import pandas as pd
import pytest
from qlib.backtest.signal import SignalWCache

from qlib_ext.strategy.daily_signal import DailySignal, daily

DAYS = pd.bdate_range("2020-01-01", periods=8)
SECOND = pd.Timedelta(seconds=1)


def scores(names: list[str], order: list[int] | None = None) -> pd.DataFrame:
    """Scores of two kinds, one day and some stocks of others missing, in no order of stocks."""
    draw = np.random.default_rng(3)
    index = pd.MultiIndex.from_product([DAYS, ["C", "A", "B"]], names=["datetime", "instrument"])
    table = pd.DataFrame(draw.normal(size=(24, 2)), index=index, columns=["one", "two"])
    table.iloc[draw.random(24) < 0.2, 0] = np.nan
    table = table.drop(DAYS[3], level="datetime").drop((DAYS[5], "A"))
    return table.reorder_levels(names)


@pytest.mark.parametrize("names", list(itertools.permutations(["datetime", "instrument"])))
@pytest.mark.parametrize("columns", ["one", ["one", "two"]])
@pytest.mark.parametrize("days", [1, 3])
def test_it_gives_what_qlibs_gives(names: list[str], columns: str | list[str], days: int) -> None:
    given = scores(names)[columns]
    theirs, ours = SignalWCache(given), DailySignal(given)
    given_days = 0
    for first, after in zip(DAYS, DAYS[days:], strict=False):
        expected, found = (each.get_signal(first, after - SECOND) for each in (theirs, ours))
        if expected is None:
            assert found is None
            continue
        equal = (
            pd.testing.assert_series_equal
            if isinstance(expected, pd.Series)
            else pd.testing.assert_frame_equal
        )
        equal(found, expected, check_exact=True)
        given_days += 1
    assert given_days == len(DAYS) - days - (days == 1)


def test_of_a_stock_that_is_scored_twice_on_a_day_the_last_counts_as_with_qlib() -> None:
    given = scores(["datetime", "instrument"])["one"]
    given = pd.concat([given, given.iloc[:2] + 1])
    asked = DAYS[0], DAYS[1] - SECOND
    expected = SignalWCache(given).get_signal(*asked)
    assert len(expected) == 3
    pd.testing.assert_series_equal(DailySignal(given).get_signal(*asked), expected)


def test_a_table_alone_becomes_one() -> None:
    table, other = scores(["datetime", "instrument"]), SignalWCache(scores(["datetime", "instrument"]))
    assert isinstance(daily(table), DailySignal)
    assert isinstance(daily(table["one"]), DailySignal)
    assert daily(other) is other
