"""What is known on a day, and what scores have foretold by then."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.portfolio.known_day import KnownDay


def known(returns: np.ndarray, horizon: tuple[int, int] = (1, 1)) -> KnownDay:
    days, count = returns.shape
    return KnownDay(
        day=pd.Timestamp("2020-06-01"),
        codes=tuple(f"SH60000{k}" for k in range(count)),
        scores=np.arange(days * count, dtype=float).reshape(days, count),
        returns=returns,
        held=np.zeros(count),
        buyable=np.ones(count, dtype=bool),
        sellable=np.ones(count, dtype=bool),
        benchmark=np.full(count, 1 / count),
        market=np.zeros(days),
        horizon=horizon,
    )


class TestForecastable:
    @pytest.mark.parametrize("horizon", [(1, 1), (0, 1), (1, 5), (2, 3)])
    def test_scores_stand_beside_the_returns_that_came_of_them(self, horizon: tuple[int, int]) -> None:
        first, days = horizon
        returns = np.random.default_rng(0).normal(0, 0.01, (12, 3))
        day = known(returns, horizon)
        scores, foretold = day.forecastable()
        assert len(scores) == 12 - first - days
        for s in range(len(scores)):
            assert np.array_equal(scores[s], day.scores[s])
            whole = np.prod(1 + returns[s + first + 1 : s + first + days + 1], axis=0)
            assert np.allclose(foretold[s], whole ** (1 / days) - 1, rtol=1e-12)

    def test_the_last_return_is_todays(self) -> None:
        returns = np.zeros((6, 2))
        returns[-1] = 0.05
        _, foretold = known(returns).forecastable()
        assert np.allclose(foretold[-1], 0.05)
        assert np.all(foretold[:-1] == 0)

    def test_it_looks_back_as_far_as_it_is_asked(self) -> None:
        day = known(np.random.default_rng(0).normal(0, 0.01, (12, 3)), (1, 2))
        for whole, few in zip(day.forecastable(), day.forecastable(last=8), strict=True):
            assert len(few) == 5
            assert np.array_equal(few, whole[-5:])

    def test_too_few_days_foretell_nothing(self) -> None:
        scores, foretold = known(np.zeros((2, 2)), (1, 5)).forecastable()
        assert scores.shape == foretold.shape == (0, 2)


def test_what_is_not_known_is_asked_for_in_words() -> None:
    day = known(np.zeros((3, 2)))
    with pytest.raises(UserError, match="needs `market_value` of the store, found none up to 2020-06-01"):
        day.plane("market_value")
    with pytest.raises(UserError, match="the industry band needs industries, and the store has none"):
        day.require_industries("the industry band")
