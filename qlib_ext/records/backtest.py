"""What an account would have become that traded the scores."""

from __future__ import annotations

import inspect
import logging
from collections.abc import Collection, Mapping
from typing import Any

import pandas as pd
from qlib.backtest.exchange import Exchange
from qlib.data import D
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.exchange_settings import check_exchange
from qlib_ext.backtest.rule_based_exchange import ARGUMENTS, RuleBasedExchange, check_costs
from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.checks import UserError, above, brief, instance, nearest
from qlib_ext.config.build import build
from qlib_ext.data.days import as_day
from qlib_ext.data.spec import DatasetSpec
from qlib_ext.market.rules.exchange_rules import read_rules
from qlib_ext.metrics import risk
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.portfolio_series import Series, paths, series_of
from qlib_ext.records.base import Record
from qlib_ext.records.estimates import estimated
from qlib_ext.terminal import quiet_qlib, shown_progress

logger = logging.getLogger(__name__)

ACCOUNT = 100_000_000.0
# Qlib's own costs and price limit for A-shares.
EXCHANGE: Mapping[str, Any] = {
    "deal_price": "close",
    "limit_threshold": 0.095,
    "open_cost": 0.0005,
    "close_cost": 0.0015,
    "min_cost": 5,
}
RULED: Mapping[str, Any] = {"deal_price": "close"}  # beside rules, which have all else
GIVEN = {"self", "kwargs", "start_time", "end_time", "codes", "freq"}
# Of the measures, those with an interval, in the order of `estimates`.
ESTIMATED = (
    "annualised_excess_return",
    "annualised_excess_return_without_cost",
    "annualised_return",
    "information_ratio",
    "information_ratio_without_cost",
    "sharpe_ratio",
    "turnover",
    "annual_cost",
)
NO_INDEX = (
    "`backtest.benchmark` must be an instrument code such as SH000300, here or in `task.dataset.kwargs.benchmark`; found "
    "none in either. Where the store has no index, say `benchmark: null` here: nothing is then compared with one"
)
WITHOUT_INDEX = (
    "no index is named (`backtest.benchmark: null`), so nothing is compared with one: excess returns, information ratio, "
    "beta and all else beside an index are left out"
)
DECISIONS = ("days", "stocks", "factors", "limits", "frontier")  # tables of a strategy's diary
MOST_UNSOLD = 5  # holdings are named in the note
OBJECTS = {"extra_quote", "quote_cls"}  # no text could stand for them


class BacktestRecord(Record):
    """Trade the scores of the run through Qlib's exchange and executor.

    A signal formed at the close of day t is traded on day t + 1. Trading begins the day after the first scored
    day and ends the day after the last, or where the store ends.

    Writes `backtest/daily.parquet`, by day: `return` (of the account, gross of cost), `cost`, `benchmark`
    (return of the index), `turnover` (bought plus sold value), all four as shares of the account's value of the
    day before; `account`, `value` (of the stocks) and `cash` in currency. Writes `backtest/positions.parquet` and
    `.csv`, by day and stock: `amount` (adjusted shares), `price` and `weight` in the account at the close, `value`
    and `days_held`; `backtest/orders.parquet` and `.csv`, every order with the reason why it did not fill, as
    `RecordingExchange.orders` explains them; `backtest/series.parquet`, by day the wealth and the
    drawdown of the portfolio after and before cost, of the index and of the one over the other; and
    `backtest/summary.csv`, `backtest/estimates.parquet` (the logged figures that a bootstrap of days has intervals of) and
    `backtest/setup.json`. Of a strategy that trades target weights writes what it decided, `portfolio_decisions/<table>.parquet`, as
    `qlib_ext.portfolio.diary.Diary` explains the tables. Logs the summary as metrics `backtest/...`. Without an index nothing
    beside one is in them.

    Parameters
    ----------
    recorder
        Given by Qlib.
    strategy
        `{class: dotted path, kwargs: {...}}` of a Qlib strategy that takes `signal`.
    backtest
        `account` (currency, by default 100 million), `benchmark` (instrument code; where it is left out or null, that
        of the dataset; where that names none either, null says that there is none) and `exchange_kwargs`: `rules`, the
        name of a dated table of price limits, T+1, lots and costs (`cn`, `us` or a YAML file), and what takes the place
        of parts of it, as `qlib_ext.backtest.rule_based_exchange.RuleBasedExchange` explains it; or, without rules, what Qlib's
        `Exchange` takes: `deal_price`, `open_cost`, `close_cost`, `min_cost`, `limit_threshold`, `volume_threshold`, ...
        Lists stand for its tuples.
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
        "backtest/positions.csv",
        "backtest/orders.parquet",
        "backtest/orders.csv",
        "backtest/series.parquet",
        "backtest/summary.csv",
        "backtest/estimates.parquet",
        "backtest/setup.json",
    )
    may_make = tuple(f"portfolio_decisions/{name}.parquet" for name in DECISIONS)

    def __init__(
        self,
        recorder: Any,
        strategy: Mapping[str, Any],
        backtest: Mapping[str, Any] | None = None,
        start: Any = None,
        end: Any = None,
        days_per_year: float = 243,
    ):
        super().__init__(recorder)
        self.strategy = strategy
        # Built once on no scores: wrong arguments show now, not after hours of training.
        tried = self._strategy(None)
        self._topk, self._shorts = getattr(tried, "topk", None), getattr(tried, "shorts", False)
        self._check_store = getattr(
            tried, "check_store", None
        )  # of target weights, which read the store themselves
        settings: dict[str, Any] = {"account": ACCOUNT, "benchmark": None, "exchange_kwargs": {}}
        _check_keys("backtest", {} if backtest is None else backtest, settings)
        settings |= backtest or {}
        self.may_have_none = "benchmark" in (backtest or {}) and settings["benchmark"] is None
        self.account = float(above("backtest.account", settings["account"], 0))
        self.benchmark = settings["benchmark"]
        if self.benchmark is not None:
            instance("backtest.benchmark", self.benchmark, str)
        if not isinstance(settings["exchange_kwargs"], Mapping):
            raise UserError(
                f"`backtest.exchange_kwargs` must be a mapping, found {brief(settings['exchange_kwargs'])}"
            )
        self.exchange_kwargs = completed(settings["exchange_kwargs"])
        takes = {*inspect.signature(Exchange.__init__).parameters, "trade_unit", *ARGUMENTS} - GIVEN - OBJECTS
        _check_keys("backtest.exchange_kwargs", self.exchange_kwargs, takes)
        self.fields = check_exchange(self.exchange_kwargs)
        rules = self.exchange_kwargs.get("rules")
        self.rules = None if rules is None else read_rules(rules)
        check_costs(rules is not None, self.exchange_kwargs)
        if self._shorts and self.exchange_kwargs.get("borrowing") is None:
            raise UserError(
                "the strategy sells stocks short, and the exchange sells only what is held: set "
                "`backtest.exchange_kwargs.borrowing`, the yearly fee of a borrowed stock, or leave out what lets weights be below 0"
            )
        self.start = None if start is None else as_day("start", start)
        self.end = None if end is None else as_day("end", end)
        if self.start is not None and self.end is not None and self.start > self.end:
            raise UserError(f"`start` must not lie after `end`, found {start} and {end}")
        self.days_per_year = float(above("days_per_year", days_per_year, 0, 366))
        self.notes: list[str] = []

    def check_before(self, spec: DatasetSpec) -> None:
        """Benchmark, prices and number of stocks, against the store and the test segment."""
        spec.require_segment("test", "BacktestRecord")
        for field in sorted(self.fields):
            spec.require_field("backtest.exchange_kwargs", field)
        benchmark = self.benchmark or spec.benchmark
        if benchmark is None and not self.may_have_none:
            raise UserError(NO_INDEX)
        if benchmark is not None and benchmark.upper() not in spec.store.instruments():
            raise UserError(
                f"`backtest.benchmark` must be an instrument of the store {spec.store.root}, found {brief(benchmark)}"
                f"{nearest(benchmark.upper(), spec.store.instruments())}"
            )
        if self._check_store is not None:
            self._check_store(spec.store)
        first, last = spec.segments["test"]
        if self.rules is not None:
            spells = spec.store.membership(spec.universe)
            codes = spells["instrument"][(spells["start"] <= last) & (spells["end"] >= first)]
            self.rules.require({*codes} & {*spec.store.instruments()}, first, last)
        if (self.start is not None and self.start > last) or (self.end is not None and self.end < first):
            raise UserError(
                f"`start` and `end` must leave days of the test segment, {first:%Y-%m-%d} to {last:%Y-%m-%d}, to trade "
                f"on; found {self.start or first:%Y-%m-%d} to {self.end or last:%Y-%m-%d}"
            )
        wanted, there = self._topk, spec.most_members("test")
        if isinstance(wanted, int) and wanted > there:
            raise UserError(
                f"`topk` must be at most {there}, the most stocks that `{spec.universe}` has on a day from "
                f"{first:%Y-%m-%d} to {last:%Y-%m-%d}; found {wanted}: hold fewer, or take a larger universe"
            )

    def _strategy(self, signal: pd.Series | None) -> BaseStrategy:
        return build(self.strategy, BaseStrategy, name="strategy", signal=signal)

    def _generate(self) -> None:
        self.notes = []
        scores = self.load_table("signal/predictions.parquet")["score"].dropna()
        first, last = self._period(scores)
        benchmark = self._benchmark(first, last)
        logger.info("Backtest from %s to %s", f"{first:%Y-%m-%d}", f"{last:%Y-%m-%d}")
        codes = sorted(scores.index.get_level_values("instrument").unique())
        exchange, notes = make_exchange(codes, first, last, self.exchange_kwargs)
        self.notes += notes
        with shown_progress() as progress:
            strategy = self._strategy(scores)
            done = simulate(
                strategy,
                exchange,
                first,
                last,
                account=self.account,
                benchmark=benchmark,
                progress=progress,
            )
        self.notes += _unsold(done.unsold())
        daily = done.daily
        self.save_table("backtest/daily.parquet", daily)
        for name, table in (("positions", done.positions()), ("orders", done.orders)):
            self.save_table(f"backtest/{name}.parquet", table)
            self.save_csv(f"backtest/{name}.csv", table)
        diary = getattr(strategy, "diary", None)  # of target weights; the class needs the extra `portfolio`
        if diary is not None:
            tables = diary.tables()
            for name in DECISIONS:
                self.save_table(f"portfolio_decisions/{name}.parquet", tables[name])
            self.notes += strategy.notes
        deal_price = self.exchange_kwargs.get("deal_price", "close")
        self.notes.append(
            WITHOUT_INDEX if benchmark is None else first_day(daily, deal_price, self.days_per_year)
        )
        self.save_json("backtest/setup.json", self._setup(exchange, first, last, benchmark))
        series = series_of(daily, self.days_per_year)
        summary = summarise(series)
        found = {
            f"backtest/{name}": value for name, value in measures(summary, daily, self.days_per_year).items()
        }
        self.save_table("backtest/series.parquet", paths(series))
        self.save_csv("backtest/summary.csv", summary)
        self.save_table("backtest/estimates.parquet", estimates(found, daily, self.days_per_year))
        self.log_metrics(found)
        for note in self.notes:
            logger.info("Backtest: %s", note)

    def _period(self, scores: pd.Series) -> tuple[pd.Timestamp, pd.Timestamp]:
        """First and last day to trade on."""
        with quiet_qlib():
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

    def _benchmark(self, first: pd.Timestamp, last: pd.Timestamp) -> str | None:
        """The index: that of `backtest`, or else that of the dataset; None where it is said that there is none."""
        benchmark = self.benchmark
        if benchmark is None and self.has("data/summary.json"):
            benchmark = self.load_json("data/summary.json").get("benchmark")
        if benchmark is None and self.may_have_none:
            return None
        if benchmark is None:
            raise UserError(NO_INDEX)
        with quiet_qlib():
            close = D.features([benchmark], ["$close"], first, last)
        if close.empty or close["$close"].isna().all():
            raise UserError(
                f"`backtest.benchmark` must be an instrument with close prices from {first:%Y-%m-%d} to "
                f"{last:%Y-%m-%d}, found none for {benchmark} in the store"
            )
        return str(benchmark)

    def _setup(
        self, exchange: RuleBasedExchange, first: pd.Timestamp, last: pd.Timestamp, benchmark: str | None
    ) -> dict[str, Any]:
        return {
            "start": f"{first:%Y-%m-%d}",
            "end": f"{last:%Y-%m-%d}",
            "account": self.account,
            "benchmark": benchmark,
            "strategy": dict(self.strategy),
            "exchange": self.exchange_kwargs,
            "rules": exchange.describe(),
            "trade_unit": exchange.trade_unit,
            "days_per_year": self.days_per_year,
            "notes": self.notes,
        }


def first_day(daily: pd.DataFrame, deal_price: Any, per_year: float) -> str:
    """Say that the index begins a day's return before the account, and what that makes.

    The account buys during the first day, at the deal price; the index's return of that day is from the close before.
    """
    after, index = (daily["return"] - daily["cost"]).to_numpy(), daily["benchmark"].to_numpy()
    said = (
        f"the account begins in cash and buys on {daily.index[0]:%Y-%m-%d} at the day's {deal_price}, while the index's "
        f"whole return of that day counts, {index[0]:+.2%}"
    )
    if len(daily) < 3:
        return said
    whole, later = (risk.annualised_excess_return(after[k:], index[k:], per_year) for k in (0, 1))
    return f"{said}: over the index after cost {whole:+.2%} a year, from the day after {later:+.2%}"


def _unsold(table: pd.DataFrame) -> list[str]:
    """What is said of holdings that could not be sold."""
    if table.empty:
        return []
    told = [
        f"{code} ({row.weight:.2%}, {row.sales} sales since {row.since:%Y-%m-%d} did not fill)"
        for code, row in table.head(MOST_UNSOLD).iterrows()
    ]
    more = f" and {len(table) - MOST_UNSOLD} more" if len(table) > MOST_UNSOLD else ""
    said = (
        f"what could not be sold is {table['weight'].sum():.2%} of the account at the end, at its last prices"
    )
    return [f"{said}: {', '.join(told)}{more}; shares of a delisted firm may be worth nothing"]


def completed(exchange_kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """What a workflow says of the exchange, with Qlib's own costs and price limit where it names no rules."""
    return {**(EXCHANGE if exchange_kwargs.get("rules") is None else RULED), **exchange_kwargs}


def _check_keys(name: str, given: Any, known: Collection[str]) -> None:
    if not isinstance(given, Mapping):
        raise UserError(f"`{name}` must be a mapping, found {brief(given)}")
    for key in given:
        if key not in known:
            raise UserError(
                f"`{name}` has no place for `{key}`{nearest(key, known)}; it takes {', '.join(sorted(known))}"
            )


def summarise(series: Mapping[str, Series]) -> pd.DataFrame:
    """Return and risk of the portfolio, of the index and of the one over the other.

    Parameters
    ----------
    series
        From `metrics.portfolio_series.series_of`.

    Returns
    -------
    A row each for the portfolio with and without cost, the index, and the excess with and without cost. Columns:
    `cumulative_return`, `annualised_return`, `annualised_volatility`, `ratio` (Sharpe's, for the excess the
    information ratio) and `max_drawdown`. Returns compound; the excess is that of the portfolio's wealth over the
    index's, and its volatility and ratio are those of the daily differences.
    """
    rows = {
        name: {
            "cumulative_return": risk.cumulative_return(one.growth),
            "annualised_return": risk.annualised_return(one.growth, one.per_year),
            "annualised_volatility": risk.annualised_volatility(one.daily, one.per_year),
            "ratio": risk.sharpe_ratio(one.daily, one.per_year),
            "max_drawdown": risk.max_drawdown(one.growth),
        }
        for name, one in series.items()
    }
    return pd.DataFrame(rows).T.rename_axis(index="series")


def measures(summary: pd.DataFrame, daily: pd.DataFrame, days_per_year: float) -> dict[str, float]:
    """What the run is compared by, with cost where nothing else is said; without an index, nothing beside one."""
    portfolio = summary.loc["portfolio_with_cost"]
    found = {
        "annualised_return": portfolio["annualised_return"],
        "annualised_volatility": portfolio["annualised_volatility"],
        "sharpe_ratio": portfolio["ratio"],
        "max_drawdown": portfolio["max_drawdown"],
        "turnover": daily["turnover"].mean(),
        "annual_cost": daily["cost"].mean() * days_per_year,
        "days": float(len(daily)),
    }
    if "benchmark" not in summary.index:
        return found
    index = summary.loc["benchmark"]
    after, before = summary.loc["excess_with_cost"], summary.loc["excess_without_cost"]
    return found | {
        "annualised_benchmark_return": index["annualised_return"],
        "benchmark_max_drawdown": index["max_drawdown"],
        "annualised_excess_return": after["annualised_return"],
        "annualised_excess_return_without_cost": before["annualised_return"],
        "information_ratio": after["ratio"],
        "information_ratio_without_cost": before["ratio"],
        "excess_max_drawdown": after["max_drawdown"],
    }


def estimates(found: Mapping[str, float], daily: pd.DataFrame, days_per_year: float) -> pd.DataFrame:
    """The measures that average over days, with their intervals; one deepest fall has none of this kind."""

    def alone(gross: Floats, cost: Floats, turnover: Floats) -> dict[str, float]:
        net = gross - cost
        return {
            "annualised_return": risk.annualised_return(net, days_per_year),
            "sharpe_ratio": risk.sharpe_ratio(net, days_per_year),
            "turnover": float(turnover.mean()),
            "annual_cost": float(cost.mean()) * days_per_year,
        }

    def beside(gross: Floats, cost: Floats, index: Floats) -> dict[str, float]:
        net = gross - cost
        return {
            "annualised_excess_return": risk.annualised_excess_return(net, index, days_per_year),
            "annualised_excess_return_without_cost": risk.annualised_excess_return(
                gross, index, days_per_year
            ),
            "information_ratio": risk.information_ratio(net, index, days_per_year),
            "information_ratio_without_cost": risk.information_ratio(gross, index, days_per_year),
        }

    def figures(gross: Floats, cost: Floats, turnover: Floats, *index: Floats) -> list[float]:
        known = alone(gross, cost, turnover) | (beside(gross, cost, *index) if index else {})
        return [known[name] for name in ESTIMATED if name in known]

    values = {
        f"backtest/{name}": found[f"backtest/{name}"] for name in ESTIMATED if f"backtest/{name}" in found
    }
    columns = ("return", "cost", "turnover", *(["benchmark"] if "benchmark" in daily else []))
    return estimated(values, figures, *(daily[name] for name in columns))
