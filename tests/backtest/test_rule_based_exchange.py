from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.backtest.position import Position
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.checks import UserError
from qlib_ext.market.store import write_store

# Qlib averages the orders of a day also where there are none.
pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")

BUY, SELL = OrderDir.BUY, OrderDir.SELL
CALENDAR = pd.bdate_range("2023-08-17", periods=14)  # stamp duty is halved on 2023-08-28, day 7
HALVED = 7
STILL = 11  # a day on which one stock has no volume
INDEX, PLAIN, ADJUSTED, GROWTH, STAR, SHRINKING = CODES = [
    "SH000300",
    "SH600000",
    "SH600001",
    "SZ300001",
    "SH688001",
    "SH600002",
]
PRICE = {INDEX: 3000.0, PLAIN: 10.0, ADJUSTED: 20.0, GROWTH: 30.0, STAR: 50.0, SHRINKING: 8.0}
FACTOR = {ADJUSTED: 3.7}


class Scripted(BaseStrategy):
    """Sends what it is told, whether it can fill or not."""

    def __init__(self, wishes: Mapping[int, Sequence[tuple[Any, ...]]]):
        super().__init__()
        self.wishes = wishes

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        start, end = self.trade_calendar.get_step_time()
        wanted = self.wishes.get(CALENDAR.get_loc(start), ())
        return TradeDecisionWO([Order(*wish[:1], wish[2], wish[1], start, end) for wish in wanted], self)


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("market")
    shape = len(CALENDAR), len(CODES)
    raw = np.tile([PRICE[code] for code in CODES], (shape[0], 1))
    factor = np.tile([FACTOR.get(code, 1.0) for code in CODES], (shape[0], 1))
    column = CODES.index(SHRINKING)
    factor[5:, column] = 1.13  # new shares for nothing: 100 shares become 113
    bars = {"close": raw * factor, "factor": factor, "volume": np.full(shape, 1e8), "open": raw * factor}
    bars["volume"][STILL, CODES.index(PLAIN)] = 0.0
    bars["volume"][STILL, CODES.index(ADJUSTED)] = np.nan
    spells = pd.DataFrame({"instrument": CODES, "start": CALENDAR[0], "end": CALENDAR[-1]})
    write_store(root, CALENDAR, CODES, bars, {"csi300": spells})
    return root


@pytest.fixture
def market(store: Path) -> Market:
    return Market(store)


class Market:
    """Five stocks whose prices stand still, and an index."""

    def __init__(self, root: Path):
        qlib.init(provider_uri=str(root), region="cn", kernels=1)

    def exchange(self, **settings: Any) -> RuleBasedExchange:
        made, _ = make_exchange(CODES[1:], CALENDAR[1], CALENDAR[-2], {"rules": "cn", **settings})
        return made

    def trade(
        self, wishes: Mapping[int, Sequence[tuple[Any, ...]]], account: float = 1e6, **settings: Any
    ) -> BacktestResult:
        """Send (code, direction, amount) on the days `wishes` names."""
        exchange = self.exchange(**settings)
        return simulate(
            Scripted(wishes), exchange, CALENDAR[1], CALENDAR[-2], account=account, benchmark=INDEX
        )


def rows(done: BacktestResult, day: int) -> pd.DataFrame:
    return done.orders.loc[[CALENDAR[day]]].reset_index()


class TestFees:
    def test_of_the_day_and_the_direction(self, market: Market) -> None:
        wish = [(PLAIN, BUY, 4000.0)]
        done = market.trade({2: wish, HALVED - 1: [(PLAIN, SELL, 2000.0)], HALVED: [(PLAIN, SELL, 2000.0)]})
        cost = done.orders["cost"]
        # 0.05 % commission; 0.001 % transfer fee; 0.1 %, then 0.05 % stamp duty on sales
        assert [*cost] == pytest.approx([40_000 * 0.00051, 20_000 * 0.00151, 20_000 * 0.00101])
        assert done.daily["cash"].iloc[-1] == pytest.approx(1e6 - cost.sum())

    def test_the_least_commission(self, market: Market) -> None:
        done = market.trade({2: [(PLAIN, BUY, 100.0)], 8: [(PLAIN, SELL, 100.0)]})
        assert [*done.orders["cost"]] == pytest.approx([5 + 0.01, 5 + 0.51])

    @pytest.mark.parametrize(
        ("given", "buy", "sell"),
        [
            ({"commission": 0.0002}, 8.4, 28.4),
            ({"commission": 0}, 5.4, 25.4),
            ({"open_cost": 0}, 5, 40.4),
            ({"commission": 0.0001, "min_cost": 0}, 4.4, 24.4),
            ({"min_cost": 50}, 50.4, 70.4),
            ({"open_cost": 0.001, "close_cost": 0.002}, 40, 80),
            ({"close_cost": 0.002}, 20.4, 80),
        ],
    )
    def test_what_is_given_takes_the_place_of_the_table(
        self, market: Market, given: dict[str, float], buy: float, sell: float
    ) -> None:
        done = market.trade({8: [(PLAIN, BUY, 4000.0)], 9: [(PLAIN, SELL, 4000.0)]}, **given)
        assert [*done.orders["cost"]] == pytest.approx([buy, sell])

    def test_a_large_order_moves_its_price(self, market: Market) -> None:
        done = market.trade({8: [(PLAIN, BUY, 50_000.0)]}, impact_cost=0.1)
        share = 50_000 / 1e8
        assert [*done.orders["cost"]] == pytest.approx([500_000 * (0.00051 + 0.1 * share**2)])


class TestSuspensions:
    @pytest.mark.parametrize("code", [PLAIN, ADJUSTED])
    @pytest.mark.parametrize("direction", [BUY, SELL])
    def test_without_volume_nothing_is_traded(self, market: Market, direction: OrderDir, code: str) -> None:
        done = market.trade({2: [(code, BUY, 500.0)], STILL: [(code, direction, 200.0), (STAR, BUY, 200.0)]})
        still, other = rows(done, STILL).to_dict("records")
        assert (still["filled"], still["cost"], still["reason"]) == (0, 0, "suspended, no volume")
        assert (other["filled"], other["reason"]) == (200, None)

    def test_a_store_without_volumes_tells_of_no_suspension(self, tmp_path: Path) -> None:
        shape = len(CALENDAR), len(CODES)
        bars = {"close": np.full(shape, 10.0), "factor": np.ones(shape)}
        spells = pd.DataFrame({"instrument": CODES, "start": CALENDAR[0], "end": CALENDAR[-1]})
        write_store(tmp_path / "store", CALENDAR, CODES, bars, {"csi300": spells})
        (order,) = rows(Market(tmp_path / "store").trade({2: [(PLAIN, BUY, 500.0)]}), 2).to_dict("records")
        assert (order["filled"], order["reason"]) == (500, None)


class TestLots:
    @pytest.mark.parametrize(
        ("code", "wanted", "filled"),
        [
            (PLAIN, 99.9, 0),
            (PLAIN, 199, 100),
            (ADJUSTED, 1099, 1000),
            (GROWTH, 250, 200),
            (STAR, 199, 0),
            (STAR, 251.5, 251),
        ],
    )
    def test_a_purchase(self, market: Market, code: str, wanted: float, filled: float) -> None:
        factor = FACTOR.get(code, 1.0)
        (row,) = rows(market.trade({2: [(code, BUY, wanted / factor)]}), 2).to_dict("records")
        assert row["filled"] * factor == pytest.approx(filled)
        assert row["reason"] == (None if filled else "lot size")

    def test_what_is_left_over_is_sold_with_the_rest(self, market: Market) -> None:
        done = market.trade({2: [(SHRINKING, BUY, 300.0)], 8: [(SHRINKING, SELL, 300.0)]})
        row = rows(done, 8).iloc[0]
        assert row["filled"] * row["factor"] == pytest.approx(339)
        assert (row["status"], row["reason"]) == ("filled", None)
        assert SHRINKING not in done.held[CALENDAR[8]].get_stock_list()

    def test_a_part_of_a_holding_is_sold_in_lots(self, market: Market) -> None:
        done = market.trade(
            {2: [(STAR, BUY, 350.0), (PLAIN, BUY, 300.0)], 8: [(STAR, SELL, 199.0), (PLAIN, SELL, 250.0)]}
        )
        star, plain = rows(done, 8).to_dict("records")
        assert (star["filled"], star["reason"]) == (0, "lot size")
        assert plain["filled"] == 200
        whole = market.trade({2: [(STAR, BUY, 350.0)], 8: [(STAR, SELL, 201.0)], 9: [(STAR, SELL, 149.0)]})
        assert [*whole.orders["filled"]] == [350, 201, 149]  # the rest is below a lot, and goes whole

    def test_none_where_the_workflow_says_so(self, market: Market) -> None:
        done = market.trade({2: [(STAR, BUY, 0.5)]}, trade_unit=None)
        assert done.orders["filled"].iloc[0] == 0.5
        done = market.trade({2: [(STAR, BUY, 35.0)]}, trade_unit=10)
        assert done.orders["filled"].iloc[0] == 30

    @pytest.mark.parametrize(("code", "least"), [(PLAIN, 100), (ADJUSTED, 100 / 3.7), (STAR, 200)])
    def test_the_least_purchase_for_strategies_of_qlib(self, market: Market, code: str, least: float) -> None:
        start, end = CALENDAR[2], CALENDAR[2] + pd.Timedelta(hours=23)
        exchange = market.exchange()
        assert exchange.get_amount_of_trade_unit(None, code, start, end) == pytest.approx(least)
        factor = FACTOR.get(code, 1.0)
        assert exchange.get_amount_of_trade_unit(2 * factor, code, start, end) == pytest.approx(least / 2)
        assert market.exchange(trade_unit=None).get_amount_of_trade_unit(None, code, start, end) is None

    def test_of_no_stock_they_are_the_largest_of_any_board(self, market: Market) -> None:
        exchange = market.exchange()
        assert exchange.get_amount_of_trade_unit(2.0) == 50
        assert exchange.round_amount_by_trade_unit(299.0, 1.0) == 200
        assert exchange.round_amount_by_trade_unit(299.0, 2.0) == 250
        assert market.exchange(trade_unit=None).round_amount_by_trade_unit(299.0, 2.0) == 299

    def test_lots_of_the_book(self, market: Market) -> None:
        done = market.trade({2: [(PLAIN, BUY, 1000.0), (STAR, BUY, 1000.0)]})
        assert [*done.orders["lots_filled"]] == [10, 1000]
        assert market.exchange().trade_unit == 100
        assert market.exchange(rules="us").trade_unit == 1


class TestCash:
    @pytest.mark.parametrize(
        "account", [1004.9, 1005.005, 1005.02, 3333.3, 20010.2 - 1e-6, 20010.2 + 1e-6, 1e5]
    )
    @pytest.mark.parametrize("code", [PLAIN, STAR])
    def test_a_purchase_takes_all_there_is_and_no_more(
        self, market: Market, account: float, code: str
    ) -> None:
        done = market.trade({2: [(code, BUY, 1e6)]}, account=account)
        (filled,) = done.orders["filled"]
        (cash,) = done.daily["cash"].iloc[[-1]]
        assert cash >= 0
        lot, least = (1, 200) if code == STAR else (100, 100)

        def total(shares: float) -> float:
            value = shares * PRICE[code]
            return max(0.0005 * value, 5) + 1.00001 * value

        assert total(filled + lot if filled else least) > account
        if filled:
            assert cash == pytest.approx(account - total(filled))
            assert done.orders["reason"].iloc[0] == "no cash"

    def test_a_lot_for_which_a_millionth_is_missing_is_not_bought(self, market: Market) -> None:
        """Of real shares: an adjusted one is worth 3.7 of them."""
        (plenty,) = rows(market.trade({2: [(ADJUSTED, BUY, 1000 / 3.7)]}), 2).to_dict("records")
        price, factor = plenty["price"], plenty["factor"]
        whole = 1000 / factor * price * 1.00051
        for account, real in ((whole - 1e-6, 900), (whole + 1e-6, 1000)):
            done = market.trade({2: [(ADJUSTED, BUY, 1e6)]}, account=account)
            assert done.orders["filled"].iloc[0] * factor == pytest.approx(real)
            assert done.daily["cash"].min() >= 0

    def test_without_lots_it_takes_all_there_is_and_no_more(self, market: Market) -> None:
        exchange = market.exchange(trade_unit=None)
        start, end = CALENDAR[2], CALENDAR[2] + pd.Timedelta(hours=23)
        for cash in np.random.default_rng(0).uniform(2e4, 1e6, 300):
            order = Order(PLAIN, 1e6, BUY, start, end)
            value, cost, _ = exchange.deal_order(order, position=OrderedPosition(cash))
            assert cash * (1 - 1e-9) < value + cost <= cash

    def test_without_an_account_only_the_lots_count(self, market: Market) -> None:
        start, end = CALENDAR[2], CALENDAR[2] + pd.Timedelta(hours=23)
        bought, sold = Order(GROWTH, 250.0, BUY, start, end), Order(GROWTH, 250.0, SELL, start, end)
        for order in (bought, sold):
            market.exchange().deal_order(order)
        assert (bought.deal_amount, sold.deal_amount) == (200, 250)

    def test_a_sale_that_cannot_pay_its_fee_is_left(self, market: Market) -> None:
        wishes = {2: [(PLAIN, BUY, 100.0)], 3: [(PLAIN, SELL, 100.0)]}
        # the purchase takes 3,500.01, so that cash and the 1,000 of the sale must pay 2,501.01
        for account, status in ((5001.01, "not filled"), (5001.03, "filled")):
            done = market.trade(wishes, account=account, min_cost=2500)
            assert done.orders["status"].iloc[0] == "filled"
            assert done.orders["status"].iloc[1] == status
            assert done.daily["cash"].min() >= 0

    @pytest.mark.parametrize(
        ("code", "lot"), [(PLAIN, 1000 + 5 + 0.01), (ADJUSTED, 2000 + 5 + 0.02), (STAR, 10_000 + 5 + 0.1)]
    )
    def test_less_than_a_lot_is_for_want_of_cash_where_a_lot_cannot_be_paid(
        self, market: Market, code: str, lot: float
    ) -> None:
        for account, reason in ((lot - 0.01, "no cash"), (lot + 0.01, "lot size")):
            (row,) = rows(market.trade({2: [(code, BUY, 5.0)]}, account=account), 2).to_dict("records")
            assert (row["filled"], row["reason"]) == (0, reason)

    def test_the_fee_of_a_sale_is_paid_out_of_it(self, market: Market) -> None:
        done = market.trade({2: [(SHRINKING, BUY, 100.0)], 8: [(SHRINKING, SELL, 100.0)]}, account=806.0)
        assert done.daily["cash"].min() >= 0
        assert [*done.orders["status"]] == ["filled", "filled"]


class TestResale:
    def test_what_was_bought_today_stays(self, market: Market) -> None:
        done = market.trade({2: [(PLAIN, BUY, 300.0)], 3: [(PLAIN, BUY, 500.0), (PLAIN, SELL, 700.0)]})
        sale = rows(done, 3).iloc[1]
        assert (sale["filled"], sale["status"], sale["reason"]) == (300, "partly", "bought today")

    def test_all_of_it_was_bought_today(self, market: Market) -> None:
        done = market.trade({3: [(PLAIN, BUY, 500.0), (PLAIN, SELL, 500.0)], 4: [(PLAIN, SELL, 500.0)]})
        assert [*done.orders["filled"]] == [500, 0, 500]
        assert done.orders["reason"].iloc[1] == "bought today"

    def test_a_share_too_many_is_one_that_was_bought_today(self, market: Market) -> None:
        sales = [(300.0, None), (301.0, "bought today")]
        for amount, reason in sales:
            done = market.trade({2: [(STAR, BUY, 300.0)], 3: [(STAR, BUY, 500.0), (STAR, SELL, amount)]})
            sale = rows(done, 3).iloc[1]
            assert (sale["filled"], sale["reason"]) == (300, reason)

    def test_it_may_be_sold_where_the_rule_is_t_plus_0(self, market: Market) -> None:
        wishes = {3: [(PLAIN, BUY, 500.0), (PLAIN, SELL, 500.0)]}
        assert [*market.trade(wishes, rules="us").orders["filled"]] == [500, 500]

    def test_a_position_that_does_not_know_is_refused(self, market: Market) -> None:
        exchange = market.exchange()
        order = Order(PLAIN, 100.0, SELL, CALENDAR[3], CALENDAR[3] + pd.Timedelta(hours=23))
        held = {PLAIN: {"amount": 100.0, "price": 10.0}}
        with pytest.raises(UserError, match=r"`pos_type` must be qlib_ext.backtest.position.OrderedPosition"):
            exchange.deal_order(order, position=Position(1e6, held))
        exchange.deal_order(order, position=OrderedPosition(1e6, held))
        assert order.deal_amount == 100


class TestLimitOfOnesOwn:
    """One that is given takes the place of all limits and suspensions of the table."""

    def test_it_forbids(self, market: Market) -> None:
        wishes = {2: [(PLAIN, BUY, 100.0), (GROWTH, BUY, 100.0)]}
        plain, growth = rows(market.trade(wishes, limit_threshold=["$close > 25"] * 2), 2).to_dict("records")
        assert (plain["filled"], plain["reason"]) == (100, None)
        assert (growth["filled"], growth["reason"]) == (0, "price limit up")

    @pytest.mark.parametrize("limit", [None, ["$close > 25"] * 2])
    def test_the_tables_are_not_looked_up(self, market: Market, limit: list[str] | None) -> None:
        assert market.exchange().notes != []  # of the status, which the store does not have
        exchange = market.exchange(limit_threshold=limit)
        assert exchange.notes == []
        assert exchange.quote_df["limit_buy"].any() == (limit is not None)


class TestWithoutRules:
    def test_it_is_the_observed_exchange(self, market: Market) -> None:
        exchange = market.exchange(rules=None, limit_threshold=None, open_cost=0.001, min_cost=7)
        assert exchange.rules is None
        assert exchange.describe() is None
        wishes = {2: [(PLAIN, BUY, 1000.0)], 3: [(STAR, BUY, 100.0)]}
        done = market.trade(wishes, rules=None, limit_threshold=None, open_cost=0.001, min_cost=7)
        assert [*done.orders["cost"]] == pytest.approx([10, 7])  # and a lot of STAR is of 100

    def test_a_limit_that_is_not_given_is_the_regions(self, market: Market) -> None:
        assert market.exchange(rules=None).limit_threshold == 0.095

    def test_no_limit_is_none_whatever_the_region(self, market: Market) -> None:
        exchange = market.exchange(rules=None, limit_threshold=None)
        assert exchange.limit_threshold is None
        assert not exchange.quote_df["limit_buy"].any()


class TestDescribes:
    def test_the_rules_in_force(self, market: Market) -> None:
        told = market.exchange().describe()
        assert told is not None
        assert (told["name"], len(told["digest"])) == ("cn", 16)
        duties = [row["from"] for row in told["in_force"] if row["rule"] == "stamp duty"]
        assert duties == ["2008-09-19", "2023-08-28"]

    def test_notes_go_to_the_reader(self, market: Market) -> None:
        _, notes = make_exchange([PLAIN], CALENDAR[1], CALENDAR[-2], {"rules": "cn"})
        (note,) = notes
        assert "no side data `status`" in note
        assert make_exchange([PLAIN], CALENDAR[1], CALENDAR[-2], {"rules": "us"})[1] == []


class TestRefuses:
    @pytest.mark.parametrize(
        ("settings", "message"),
        [
            ({"rules": "china"}, "`rules` must be one of cn, us"),
            ({"rules": None, "commission": 0.0003}, "set `rules` too, or `open_cost` and `close_cost`"),
            ({"commission": 0.0003, "open_cost": 0.001}, "set `commission` or `open_cost`, not both"),
            ({"commission": 3}, r"`commission` must lie in \[0, 1\), found 3"),
            ({"min_cost": -5}, "`min_cost` must be at least 0, found -5"),
            ({"commission": 1}, r"`commission` must lie in \[0, 1\), found 1"),
            ({"open_cost": -0.1}, r"`open_cost` must lie in \[0, 1\), found -0.1"),
            ({"close_cost": 1}, r"`close_cost` must lie in \[0, 1\), found 1"),
            (
                {"commission": 0, "close_cost": 0},
                "set `commission` or `close_cost`, not both: `close_cost` is all",
            ),
        ],
    )
    def test_wrong_arguments(self, market: Market, settings: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            market.exchange(**settings)

    def test_a_stock_of_no_board(self, market: Market) -> None:
        with pytest.raises(UserError, match="name no board for SH000300"):
            make_exchange([PLAIN, INDEX], CALENDAR[1], CALENDAR[-2], {"rules": "cn"})
