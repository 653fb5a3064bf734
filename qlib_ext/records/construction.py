"""How the portfolio of a backtest was made, and whether its risk came out as forecast."""

from __future__ import annotations

import logging
from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C

from qlib_ext.checks import integer
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.naive_portfolios import held_returns
from qlib_ext.metrics.risk_forecast import bias_interval
from qlib_ext.records import construction_tables as tables
from qlib_ext.records.base import Record

logger = logging.getLogger(__name__)

DECIDED = "portfolio_decisions/days.parquet"
HELD = 1e-6  # least weight of a stock that is held


class ConstructionRecord(Record):
    """Look at the decisions of a strategy that trades target weights.

    Writes under `construction/`:

    - `rebalancings.parquet`: by day of the trade, what `portfolio_decisions/days.parquet` has, with turnover by cause, drift, and
      forecast risk beside what came until the next (`construction_tables.rebalancings`).
    - `risk.parquet`: by day of the backtest, the forecast in force and what came, over the last `window_days`
      (`construction_tables.daily_risk`); `risk.csv`: over all days, with bias statistic and QLIKE
      (`construction_tables.risk_summary`).
    - `limits.csv`: how often each limit bound, and gave way.
    - where industries are known, `industries.parquet`, and where the risk model has factors, `factors.parquet`: weights or
      exposures and shares in the forecast variance, by day.
    - `correlations.parquet`, `components.parquet`, `loadings.parquet` and `together.csv`: how the stocks held moved together
      over the `look_back_days` before, at the last decision of each year (`construction_tables.together`).
    - `frontier.csv`: of `portfolio_decisions/frontier.parquet`, a year.
    - `setup.json`: what these were made with, and what the chosen portfolio leaves on the table at its risk
      (`construction_tables.below_frontier`). Where the strategy trades no target weights, or never did, it says so and nothing
      else is written.

    Logs `construction/...`: forecast and realised volatility and tracking error a year with their bias, turnover of a mean
    rebalancing by cause, and how often limits gave way.

    Parameters
    ----------
    recorder
        Given by Qlib.
    window_days
        Trading days that a rolling figure looks back over.
    look_back_days
        Trading days of returns behind correlations.
    most_stocks
        Stocks that correlations are shown of, the heaviest.

    Raises
    ------
    UserError
        If an argument lies outside its range, or the run has no backtest.

    Notes
    -----
    A decision is traded on a day at the deal price, and its forecast holds from the day after to the day of the next trade. What
    came is the account's return before cost, beside it that of the benchmark whose weights the decision knew.
    """

    needs = ("backtest/daily.parquet", "backtest/setup.json")
    makes = ("construction/setup.json",)
    may_make = (
        "construction/rebalancings.parquet",
        "construction/risk.parquet",
        "construction/risk.csv",
        "construction/limits.csv",
        "construction/industries.parquet",
        "construction/factors.parquet",
        "construction/correlations.parquet",
        "construction/components.parquet",
        "construction/loadings.parquet",
        "construction/together.csv",
        "construction/frontier.csv",
    )

    def __init__(
        self, recorder: Any, window_days: int = 63, look_back_days: int = 250, most_stocks: int = 60
    ):
        super().__init__(recorder)
        self.window_days = integer("window_days", window_days, 2)
        self.look_back_days = integer("look_back_days", look_back_days, 20)
        self.most_stocks = integer("most_stocks", most_stocks, 2)

    def _generate(self) -> None:
        setup = self.load_json("backtest/setup.json")
        decisions = self._decided("days")
        if decisions.empty:
            strategy = setup["strategy"].get("class", "")
            why = f"no decisions to look at: the strategy of the backtest, {strategy}, " + (
                "never rebalanced" if self.has(DECIDED) else "trades no target weights"
            )
            logger.info("%s", why)
            self.save_json("construction/setup.json", {"rebalancings": 0, "note": why})
            return
        daily, stocks = self.load_table("backtest/daily.parquet"), self._decided("stocks")
        per_year = float(setup["days_per_year"])
        returns = self._returns(stocks, decisions["known"].iloc[0], daily.index[-1])
        place = tables.in_force(daily.index, decisions.index)
        beside = tables.benchmark_returns(stocks, returns.reindex(daily.index), place)
        risk = tables.daily_risk(
            daily["return"].to_numpy(), beside, decisions, place, self.window_days, per_year
        )
        risk.index = daily.index
        summary = tables.risk_summary(risk, self.window_days, per_year)
        made = tables.rebalancings(decisions, stocks, risk, daily["turnover"], place, per_year)
        self.save_table("construction/rebalancings.parquet", made)
        self.save_table("construction/risk.parquet", risk)
        self.save_csv("construction/risk.csv", summary)
        met = self._decided("limits")
        limits = tables.limits(met, len(made)) if len(met) else None
        if limits is not None:
            self.save_csv("construction/limits.csv", limits)
        if stocks["industry"].notna().any():
            self.save_table("construction/industries.parquet", tables.by_industry(stocks))
        factors = self._decided("factors")
        if len(factors):
            self.save_table("construction/factors.parquet", tables.by_factor(factors))
        self._save_together(made, stocks, returns)
        frontier = tables.yearly_frontier(self._decided("frontier"), per_year)
        if len(frontier):
            self.save_csv("construction/frontier.csv", frontier)
        relaxed = 0 if met.empty else int(met.index[met["what"] == "relaxed"].nunique())
        self.save_json(
            "construction/setup.json",
            {
                "rebalancings": len(made),
                "days_per_year": per_year,
                "window_days": self.window_days,
                "look_back_days": self.look_back_days,
                "right_bias": bias_interval(self.window_days),
                "relaxed": relaxed,
                "kept": int(made["kept"].sum()),
                "moved": int((made["moved"] > 0).sum()),
                "below_frontier": tables.below_frontier(frontier),
                "note": "",
            },
        )
        self.log_metrics(_figures(made, summary, relaxed))

    def _decided(self, table: str) -> pd.DataFrame:
        """A table of the decisions; empty where there is none."""
        path = f"portfolio_decisions/{table}.parquet"
        return self.load_table(path) if self.has(path) else pd.DataFrame()

    def _returns(self, stocks: pd.DataFrame, first: pd.Timestamp, last: pd.Timestamp) -> pd.DataFrame:
        """Daily returns of all stocks that were held or in the benchmark, from as far back as correlations look."""
        store = QlibStore(C.dpm.get_data_uri("day"))
        codes = sorted(stocks.index.get_level_values("instrument").unique())
        start = max(0, int(store.calendar.searchsorted(first)) - self.look_back_days)
        span = slice(start, int(store.calendar.searchsorted(last, side="right")))
        close = store.read(["close"], codes)[0, span].astype(np.float64)
        return pd.DataFrame(held_returns(close), store.calendar[span], codes)

    def _save_together(self, made: pd.DataFrame, stocks: pd.DataFrame, returns: pd.DataFrame) -> None:
        """The stocks held at the last decision of each year, the newest first."""
        chosen = made.groupby(made.index.year).tail(1).index[::-1]
        found = {}
        for day in chosen:
            weights = stocks.loc[day, "weight"]
            held = weights[weights.abs() > HELD]
            some = held.loc[held.abs().sort_values(ascending=False, kind="stable").index[: self.most_stocks]]
            known = returns.index.get_loc(made.loc[day, "known"])
            past = returns.iloc[max(0, known + 1 - self.look_back_days) : known + 1]
            one = tables.together(some, past)
            if one is not None:
                found[day] = one
        if not found:
            return
        pairs = {
            day: one.correlations.rename_axis(index="row", columns="column").stack()
            for day, one in found.items()
        }
        self.save_table(
            "construction/correlations.parquet", pd.concat(pairs, names=["datetime"]).to_frame("correlation")
        )
        for name in ("components", "loadings"):
            parts = {day: getattr(one, name) for day, one in found.items()}
            self.save_table(f"construction/{name}.parquet", pd.concat(parts, names=["datetime"]))
        self.save_csv(
            "construction/together.csv",
            pd.DataFrame({day: one.facts for day, one in found.items()}).T.rename_axis(index="datetime"),
        )


def _figures(made: pd.DataFrame, summary: pd.DataFrame, relaxed: int) -> dict[str, float]:
    """What runs are compared by."""
    found = {
        "rebalancings": len(made),
        "relaxed_share": relaxed / len(made),
        "kept_share": made["kept"].mean(),
        "turnover": made["turnover"].mean(),
        **{f"turnover_{cause}": made[f"turnover/{cause}"].mean() for cause in tables.CAUSES},
        "drift": made["drift"].mean(),
    }
    for key, name in (("volatility", "volatility"), ("deviation", "tracking_error")):
        if key in summary.index:
            row = summary.loc[key]
            found |= {f"forecast_{name}": row["forecast"], f"realised_{name}": row["realised"]}
            found[f"{name}_bias"] = row["bias"]
    return {f"construction/{name}": float(value) for name, value in found.items() if np.isfinite(value)}
