from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from hypothesis import given
from hypothesis import strategies as st
from qlib.backtest import backtest
from qlib.contrib.strategy import TopkDropoutStrategy

from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.checks import UserError
from qlib_ext.market.store import write_store
from qlib_ext.strategy.topk_dropout import TopkDropout, choose, ranking

# Qlib averages the orders of a day also where there are none.
pytestmark = pytest.mark.filterwarnings("ignore:Mean of empty slice:RuntimeWarning")

CODES = [f"SH6{number:05d}" for number in range(24)]
DAYS = 40


def signal(scores: np.ndarray, calendar: pd.DatetimeIndex) -> pd.Series:
    index = pd.MultiIndex.from_product([calendar, CODES], names=["datetime", "instrument"])
    return pd.Series(scores.ravel(), index=index, name="score")


class Market:
    """A little market and a backtest on it; with suspensions and days at the price limit, unless it is calm."""

    def __init__(self, root: Path, calm: bool = False):
        self.root = root
        draw = np.random.default_rng(7)
        self.calendar = pd.bdate_range("2020-01-01", periods=DAYS)
        most = 0.09 if calm else 0.1
        change = np.clip(draw.normal(0, 0.04, (DAYS, len(CODES))), -most, most).astype("f4")
        close = 20 * np.cumprod(1 + change, axis=0)
        bars = {
            "close": close,
            "change": change,
            "factor": np.ones_like(close),
            "volume": np.full_like(close, 1e6),
        }
        suspended = draw.random(close.shape) < (0 if calm else 0.03)
        suspended[0] = False
        for name, values in bars.items():
            values[suspended] = np.nan if name != "factor" else 1.0
        spells = pd.DataFrame({"instrument": CODES, "start": self.calendar[0], "end": self.calendar[-1]})
        write_store(root, self.calendar, CODES, bars, {"csi300": spells})
        self.scores = draw.permuted(np.tile(np.arange(len(CODES), dtype=float), (DAYS, 1)), axis=1)

    def run(self, strategy: Any, **exchange: Any) -> tuple[pd.DataFrame, dict[pd.Timestamp, Any]]:
        qlib.init(provider_uri=str(self.root), region="cn", kernels=1)
        executor = {
            "class": "SimulatorExecutor",
            "module_path": "qlib.backtest.executor",
            "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
        }
        metrics, _ = backtest(
            start_time=self.calendar[1],
            end_time=self.calendar[-2],
            strategy=strategy,
            executor=executor,
            benchmark=CODES[0],
            account=1e7,
            exchange_kwargs={"codes": CODES, "limit_threshold": 0.095, "deal_price": "close", **exchange},
        )
        return metrics["1day"]


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Market(tmp_path_factory.mktemp("market"))


@pytest.fixture(scope="module")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Market(tmp_path_factory.mktemp("calm"), calm=True)


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"topk": 0, "n_drop": 0}, "`topk` must be at least 1, found 0"),
            ({"topk": 2.5, "n_drop": 0}, "`topk` must be an integer, found 2.5"),
            ({"topk": 5, "n_drop": -1}, "`n_drop` must be at least 0, found -1"),
            ({"topk": 5, "n_drop": 6}, "`n_drop` must be at most `topk`, which is 5; found 6"),
            ({"topk": 5, "n_drop": 1, "hold_thresh": 0}, "`hold_thresh` must be at least 1, found 0"),
            ({"topk": 5, "n_drop": 1, "risk_degree": 0}, r"`risk_degree` must lie in \(0, 1\], found 0"),
            (
                {"topk": 5, "n_drop": 1, "only_tradable": "no"},
                "`only_tradable` must be a bool, found str: 'no'",
            ),
        ],
    )
    def test_wrong_ones_are_refused(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=f"^{message}$"):
            TopkDropout(signal=pd.Series(dtype=float), **arguments)


class TestRanking:
    def test_equal_scores_go_by_code_and_missing_ones_go(self) -> None:
        scores = pd.Series({"D": 1.0, "B": 2.0, "C": 1.0, "A": 1.0, "E": np.nan})
        assert ranking(scores) == ["B", "A", "C", "D"]

    @given(st.permutations([("A", 1.0), ("B", 1.0), ("C", 2.0), ("D", 0.0), ("E", 1.0)]))
    def test_the_order_of_the_rows_does_not_matter(self, rows: list[tuple[str, float]]) -> None:
        assert ranking(pd.Series(dict(rows))) == ["C", "A", "B", "E", "D"]


class TestChoose:
    def test_an_empty_account_buys_the_best(self) -> None:
        assert choose("ABCDE", [], topk=3, n_drop=1) == ([], ["A", "B", "C"])

    def test_the_worst_of_the_held_makes_place_for_the_best_outside(self) -> None:
        assert choose("ABCDE", ["B", "D", "E"], topk=3, n_drop=1) == (["E"], ["A"])

    def test_nothing_is_sold_for_something_worse(self) -> None:
        assert choose("ABCDE", ["A", "B", "C"], topk=3, n_drop=2) == ([], [])

    def test_a_held_stock_without_a_score_goes_first(self) -> None:
        assert choose("ABCDE", ["A", "X", "B"], topk=3, n_drop=1) == (["X"], ["C"])

    def test_without_replacement_it_holds_and_fills_up(self) -> None:
        assert choose("ABCDE", ["D", "E"], topk=3, n_drop=0) == ([], ["A"])
        assert choose("ABCDE", ["C", "D", "E"], topk=3, n_drop=0) == ([], [])

    def test_with_too_many_held_it_sells_only(self) -> None:
        assert choose("ABCDEFG", [*"BCDEFG"], topk=3, n_drop=2) == (["G", "F"], [])

    def test_who_is_not_eligible_is_passed_over(self) -> None:
        assert choose("ABCDE", ["B", "D", "E"], topk=3, n_drop=1, eligible=lambda c: c != "A") == (
            ["E"],
            ["C"],
        )

    def test_who_cannot_be_sold_keeps_its_place_and_the_next_worst_goes(self) -> None:
        assert choose("ABCDE", ["B", "D", "E"], topk=3, n_drop=1, stay={"E"}) == (["D"], ["A"])
        assert choose("ABCDE", ["B", "D", "E"], topk=3, n_drop=1, stay={"D", "E"}) == (["B"], ["A"])
        assert choose("ABCDE", ["B", "D", "E"], topk=3, n_drop=1, stay={"B", "D", "E"}) == ([], [])

    def test_the_best_that_stays_keeps_nobody_else_from_going(self) -> None:
        assert choose("ABCDE", ["A", "D", "E"], topk=3, n_drop=2, stay={"A"}) == (["E", "D"], ["B", "C"])

    @given(
        st.permutations("ABCDEFGHIJ"),
        st.sets(st.sampled_from("ABCDEFGHIJXYZ")),
        st.integers(1, 12),
        st.integers(0, 12),
        st.sets(st.sampled_from("ABCDEFGHIJXYZ")),
    )
    def test_laws(self, ranked: list[str], held: set[str], topk: int, n_drop: int, stay: set[str]) -> None:
        n_drop = min(n_drop, topk)
        stay &= held
        sell, buy = choose(ranked, sorted(held), topk=topk, n_drop=n_drop, stay=stay)
        assert set(sell) <= held - stay
        assert not set(buy) & held
        assert len(sell) <= n_drop
        after = (held - set(sell)) | set(buy)
        assert len(after) <= max(topk, len(held))
        if len(held) <= topk:
            assert len(after) == min(topk, len(held | set(ranked)))
        place = {code: k for k, code in enumerate([*ranked, *"XYZ"])}
        if sell and buy:  # what comes in a sold stock's place is better
            paired = len(sell)
            assert all(place[new] < place[old] for new, old in zip(buy[-paired:], sell, strict=False))


class TestAgainstQlib:
    """Where every sale fills; `test_where_qlib_is_wrong.py` has the rest."""

    @pytest.mark.parametrize("n_drop", [1, 8])
    @pytest.mark.parametrize("options", [{}, {"only_tradable": True}, {"forbid_all_trade_at_limit": False}])
    def test_distinct_scores_trade_as_there(self, calm: Market, n_drop: int, options: dict[str, Any]) -> None:
        scores = signal(calm.scores, calm.calendar)
        ours, our_positions = calm.run(TopkDropout(signal=scores, topk=8, n_drop=n_drop, **options))
        theirs, their_positions = calm.run(
            TopkDropoutStrategy(signal=scores, topk=8, n_drop=n_drop, **options)
        )
        pd.testing.assert_frame_equal(ours, theirs, rtol=1e-9)
        for day, position in their_positions.items():
            assert sorted(our_positions[day].get_stock_list()) == sorted(position.get_stock_list())
        assert ours["turnover"].iloc[5:].sum() > 0

    @pytest.mark.parametrize("only_tradable", [False, True])
    def test_without_replacement_qlib_sells_and_this_holds(self, market: Market, only_tradable: bool) -> None:
        scores = signal(market.scores, market.calendar)
        arguments = {"signal": scores, "topk": 8, "n_drop": 0, "only_tradable": only_tradable}
        _, positions = market.run(TopkDropout(**arguments))
        held = [set(positions[day].get_stock_list()) for day in sorted(positions)]
        assert all(before <= after for before, after in itertools.pairwise(held))
        assert len(held[-1]) == 8
        theirs, _ = market.run(TopkDropoutStrategy(**arguments))
        assert theirs["turnover"].iloc[2:].sum() > 1

    def test_a_purchase_waits_for_a_sale_that_fills_in_part(self, calm: Market) -> None:
        scores = signal(calm.scores, calm.calendar)
        # a third of a holding a day; Qlib fails where only one direction has a limit
        limits = {"buy": ("current", "$volume"), "sell": ("current", "0.02 * $volume")}
        slow = {"volume_threshold": limits}
        ours, our_positions = calm.run(TopkDropout(signal=scores, topk=8, n_drop=3), **slow)
        _, their_positions = calm.run(TopkDropoutStrategy(signal=scores, topk=8, n_drop=3), **slow)
        assert max(len(position.get_stock_list()) for position in our_positions.values()) == 8
        assert max(len(position.get_stock_list()) for position in their_positions.values()) > 8
        held = {code for position in our_positions.values() for code in position.get_stock_list()}
        assert len(held) > 16  # and all the same it goes on
        assert (ours["cash"] > 0).all()

    def test_of_a_table_of_signals_the_first_counts(self, calm: Market) -> None:
        scores = signal(calm.scores, calm.calendar)
        table = pd.DataFrame({"first": scores, "second": -scores})
        alone, _ = calm.run(TopkDropout(signal=scores, topk=8, n_drop=2))
        report, _ = calm.run(TopkDropout(signal=table, topk=8, n_drop=2))
        pd.testing.assert_frame_equal(report, alone)

    def test_no_signal_means_no_order(self, market: Market) -> None:
        scores = signal(market.scores, market.calendar).loc[market.calendar[5] :]
        report, _ = market.run(TopkDropout(signal=scores, topk=8, n_drop=2))
        first = report.index[report["turnover"] > 0][0]
        assert first == market.calendar[6]  # scored at the close of day 5, traded on day 6


def test_a_purchase_asks_for_the_shares_that_its_part_of_the_money_pays_for(calm: Market) -> None:
    """Of 20 yuan or so a share a lot is a fifth of a part: what is bought is less than what the book says was asked for."""
    qlib.init(provider_uri=str(calm.root), region="cn", kernels=1)
    first, last = calm.calendar[1], calm.calendar[5]
    settings = {"deal_price": "close", "open_cost": 0.0, "close_cost": 0.0, "min_cost": 0.0}
    exchange, _ = make_exchange(CODES, first, last, settings)
    strategy = TopkDropout(signal=signal(calm.scores, calm.calendar), topk=3, n_drop=1, risk_degree=0.9)
    done = simulate(strategy, exchange, first, last, account=30_000.0, benchmark=CODES[0])
    orders = done.orders.reset_index()[lambda table: table["datetime"] == first]
    assert len(orders) == 3
    np.testing.assert_allclose(orders["amount"] * orders["price"], 9_000.0)
    assert (orders["filled"] < orders["amount"]).all()
    np.testing.assert_allclose(orders["filled"] % 100, 0, atol=1e-6)


def test_golden(market: Market) -> None:
    scores = signal(np.round(market.scores / 6), market.calendar)  # many ties
    report, positions = market.run(TopkDropout(signal=scores, topk=5, n_drop=2))
    assert sorted(positions[market.calendar[2]].get_stock_list()) == GOLDEN_HOLDINGS
    assert report["account"].iloc[-1] == pytest.approx(GOLDEN_ACCOUNT, rel=1e-9)


GOLDEN_HOLDINGS = ["SH600000", "SH600003", "SH600007", "SH600011", "SH600017"]
GOLDEN_ACCOUNT = 9049123.110274361


class TestRiskDegree:
    """The hook by which Qlib lets a subclass say how much is invested on a day."""

    class HalfLater(TopkDropout):
        """Everything on the first 20 days, nothing new after."""

        def get_risk_degree(self, trade_step: int | None = None) -> float:
            assert trade_step is not None
            return 1.0 if trade_step < 20 else 0.0

    def test_a_subclass_says_it_day_by_day(self, market: Market) -> None:
        scores = signal(market.scores, market.calendar)
        plain, _ = market.run(TopkDropout(signal=scores, topk=5, n_drop=2, risk_degree=1.0))
        timed, _ = market.run(self.HalfLater(signal=scores, topk=5, n_drop=2))
        pd.testing.assert_frame_equal(plain.iloc[:20], timed.iloc[:20])
        assert timed["cash"].iloc[-1] > 10 * plain["cash"].iloc[-1]

    def test_a_share_above_one_is_refused(self, market: Market) -> None:
        class Borrowing(TopkDropout):
            def get_risk_degree(self, trade_step: int | None = None) -> float:
                return 1.5

        scores = signal(market.scores, market.calendar)
        with pytest.raises(UserError, match=r"`get_risk_degree\(\)` must lie in \[0, 1\], found 1.5"):
            market.run(Borrowing(signal=scores, topk=5, n_drop=2))
