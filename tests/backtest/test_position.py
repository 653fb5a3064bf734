from __future__ import annotations

import copy

import pandas as pd
import pytest
from qlib.backtest.decision import Order, OrderDir
from qlib.backtest.position import Position

from qlib_ext.backtest.position import OrderedPosition

ONE, OTHER, THIRD = "SH600000", "SH600001", "SH600002"
DAY, NEXT = pd.Timestamp("2023-08-21"), pd.Timestamp("2023-08-22")
PRICE = 10.0
BUY, SELL = OrderDir.BUY, OrderDir.SELL


def holding(amounts: dict[str, float], cash: float = 1e6) -> OrderedPosition:
    return OrderedPosition(
        cash, {code: {"amount": amount, "price": PRICE} for code, amount in amounts.items()}
    )


def book(position: Position, day: pd.Timestamp, direction: OrderDir, amount: float, code: str = ONE) -> None:
    """A trade that filled, in the middle of a day."""
    start = day + pd.Timedelta(hours=9)
    order = Order(code, amount, direction, start, day + pd.Timedelta(hours=15))
    position.update_order(order, amount * PRICE, 5.0, PRICE)


class TestBoughtOn:
    def test_purchases_of_a_day_add_up(self) -> None:
        position = OrderedPosition(1e6)
        book(position, DAY, BUY, 100.0)
        book(position, NEXT, BUY, 200.0)
        book(position, NEXT, BUY, 300.0)
        assert position.bought_on(ONE, NEXT) == 500
        assert position.get_stock_amount(ONE) == 600

    def test_only_the_newest_day_is_known(self) -> None:
        position = OrderedPosition(1e6)
        book(position, DAY, BUY, 100.0)
        assert position.bought_on(ONE, DAY) == position.bought_on(ONE, DAY + pd.Timedelta(hours=14)) == 100
        assert position.bought_on(ONE, NEXT) == 0
        book(position, NEXT, BUY, 200.0)
        assert position.bought_on(ONE, DAY) == 0

    def test_of_another_stock_nothing_was_bought(self) -> None:
        position = holding({OTHER: 700.0})
        book(position, DAY, BUY, 100.0)
        assert position.bought_on(OTHER, DAY) == position.bought_on(THIRD, DAY) == 0

    def test_a_sale_is_no_purchase(self) -> None:
        position = holding({ONE: 700.0, OTHER: 700.0})
        book(position, DAY, SELL, 300.0)
        assert position.bought_on(ONE, DAY) == 0
        book(position, DAY, BUY, 200.0, OTHER)
        book(position, DAY, SELL, 300.0, OTHER)
        assert position.bought_on(OTHER, DAY) == 200  # what was held before went first
        assert position.get_stock_amount_dict() == {ONE: 400, OTHER: 600}


class TestSales:
    @pytest.mark.parametrize("rest", [1.0, 100.0])
    def test_a_small_rest_is_kept(self, rest: float) -> None:
        held = 1e8
        position, qlibs = holding({ONE: held}), Position(1e6, {ONE: {"amount": held, "price": PRICE}})
        for each in (position, qlibs):
            book(each, DAY, SELL, held - rest)
        assert position.get_stock_amount(ONE) == pytest.approx(rest)
        assert position.get_stock_price(ONE) == PRICE
        assert qlibs.get_stock_amount(ONE) == 0  # Qlib drops it
        assert position.get_cash() == qlibs.get_cash() == pytest.approx(1e6 + (held - rest) * PRICE - 5)

    @pytest.mark.parametrize("rest", [0.0, 0.01, -0.01])
    def test_what_rounding_leaves_is_nothing(self, rest: float) -> None:
        position = holding({ONE: 1e8, OTHER: 1.0})
        book(position, DAY, SELL, 1e8 - rest)
        assert position.get_stock_list() == [OTHER]

    def test_a_part_leaves_the_rest(self) -> None:
        position = holding({ONE: 700.0})
        book(position, DAY, SELL, 300.0)
        assert position.get_stock_amount(ONE) == 400

    def test_what_is_not_held_cannot_be_sold(self) -> None:
        with pytest.raises(KeyError, match=f"{ONE} not in current position"):
            book(holding({OTHER: 1.0}), DAY, SELL, 1.0)


def test_stocks_come_sorted_by_code() -> None:
    codes = [f"SH60{number:04}" for number in range(40)]
    assert holding(dict.fromkeys(reversed(codes), 100.0)).get_stock_list() == codes
    assert OrderedPosition(1e6).get_stock_list() == []


class TestCopy:
    def test_has_all_there_is(self) -> None:
        position = holding({OTHER: 700.0}, cash=3e5)
        book(position, DAY, BUY, 100.0)
        twin = copy.deepcopy(position)
        assert type(twin) is OrderedPosition
        assert twin.position == position.position
        assert twin.bought_on(ONE, DAY) == 100
        assert twin.calculate_value() == position.calculate_value()

    def test_goes_its_own_way(self) -> None:
        position = holding({OTHER: 700.0}, cash=3e5)
        book(position, DAY, BUY, 100.0)
        before = {
            key: dict(held) if isinstance(held, dict) else held for key, held in position.position.items()
        }
        twin = copy.deepcopy(position)
        book(twin, DAY, BUY, 200.0)
        book(twin, DAY, SELL, 300.0, OTHER)
        twin.update_stock_price(ONE, 12.0)
        assert position.position == before
        assert position.bought_on(ONE, DAY) == 100
        assert (twin.bought_on(ONE, DAY), twin.get_stock_amount(OTHER)) == (300, 400)
