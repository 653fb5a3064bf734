from __future__ import annotations

import empyrical
import numpy as np
import pandas as pd
import pytest

from qlib_ext.metrics.portfolio_series import paths, series_of


@pytest.fixture
def daily() -> pd.DataFrame:
    draw = np.random.default_rng(0)
    days = pd.bdate_range("2020-01-01", periods=60, name="datetime")
    return pd.DataFrame(
        {"return": draw.normal(0, 0.01, 60), "cost": 0.0002, "benchmark": draw.normal(0, 0.01, 60)},
        index=days,
    )


def test_what_compounds_and_what_is_of_single_days(daily: pd.DataFrame) -> None:
    series = series_of(daily, 243)
    net = daily["return"] - daily["cost"]
    np.testing.assert_array_equal(series["portfolio_with_cost"].growth, net)
    np.testing.assert_array_equal(series["portfolio_without_cost"].daily, daily["return"])
    np.testing.assert_array_equal(series["benchmark"].growth, daily["benchmark"])
    assert series["benchmark"].benchmark is None
    over = series["excess_with_cost"]
    np.testing.assert_allclose(over.growth, (1 + net) / (1 + daily["benchmark"]) - 1)
    np.testing.assert_allclose(over.daily, net - daily["benchmark"])
    assert {one.per_year for one in series.values()} == {243}


def test_paths_are_those_of_empyrical(daily: pd.DataFrame) -> None:
    series = series_of(daily, 243)
    table = paths(series)
    assert [*table.index] == [*daily.index]
    for name, one in series.items():
        wealth = empyrical.cum_returns(one.growth, starting_value=1)
        np.testing.assert_allclose(table[f"wealth/{name}"], wealth)
        assert table[f"drawdown/{name}"].min() == pytest.approx(empyrical.max_drawdown(one.growth))
