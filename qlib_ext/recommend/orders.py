"""The orders of the next trading day, by the strategy of the run itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.account import Account
from qlib.backtest.decision import OrderDir
from qlib.backtest.utils import CommonInfrastructure, LevelInfrastructure, TradeCalendarManager
from qlib.strategy.base import BaseStrategy
from qlib.utils.time import epsilon_change

from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.backtest.simulation import UNTRADED, has_volumes
from qlib_ext.checks import UserError
from qlib_ext.config.build import build
from qlib_ext.market.exchange_days import next_day
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.daily_list import PRICE_DIGITS, backtest_settings, exchange_settings
from qlib_ext.recommend.holdings import Holdings
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.terminal import quiet_qlib

LONG_AGO = 1_000_000  # days: a holding of unknown age is past every holding period
NO_SHARE = 1e-6  # what rounding leaves of a holding that is sold whole


class NextDayExchange(RuleBasedExchange):
    """The exchange of the backtest on the day after the newest, of which nothing is known yet.

    Every stock is taken to trade at its close of `day`, without a price limit; one that was suspended on `day` is
    taken to stay so.

    Parameters
    ----------
    day, next_day
        The day whose quotes are taken, and the one that they are given to.
    kwargs
        As `RuleBasedExchange` takes them.
    """

    def __init__(self, day: pd.Timestamp, next_day: pd.Timestamp, **kwargs: Any) -> None:
        self.next_day = next_day
        still = (UNTRADED, UNTRADED) if has_volumes(kwargs["codes"], day, day) else None
        settings = {**kwargs, "deal_price": "close", "limit_threshold": still}
        super().__init__(freq="day", start_time=day, end_time=day, **settings)
        self.start_time = self.end_time = next_day

    def get_quote_from_qlib(self) -> None:
        """The quotes of the day, dated the next one."""
        super().get_quote_from_qlib()
        codes = self.quote_df.index.get_level_values("instrument")
        self.quote_df.index = pd.MultiIndex.from_arrays(
            [codes, pd.DatetimeIndex([self.next_day] * len(codes))], names=["instrument", "datetime"]
        )


class TwoDayCalendar(TradeCalendarManager):
    """Qlib's trade calendar of one step: the day that was scored, and the next one on which it is traded."""

    def __init__(self, day: pd.Timestamp, next_day: pd.Timestamp, level_infra: LevelInfrastructure) -> None:
        self.both = day, next_day
        super().__init__("day", start_time=next_day, end_time=next_day, level_infra=level_infra)

    def reset(self, freq: str, start_time: Any = None, end_time: Any = None) -> None:
        """Stand at the one step there is."""
        day, next_day = self.both
        self.freq, self.start_time, self.end_time = freq, next_day, next_day
        self._calendar = np.array([day, next_day, next_day + pd.Timedelta(days=1)])
        self.start_index = self.end_index = 1
        self.trade_len, self.trade_step = 1, 0

    def get_step_time(
        self, trade_step: int | None = None, shift: int = 0
    ) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last moment of a step, or of the one `shift` before it."""
        place = self.start_index + (self.trade_step if trade_step is None else trade_step) - shift
        if not 0 <= place < len(self._calendar) - 1:
            raise UserError(
                "the run's strategy looks back further than the day that was scored; `recommend` knows no other"
            )
        return self._calendar[place], epsilon_change(self._calendar[place + 1])


def next_orders(
    run: TrainedRun,
    store: QlibStore,
    listed: pd.DataFrame,
    holdings: Holdings,
    day: pd.Timestamp,
    past: pd.Series | None = None,
) -> tuple[pd.DataFrame, list[str]]:
    """Orders that the run's strategy sends on the trading day after `day`, and what becomes of every holding.

    The strategy is the class that the run's backtest traded with, built from its configuration and asked once. It sees
    the scores of `day` and the account; of the next day it sees the closes of `day` instead of prices that nobody
    knows, and no price limit. Amounts are therefore estimates, to be worked out again at the prices of the day; who is
    sold and who is bought is the strategy's choice.

    Parameters
    ----------
    run
        The trained run.
    store
        The store that Qlib reads.
    listed
        From `daily_list`.
    holdings
        The account.
    day
        The day that was scored.
    past
        Scores of days before that the run has not, indexed by (`datetime`, `instrument`), for a strategy that looks back at them.

    Returns
    -------
    orders : DataFrame
        A row each for sales, purchases, what the strategy would buy and cannot, and what stays, in this order: `side`
        (SELL, BUY, SKIP, KEEP), `instrument`, `shares`, in lots and as they are traded, `price` (the close, as it was
        traded), `value` in currency and `reason`.
    notes : list of str

    Raises
    ------
    UserError
        If the run has no strategy.
    """
    settings = backtest_settings(run)
    if settings is None:
        raise UserError(
            f"the run {run.run_id} has no strategy to send orders by: its records name none; leave `--current` and "
            "`--cash` out"
        )
    notes: list[str] = []
    later = store.calendar[store.calendar > day]
    tomorrow = later[0] if len(later) else next_day(run.region, day)
    codes = sorted({*listed.index, *holdings.shares})
    prices = last_prices(store, codes, day)
    unpriced = [code for code in holdings.shares if not prices.loc[code, "close"] > 0]
    if unpriced:
        raise UserError(
            f"the store has no close of {', '.join(unpriced)} up to {day:%Y-%m-%d}: leave them out of the holdings"
        )
    exchange_kwargs = exchange_settings(run)
    if exchange_kwargs.get("borrowing") is not None:
        raise UserError(
            f"the run {run.run_id} sells stocks short, and a list of holdings knows none that are: leave `--current` and "
            "`--cash` out"
        )
    with quiet_qlib():
        exchange = NextDayExchange(day, tomorrow, codes=codes, **exchange_kwargs)
        factor = prices["factor"] if not exchange.trade_w_adj_price else prices["factor"] * 0 + 1.0
        if exchange.trade_w_adj_price:
            notes.append(
                "the store has no complete `factor`: prices and shares are adjusted ones, and orders are not in lots"
            )
        position = {
            code: {"amount": shares / factor[code], "price": float(prices.loc[code, "close"])}
            for code, shares in sorted(holdings.shares.items())
        }
        account = Account(
            init_cash=holdings.cash,
            position_dict=position,
            benchmark_config={"benchmark": None},  # where it names none, Qlib reads SH000300
            pos_type=f"{OrderedPosition.__module__}.{OrderedPosition.__name__}",
        )
        for code in position:
            held = holdings.days_held.get(code, LONG_AGO)
            account.current_position.position[code]["count_day"] = held
        common = CommonInfrastructure(trade_account=account, trade_exchange=exchange)
        level = LevelInfrastructure(common_infra=common)
        level.reset_infra(trade_calendar=TwoDayCalendar(day, tomorrow, level))
        strategy = build(
            copy.deepcopy(settings["strategy"]),
            BaseStrategy,
            name="strategy",
            signal=_signal(run, listed, day, past),
        )
        strategy.reset(level_infra=level, common_infra=common)
        decision = strategy.generate_trade_decision(None)
    notes += getattr(strategy, "told", [])
    amounts: dict[str, float] = {}
    for order in decision.get_decision():
        signed = order.amount if order.direction == OrderDir.BUY else -order.amount
        amounts[order.stock_id] = amounts.get(order.stock_id, 0.0) + signed * factor[order.stock_id]
    book = exchange.orders().reset_index("datetime", drop=True)
    withheld = {code: str(row["reason"]) for code, row in book[~book["sent"]].iterrows()}
    if getattr(strategy, "hold_thresh", 1) > 1 and set(holdings.shares) - set(holdings.days_held):
        notes.append(
            f"the strategy holds a stock for at least {strategy.hold_thresh} days: where `days_held` is not given, a "
            "holding counts as older"
        )
    rows = _rows(listed, holdings, amounts, withheld, prices["close"] / factor, strategy)
    return pd.DataFrame(rows, columns=["side", "instrument", "shares", "price", "value", "reason"]), notes


def last_prices(store: QlibStore, codes: list[str], day: pd.Timestamp) -> pd.DataFrame:
    """The newest close up to a day and its factor, by instrument: of a suspended stock, from before."""
    last = store.calendar.get_loc(day) + 1
    close, factor = store.read(["close", "factor"], codes)[:, :last].astype(np.float64)
    row = len(close) - 1 - np.argmax(~np.isnan(close[::-1]), axis=0)
    column = np.arange(len(codes))
    found = factor[row, column]
    return pd.DataFrame(
        {"close": close[row, column], "factor": np.where(found > 0, found, 1.0)},
        index=pd.Index(codes, name="instrument"),
    )


def _signal(
    run: TrainedRun, listed: pd.DataFrame, day: pd.Timestamp, past: pd.Series | None = None
) -> pd.Series:
    """The scores of the day, and those of the days before, the run's own first, as a backtest hands them to a strategy."""
    scores = listed["score"].dropna()
    index = pd.MultiIndex.from_product([[day], scores.index], names=["datetime", "instrument"])
    known = [pd.Series(scores.to_numpy(), index=index, name="score")]
    table = run.table("signal/predictions.parquet")
    for before in (None if table is None else table["score"], past):
        if before is not None:
            there = {each for one in known for each in one.index.unique("datetime")}
            before = before.dropna().sort_index().loc[: day - pd.Timedelta(days=1)]
            known.append(before[~before.index.get_level_values("datetime").isin(there)])
    return pd.concat(known).sort_index()


def _rows(
    listed: pd.DataFrame,
    holdings: Holdings,
    amounts: Mapping[str, float],
    withheld: Mapping[str, str],
    price: pd.Series,
    strategy: BaseStrategy,
) -> list[tuple[str, str, float, float, float, str]]:
    """Sales and purchases in the order in which the strategy sends them, then what stays, the best rank first."""
    scored = int(listed["rank"].notna().sum())

    def row(side: str, code: str, shares: float, reason: str) -> tuple[str, str, float, float, float, str]:
        shares = round(shares, 6)  # whole lots, but for the rounding of adjusted shares
        close = round(float(price[code]), PRICE_DIGITS)
        return side, code, shares, close, round(shares * close, 2), reason

    def standing(code: str) -> str:
        if code not in listed.index:
            return "not in the universe"
        if pd.isna(listed.loc[code, "rank"]):
            return "no score, as it did not trade"
        return f"rank {listed.loc[code, 'rank']} of {scored}"

    def traded(code: str) -> str:
        of_strategy = getattr(strategy, "reason", None)
        return standing(code) if of_strategy is None else f"{standing(code)}; {of_strategy(code)}"

    sales = [row("SELL", code, -n, traded(code)) for code, n in amounts.items() if n < 0]
    purchases = [row("BUY", code, n, traded(code)) for code, n in amounts.items() if n > 0]
    nothing = [
        row("SKIP", code, 0.0, f"{standing(code)}; its part of the cash does not buy a lot")
        for code, n in amounts.items()
        if n == 0
    ]
    nothing += [
        row("SKIP", code, 0.0, f"{standing(code)}; {reason}")
        for code, reason in withheld.items()
        if code not in holdings.shares
    ]
    ranks = listed["rank"].astype("float64").reindex([*holdings.shares])
    stays = []
    for code in sorted(holdings.shares, key=lambda code: (np.nan_to_num(ranks[code], nan=np.inf), code)):
        rest = holdings.shares[code] + min(0.0, amounts.get(code, 0.0))
        if rest > NO_SHARE:
            why = withheld.get(code) or _why(code, ranks, strategy)
            stays.append(row("KEEP", code, rest, f"{standing(code)}; {why}"))
    return [*sales, *purchases, *nothing, *stays]


def _why(code: str, ranks: pd.Series, strategy: BaseStrategy) -> str:
    """Why a holding stays that the strategy did not try to sell."""
    of_strategy = getattr(strategy, "reason", None)
    if of_strategy is not None:
        return str(of_strategy(code))
    topk, n_drop = getattr(strategy, "topk", None), getattr(strategy, "n_drop", None)
    if topk is None or n_drop is None:
        return "the strategy does not sell it"
    if ranks[code] <= topk:
        return f"among the best {topk}"
    return f"the strategy sells {n_drop} a day at most, the worst first, and nothing for a worse one"
