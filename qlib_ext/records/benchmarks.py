"""The portfolio beside others that need no skill: its universe at equal weight and by value, and lists drawn by chance."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C

from qlib_ext.checks import LARGEST_SEED, integer
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.market_value import SideMarketValue
from qlib_ext.market.spells import daily_size
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics import naive_portfolios as naive
from qlib_ext.metrics import risk
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.periods import period_starts
from qlib_ext.records.base import Record
from qlib_ext.records.estimates import estimated

NAMED = ("equal_weight", "value_weight")
FIGURES = ("annualised_excess_return", "annualised_excess_return_without_cost", "information_ratio")
RANDOM = (0.025, 0.5, 0.975)  # quantiles of the lists drawn by chance


class BenchmarksRecord(Record):
    """Hold the portfolio against what anybody could have held without a score.

    An index of prices leaves out dividends and weighs by value. A portfolio of many stocks at equal weight can beat it, or
    fall behind it, for these two reasons alone. So the same days are given to

    - the index with the dividends that it leaves out, as far as the factors of its members tell them
      (`metrics.naive_portfolios.dividend_yield`), where an index is named and the store has factors;
    - the universe at equal weight, restored every day, dividends included, without cost;
    - the universe weighted by market value, where the store knows market values as side data;
    - lists drawn by chance that hold and replace as many stocks a day as the portfolio did, and pay its costs.

    Writes under `benchmarks/`:

    - `daily.parquet`: by day, the returns `equal_weight` and, where there are such, `value_weight` and `index_with_dividends`, with
      `wealth/...`, what 1 became; and of the lists the quantiles of what 1 became after cost: `random/low` (2.5%), `random/median`,
      `random/high` (97.5%).
    - `summary.csv`: by benchmark, its return a year, and how far the portfolio is above it.
    - `estimates.parquet`: the excess over each, with 95% intervals.
    - `setup.json`: how many lists, the share of them that ended below the portfolio (`random_below`), members without
      bars and what they could change (`metrics.naive_portfolios.survivorship_bound`, a year), the index's dividends a year
      (`dividends`), and why there is no `value_weight`.

    Logs what `estimates.parquet` has, as `benchmarks/<benchmark>/<figure>`, and `benchmarks/random_below`.

    Parameters
    ----------
    recorder
        Given by Qlib.
    draws
        Lists drawn by chance.
    seed
        Of their drawing.

    Raises
    ------
    UserError
        If an argument lies outside its range, or the run has no backtest.

    Notes
    -----
    As of the index, the whole return of the first day counts, on which the account begins in cash. Lists by chance hold
    their stocks at equal weight, and know neither lots nor price limits.
    """

    needs = (
        "data/summary.json",
        "signal/predictions.parquet",
        "backtest/daily.parquet",
        "backtest/positions.parquet",
        "backtest/setup.json",
    )
    makes = (
        "benchmarks/daily.parquet",
        "benchmarks/summary.csv",
        "benchmarks/estimates.parquet",
        "benchmarks/setup.json",
    )

    def __init__(self, recorder: Any, draws: int = 200, seed: int = 0):
        super().__init__(recorder)
        self.draws = integer("draws", draws, 1, 100_000)
        self.seed = integer("seed", seed, 0, LARGEST_SEED)

    def _generate(self) -> None:
        daily = self.load_table("backtest/daily.parquet")
        per_year = float(self.load_json("backtest/setup.json")["days_per_year"])
        universe = str(self.load_json("data/summary.json")["universe"])
        store = QlibStore(C.dpm.get_data_uri("day"))
        market = MarketPanel.load(store, universe, ["close", "factor"])
        first = market.calendar.get_loc(daily.index[0])
        days = slice(max(first - 1, 0), market.calendar.get_loc(daily.index[-1]) + 1)
        extra = first - days.start  # the day before, at whose close the first return begins
        close, members = market.field("close")[days].copy(), market.members[days]
        # Who stands still as the first return begins has the close of an earlier day.
        close[0] = pd.DataFrame(market.field("close")[: days.start + 1]).ffill().iloc[-1]
        returns = naive.held_returns(close)
        table, why = {"equal_weight": naive.weighted_return(returns, members)[extra:]}, ""
        lacking, values, dividends = SideMarketValue().lacks(store), None, np.zeros(len(daily))
        if lacking is None:
            values = SideMarketValue().load(store, market.instruments)[days]
            table["value_weight"] = naive.weighted_return(returns, members, values)[extra:]
        else:
            why = f"not weighted by value: {lacking}"
        if "benchmark" in daily:
            dividends = naive.dividend_yield(market.field("factor")[days], members, values)[extra:]
            if (dividends > 0).any():
                table["index_with_dividends"] = daily["benchmark"].to_numpy() + dividends
        lists = self._random(returns[extra:], market, daily)
        after = (daily["return"] - daily["cost"]).to_numpy()
        ends = lists[:, -1]
        below = float((ends < risk.wealth(after)[-1]).mean())
        low, median, high = np.quantile(lists, RANDOM, axis=0)
        wealth = {f"wealth/{name}": risk.wealth(series) for name, series in table.items()}
        wealth |= {"random/low": low, "random/median": median, "random/high": high}
        self.save_table("benchmarks/daily.parquet", pd.DataFrame(table | wealth, index=daily.index))
        self.save_csv("benchmarks/summary.csv", _summary(daily, table, ends, per_year))
        known = _estimates(daily, table, per_year)
        self.save_table("benchmarks/estimates.parquet", known)
        missing = self._missing(store, universe, market, days)
        self.save_json(
            "benchmarks/setup.json",
            {
                "universe": universe,
                "draws": self.draws,
                "random_below": below,
                "dividends": float(dividends.mean()) * per_year,
                "no_value_weight": why,
                **_survivorship(returns, members, missing, market.calendar[days], per_year),
            },
        )
        self.log_metrics(known["value"].dropna().to_dict() | {"benchmarks/random_below": below})

    def _random(self, returns: Floats, market: MarketPanel, daily: pd.DataFrame) -> Floats:
        """What 1 became of each list, by day: `[draws, D]`."""
        positions = self.load_table("backtest/positions.parquet")
        names = positions.groupby("datetime").size().reindex(daily.index, fill_value=0).to_numpy()
        # Bought plus sold value, over the account: a stock that is exchanged for another counts twice.
        replaced = np.rint(daily["turnover"].to_numpy() / 2 * names).astype(int)
        scored = self.load_table("signal/predictions.parquet")["score"].notna().unstack(fill_value=False)
        # A list is bought on the newest scores before the day, as the portfolio is.
        newest = np.maximum(scored.index.searchsorted(daily.index) - 1, 0)
        known = scored.reindex(columns=[*market.instruments], fill_value=False).to_numpy(dtype=bool)[newest]
        gross = naive.random_lists(returns, known, names, replaced, draws=self.draws, seed=self.seed)
        return np.cumprod(1 + gross - daily["cost"].to_numpy(), axis=1)

    def _missing(self, store: QlibStore, universe: str, market: MarketPanel, days: slice) -> np.ndarray:
        """Share of the members of each day that the store has no bars of."""
        listed = daily_size(market.calendar[days], store.membership(universe)).to_numpy()
        there = market.members[days].sum(axis=1)
        return np.divide(listed - there, listed, out=np.zeros(len(there)), where=listed > 0)


def _summary(daily: pd.DataFrame, table: dict[str, Floats], ends: Floats, per_year: float) -> pd.DataFrame:
    """By benchmark: `annualised_return`, and the portfolio's `excess_with_cost` and `excess_without_cost` a year."""
    before, cost = (daily[name].to_numpy() for name in ("return", "cost"))
    beside = {"index": daily["benchmark"].to_numpy()} if "benchmark" in daily else {}
    rows = {
        name: {
            "annualised_return": risk.annualised_return(series, per_year),
            "excess_with_cost": risk.annualised_excess_return(before - cost, series, per_year),
            "excess_without_cost": risk.annualised_excess_return(before, series, per_year),
        }
        for name, series in (beside | table).items()
    }
    years = per_year / len(daily)
    own = risk.annualised_return(before - cost, per_year)
    middle = float(np.median(ends)) ** years - 1
    rows["random"] = {"annualised_return": middle, "excess_with_cost": (1 + own) / (1 + middle) - 1}
    return pd.DataFrame(rows).T.rename_axis(index="benchmark")


def _estimates(daily: pd.DataFrame, table: dict[str, Floats], per_year: float) -> pd.DataFrame:
    """The excess over each benchmark, with its interval."""

    def figures(gross: Floats, cost: Floats, *others: Floats) -> list[float]:
        net = gross - cost
        return [
            figure
            for series in others
            for figure in (
                risk.annualised_excess_return(net, series, per_year),
                risk.annualised_excess_return(gross, series, per_year),
                risk.information_ratio(net, series, per_year),
            )
        ]

    columns = [daily["return"].to_numpy(), daily["cost"].to_numpy(), *table.values()]
    names = [f"benchmarks/{name}/{figure}" for name in table for figure in FIGURES]
    return estimated(dict(zip(names, figures(*columns), strict=True)), figures, *columns)


def _survivorship(
    returns: Floats, members: np.ndarray, missing: np.ndarray, days: pd.DatetimeIndex, per_year: float
) -> dict[str, Any]:
    """Share of members without bars, and by how much a year they could change the universe's return."""
    _, starts = period_starts(days.to_numpy(), "year")
    spans = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(days)], strict=True)]
    bounds = [
        naive.survivorship_bound(returns[span], members[span.start], float(missing[span].mean()))
        for span in spans
    ]
    years = len(days) / per_year
    low, high = (float(sum(bound[k] for bound in bounds)) / years for k in (0, 1))
    return {"missing_members": float(missing.mean()), "missing_low": low, "missing_high": high}
