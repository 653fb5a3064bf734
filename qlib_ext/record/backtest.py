"""What an account would have become that traded the scores."""

from __future__ import annotations

import contextlib
import copy
import inspect
import logging
import warnings
from collections.abc import Collection, Iterator, Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.backtest import backtest
from qlib.backtest.exchange import Exchange
from qlib.data import D
from qlib.strategy.base import BaseStrategy

from qlib_ext.build import build
from qlib_ext.checks import UserError, above, nearest
from qlib_ext.metrics import risk
from qlib_ext.record.base import Record
from qlib_ext.strategy.position import OrderedPosition

logger = logging.getLogger(__name__)

EXECUTOR = {
    "class": "SimulatorExecutor",
    "module_path": "qlib.backtest.executor",
    "kwargs": {"time_per_step": "day", "generate_portfolio_metrics": True},
}
ACCOUNT = 100_000_000.0
# Qlib's own costs and price limit for A-shares.
EXCHANGE: Mapping[str, Any] = {
    "deal_price": "close",
    "limit_threshold": 0.095,
    "open_cost": 0.0005,
    "close_cost": 0.0015,
    "min_cost": 5,
}
GIVEN = {"self", "kwargs", "start_time", "end_time", "codes", "freq"}
COLUMNS = ["return", "cost", "benchmark", "turnover", "account", "value", "cash"]


class BacktestRecord(Record):
    """Trade the scores of the run through Qlib's exchange and executor.

    A signal formed at the close of day t is traded on day t + 1. Trading begins the day after the first scored
    day and ends the day after the last, or where the store ends.

    Writes `backtest/daily.parquet`, by day: `return` (of the account, gross of cost), `cost`, `benchmark`
    (return of the index), `turnover` (bought plus sold value), all four as shares of the account's value of the
    day before; `account`, `value` (of the stocks) and `cash` in currency. Writes `backtest/positions.parquet`,
    by day and stock: `amount` (adjusted shares), `price` and `weight` in the account at the close; and
    `backtest/summary.csv` and `backtest/setup.json`. Logs the summary as metrics `backtest/...`.

    Parameters
    ----------
    recorder, dataset
        Given by Qlib; the dataset's `benchmark` is the index where `backtest` names none.
    strategy
        `{class: dotted path, kwargs: {...}}` of a Qlib strategy that takes `signal`.
    backtest
        `account` (currency, by default 100 million), `benchmark` (instrument code) and `exchange_kwargs` (as
        Qlib's `Exchange` takes them: `deal_price`, `open_cost`, `close_cost`, `min_cost`, `limit_threshold`, ...).
    start, end
        Days to trade from and to, inside the period above.
    days_per_year
        Trading days that make a year; the Shanghai exchange had 243 on average from 2010 to 2020.

    Raises
    ------
    UserError
        If an argument does not fit, the index or the field `change` is not in the store, or there is no day to
        trade on.

    Departures
    ----------
    Qlib's `PortAnaRecord` begins on the first scored day, for which there is no signal, and fails where the last
    scored day is the store's last. Its annual return and drawdown add returns up; these compound. It compares the
    price limit with the field `change` whatever its unit; here the unit is read off the closes. It trades a suspended
    stock where the store carries its close over the suspension; here a day without volume is a day without trade.
    """

    needs = ("signal/predictions.parquet",)
    makes = (
        "backtest/daily.parquet",
        "backtest/positions.parquet",
        "backtest/summary.csv",
        "backtest/setup.json",
    )

    def __init__(
        self,
        recorder: Any,
        strategy: Mapping[str, Any],
        dataset: Any = None,
        backtest: Mapping[str, Any] | None = None,
        start: Any = None,
        end: Any = None,
        days_per_year: float = 243,
    ):
        super().__init__(recorder)
        self.strategy = strategy
        self._strategy(_no_scores())  # wrong arguments show now, not after hours of training
        settings: dict[str, Any] = {"account": ACCOUNT, "benchmark": None, "exchange_kwargs": {}}
        _check_keys("backtest", backtest or {}, settings)
        settings |= backtest or {}
        self.account = float(above("backtest.account", settings["account"], 0))
        self.benchmark = settings["benchmark"] or getattr(dataset, "benchmark", None)
        self.exchange_kwargs = {**EXCHANGE, **settings["exchange_kwargs"]}
        takes = {*inspect.signature(Exchange.__init__).parameters, "trade_unit"} - GIVEN
        _check_keys("backtest.exchange_kwargs", self.exchange_kwargs, takes)
        self.start = None if start is None else pd.Timestamp(start)
        self.end = None if end is None else pd.Timestamp(end)
        self.days_per_year = float(above("days_per_year", days_per_year, 0))
        self.notes: list[str] = []

    def _strategy(self, signal: pd.Series) -> BaseStrategy:
        return build(self.strategy, BaseStrategy, name="strategy", signal=signal)

    def _generate(self) -> None:
        self.notes = []
        scores = self.load_table("signal/predictions.parquet")["score"].dropna()
        first, last = self._period(scores)
        self._check_benchmark(first, last)
        logger.info("Backtest from %s to %s", f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")
        with _only_errors_of_qlib():
            exchange = self._exchange(scores, first, last)
            metrics, _ = backtest(
                start_time=first,
                end_time=last,
                strategy=self._strategy(scores),
                executor=copy.deepcopy(EXECUTOR),
                benchmark=self.benchmark,
                account=self.account,
                exchange_kwargs={"exchange": exchange},
                pos_type=f"{OrderedPosition.__module__}.{OrderedPosition.__name__}",
            )
        report, held = metrics["1day"]
        daily = report.rename(columns={"bench": "benchmark"})[COLUMNS].rename_axis(index="datetime")
        self.save_table("backtest/daily.parquet", daily)
        self.save_table("backtest/positions.parquet", _positions(held))
        self.save_json("backtest/setup.json", self._setup(exchange, first, last))
        summary = summarise(daily, self.days_per_year)
        self.save_csv("backtest/summary.csv", summary)
        self.log_metrics(
            {
                f"backtest/{name}": value
                for name, value in _metrics(summary, daily, self.days_per_year).items()
            }
        )
        for note in self.notes:
            logger.info("Backtest: %s", note)

    def _period(self, scores: pd.Series) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last day to trade on."""
        with _only_errors_of_qlib():
            calendar = pd.DatetimeIndex(D.calendar(freq="day"))
            known = len(D.calendar(freq="day", future=True))  # where the store has a calendar of days to come
        scored = scores.index.get_level_values("datetime")
        first = calendar.searchsorted(scored.min(), side="right")
        last = calendar.searchsorted(scored.max(), side="right")
        # Qlib asks for the day after the last it trades on.
        store = min(len(calendar) - 1, known - 2)
        if last > store and (self.end is None or self.end > calendar[store]):
            self.notes.append(
                f"trading ends on {calendar[store]:%Y-%m-%d}: the scores reach to {scored.max():%Y-%m-%d}, the store "
                f"to {calendar[-1]:%Y-%m-%d}, and Qlib needs one more day after the last that it trades on"
            )
        last = min(last, store)
        if self.start is not None:
            first = max(first, calendar.searchsorted(self.start))
        if self.end is not None:
            last = min(last, calendar.searchsorted(self.end, side="right") - 1)
        if first > last:
            raise UserError(
                f"there is no day to trade on: the scores are of {scored.min():%Y-%m-%d} to {scored.max():%Y-%m-%d}, "
                f"each is traded a day later, and the store ends on {calendar[-1]:%Y-%m-%d}. "
                "Check `start`, `end` and `dataset.kwargs.segments.test`"
            )
        return calendar[first], calendar[last]

    def _check_benchmark(self, first: pd.Timestamp, last: pd.Timestamp) -> None:
        if not isinstance(self.benchmark, str):
            raise UserError(
                "`backtest.benchmark` must be an instrument code such as SH000300, since the dataset names none; "
                f"found {self.benchmark!r}"
            )
        with _only_errors_of_qlib():
            close = D.features([self.benchmark], ["$close"], first, last)
        if close.empty or close["$close"].isna().all():
            raise UserError(
                f"`backtest.benchmark` must be an instrument with close prices from {first:%Y-%m-%d} to "
                f"{last:%Y-%m-%d}, found none for {self.benchmark} in the store"
            )

    def _exchange(self, scores: pd.Series, first: pd.Timestamp, last: pd.Timestamp) -> Exchange:
        """The market that the orders meet: the scored stocks, not the whole store."""
        kwargs = dict(self.exchange_kwargs)
        if isinstance(kwargs["limit_threshold"], list):
            kwargs["limit_threshold"] = tuple(
                kwargs["limit_threshold"]
            )  # YAML has no tuples, Qlib asks for one
        codes = sorted(scores.index.get_level_values("instrument").unique())
        if isinstance(kwargs["limit_threshold"], float):
            unit = _unit_of_change(codes, first, last)
            limit = kwargs["limit_threshold"] * unit
            # Some stores carry the close over a suspension: on a day without volume nothing can be traded either way.
            kwargs["limit_threshold"] = tuple(
                f"({move}) | ($volume <= 0)" for move in (f"$change >= {limit!r}", f"$change <= {-limit!r}")
            )
            if unit != 1:
                self.notes.append(
                    "the store's field `change` is in percent; the price limit is read accordingly"
                )
        exchange = Exchange(freq="day", start_time=first, end_time=last, codes=codes, **kwargs)
        if exchange.trade_w_adj_price:
            self.notes.append(
                "the store has no complete `factor`: lots are of adjusted shares, and orders are not rounded to them"
            )
        return exchange

    def _setup(self, exchange: Exchange, first: pd.Timestamp, last: pd.Timestamp) -> dict[str, Any]:
        return {
            "start": f"{first:%Y-%m-%d}",
            "end": f"{last:%Y-%m-%d}",
            "account": self.account,
            "benchmark": self.benchmark,
            "strategy": dict(self.strategy),
            "exchange": self.exchange_kwargs,
            "trade_unit": exchange.trade_unit,
            "days_per_year": self.days_per_year,
            "notes": self.notes,
        }


def _unit_of_change(codes: list[str], first: pd.Timestamp, last: pd.Timestamp) -> float:
    """What a rise of 1 (100 %) is in the store's field `change`: 1 in most stores, 100 in those that hold percent.

    Qlib compares the field with the price limit as it is: in a store of percent every small move would be at the
    limit, and hardly anything could be traded. So the unit is read off the closes.
    """
    sample = codes[:: max(1, len(codes) // 50)]
    with _only_errors_of_qlib():
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


def _check_keys(name: str, given: Collection[str], known: Collection[str]) -> None:
    for key in given:
        if key not in known:
            raise UserError(
                f"`{name}` has no place for `{key}`{nearest(key, known)}; it takes {', '.join(sorted(known))}"
            )


def summarise(daily: pd.DataFrame, days_per_year: float) -> pd.DataFrame:
    """Return and risk of the portfolio, of the index and of the one over the other.

    Parameters
    ----------
    daily
        Columns `return`, `cost` and `benchmark`, a row a day.
    days_per_year
        Trading days that make a year.

    Returns
    -------
    A row each for the portfolio with and without cost, the index, and the excess with and without cost. Columns:
    `cumulative_return`, `annualised_return`, `annualised_volatility`, `ratio` (Sharpe's, for the excess the
    information ratio) and `max_drawdown`. Returns compound; the excess is that of the portfolio's wealth over the
    index's, and its volatility and ratio are those of the daily differences.
    """
    index = daily["benchmark"].to_numpy()
    after, before = (daily["return"] - daily["cost"]).to_numpy(), daily["return"].to_numpy()
    rows = {
        "portfolio_with_cost": _row(after, after, days_per_year),
        "portfolio_without_cost": _row(before, before, days_per_year),
        "benchmark": _row(index, index, days_per_year),
        "excess_with_cost": _row(risk.relative_return(after, index), after - index, days_per_year),
        "excess_without_cost": _row(risk.relative_return(before, index), before - index, days_per_year),
    }
    return pd.DataFrame(rows).T.rename_axis(index="series")


def _row(growth: np.ndarray, difference: np.ndarray, days_per_year: float) -> dict[str, float]:
    return {
        "cumulative_return": risk.cumulative_return(growth),
        "annualised_return": risk.annualised_return(growth, days_per_year),
        "annualised_volatility": risk.annualised_volatility(difference, days_per_year),
        "ratio": risk.sharpe_ratio(difference, days_per_year),
        "max_drawdown": risk.max_drawdown(growth),
    }


def _metrics(summary: pd.DataFrame, daily: pd.DataFrame, days_per_year: float) -> dict[str, float]:
    """What the run is compared by, with cost where nothing else is said."""
    portfolio, index = summary.loc["portfolio_with_cost"], summary.loc["benchmark"]
    after, before = summary.loc["excess_with_cost"], summary.loc["excess_without_cost"]
    return {
        "annualised_return": portfolio["annualised_return"],
        "annualised_volatility": portfolio["annualised_volatility"],
        "sharpe_ratio": portfolio["ratio"],
        "max_drawdown": portfolio["max_drawdown"],
        "annualised_benchmark_return": index["annualised_return"],
        "benchmark_max_drawdown": index["max_drawdown"],
        "annualised_excess_return": after["annualised_return"],
        "annualised_excess_return_without_cost": before["annualised_return"],
        "information_ratio": after["ratio"],
        "information_ratio_without_cost": before["ratio"],
        "excess_max_drawdown": after["max_drawdown"],
        "turnover": daily["turnover"].mean(),
        "annual_cost": daily["cost"].mean() * days_per_year,
        "days": float(len(daily)),
    }


def _positions(held: Mapping[pd.Timestamp, Any]) -> pd.DataFrame:
    """Holdings at the close of each day, one row for each day and stock."""
    rows = [
        (
            day,
            code,
            position.get_stock_amount(code),
            position.get_stock_price(code),
            position.get_stock_weight(code),
        )
        for day, position in held.items()
        for code in position.get_stock_list()
    ]
    columns = ["datetime", "instrument", "amount", "price", "weight"]
    return pd.DataFrame(rows, columns=columns).set_index(["datetime", "instrument"])


def _no_scores() -> pd.Series:
    index = pd.MultiIndex.from_arrays([pd.DatetimeIndex([]), []], names=["datetime", "instrument"])
    return pd.Series(index=index, dtype="float64", name="score")


@contextlib.contextmanager
def _only_errors_of_qlib() -> Iterator[None]:
    """Hold back Qlib's messages below an error: it warns of every suspended stock and of what it chose itself.

    What matters among them (no calendar beyond the last day, no factor, no change) is checked here.
    """
    handlers = [(handler, handler.level) for handler in logging.getLogger("qlib").handlers]
    try:
        for handler, _ in handlers:
            handler.setLevel(logging.ERROR)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # the mean of no orders, on a day without any
            warnings.simplefilter("ignore", FutureWarning)  # pandas speaking to Qlib's authors
            yield
    finally:
        for handler, level in handlers:
            handler.setLevel(level)
