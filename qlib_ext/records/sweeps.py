"""What the backtest would have been with other settings of its strategy."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
from qlib.strategy.base import BaseStrategy

from qlib_ext.backtest.simulation import make_exchange, simulate
from qlib_ext.checks import UserError, between, brief, integer
from qlib_ext.config.build import build
from qlib_ext.market.progress import Progress
from qlib_ext.metrics.portfolio_series import series_of
from qlib_ext.metrics.risk import relative_wealth
from qlib_ext.metrics.risk import wealth as wealth_of
from qlib_ext.records.backtest import measures, summarise
from qlib_ext.records.base import Record
from qlib_ext.terminal import shown_progress

logger = logging.getLogger(__name__)

TOPK = (10, 20, 30, 50, 100)
COLUMNS = (
    "annualised_return",
    "annualised_excess_return",
    "annualised_excess_return_without_cost",
    "information_ratio",
    "information_ratio_without_cost",
    "annualised_volatility",
    "max_drawdown",
    "excess_max_drawdown",
    "turnover",
    "annual_cost",
)


class SweepRecord(Record):
    """Trade the scores again with other numbers of stocks, everything else as in the backtest.

    Each is a backtest of its own through the same exchange, with costs, limits, suspensions and lots; the quotes are read
    once. The backtest's own setting is one of the rows, taken from what it left.

    Writes under `sweeps/`:

    - `topk.csv`: by `topk`, the strategy's `n_drop`, `own` (whether it is the backtest's own setting), returns, ratios
      and drawdowns as in `backtest/summary.csv`, mean `turnover` a day, `annual_cost`, mean number of `stocks` held, and
      `unfilled`, the share of the orders that did not fill in full.
    - `topk_wealth.parquet`: by day and `topk`, the account after cost over the index, both 1 at the start; the account
      alone where the backtest has no index.
    - `setup.json`: the settings, and which `topk` were left out and why. Where the strategy of the backtest is set by no
      `topk` and `n_drop`, that is said there and in the log, and nothing else is written.

    Parameters
    ----------
    recorder
        Given by Qlib.
    topk
        Numbers of stocks to hold, each at least 1; those above the number of stocks that are scored on a usual day are
        left out. An empty list turns the sweep off: `setup.json` alone is written.
    n_drop_share
        Stocks to replace a day as a share of `topk`, in [0, 1], rounded, at least one where it is above 0. By default the
        share of the backtest's own strategy.

    Raises
    ------
    UserError
        If an argument lies outside its range.
    """

    needs = (
        "signal/predictions.parquet",
        "backtest/daily.parquet",
        "backtest/orders.parquet",
        "backtest/positions.parquet",
        "backtest/setup.json",
    )
    makes = ("sweeps/topk.csv", "sweeps/topk_wealth.parquet", "sweeps/setup.json")

    def __init__(self, recorder: Any, topk: Sequence[int] = TOPK, n_drop_share: float | None = None):
        super().__init__(recorder)
        if not isinstance(topk, (list, tuple)):
            raise UserError(f"`topk` must be a list of numbers of stocks, found {brief(topk)}")
        self.topk = sorted({integer(f"topk[{k}]", number, 1) for k, number in enumerate(topk)})
        self.n_drop_share = (
            None if n_drop_share is None else float(between("n_drop_share", n_drop_share, 0, 1))
        )

    def list(self) -> list[str]:
        """The artifact paths that the record writes."""
        return [*self.makes] if self.topk else ["sweeps/setup.json"]

    def _generate(self) -> None:
        setup = self.load_json("backtest/setup.json")
        own = setup["strategy"].get("kwargs") or {}
        why = ""
        if self.topk and not {"topk", "n_drop"} <= own.keys():
            why = (
                "no sweep: it needs a strategy with `topk` and `n_drop`, and that of the backtest, "
                f"{setup['strategy']['class']}, is set by {', '.join(own) or 'nothing'}"
            )
            logger.info("%s", why)
            self.topk = []
        if not self.topk:
            self.save_json("sweeps/setup.json", {"topk": [], "left_out": [], "note": why})
            return
        share = own["n_drop"] / own["topk"] if self.n_drop_share is None else self.n_drop_share
        scores = self.load_table("signal/predictions.parquet")["score"].dropna()
        usual = int(scores.groupby("datetime").size().median())
        left_out = [topk for topk in self.topk if topk > usual]
        settings = {topk: drops(topk, share) for topk in self.topk if topk <= usual}
        settings[own["topk"]] = own["n_drop"]
        with shown_progress() as progress:
            rows, wealth = self._trade(setup, scores, dict(sorted(settings.items())), progress)
        self.save_csv("sweeps/topk.csv", rows)
        self.save_table("sweeps/topk_wealth.parquet", wealth)
        found = {"topk": [*settings], "left_out": left_out, "n_drop_share": share, "stocks_a_day": usual}
        self.save_json("sweeps/setup.json", found)

    def _trade(
        self,
        setup: dict[str, Any],
        scores: pd.Series,
        settings: dict[int, int],
        progress: Progress | None,
    ) -> tuple[pd.DataFrame, pd.DataFrame]:
        """A row for each setting, and its wealth after cost, over the index where there is one."""
        first, last = pd.Timestamp(setup["start"]), pd.Timestamp(setup["end"])
        own = setup["strategy"]["kwargs"]["topk"]
        exchange = None
        rows, wealth = {}, {}
        others = [topk for topk in settings if topk != own]

        def show(day: int, days: int, what: str, before: int) -> None:
            if progress is not None:
                progress(before * days + day, len(others) * days, what)

        for topk, n_drop in settings.items():
            if topk == own:
                daily = self.load_table("backtest/daily.parquet")
                orders = self.load_table("backtest/orders.parquet")
                positions = self.load_table("backtest/positions.parquet")
            else:
                if exchange is None:
                    codes = sorted(scores.index.get_level_values("instrument").unique())
                    exchange, _ = make_exchange(codes, first, last, setup["exchange"])
                kwargs = setup["strategy"]["kwargs"] | {"topk": topk, "n_drop": n_drop}
                config = setup["strategy"] | {"kwargs": kwargs}
                result = simulate(
                    build(config, BaseStrategy, name="strategy", signal=scores),
                    exchange,
                    first,
                    last,
                    account=setup["account"],
                    benchmark=setup["benchmark"],
                    progress=partial(show, before=others.index(topk)),
                )
                daily, orders, positions = result.daily, result.orders, result.positions()
            rows[topk] = _row(daily, orders, positions, setup["days_per_year"]) | {
                "n_drop": n_drop,
                "own": topk == own,
            }
            after = daily["return"] - daily["cost"]
            beside = daily.get("benchmark")
            wealth[str(topk)] = wealth_of(after) if beside is None else relative_wealth(after, beside)
        table = pd.DataFrame(rows).T.rename_axis(index="topk")
        named = ["n_drop", "own", *(name for name in COLUMNS if name in table), "stocks", "unfilled"]
        return table[named].astype({"n_drop": int, "own": bool}), pd.DataFrame(wealth, index=daily.index)


def drops(topk: int, share: float) -> int:
    """Stocks to replace a day: the share of `topk`, rounded, at least one where the share is above 0."""
    return min(topk, max(1, round(share * topk))) if share > 0 else 0


def _row(
    daily: pd.DataFrame, orders: pd.DataFrame, positions: pd.DataFrame, days_per_year: float
) -> dict[str, Any]:
    figures = measures(summarise(series_of(daily, days_per_year)), daily, days_per_year)
    held = positions.groupby("datetime").size().reindex(daily.index, fill_value=0)
    unfilled = (orders["status"] != "filled").mean() if len(orders) else np.nan
    return {name: figures[name] for name in COLUMNS if name in figures} | {
        "stocks": held.mean(),
        "unfilled": unfilled,
    }
