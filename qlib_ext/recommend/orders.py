"""The orders of the next trading day, by the strategy of the run itself."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest.account import Account
from qlib.backtest.decision import OrderDir
from qlib.backtest.utils import CommonInfrastructure, LevelInfrastructure, TradeCalendarManager
from qlib.strategy.base import BaseStrategy
from qlib.utils.time import epsilon_change

from qlib_ext.backtest.exchange import TINY, number
from qlib_ext.backtest.position import OrderedPosition
from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.backtest.simulation import UNTRADED, has_volumes
from qlib_ext.checks import UserError
from qlib_ext.config.build import build, in_one_form, locate
from qlib_ext.market.exchange_days import next_day
from qlib_ext.market.store import QlibStore
from qlib_ext.recommend.daily_list import (
    PRICE_DIGITS,
    backtest_settings,
    exchange_of_day,
    exchange_settings,
)
from qlib_ext.recommend.holdings import Holdings
from qlib_ext.recommend.memory import Memory
from qlib_ext.recommend.trained import TrainedRun
from qlib_ext.terminal import quiet_qlib

LONG_AGO = 1_000_000  # days: a holding of unknown age is past every holding period
NO_SHARE = 1e-6  # what rounding leaves of a holding that is sold whole


@dataclass(frozen=True)
class NextOrders:
    """Orders of a day.

    Attributes
    ----------
    table
        A row each for sales, purchases, what the strategy would buy and cannot, and what stays, in this order: `side`
        (SELL, BUY, SKIP, KEEP), `instrument`, `shares`, in lots and as they are traded, `price` (the close, or with `on_the_day`
        that of the trade, as it was traded), `value` in currency and `reason`.
    day
        The day of the trade.
    notes
        What a reader should know, as sentences.
    memory
        What the strategy remembers after the orders; None where nobody asked.
    """

    table: pd.DataFrame
    day: pd.Timestamp
    notes: list[str]
    memory: Memory | None


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


def looks_back(run: TrainedRun) -> bool:
    """Whether the strategy of a run goes by the scores of earlier days too."""
    settings = backtest_settings(run)
    if settings is None:
        return False
    named = in_one_form(settings["strategy"], "strategy")["class"]
    return bool(getattr(locate(named, name="strategy"), "looks_back", False))


def next_orders(
    run: TrainedRun,
    store: QlibStore,
    listed: pd.DataFrame,
    holdings: Holdings,
    day: pd.Timestamp,
    past: pd.Series | None = None,
    *,
    on_the_day: bool = False,
    memory: Path | None = None,
) -> NextOrders:
    """Orders that the run's strategy sends on the trading day after `day`, and what becomes of every holding.

    The strategy is the class that the run's backtest traded with, built from its configuration and asked once. It sees
    the scores of `day` and the account. By default it sees of the next day the closes of `day` instead of prices that nobody
    knows, and no price limit. Amounts are then estimates, to be worked out again at the prices of the day; who is
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
        The account at the close of `day`.
    day
        The day that was scored.
    past
        Scores of days before that the run has not, indexed by (`datetime`, `instrument`), for a strategy that looks back at them.
    on_the_day
        The store has the day of the trade, and the strategy sees what the backtest's sees of it: the exchange with its prices,
        limits and suspensions.
    memory
        File of what the strategy remembers, which may not be there yet.

    Raises
    ------
    UserError
        If the run has no strategy, the store does not have the day of the trade and it is asked for, or the memory does not fit.
    """
    settings = backtest_settings(run)
    if settings is None:
        raise UserError(
            f"the run {run.run_id} has no strategy to send orders by: its records name none; leave `--current` and "
            "`--cash` out"
        )
    notes: list[str] = []
    later = store.calendar[store.calendar > day]
    if on_the_day and later.empty:
        raise UserError(
            f"`--on-the-day` needs the day of the trade in the store, found none after {day:%Y-%m-%d} in {store.root}: add it "
            "with `qlib-ext data update`, or leave `--on-the-day` out"
        )
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
        exchange = (
            exchange_of_day(run, codes, store, tomorrow)
            if on_the_day
            else NextDayExchange(day, tomorrow, codes=codes, **exchange_kwargs)
        )
        of_trade = last_prices(store, codes, tomorrow) if on_the_day else prices
        if exchange.trade_w_adj_price:
            prices, of_trade = prices.assign(factor=1.0), of_trade.assign(factor=1.0)
            notes.append(
                "the store has no complete `factor`: prices and shares are adjusted ones, and orders are not in lots"
            )
        position = {
            code: {"amount": shares / prices.loc[code, "factor"], "price": float(prices.loc[code, "close"])}
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
        kept = None if memory is None else _recalled(strategy, memory, settings["strategy"], tomorrow, notes)
        decision = strategy.generate_trade_decision(None)
    notes += getattr(strategy, "told", [])
    if kept is not None and hasattr(strategy, "memory"):
        kept = kept.after(tomorrow, strategy.memory())
    price = of_trade["close"] / of_trade["factor"]
    amounts: dict[str, float] = {}
    rest = dict(holdings.shares)
    for order in decision.get_decision():
        code, own = order.stock_id, position.get(order.stock_id, {"amount": 0.0})["amount"]
        if on_the_day:
            dealt = number(exchange.get_deal_price(code, order.start_time, order.end_time, order.direction))
            price[code] = dealt / of_trade.loc[code, "factor"] if dealt > 0 else price[code]
        shares = order.amount * of_trade.loc[code, "factor"]
        if order.direction == OrderDir.SELL:
            whole = order.amount >= own * (1 - TINY)
            shares = -(holdings.shares[code] if whole else shares)
            rest[code] = 0.0 if whole else holdings.shares[code] * (1 - order.amount / own)
        amounts[code] = amounts.get(code, 0.0) + shares
    book = exchange.orders().reset_index("datetime", drop=True)
    withheld = {code: str(row["reason"]) for code, row in book[~book["sent"]].iterrows()}
    if getattr(strategy, "hold_thresh", 1) > 1 and set(holdings.shares) - set(holdings.days_held):
        notes.append(
            f"the strategy holds a stock for at least {strategy.hold_thresh} days: where `days_held` is not given, a "
            "holding counts as older"
        )
    rows = _rows(listed, rest, amounts, withheld, price, strategy)
    table = pd.DataFrame(rows, columns=["side", "instrument", "shares", "price", "value", "reason"])
    return NextOrders(table, tomorrow, notes, kept)


def _recalled(
    strategy: BaseStrategy, path: Path, settings: Mapping[str, Any], day: pd.Timestamp, notes: list[str]
) -> Memory:
    """The memory in a file, once the strategy goes on from what it knew before a day."""
    memory = Memory.read(path, in_one_form(settings, "strategy"))
    if not hasattr(strategy, "recall"):
        notes.append(f"{type(strategy).__name__} goes by the holdings alone: `--memory` keeps nothing of it")
        return memory
    state = memory.before(day)
    if state is None:
        return memory
    try:
        strategy.recall(state)
    except (ValueError, TypeError, LookupError, AttributeError) as error:
        raise UserError(
            f"{path} holds no memory of this strategy ({error}): name another file, and the strategy begins without"
        ) from error
    return memory


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
    rest: Mapping[str, float],
    amounts: Mapping[str, float],
    withheld: Mapping[str, str],
    price: pd.Series,
    strategy: BaseStrategy,
) -> list[tuple[str, str, float, float, float, str]]:
    """Sales and purchases in the order in which the strategy sends them, then what stays of each holding, the best rank first."""
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
        if code not in rest
    ]
    ranks = listed["rank"].astype("float64").reindex([*rest])
    stays = []
    for code in sorted(rest, key=lambda code: (np.nan_to_num(ranks[code], nan=np.inf), code)):
        if rest[code] > NO_SHARE:
            why = withheld.get(code) or _why(code, ranks, strategy)
            stays.append(row("KEEP", code, rest[code], f"{standing(code)}; {why}"))
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
