from __future__ import annotations

import numpy as np
import pytest

from qlib_ext.portfolio.online.paper_account import PaperAccount

CODES = ("A", "B", "C")


def by_money(
    decisions: dict[int, list[float]], returns: np.ndarray, lag: int, buy: float, sell: float
) -> list[float]:
    """Values of an account in money, day by day: cash, and money in each stock."""
    cash, stocks, values = 1.0, [0.0, 0.0, 0.0], [1.0]
    for day in range(len(returns) + 1):
        if day > 0:
            stocks = [money * (1 + gain) for money, gain in zip(stocks, returns[day - 1], strict=True)]
        if day - lag in decisions:
            value = cash + sum(stocks)
            wanted = [weight * value for weight in decisions[day - lag]]
            bought = sum(max(0, new - old) for new, old in zip(wanted, stocks, strict=True))
            sold = sum(max(0, old - new) for new, old in zip(wanted, stocks, strict=True))
            cost = (bought * buy + sold * sell) / value
            # The cost is taken from all that is held, so that the weights are the wanted ones.
            stocks = [money * (1 - cost) for money in wanted]
            cash = (value - sum(wanted)) * (1 - cost)
        if day > 0:
            values.append(cash + sum(stocks))
    return [values[day + 1] / values[day] for day in range(len(returns))]


@pytest.mark.parametrize("lag", [1, 2])
@pytest.mark.parametrize(("buy", "sell"), [(0.0, 0.0), (0.001, 0.004)])
def test_it_earns_what_an_account_of_money_does(lag: int, buy: float, sell: float) -> None:
    rng = np.random.default_rng(lag)
    returns = rng.normal(0, 0.03, (12, 3))
    decisions = {0: [0.5, 0.3, 0.2], 3: [0.0, 0.4, 0.5], 4: [0.2, 0.2, 0.2], 9: [1.3, -0.3, 0.0]}
    account, found = PaperAccount(lag, buy, sell), []
    for day in range(13):
        if day > 0:
            found += [*account.advance(CODES, returns[day - 1 : day])]
        if day in decisions:
            account.aim(CODES, np.array(decisions[day]))
    np.testing.assert_allclose(found, by_money(decisions, returns, lag, buy, sell), rtol=1e-12)


def test_days_come_one_by_one_or_together() -> None:
    returns = np.random.default_rng(0).normal(0, 0.03, (6, 3))
    one, many = PaperAccount(1, 0.01, 0.01), PaperAccount(1, 0.01, 0.01)
    for account in (one, many):
        account.aim(CODES, np.array([0.6, 0.2, 0.1]))
    each = [float(one.advance(CODES, row[None])[0]) for row in returns]
    np.testing.assert_allclose(many.advance(CODES, returns), each, rtol=1e-14)
    np.testing.assert_allclose(one.held(CODES), many.held(CODES), rtol=1e-14)


def test_without_a_lag_it_trades_at_once() -> None:
    account = PaperAccount(0, 0.0, 0.0)
    account.aim(CODES, np.array([1.0, 0, 0]))
    np.testing.assert_allclose(account.advance(CODES, np.array([[0.1, 0, 0]])), [1.1])


def test_a_stock_that_is_gone_stands_still_until_it_is_sold() -> None:
    account = PaperAccount(0, 0.0, 0.01)
    account.aim(CODES, np.array([0.5, 0.5, 0]))
    np.testing.assert_allclose(account.advance(("A",), np.array([[0.1]])), [1.05])
    assert account.held(("B",))[0] == pytest.approx(0.5 / 1.05)
    account.aim(("A",), np.array([0.5]))
    assert account.held(("B",))[0] == 0


def test_a_missing_return_is_none() -> None:
    account = PaperAccount(0, 0.0, 0.0)
    account.aim(CODES, np.array([0.5, 0.5, 0]))
    np.testing.assert_allclose(account.advance(CODES, np.array([[np.nan, 0.1, np.nan]])), [1.05])


def test_what_is_traded_at_once_costs_as_much() -> None:
    account = PaperAccount(0, 0.001, 0.004)
    account.aim(CODES, np.array([0.5, 0.5, 0.0]))
    assert account.advance(CODES, np.zeros((1, 3))) == pytest.approx([0.999])
    account.aim(CODES, np.array([0.0, 0.5, 0.0]))
    assert account.advance(CODES, np.zeros((2, 3))) == pytest.approx([0.998, 1.0])
