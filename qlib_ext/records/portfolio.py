"""What the portfolio of a backtest was: return and risk, holdings, costs, and what each stock added."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pandas as pd
from qlib.config import C

from qlib_ext.backtest.quotes import read_quotes
from qlib_ext.checks import UserError, at_least, between, brief, integer
from qlib_ext.features.side_data.industries import industries
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics import costs, holdings, risk
from qlib_ext.metrics.portfolio_measures import measured
from qlib_ext.metrics.portfolio_series import series_of
from qlib_ext.records import portfolio_tables as tables
from qlib_ext.records.base import Record

COST_BPS = (0, 5, 10, 15, 20, 25, 30, 35, 40, 45, 50, 55, 60)
# Of the measures, those that a backtest has not logged already.
LOGGED = (
    "downside_deviation",
    "sortino_ratio",
    "calmar_ratio",
    "value_at_risk",
    "conditional_value_at_risk",
    "average_drawdown",
    "longest_drawdown",
    "profit_factor",
    "hit_rate",
    "monthly_hit_rate",
    "beta",
    "alpha",
    "tracking_error",
    "up_capture",
    "down_capture",
)


class PortfolioRecord(Record):
    """Measure the portfolio of the backtest.

    Writes under `portfolio/`:

    - `metrics.csv`: some forty figures, for the portfolio after and before cost, the index, and the one over the other;
      95% intervals where a bootstrap of days makes them; and how each is computed.
    - `drawdowns.csv`: the ten deepest falls of the portfolio after cost, the index and the excess, with their days.
    - `monthly.csv`, `yearly.csv`: compounded returns, turnover, cost and stocks held; by year also risk.
    - `rolling.parquet`: Sharpe ratio, volatility and beta over the last `window_days`.
    - `cost_sweep.csv`: the portfolio at other costs, the trades held fixed (`metrics.costs`).
    - `holdings.parquet`: stocks held, concentration and share of cash by day.
    - `contributions.csv`: what each stock added to the return before cost (`metrics.holdings.contributions`).
    - `setup.json`: what these were made with, and figures of the whole: the costs at which nothing is left, what trading
      away from the close added.
    - where the store has industries, `industries.parquet` (weights by day) and `industries.csv` (averages and
      contributions).

    Logs `portfolio/...` metrics: what the backtest has not logged, of the portfolio after cost.

    Parameters
    ----------
    recorder
        Given by Qlib.
    window_days
        Trading days that a rolling figure looks back over; 126 is half a year.
    cost_bps
        Costs of the sweep: of a trade one way, in basis points (0.01%) of its value.
    draws
        Resampled series behind an interval.
    level
        Probability that an interval is to cover its figure.

    Raises
    ------
    UserError
        If an argument lies outside its range, or the run has no backtest.

    Notes
    -----
    A stock's return of a day is that of the price at which the account valued it; where it was sold, that of the
    store's close. With trades at the close, contributions therefore add up to the return before cost; with trades at
    another price, what lies between that price and the close is in `setup.json` as `trading`.
    """

    needs = ("backtest/daily.parquet", "backtest/positions.parquet", "backtest/setup.json")
    makes = (
        "portfolio/metrics.csv",
        "portfolio/drawdowns.csv",
        "portfolio/monthly.csv",
        "portfolio/yearly.csv",
        "portfolio/rolling.parquet",
        "portfolio/cost_sweep.csv",
        "portfolio/holdings.parquet",
        "portfolio/contributions.csv",
        "portfolio/setup.json",
    )
    may_make = ("portfolio/industries.parquet", "portfolio/industries.csv")

    def __init__(
        self,
        recorder: Any,
        window_days: int = 126,
        cost_bps: Sequence[float] = COST_BPS,
        draws: int = 2000,
        level: float = 0.95,
    ):
        super().__init__(recorder)
        self.window_days = integer("window_days", window_days, 2)
        if not isinstance(cost_bps, (list, tuple)) or not cost_bps:
            raise UserError(f"`cost_bps` must be a list of costs in basis points, found {brief(cost_bps)}")
        self.cost_bps = sorted(
            {float(at_least(f"cost_bps[{k}]", bps, 0, 10_000)) for k, bps in enumerate(cost_bps)}
        )
        self.draws = integer("draws", draws, 1)
        self.level = float(between("level", level, 0, 1, open_low=True, open_high=True))

    def _generate(self) -> None:
        daily = self.load_table("backtest/daily.parquet")
        positions = self.load_table("backtest/positions.parquet")
        per_year = float(self.load_json("backtest/setup.json")["days_per_year"])
        series = series_of(daily, per_year)
        metrics = measured(series, draws=self.draws, level=self.level)
        self.save_csv("portfolio/metrics.csv", metrics)
        self.save_csv("portfolio/drawdowns.csv", tables.worst_drawdowns(series))
        self.save_table("portfolio/rolling.parquet", tables.rolled(series, self.window_days))
        self.save_csv("portfolio/cost_sweep.csv", tables.cost_sweep(daily, per_year, self.cost_bps))

        weights = tables.wide_weights(positions, daily)
        held = tables.concentration(weights, daily)
        self.save_table("portfolio/holdings.parquet", held)
        for period, name in (("month", "monthly"), ("year", "yearly")):
            table = tables.by_period(daily, series, held["stocks"], period)
            self.save_csv(f"portfolio/{name}.csv", table)

        returns = tables.held_returns(positions, weights, self._closes(weights.columns, weights.index))
        parts, rest = holdings.contributions(
            tables.day_before(weights), returns.to_numpy(), daily["return"].to_numpy()
        )
        added = pd.DataFrame(parts, weights.index, weights.columns)
        scored = self._scored(weights.index)
        codes = weights.columns.union([] if scored is None else scored.columns)
        industry, no_industries = self._industries(codes, weights.index)
        self.save_csv("portfolio/contributions.csv", tables.contributors(weights, returns, added, industry))
        if industry is not None:
            by_day, overall = tables.by_industry(weights, added, industry, scored)
            self.save_table("portfolio/industries.parquet", by_day)
            self.save_csv("portfolio/industries.csv", overall)
        gross, turnover = (daily[name].to_numpy() for name in ("return", "turnover"))
        beside = {}
        if "benchmark" in daily:
            index = daily["benchmark"].to_numpy()
            beside["break_even_excess_bps"] = costs.break_even_bps(gross, turnover, index)
        self.save_json(
            "portfolio/setup.json",
            {
                "days": len(daily),
                "days_per_year": per_year,
                "window_days": self.window_days,
                "level": self.level,
                "draws": self.draws,
                "return_before_cost": risk.cumulative_return(gross),
                "trading": float(rest.sum()),
                "own_cost_bps": float(daily["cost"].sum() / turnover.sum() / costs.POINT)
                if turnover.any()
                else None,
                "break_even_bps": costs.break_even_bps(gross, turnover),
                **beside,
                "no_industries": no_industries,
            },
        )
        logged = metrics.loc[[*LOGGED], "portfolio_with_cost"].dropna()
        self.log_metrics({f"portfolio/{name}": value for name, value in logged.items()})

    def _scored(self, days: pd.DatetimeIndex) -> pd.DataFrame | None:
        """Which stocks had a score on which of the days, `[D, S]` bool; None where the run has no scores."""
        if not self.has("signal/predictions.parquet"):
            return None
        scored = self.load_table("signal/predictions.parquet")["score"].notna().unstack(fill_value=False)
        return scored.reindex(days, fill_value=False)

    def _closes(self, codes: Sequence[str], days: pd.DatetimeIndex) -> pd.DataFrame:
        """The store's closes, a row a day and a column a stock."""
        if not len(codes):
            return pd.DataFrame(index=days)
        store = QlibStore(C.dpm.get_data_uri("day"))
        close = read_quotes(store, codes, ["$close"], days[0], days[-1])["$close"]
        return close.astype("float64").unstack("instrument")

    def _industries(
        self, codes: Sequence[str], days: pd.DatetimeIndex
    ) -> tuple[tables.Membership | None, str]:
        """The store's industries, or None and why there are none."""
        found, why_none = industries(QlibStore(C.dpm.get_data_uri("day")), days, codes)
        if found is None:
            return None, why_none
        return tables.Membership(found.names, pd.DataFrame(found.code, days, codes)), ""
