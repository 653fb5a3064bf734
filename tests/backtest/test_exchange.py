from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from hypothesis import given, settings
from hypothesis import strategies as st
from qlib.backtest import backtest
from qlib.backtest.decision import Order, OrderDir, TradeDecisionWO
from qlib.backtest.exchange import Exchange
from qlib.backtest.high_performance_ds import NumpyQuote
from qlib.backtest.position import Position
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.exchange import IntendedOrder, Reason, RecordingExchange
from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.market.store import write_store
from qlib_ext.strategy.topk_dropout import TopkDropout

# Qlib averages the orders of a day also where there are none.
pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")

CODES = [f"SH6{number:05d}" for number in range(9)]
PLAIN, UP, DOWN, GONE, STILL, DEAR, ADJUSTED, OTHER, SHRUNK = CODES
BUY, SELL = OrderDir.BUY, OrderDir.SELL
DAYS, PLANTED = 14, 5
UNTOLD = PLANTED + 2  # on which the store does not know the move of one
SETTINGS = {
    "deal_price": "close",
    "limit_threshold": 0.095,
    "open_cost": 0.0005,
    "close_cost": 0.0015,
    "min_cost": 5,
    "trade_unit": 100,
}


class Market:
    """Nine stocks at about 10 a share; on day `PLANTED` four of them cannot be traded, each for its own reason."""

    def __init__(self, root: Path):
        draw = np.random.default_rng(5)
        self.calendar = pd.bdate_range("2020-01-01", periods=DAYS)
        change = draw.normal(0, 0.02, (DAYS, len(CODES)))
        column = {code: k for k, code in enumerate(CODES)}
        change[PLANTED, column[UP]], change[PLANTED, column[DOWN]] = 0.1, -0.1
        change[PLANTED, column[STILL]] = 0
        close = 10 * np.cumprod(1 + change, axis=0)
        change[UNTOLD, column[DEAR]] = np.nan
        close[:, column[DEAR]] *= 1000  # 1 million a lot
        factor = np.ones_like(close)
        factor[:, column[ADJUSTED]] = 3.7
        factor[PLANTED + 1 :, column[SHRUNK]] = 0.99998  # 3,700 shares become 3,699.926
        close[:, column[ADJUSTED]] *= 3.7
        volume = np.full_like(close, 1e5)
        volume[PLANTED, column[STILL]] = 0
        bars = {"close": close, "change": change, "factor": factor, "volume": volume}
        for values in bars.values():
            values[PLANTED, column[GONE]] = np.nan
        spells = pd.DataFrame({"instrument": CODES, "start": self.calendar[0], "end": self.calendar[-1]})
        write_store(root, self.calendar, CODES, bars, {"csi300": spells})
        qlib.init(provider_uri=str(root), region="cn", kernels=1)

    def exchange(self, **changed: Any) -> RecordingExchange:
        made, _ = make_exchange(CODES, self.calendar[1], self.calendar[-2], SETTINGS | changed)
        return made

    def trade(
        self, wishes: Mapping[int, Sequence[tuple[Any, ...]]], account: float = 1e6, **changed: Any
    ) -> BacktestResult:
        """Send (code, direction, amount) on the days `wishes` names."""
        return simulate(
            Scripted(self.calendar, wishes),
            self.exchange(**changed),
            self.calendar[1],
            self.calendar[-2],
            account=account,
            benchmark=PLAIN,
        )


class Scripted(BaseStrategy):
    """Sends what it is told, whether it can fill or not."""

    def __init__(self, calendar: pd.DatetimeIndex, wishes: Mapping[int, Sequence[tuple[Any, ...]]]):
        super().__init__()
        self.calendar, self.wishes = calendar, wishes

    def generate_trade_decision(self, execute_result: Any = None) -> TradeDecisionWO:
        start, end = self.trade_calendar.get_step_time()
        wanted = self.wishes.get(self.calendar.get_loc(start), ())
        orders = [
            IntendedOrder(code, amount, direction, start, end, *rest)
            for code, direction, amount, *rest in wanted
        ]
        return TradeDecisionWO(orders, self)


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Market(tmp_path_factory.mktemp("market"))


def only(done: BacktestResult, day: int = PLANTED) -> pd.Series:
    """The one order of a day."""
    rows = done.orders.reset_index()
    (row,) = [row for _, row in rows[rows["datetime"] == done.daily.index[day - 1]].iterrows()]
    return row


class TestFilled:
    def test_whole_lots_fill_at_the_close(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 1000.0)]}), 3)
        assert (row["direction"], row["sent"], row["status"], row["reason"]) == ("buy", True, "filled", None)
        assert (row["amount"], row["filled"], row["lots"], row["lots_filled"]) == (1000, 1000, 10, 10)
        assert row["value"] == row["wanted_value"] == pytest.approx(1000 * row["price"])
        assert row["cost"] == pytest.approx(max(5, 0.0005 * row["value"]))

    def test_rounding_down_to_lots_is_no_failure(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 1090.0)]}), 3)
        assert (row["status"], row["reason"]) == ("filled", None)
        assert (row["lots"], row["lots_filled"]) == (pytest.approx(10.9), pytest.approx(10))

    def test_lots_are_of_real_shares(self, market: Market) -> None:
        row = only(market.trade({3: [(ADJUSTED, BUY, 1000.0)]}), 3)
        assert row["factor"] == pytest.approx(3.7)
        assert row["lots"] == pytest.approx(37)
        assert row["filled"] == pytest.approx(1000)

    def test_all_that_is_held_is_all_of_it(self, market: Market) -> None:
        done = market.trade({3: [(SHRUNK, BUY, 3700.0)], PLANTED + 2: [(SHRUNK, SELL, 3700.0)]})
        row = only(done, PLANTED + 2)
        assert row["lots"] == pytest.approx(36.99926)
        assert (row["status"], row["reason"]) == ("filled", None)  # though Qlib would round it up to 37 lots
        assert done.positions().index.get_level_values("datetime").max() == market.calendar[PLANTED + 1]

    def test_without_lots_there_are_none(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 0.5)]}, trade_unit=None), 3)
        assert (row["status"], row["filled"]) == ("filled", 0.5)
        assert np.isnan(row["lots"])


class TestReasons:
    @pytest.mark.parametrize(
        ("code", "direction", "reason"),
        [
            (UP, BUY, "price limit up"),
            (DOWN, SELL, "price limit down"),
            (GONE, BUY, "suspended, no price"),
            (GONE, SELL, "suspended, no price"),
            (STILL, BUY, "suspended, no volume"),
            (STILL, SELL, "suspended, no volume"),
        ],
    )
    def test_a_stock_that_cannot_be_traded(
        self, market: Market, code: str, direction: OrderDir, reason: str
    ) -> None:
        wishes = {PLANTED: [(code, direction, 500.0)]}
        if direction == SELL:
            wishes[2] = [(code, BUY, 500.0)]
        row = only(market.trade(wishes))
        assert (row["status"], row["reason"]) == ("not filled", reason)
        assert (row["filled"], row["value"], row["cost"]) == (0, 0, 0)
        if code == GONE:
            assert np.isnan(row["price"])
            assert np.isnan(row["wanted_value"]) == (direction == BUY)  # what is held has a last price

    @pytest.mark.parametrize(("code", "direction"), [(UP, SELL), (DOWN, BUY)])
    def test_a_limit_binds_one_way(self, market: Market, code: str, direction: OrderDir) -> None:
        row = only(market.trade({2: [(code, BUY, 500.0)], PLANTED: [(code, direction, 500.0)]}))
        assert (row["status"], row["reason"]) == ("filled", None)

    def test_an_expression_that_forbids_both_ways_is_told_apart_by_the_move(self, market: Market) -> None:
        either = ["Abs($change) >= 0.095"] * 2
        for code, reason in ((UP, "price limit up"), (DOWN, "price limit down")):
            for direction in (BUY, SELL):
                wishes = {2: [(code, BUY, 500.0)], PLANTED: [(code, direction, 500.0)]}
                assert only(market.trade(wishes, limit_threshold=either))["reason"] == reason

    def test_of_an_unknown_move_the_direction_tells(self, market: Market) -> None:
        exchange = market.exchange(limit_threshold=["$close > 0"] * 2)
        start = market.calendar[UNTOLD]
        end = start + pd.Timedelta("1D") - pd.Timedelta("1s")
        found = [exchange.obstacle(DEAR, start, end, direction) for direction in (BUY, SELL, None)]
        assert found == [Reason.LIMIT_UP, Reason.LIMIT_DOWN, Reason.LIMIT_UP]

    def test_no_cash_for_all_of_it(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 1e6)]}, account=1e5), 3)
        assert (row["status"], row["reason"]) == ("partly", "no cash")
        assert 0 < row["value"] + row["cost"] <= 1e5 < row["value"] + row["cost"] + 1.1 * 100 * row["price"]

    def test_no_cash_for_a_lot(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 300.0)]}, account=500.0), 3)
        assert (row["status"], row["reason"]) == ("not filled", "no cash")

    def test_no_cash_for_the_fee(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 100.0)]}, account=4.0), 3)
        assert (row["status"], row["reason"]) == ("not filled", "no cash")

    def test_no_cash_for_the_fee_of_a_purchase_far_beyond_it(self, market: Market) -> None:
        """A lot could be paid; Qlib looks at the fee of all that is wanted first."""
        row = only(market.trade({3: [(PLAIN, BUY, 1e6)]}, account=4000.0), 3)
        assert (row["status"], row["reason"]) == ("not filled", "no cash")

    def test_no_cash_for_the_fee_of_a_sale(self, market: Market) -> None:
        wishes = {3: [(PLAIN, BUY, 100.0)], 4: [(PLAIN, SELL, 100.0)]}
        done = market.trade(wishes, account=4000.0, min_cost=2500)
        assert [*done.orders["status"]] == ["filled", "not filled"]
        assert [*done.orders["reason"]] == [None, "no cash"]

    @pytest.mark.parametrize("code", [PLAIN, ADJUSTED, DEAR])
    def test_less_than_a_lot_is_for_want_of_cash_where_a_lot_cannot_be_paid(
        self, market: Market, code: str
    ) -> None:
        row = only(market.trade({3: [(code, BUY, 0.0)]}), 3)
        lot = 100 / row["factor"] * row["price"]
        total = lot + max(5, 0.0005 * lot)
        for account, reason in ((total - 0.01, "no cash"), (total + 0.01, "lot size")):
            assert only(market.trade({3: [(code, BUY, 0.001)]}, account=account), 3)["reason"] == reason

    @pytest.mark.parametrize("lots", [3, 200])
    def test_a_purchase_takes_all_there_is_and_no_more(self, market: Market, lots: int) -> None:
        """At the least fee, and at that of the rate."""
        price = only(market.trade({3: [(PLAIN, BUY, 100.0)]}), 3)["price"]
        value = 100 * lots * price
        total = value + max(5, 0.0005 * value)
        # Qlib would round up where a tenth of a share is missing; here there must be as much to spare
        for account, bought in ((total - 0.01, lots - 1), (total + 0.2 * price, lots)):
            done = market.trade({3: [(PLAIN, BUY, 100.0 * (lots + 5))]}, account=account)
            assert [*done.orders["lots_filled"]] == [bought]
            assert done.daily["cash"].min() >= 0

    def test_less_than_a_lot(self, market: Market) -> None:
        row = only(market.trade({3: [(PLAIN, BUY, 70.0)]}), 3)
        assert (row["status"], row["reason"]) == ("not filled", "lot size")

    def test_rounded_to_nothing_by_the_strategy(self, market: Market) -> None:
        wish = (DEAR, BUY, 0.0, 0.0, None, 60.0)  # rounded to no lot; 60 shares were wanted
        row = only(market.trade({3: [wish]}, account=2e6), 3)
        assert (row["amount"], row["lots"], row["reason"]) == (60, pytest.approx(0.6), "lot size")
        assert only(market.trade({3: [wish]}, account=5e5), 3)["reason"] == "no cash"  # a lot costs a million

    def test_a_limit_of_the_volume(self, market: Market) -> None:
        limit = {"all": ["current", "0.01 * $volume"]}  # 1,000 shares
        row = only(market.trade({3: [(PLAIN, BUY, 5000.0)]}, volume_threshold=limit), 3)
        assert (row["status"], row["reason"], row["filled"]) == ("partly", "volume limit", 1000)

    @pytest.mark.parametrize("side", ["buy", "sell"])
    def test_a_limit_of_the_volume_may_bind_one_way_only(self, market: Market, side: str) -> None:
        limit = {side: ["current", "0.01 * $volume"]}
        wishes = {3: [(PLAIN, BUY, 5000.0)], 4: [(PLAIN, SELL, 5000.0 if side == "sell" else 1000.0)]}
        bought, sold = market.trade(wishes, volume_threshold=limit).orders.to_dict("records")
        assert (bought["filled"], sold["filled"]) == ((1000, 1000) if side == "buy" else (5000, 1000))
        assert (bought["reason"], sold["reason"]) == (
            ("volume limit", None) if side == "buy" else (None, "volume limit")
        )

    def test_an_order_of_just_the_volume_that_is_allowed_is_not_cut(self, market: Market) -> None:
        limit = {"all": ["current", "70 + 0 * $volume"]}
        row = only(market.trade({3: [(PLAIN, BUY, 70.0)]}, volume_threshold=limit), 3)
        assert (row["status"], row["reason"]) == ("not filled", "lot size")

    def test_the_tighter_of_two_cuts_counts(self, market: Market) -> None:
        limit = {"all": ["current", "0.01 * $volume"]}
        row = only(market.trade({3: [(PLAIN, BUY, 5000.0)]}, account=5000.0, volume_threshold=limit), 3)
        assert (row["status"], row["reason"]) == ("partly", "no cash")

    def test_more_than_is_held(self, market: Market) -> None:
        row = only(market.trade({2: [(PLAIN, BUY, 500.0)], 3: [(PLAIN, SELL, 800.0)]}), 3)
        assert (row["status"], row["reason"], row["filled"]) == ("partly", "not held", 500)
        row = only(market.trade({3: [(PLAIN, SELL, 800.0)]}), 3)
        assert (row["status"], row["reason"]) == ("not filled", "not held")
        wishes = {2: [(PLAIN, BUY, 0.5)], 3: [(PLAIN, SELL, 0.8)]}
        row = only(market.trade(wishes, trade_unit=None, min_cost=0), 3)
        assert (row["status"], row["reason"], row["filled"]) == ("partly", "not held", 0.5)

    def test_what_a_strategy_tries_out_is_no_order(self, market: Market) -> None:
        exchange = market.exchange()
        day = market.calendar[3]
        order = Order(PLAIN, 100.0, BUY, day, day + pd.Timedelta(hours=23))
        exchange.deal_order(order, position=Position(cash=1e6))
        assert order.deal_amount == 100
        assert exchange.orders().empty

    def test_without_any_order_the_columns_are_there(self, market: Market) -> None:
        orders = market.trade({}).orders
        assert orders.empty
        assert orders.index.names == ["datetime", "instrument"]
        assert {"status", "reason", "value", "cost"} <= {*orders.columns}
        assert orders["value"].dtype == "float64"


class TestHeldBack:
    """What the strategy did not send, since it could not fill."""

    def run(self, market: Market, ranked: Sequence[Sequence[str]], **strategy: Any) -> pd.DataFrame:
        """Orders of day `PLANTED`, whose ranking is the second, after days under the first."""
        first, second = ({code: -float(place) for place, code in enumerate(order)} for order in ranked)
        rows = {
            (day, code): score
            for k, day in enumerate(market.calendar)
            for code, score in (second if k >= PLANTED - 1 else first).items()
        }
        signal = pd.Series(rows).rename_axis(["datetime", "instrument"])
        done = simulate(
            TopkDropout(signal=signal, **strategy),
            market.exchange(),
            market.calendar[1],
            market.calendar[-2],
            account=1e6,
            benchmark=PLAIN,
        )
        return done.orders.reset_index()[lambda t: t["datetime"] == market.calendar[PLANTED]]

    def test_purchases(self, market: Market) -> None:
        best = [UP, DOWN, GONE, STILL]
        rest = [PLAIN, OTHER, ADJUSTED, DEAR]
        orders = self.run(market, [rest, best + rest], topk=4, n_drop=4).set_index("instrument")
        reasons = orders.loc[best, "reason"].to_dict()
        assert reasons == {
            UP: Reason.LIMIT_UP,
            DOWN: Reason.LIMIT_DOWN,
            GONE: Reason.NO_PRICE,
            STILL: Reason.NO_VOLUME,
        }
        assert not orders.loc[best, "sent"].any()
        sold = orders[orders["direction"] == "sell"]
        assert sold["sent"].all()
        assert [*sold["status"].unique()] == ["filled"]
        # the purchases share the cash equally, those that were held back too
        wanted = orders.loc[best, "wanted_value"]
        np.testing.assert_allclose(wanted, wanted.iloc[0])
        assert np.isnan(orders.loc[GONE, "amount"])

    def test_sales(self, market: Market) -> None:
        held, others = [UP, DOWN, GONE, STILL], [PLAIN, OTHER, ADJUSTED, DEAR]
        orders = self.run(market, [held, others + held], topk=4, n_drop=4)
        sales = orders[orders["direction"] == "sell"].set_index("instrument")
        assert not sales["sent"].any()
        assert (sales["wanted_value"] > 1e5).all()
        assert sales.loc[GONE, "amount"] > 0

    def test_a_limit_may_bind_one_way_only(self, market: Market) -> None:
        held, others = [UP, DOWN, GONE, STILL], [PLAIN, OTHER, ADJUSTED, DEAR]
        orders = self.run(market, [held, others + held], topk=4, n_drop=4, forbid_all_trade_at_limit=False)
        sales = orders[orders["direction"] == "sell"].set_index("instrument")
        assert sales.loc[UP, "status"] == "filled"
        assert not sales.loc[DOWN, "sent"]

    def test_the_holding_threshold(self, market: Market) -> None:
        held, others = [PLAIN, OTHER], [ADJUSTED, UP, DOWN]
        orders = self.run(market, [held, [ADJUSTED, *held, *others[1:]]], topk=2, n_drop=1, hold_thresh=9)
        (sale,) = orders[orders["direction"] == "sell"].itertuples()
        assert (sale.instrument, sale.reason, sale.sent) == (OTHER, Reason.HOLDING, False)

    @pytest.mark.parametrize(
        ("code", "direction", "reason"), [(UP, BUY, Reason.LIMIT_UP), (DOWN, SELL, Reason.LIMIT_DOWN)]
    )
    def test_only_the_limit_of_its_direction_keeps_an_order_back_unless_told_otherwise(
        self, market: Market, code: str, direction: OrderDir, reason: Reason
    ) -> None:
        exchange = market.exchange()
        start = market.calendar[PLANTED]
        end = start + pd.Timedelta("1D") - pd.Timedelta("1s")
        other = SELL if direction == BUY else BUY
        for way, either in (
            (direction, {}),
            (other, {}),
            (other, {"either": False}),
            (other, {"either": True}),
        ):
            exchange.withhold(Order(code, 500.0, way, start, end), **either)
        assert [*exchange.orders()["reason"]] == [reason, None, None, reason]

    def test_targets_that_qlib_leaves_out(self, market: Market) -> None:
        exchange = market.exchange()
        start = market.calendar[PLANTED]
        end = start + pd.Timedelta("1D") - pd.Timedelta("1s")
        target = {PLAIN: 550.0, UP: 300.0, GONE: 200.0, OTHER: 30.0}
        orders = exchange.generate_order_for_target_amount_position(
            target, {PLAIN: 550.0, DOWN: 100.0}, start, end
        )
        assert orders == []
        found = exchange.orders().reset_index().set_index("instrument")
        assert found["reason"].to_dict() == {
            UP: Reason.LIMIT_UP,
            DOWN: Reason.LIMIT_DOWN,
            GONE: Reason.NO_PRICE,
            OTHER: Reason.LOT_SIZE,
        }
        assert found["direction"].to_dict() == {UP: "buy", GONE: "buy", OTHER: "buy", DOWN: "sell"}
        assert found["amount"].to_dict() == {UP: 300, GONE: 200, OTHER: 30, DOWN: 100}
        assert not found["sent"].any()

    def test_targets_that_qlib_sends_are_not_among_them(self, market: Market) -> None:
        exchange = market.exchange()
        start = market.calendar[PLANTED]
        end = start + pd.Timedelta("1D") - pd.Timedelta("1s")
        orders = exchange.generate_order_for_target_amount_position(
            {PLAIN: 800.0, UP: 300.0}, {OTHER: 500.0}, start, end
        )
        assert {order.stock_id: order.direction for order in orders} == {PLAIN: BUY, OTHER: SELL}
        assert [*exchange.orders().index.get_level_values("instrument")] == [UP]


WISHES = st.dictionaries(
    st.integers(1, DAYS - 2),
    st.lists(
        st.tuples(
            st.sampled_from(
                CODES[:-1]
            ),  # Qlib fails where more is sold of a holding that shrank than is held
            st.sampled_from([BUY, SELL]),
            st.one_of(st.sampled_from([0.0, 100.0, 500.0]), st.floats(0, 1e5)),
        ),
        max_size=8,
        unique_by=lambda wish: wish[0],
    ),
    max_size=6,
)


class TestAccounting:
    """The book agrees with the account, whatever is ordered; Qlib's own exchange is the oracle."""

    @settings(max_examples=25, deadline=None)
    @given(WISHES, st.sampled_from([300.0, 2e4, 1e7]), st.sampled_from([100, None]), st.booleans())
    def test_identities(
        self, market: Market, wishes: Any, account: float, trade_unit: int | None, limited: bool
    ) -> None:
        changed: dict[str, Any] = {"trade_unit": trade_unit}
        if limited:
            changed["volume_threshold"] = {"all": ["current", "0.02 * $volume"]}
        done = market.trade(wishes, account, **changed)
        orders, daily = done.orders, done.daily
        assert len(orders) == sum(len(day) for day in wishes.values())
        before = daily["account"].shift(fill_value=account)
        by_day = orders.groupby("datetime")[["value", "cost"]].sum().reindex(daily.index, fill_value=0.0)
        np.testing.assert_allclose(by_day["value"], daily["turnover"] * before, rtol=1e-9, atol=1e-6)
        np.testing.assert_allclose(by_day["cost"], daily["cost"] * before, rtol=1e-9, atol=1e-6)
        signed = np.where(orders["direction"] == "buy", 1, -1)
        flow = (-signed * orders["value"] - orders["cost"]).groupby("datetime").sum()
        cash = account + flow.reindex(daily.index, fill_value=0.0).cumsum()
        np.testing.assert_allclose(cash, daily["cash"], rtol=1e-9, atol=1e-5)
        traded = (signed * orders["filled"]).groupby(["datetime", "instrument"]).sum().unstack(fill_value=0.0)
        held = done.positions()["amount"].unstack(fill_value=0.0).reindex(daily.index, fill_value=0.0)
        expected = (
            traded.reindex(index=daily.index, fill_value=0.0).cumsum().reindex(columns=CODES, fill_value=0.0)
        )
        np.testing.assert_allclose(
            held.reindex(columns=CODES, fill_value=0.0), expected, rtol=1e-7, atol=1e-4
        )
        assert (orders["reason"].isna() == (orders["status"] == "filled")).all()
        tenth = 0.1 / orders["factor"].fillna(1)  # of a share, by which Qlib rounds up
        assert (orders["filled"] <= orders["amount"] * (1 + 1e-9) + tenth).all()
        assert ((orders["filled"] > 0) == (orders["status"] != "not filled")).all()
        lots = orders["lots_filled"][orders["direction"] == "buy"].dropna()
        np.testing.assert_allclose(lots, lots.round(), atol=1e-6)

    @settings(max_examples=8, deadline=None)
    @given(WISHES, st.sampled_from([2e4, 1e7]))
    def test_watching_changes_nothing(self, market: Market, wishes: Any, account: float) -> None:
        watched = market.trade(wishes, account)
        exchange = market.exchange()
        plain = Exchange(
            freq="day",
            start_time=market.calendar[1],
            end_time=market.calendar[-2],
            codes=CODES,
            quote_cls=NumpyQuote,
            **SETTINGS | {"limit_threshold": exchange.limit_threshold},
        )
        metrics, _ = backtest(
            start_time=market.calendar[1],
            end_time=market.calendar[-2],
            strategy=Scripted(market.calendar, wishes),
            executor={
                "class": "SimulatorExecutor",
                "module_path": "qlib.backtest.executor",
                "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
            },
            benchmark=PLAIN,
            account=account,
            exchange_kwargs={"exchange": plain},
        )
        report, held = metrics["1day"]
        report = report.rename(columns={"bench": "benchmark"})[[*watched.daily.columns]]
        np.testing.assert_array_equal(watched.daily, report)
        for day, position in held.items():
            assert position.get_stock_amount_dict() == watched.held[day].get_stock_amount_dict()


def test_an_exchange_serves_several_backtests(market: Market) -> None:
    exchange = market.exchange()

    def run(amount: float) -> BacktestResult:
        strategy = Scripted(market.calendar, {3: [(PLAIN, BUY, amount)]})
        return simulate(
            strategy, exchange, market.calendar[1], market.calendar[-2], account=1e6, benchmark=PLAIN
        )

    first, other, again = run(500.0), run(700.0), run(500.0)
    assert [*other.orders["filled"]] == [700]
    pd.testing.assert_frame_equal(first.daily, again.daily, check_exact=True)
    pd.testing.assert_frame_equal(first.orders, again.orders, check_exact=True)


def test_days_held_count_closes(market: Market) -> None:
    done = market.trade({3: [(PLAIN, BUY, 500.0)], 6: [(PLAIN, SELL, 500.0)]})
    positions = done.positions()
    assert [*positions["days_held"]] == [1, 2, 3]
    np.testing.assert_allclose(positions["value"], positions["amount"] * positions["price"])
