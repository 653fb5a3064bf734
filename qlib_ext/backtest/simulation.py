"""An account that trades scores on Qlib's exchange, once or many times over the same quotes."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import pandas as pd
from qlib.backtest.executor import SimulatorExecutor
from qlib.backtest.utils import CommonInfrastructure
from qlib.data import D
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.account import DailyAccount, benchmark_returns
from qlib_ext.backtest.exchange import RecordingExchange
from qlib_ext.backtest.rule_based_exchange import RuleBasedExchange
from qlib_ext.checks import UserError
from qlib_ext.market.progress import Progress
from qlib_ext.terminal import quiet_qlib

UNTRADED = "Not($volume > 0)"  # in Qlib's expressions; a volume that is missing is none
STUCK = 10  # sales one after the other: two weeks of trying
COLUMNS = ["return", "cost", "benchmark", "turnover", "account", "value", "cash"]


@dataclass(frozen=True)
class BacktestResult:
    """What came of a backtest.

    Attributes
    ----------
    daily
        By day the columns of `backtest/daily.parquet`, as `qlib_ext.records.backtest.BacktestRecord` explains them.
    orders
        As `RecordingExchange.orders` has them.
    held
        Day -> Qlib's position at the close.
    """

    daily: pd.DataFrame
    orders: pd.DataFrame
    held: Mapping[pd.Timestamp, Any]

    def positions(self) -> pd.DataFrame:
        """Holdings at the close of each day, a row for each day and stock.

        Columns: `amount` (adjusted shares), `price` (adjusted), `weight` in the account, `value` in currency and
        `days_held`, the trading days at whose close the stock was held, this one included.
        """
        rows = [
            (
                day,
                code,
                position.get_stock_amount(code),
                position.get_stock_price(code),
                position.get_stock_weight(code),
                position.get_stock_amount(code) * position.get_stock_price(code),
                position.get_stock_count(code, bar="day"),
            )
            for day, position in self.held.items()
            for code in position.get_stock_list()
        ]
        columns = ["datetime", "instrument", "amount", "price", "weight", "value", "days_held"]
        return pd.DataFrame(rows, columns=columns).set_index(["datetime", "instrument"])

    def unsold(self) -> pd.DataFrame:
        """What is held at the end and could not be sold: since it was last traded, `STUCK` sales or more did not fill.

        Indexed by `instrument`: `weight` in the account, at the last price; `sales` that did not fill, and the day of
        the first, `since`.
        """
        position = self.held[max(self.held)]
        rows = []
        for code in position.get_stock_list():
            own = self.orders[self.orders.index.get_level_values("instrument") == code]
            days = own.index.get_level_values("datetime")
            sales = days[(days > days[own["filled"] > 0].max()) & (own["direction"] == "sell")]
            if len(sales) >= STUCK:
                rows.append((code, position.get_stock_weight(code), len(sales), sales[0]))
        table = pd.DataFrame(rows, columns=["instrument", "weight", "sales", "since"])
        return table.set_index("instrument").sort_values("weight", ascending=False)


def simulate(
    strategy: BaseStrategy,
    exchange: RecordingExchange,
    first: pd.Timestamp,
    last: pd.Timestamp,
    *,
    account: float,
    benchmark: str | None,
    progress: Progress | None = None,
) -> BacktestResult:
    """Trade from `first` to `last` with `account` in cash; the exchange's book is opened anew.

    One exchange can serve any number of backtests of the same period, one after the other. The loop over the days is
    that of Qlib's `backtest`, which shows a bar of its own for each backtest.

    Parameters
    ----------
    strategy, exchange
        Who trades, and where.
    first, last
        Days to trade from and to.
    account
        Cash at the beginning, in currency.
    benchmark
        Code of the index; None for none, and `daily` then has no column of it.
    progress
        Called with (days that are done, all days, what).
    """
    exchange.book = []
    with quiet_qlib():
        infra = CommonInfrastructure(
            trade_account=DailyAccount(account, exchange.borrowing), trade_exchange=exchange
        )
        executor = SimulatorExecutor("day", generate_portfolio_metrics=True, common_infra=infra)
        strategy.reset_common_infra(infra)
        executor.reset(start_time=first, end_time=last)
        strategy.reset(level_infra=executor.get_level_infra())
        days = executor.trade_calendar.get_trade_len()
        done, executed = 0, None
        while not executor.finished():
            executed = executor.execute(strategy.generate_trade_decision(executed))
            strategy.post_exe_step(executed)
            done += 1
            if progress is not None:
                progress(done, days, "backtest")
        strategy.post_upper_level_exe_step()
        report, held = executor.trade_account.get_portfolio_metrics()
        if benchmark is not None:
            report["benchmark"] = benchmark_returns(benchmark, report.index)
    daily = report[[name for name in COLUMNS if name in report]].rename_axis(index="datetime")
    return BacktestResult(daily, exchange.orders(), held)


def make_exchange(
    codes: Sequence[str], first: pd.Timestamp, last: pd.Timestamp, settings: Mapping[str, Any]
) -> tuple[RuleBasedExchange, list[str]]:
    """The market that the orders meet.

    Parameters
    ----------
    codes
        The stocks that may be traded.
    first, last
        Days to trade from and to.
    settings
        As `RuleBasedExchange` takes them; lists stand for tuples, which YAML and JSON do not have.

    Returns
    -------
    The exchange, and what a reader of the results should know, as sentences.

    Raises
    ------
    UserError
        If one price limit for all is asked for and the field `change` is not in the store; or if a stock is of no board
        of the rules, or they have none for a day.
    """
    kwargs, notes = with_price_limit(settings, list(codes), first, last)
    with quiet_qlib():
        exchange = RuleBasedExchange(freq="day", start_time=first, end_time=last, codes=list(codes), **kwargs)
    notes += exchange.notes
    if exchange.trade_w_adj_price:
        notes.append(
            "the store has no complete `factor`: lots are of adjusted shares, and orders are not rounded to them"
        )
    return exchange, notes


def with_price_limit(
    exchange_kwargs: Mapping[str, Any], codes: list[str], first: pd.Timestamp, last: pd.Timestamp
) -> tuple[dict[str, Any], list[str]]:
    """Arguments of Qlib's `Exchange` whose price limit is in the unit of the store, and notes of what was found.

    A limit that is a number becomes two expressions, the first true on days on which a stock cannot be bought, the
    second on which it cannot be sold; both are on a day without volume.

    Parameters
    ----------
    exchange_kwargs
        As a workflow gives them, the package's defaults filled in; lists become tuples.
    codes
        Stocks, off whose closes from `first` to `last` the unit of `change` is read.
    first, last
        Days.

    Raises
    ------
    UserError
        If a price limit is asked for and the field `change` is not in the store.
    """
    kwargs, notes = {key: _tuples(value) for key, value in exchange_kwargs.items()}, []
    if isinstance(kwargs.get("limit_threshold"), float):
        unit = unit_of_change(codes, first, last)
        limit = kwargs["limit_threshold"] * unit
        # Some stores carry the close over a suspension: on a day without volume nothing can be traded either way.
        still = f" | {UNTRADED}" if has_volumes(codes, first, last) else ""
        kwargs["limit_threshold"] = tuple(
            f"({move}){still}" for move in (f"$change >= {limit!r}", f"$change <= {-limit!r}")
        )
        if unit != 1:
            notes.append("the store's field `change` is in percent; the price limit is read accordingly")
    return kwargs, notes


def has_volumes(codes: list[str], first: pd.Timestamp, last: pd.Timestamp) -> bool:
    """Whether any of some stocks has a volume in the store: where none has, nothing tells when it was suspended."""
    with quiet_qlib():
        volumes = D.features(codes[:: max(1, len(codes) // 50)], ["$volume"], first, last)
    return bool((volumes > 0).to_numpy().any())


def unit_of_change(codes: list[str], first: pd.Timestamp, last: pd.Timestamp) -> float:
    """What a rise of 1 (100 %) is in the store's field `change`: 1 in most stores, 100 in those that hold percent.

    Qlib compares the field with the price limit as it is: in a store of percent every small move would be at the
    limit, and hardly anything could be traded. So the unit is read off the closes.
    """
    sample = codes[:: max(1, len(codes) // 50)]
    with quiet_qlib():
        moves = D.features(sample, ["$change", "$close/Ref($close,1)-1"], first, last)
    moves.columns = ["change", "rise"]
    moves = moves[moves["rise"].abs() > 1e-3].dropna()
    unit = (moves["change"] / moves["rise"]).median()
    for known in (1.0, 100.0):
        if abs(unit / known - 1) < 0.05:
            return known
    raise UserError(
        "a price limit needs the field `change`, the close over the previous close minus 1 as a fraction or in "
        f"percent; the store's is {'missing' if moves.empty else f'{unit:.3g} times that'} for the scored stocks: "
        "mend it, or set `backtest.exchange_kwargs.limit_threshold` to two expressions such as "
        "['$close/Ref($close,1)-1 >= 0.095', '$close/Ref($close,1)-1 <= -0.095']"
    )


def _tuples(value: Any) -> Any:
    """Lists as tuples, also in a mapping: Qlib asks for tuples."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, Mapping):
        return {key: _tuples(inner) for key, inner in value.items()}
    return value
