from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.checks import UserError
from qlib_ext.metrics.naive_portfolios import (
    dividend_yield,
    held_returns,
    random_lists,
    survivorship_bound,
    weighted_return,
)

NAN = np.nan


def made(days: int = 40, stocks: int = 12, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    draw = np.random.default_rng(seed)
    close = 10 * np.cumprod(1 + draw.normal(0, 0.02, (days, stocks)), axis=0)
    close[draw.random(close.shape) < 0.1] = NAN
    return close, draw.random(close.shape) < 0.8


def test_a_suspended_stock_stands_still_and_makes_up_for_it() -> None:
    found = held_returns([[NAN, 4.0], [10.0, 5.0], [NAN, 5.0], [12.0, NAN]])
    np.testing.assert_allclose(found, [[NAN, NAN], [NAN, 0.25], [0.0, 0.0], [0.2, 0.0]])


@pytest.mark.parametrize("by_value", [False, True])
def test_it_is_what_a_loop_over_days_and_stocks_gives(by_value: bool) -> None:
    close, members = made()
    values = np.abs(np.random.default_rng(1).normal(size=close.shape)) if by_value else None
    if values is not None:
        values[3, 4] = NAN
    returns = held_returns(close)
    found = weighted_return(returns, members, values)
    assert found[0] == 0
    for day in range(1, len(close)):
        parts = [
            (1.0 if values is None else values[day - 1, stock], returns[day, stock])
            for stock in range(close.shape[1])
            if members[day - 1, stock] and not np.isnan(returns[day, stock])
        ]
        parts = [(weight, value) for weight, value in parts if not np.isnan(weight)]
        assert found[day] == pytest.approx(
            sum(weight * value for weight, value in parts) / sum(weight for weight, _ in parts)
        )


def test_what_happens_later_changes_nothing_before() -> None:
    close, members = made()
    other, others = close.copy(), members.copy()
    other[20:] *= 3
    others[20:] = ~others[20:]
    for values in (None, np.ones_like(close)):
        before, after = (
            weighted_return(held_returns(c), m, values) for c, m in ((close, members), (other, others))
        )
        np.testing.assert_array_equal(before[:20], after[:20])


class TestDividends:
    def test_by_hand(self) -> None:
        factor = np.array([[1.0, 2.0, 1.0], [1.02, 2.0, 2.0], [1.02, np.nan, 2.0], [1.02, 2.08, 2.0]])
        members = np.ones((4, 3), bool)
        assert dividend_yield(factor, members) == pytest.approx([0, 0.02 / 3, 0, 0.04 / 3])
        values = np.array([[1.0, 3.0, 0.0]] * 4)
        assert dividend_yield(factor, members, values) == pytest.approx([0, 0.005, 0, 0.03])

    def test_new_shares_are_no_dividend(self) -> None:
        factor = np.array([[1.0], [1.1], [1.1]])
        assert dividend_yield(factor, np.ones((3, 1), bool)).tolist() == [0, 0, 0]
        assert dividend_yield(factor, np.ones((3, 1), bool), most=0.2) == pytest.approx([0, 0.1, 0])

    def test_members_of_the_day_before_are_paid(self) -> None:
        factor, members = np.array([[1.0], [1.02]]), np.array([[False], [True]])
        assert dividend_yield(factor, members).tolist() == [0, 0]


class TestRandomLists:
    def test_without_exchange_a_list_keeps_its_stocks(self) -> None:
        """Each list then earns the mean of the same stocks every day."""
        days, stocks = 6, 5
        returns = np.tile(2.0 ** np.arange(stocks), (days, 1))
        found = random_lists(returns, np.ones((days, stocks)), [2] * days, [0] * days, draws=50)
        assert (found[:, 0] == 0).all()
        assert (found[:, 1:] == found[:, 1:2]).all()
        pairs = {(2.0**a + 2.0**b) / 2 for a in range(stocks) for b in range(a)}
        assert {*found[:, 1]} == pairs, "every pair comes up in fifty draws, and nothing else"

    def test_as_many_are_exchanged_as_were(self) -> None:
        days, stocks = 8, 30
        returns = np.tile(2.0 ** np.arange(stocks), (days, 1))
        found = random_lists(returns, np.ones((days, stocks)), [4] * days, [3] * days, draws=20) * 4
        lists = found[:, 1:].astype(np.int64)
        for before, after in zip(lists.T, lists.T[1:], strict=False):
            kept = [(int(b) & int(a)).bit_count() for b, a in zip(before, after, strict=True)]
            assert {*kept} == {1}

    def test_who_is_not_eligible_is_dropped_and_never_bought(self) -> None:
        days, stocks = 12, 6
        eligible = np.ones((days, stocks), dtype=bool)
        eligible[:, 0] = False
        eligible[5:, 1] = False
        returns = np.zeros((days, stocks))
        returns[:, 0] = 1.0
        returns[6:, 1] = 1.0
        found = random_lists(returns, eligible, [5] * days, [1] * days, draws=30)
        assert not found.any()

    def test_they_earn_the_mean_of_all_in_the_mean(self) -> None:
        close, _ = made(days=60, stocks=20, seed=3)
        returns = np.nan_to_num(held_returns(close))
        found = random_lists(returns, np.ones(close.shape), [5] * 60, [1] * 60, draws=4000)
        error = returns.std(axis=1) / np.sqrt(5 * 4000)
        assert (np.abs(found.mean(axis=0) - returns.mean(axis=1))[1:] < 4.5 * error[1:]).all()

    def test_the_seed_decides(self) -> None:
        close, members = made()
        held = [3] * len(close), [1] * len(close)
        first, same, other = (
            random_lists(held_returns(close), members, *held, draws=3, seed=seed) for seed in (1, 1, 2)
        )
        np.testing.assert_array_equal(first, same)
        assert (first != other).any()

    def test_other_shapes_are_refused(self) -> None:
        with pytest.raises(UserError, match="same days and stocks"):
            random_lists(np.zeros((3, 2)), np.ones((3, 2)), [1, 1], [0, 0, 0])


def test_survivorship_by_hand() -> None:
    """Four members that earned -10, 0, 10 and 40%, mean 10%: a fifth that is missing earned the least or the most."""
    returns = np.array([[-0.1, 0.0, 0.1, 0.4, 9.0], [0.0] * 5])
    members = np.array([True] * 4 + [False])
    low, high = survivorship_bound(returns, members, 0.2, tail=1e-12)
    assert (low, high) == (pytest.approx(0.2 * -0.2), pytest.approx(0.2 * 0.3))
    assert survivorship_bound(returns, members, 0.0) == (0.0, 0.0)
    assert survivorship_bound(returns, ~members & members, 0.2) == (0.0, 0.0)
