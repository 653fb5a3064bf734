"""Signals whose backtest is known beforehand: perfect foresight, pure chance and a constant."""

from __future__ import annotations

import datetime as dt
import math
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import qlib

from qlib_ext.backtest.exchange import RecordingExchange
from qlib_ext.backtest.simulation import BacktestResult, make_exchange, simulate
from qlib_ext.market.store import write_store
from qlib_ext.strategy.topk_dropout import TopkDropout

STOCKS, DAYS = 20, 32
CODES = [f"SH6{number:05d}" for number in range(STOCKS)]
BUYING, SELLING = 0.0005, 0.0015
# Any amount of a share and no least cost, so that a closed form holds to rounding.
EXACT = {
    "deal_price": "close",
    "limit_threshold": None,
    "open_cost": BUYING,
    "close_cost": SELLING,
    "min_cost": 0,
    "trade_unit": None,
}
FREE = EXACT | {"open_cost": 0.0, "close_cost": 0.0}
LOTS = EXACT | {"limit_threshold": 0.095, "min_cost": 5, "trade_unit": 100}


class Market:
    """Stocks whose daily returns are drawn, and nothing that could keep anybody from trading."""

    def __init__(self, root: Path):
        draw = np.random.default_rng(11)
        self.made: dict[str, RecordingExchange] = {}
        self.calendar = pd.bdate_range(dt.date(2021, 1, 1), periods=DAYS)
        self.moves = np.clip(draw.normal(0.0005, 0.02, (DAYS, STOCKS)), -0.09, 0.09)
        self.close = (10 * np.cumprod(1 + self.moves, axis=0)).astype("f4").astype("f8")
        self.moves[1:] = self.close[1:] / self.close[:-1] - 1
        bars = {
            "close": self.close,
            "change": self.moves,
            "factor": np.ones_like(self.close),
            "volume": np.full_like(self.close, 1e8),
        }
        spells = pd.DataFrame({"instrument": CODES, "start": self.calendar[0], "end": self.calendar[-1]})
        write_store(root, self.calendar, CODES, bars, {"csi300": spells})
        qlib.init(provider_uri=str(root), region="cn", kernels=1)
        # A score of day t is traded at the close of t + 1 and earns what comes by the close of t + 2.
        self.earned = np.full_like(self.close, np.nan)
        self.earned[:-2] = self.moves[2:]
        self.first, self.last = 1, DAYS - 2

    def trade(
        self, scores: np.ndarray, exchange: dict[str, object], topk: int, n_drop: int, **more: float
    ) -> BacktestResult:
        index = pd.MultiIndex.from_product([self.calendar, CODES], names=["datetime", "instrument"])
        signal = pd.Series(scores.ravel(), index=index, name="score").dropna()
        days = self.calendar[self.first], self.calendar[self.last]
        if str(exchange) not in self.made:
            self.made[str(exchange)], _ = make_exchange(CODES, *days, exchange)
        strategy = TopkDropout(signal=signal, topk=topk, n_drop=n_drop, **more)
        return simulate(strategy, self.made[str(exchange)], *days, account=1e8, benchmark=CODES[0])


@pytest.fixture(scope="module")
def market(tmp_path_factory: pytest.TempPathFactory) -> Market:
    return Market(tmp_path_factory.mktemp("oracles") / "store")


def wealth(done: BacktestResult) -> np.ndarray:
    """The account at each close as a multiple of the cash at the beginning."""
    return done.daily["account"].to_numpy() / 1e8


class TestPerfectForesight:
    def test_one_stock_without_costs_earns_the_best_return_of_every_day(self, market: Market) -> None:
        done = market.trade(market.earned, FREE, topk=1, n_drop=1, risk_degree=1.0)
        best = market.earned[:-2].max(axis=1)
        # Bought at the close of day 1; from day 2 on each day earns the best that was to be had.
        expected = np.concatenate([[1.0], np.cumprod(1 + best[: market.last - 1])])
        np.testing.assert_allclose(wealth(done), expected, rtol=1e-9)

    def test_one_stock_pays_for_a_sale_and_a_purchase_where_the_best_changes(self, market: Market) -> None:
        done = market.trade(market.earned, EXACT, topk=1, n_drop=1, risk_degree=1.0)
        best = np.nanargmax(market.earned[: market.last], axis=1)
        # All the cash buys cash / (1 + cost) of a stock; a sale brings in (1 - cost) of its value.
        grown, expected = 1 / (1 + BUYING), [1 / (1 + BUYING)]
        for day in range(1, market.last):
            grown *= 1 + market.earned[day - 1, best[day - 1]]
            if best[day] != best[day - 1]:
                grown *= (1 - SELLING) / (1 + BUYING)
            expected.append(grown)
        np.testing.assert_allclose(wealth(done), expected, rtol=1e-9)

    def test_k_stocks_replaced_by_k_every_day_earn_the_mean_of_the_best(self, market: Market) -> None:
        """With disjoint sets of winners all is sold and shared anew, so that every day has equal weights."""
        k = 4
        scores = np.full_like(market.earned, -1.0)
        taken: set[int] = set()
        picks = []
        for day in range(DAYS - 2):
            order = [stock for stock in np.argsort(-market.earned[day]) if stock not in taken]
            picks.append(order[:k])
            scores[day, order[:k]] = market.earned[day, order[:k]] + 1
            taken = set(order[:k])
        done = market.trade(scores, EXACT, topk=k, n_drop=k, risk_degree=1 / (1 + BUYING))
        grown, expected = 1 / (1 + BUYING), []
        for day in range(market.last):
            if day:
                grown *= 1 + market.earned[day - 1, picks[day - 1]].mean()
                grown *= (1 - SELLING) / (1 + BUYING)
            expected.append(grown)
        np.testing.assert_allclose(wealth(done), expected, rtol=1e-9)
        assert done.daily["turnover"].iloc[1:].min() > 1.9  # everything, twice

    def test_foresight_of_the_wrong_day_does_not_earn_it(self, market: Market) -> None:
        late = np.full_like(market.earned, np.nan)
        late[1:] = market.earned[:-1]  # what the score tells has been earned when it can be traded
        late = np.nan_to_num(late)
        done = market.trade(late, FREE, topk=1, n_drop=1, risk_degree=1.0)
        best = np.prod(1 + market.earned[: market.last - 1].max(axis=1))
        assert wealth(done)[-1] < 1.5 < 2 < best


class TestPureChance:
    def test_random_scores_earn_the_mean_of_the_universe_less_costs(self, market: Market) -> None:
        """One hundred signals that know nothing: mean of the difference within three standard errors of nothing.

        Every day all k stocks are replaced by others of the N - k that were not held, each as likely as any other.
        Before costs a day then earns on average what the universe does; a day costs its sales and its purchases.
        """
        k, runs = 3, 100
        universe = market.moves[market.first + 1 : market.last + 1].mean(axis=1)
        differences = []
        for seed in range(runs):
            draw = np.random.default_rng(1000 + seed)
            scores = np.zeros_like(market.close)
            held: set[int] = set()
            for day in range(DAYS):
                others = [stock for stock in range(STOCKS) if stock not in held]
                held = set(draw.choice(others, k, replace=False).tolist())
                scores[day, sorted(held)] = draw.random(k) + 1
            done = market.trade(scores, EXACT, topk=k, n_drop=k, risk_degree=1 / (1 + BUYING))
            net = (done.daily["return"] - done.daily["cost"]).iloc[1:].to_numpy()
            differences.append(np.log1p(net).sum() - np.log1p(universe).sum())
        days = len(universe)
        costs = days * math.log((1 - SELLING) / (1 + BUYING))
        spread = np.std(differences, ddof=1) / math.sqrt(runs)
        assert spread < 0.02
        assert abs(np.mean(differences) - costs) < 3 * spread
        assert abs(np.mean(differences)) > 3 * spread  # costs are told from nothing


class TestConstantScore:
    @pytest.mark.parametrize("exchange", [EXACT, FREE, LOTS], ids=["exact", "free", "lots"])
    @pytest.mark.parametrize(("topk", "n_drop"), [(1, 1), (5, 2), (5, 5), (5, 0), (20, 3), (50, 5)])
    def test_it_trades_on_the_first_day_only(
        self, market: Market, exchange: dict[str, object], topk: int, n_drop: int
    ) -> None:
        done = market.trade(np.ones_like(market.close), exchange, topk, n_drop)
        days = done.orders.index.get_level_values("datetime").unique()
        assert [*days] == [market.calendar[market.first]]
        assert (done.orders["direction"] == "buy").all()
        assert len(done.orders) == min(topk, STOCKS)
        assert (done.daily["turnover"].iloc[1:] == 0).all()
        held = {tuple(position.get_stock_list()) for position in done.held.values()}
        assert held == {tuple(CODES[:topk])}

    @pytest.mark.parametrize("value", [0.0, -3.5, 1e30], ids=str)
    def test_its_value_does_not_matter(self, market: Market, value: float) -> None:
        one = market.trade(np.ones_like(market.close), LOTS, 5, 2)
        other = market.trade(np.full_like(market.close, value), LOTS, 5, 2)
        pd.testing.assert_frame_equal(one.daily, other.daily)

    def test_it_holds_what_it_bought_at_equal_weights(self, market: Market) -> None:
        done = market.trade(np.ones_like(market.close), EXACT, 5, 2)
        bought = market.close[market.first, :5]
        grown = 0.95 * (market.close[market.first : market.last + 1, :5] / bought).mean(axis=1)
        rest = 1 - 0.95 * (1 + BUYING)
        np.testing.assert_allclose(wealth(done), grown + rest, rtol=1e-9)
