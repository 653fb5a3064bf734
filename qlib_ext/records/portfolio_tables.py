"""The tables of a portfolio: drawdowns, months and years, other costs, holdings, and what stocks and industries added.

What goes in are the artifacts of a backtest: `daily`, a row a day with `return`, `cost`, `turnover` and, where there is an
index, `benchmark`; and wide tables of weights, a row a day and a column a stock.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.metrics import costs, drawdowns, holdings, risk, rolling
from qlib_ext.metrics.periods import compounded, period_starts
from qlib_ext.metrics.portfolio_series import Series

WORST = 10
UNKNOWN = "unknown"


@dataclass(frozen=True)
class Membership:
    """Which industry each stock is in on each day.

    Attributes
    ----------
    names
        The industries.
    code
        A row a day, a column a stock: the industry's place in `names`, -1 where none is known.
    """

    names: Sequence[str]
    code: pd.DataFrame

    def name_of(self, code: int) -> str:
        """The industry at a place; `unknown` for -1."""
        return UNKNOWN if code < 0 else self.names[code]


def worst_drawdowns(series: Mapping[str, Series], worst: int = WORST) -> pd.DataFrame:
    """The deepest falls of the portfolio after cost and, where there is one, of the index and of the one over the other.

    Returns
    -------
    By `series`: `rank` from 1, `depth`, `peak` (last day at the peak; empty where that is the start), `trough`,
    `recovery` (first day back at the peak; empty where there is none yet), `days` (trading days below the peak),
    `days_to_trough` (from the peak to the lowest) and `days_to_recovery` (from the lowest to the peak).
    """
    rows = []
    for name in ("portfolio_with_cost", "benchmark", "excess_with_cost"):
        if name not in series:
            continue
        days = pd.DatetimeIndex(series[name].days)
        for rank, fall in enumerate(drawdowns.drawdowns(series[name].growth)[:worst], start=1):
            rows.append(
                {
                    "series": name,
                    "rank": rank,
                    "depth": fall.depth,
                    "peak": days[fall.peak] if fall.peak >= 0 else pd.NaT,
                    "trough": days[fall.trough],
                    "recovery": pd.NaT if fall.recovery is None else days[fall.recovery],
                    "days": fall.days,
                    "days_to_trough": fall.trough - fall.peak,
                    "days_to_recovery": None if fall.recovery is None else fall.recovery - fall.trough,
                }
            )
    columns = [
        "series",
        "rank",
        "depth",
        "peak",
        "trough",
        "recovery",
        "days",
        "days_to_trough",
        "days_to_recovery",
    ]
    return pd.DataFrame(rows, columns=columns).astype({"days_to_recovery": "Int64"}).set_index("series")


def rolled(series: Mapping[str, Series], window_days: int) -> pd.DataFrame:
    """Sharpe ratio, volatility and beta of the portfolio after cost, and the first two of the index, over a window.

    By day; NaN on the first `window_days` - 1. Without an index, nothing of one.
    """
    after, index = series["portfolio_with_cost"], series.get("benchmark")
    columns = {
        "sharpe_ratio": rolling.rolling_sharpe(after.daily, window_days, after.per_year),
        "volatility": rolling.rolling_volatility(after.daily, window_days, after.per_year),
    }
    if index is not None:
        columns |= {
            "benchmark_sharpe_ratio": rolling.rolling_sharpe(index.daily, window_days, index.per_year),
            "benchmark_volatility": rolling.rolling_volatility(index.daily, window_days, index.per_year),
            "beta": rolling.rolling_beta(after.daily, index.daily, window_days),
        }
    return pd.DataFrame(columns, index=pd.DatetimeIndex(after.days, name="datetime"))


def by_period(
    daily: pd.DataFrame, series: Mapping[str, Series], held: pd.Series, period: str
) -> pd.DataFrame:
    """Months or years: compounded returns, sums of turnover and cost, and the mean number of stocks held.

    Years have the risk of their days too: volatility, Sharpe ratio and max drawdown of the portfolio after cost (from
    the highest value of the year, its start included), its information ratio, and the max drawdown of the index.
    """
    days = daily.index.to_numpy()
    periods, starts = period_starts(days, period)
    table = pd.DataFrame(
        {"days": np.diff(np.append(starts, len(days)))}, index=pd.Index(periods.astype(str), name=period)
    )
    for name, one in series.items():
        table[name] = compounded(days, one.growth, period)[1]
    for name in ("turnover", "cost"):
        table[name] = np.add.reduceat(daily[name].to_numpy(), starts)
    table["stocks"] = np.add.reduceat(held.to_numpy(dtype=float), starts) / table["days"]
    if period == "year":
        spans = [slice(start, end) for start, end in zip(starts, [*starts[1:], len(days)], strict=True)]
        after, index = series["portfolio_with_cost"], series.get("benchmark")
        year = after.per_year
        table["volatility"] = [risk.annualised_volatility(after.daily[span], year) for span in spans]
        table["sharpe_ratio"] = [risk.sharpe_ratio(after.daily[span], year) for span in spans]
        if index is not None:
            table["information_ratio"] = [
                risk.information_ratio(after.daily[span], index.daily[span], year) for span in spans
            ]
        table["max_drawdown"] = [risk.max_drawdown(after.growth[span]) for span in spans]
        if index is not None:
            table["benchmark_max_drawdown"] = [risk.max_drawdown(index.growth[span]) for span in spans]
    return table


def cost_sweep(daily: pd.DataFrame, per_year: float, cost_bps: Sequence[float]) -> pd.DataFrame:
    """The portfolio at other costs of a trade one way, with the trades that the backtest made (`costs.after_cost`)."""
    gross, turnover = (daily[name].to_numpy() for name in ("return", "turnover"))
    rows = {}
    for bps in cost_bps:
        net = costs.after_cost(gross, turnover, bps)
        rows[bps] = {
            "cumulative_return": risk.cumulative_return(net),
            "annualised_return": risk.annualised_return(net, per_year),
            "sharpe_ratio": risk.sharpe_ratio(net, per_year),
            "max_drawdown": risk.max_drawdown(net),
        }
        if "benchmark" in daily:
            index = daily["benchmark"].to_numpy()
            rows[bps] |= {
                "annualised_excess_return": risk.annualised_excess_return(net, index, per_year),
                "information_ratio": risk.information_ratio(net, index, per_year),
            }
    return pd.DataFrame.from_dict(rows, orient="index").rename_axis(index="cost_bps")


def wide_weights(positions: pd.DataFrame, daily: pd.DataFrame) -> pd.DataFrame:
    """Weights in the account at the close, a row for each day of `daily` and a column a stock; 0 where not held."""
    held = positions["amount"] * positions["price"]
    if held.empty:
        return pd.DataFrame(index=daily.index)
    wide = held.unstack("instrument").reindex(daily.index).fillna(0.0)
    return wide.div(daily["account"], axis=0)


def day_before(weights: pd.DataFrame) -> np.ndarray:
    """Weights `[D, S]` at the close of the day before each; 0 before the first."""
    return np.vstack([np.zeros((1, weights.shape[1])), weights.to_numpy()[:-1]])


def concentration(weights: pd.DataFrame, daily: pd.DataFrame) -> pd.DataFrame:
    """How the account is spread, by day.

    Columns: `stocks` (held), `effective_stocks` (equal weights that would be as concentrated), `herfindahl`, `top_5`
    and `top_10` (share of the largest in all stocks) and `cash` (share of the account). Short holdings count without their sign.
    """
    values = weights.to_numpy()
    return pd.DataFrame(
        {
            "stocks": (values != 0).sum(axis=1),
            "effective_stocks": holdings.effective_number(values),
            "herfindahl": holdings.herfindahl(values),
            "top_5": holdings.top_weight(values, 5),
            "top_10": holdings.top_weight(values, 10),
            "cash": (daily["cash"] / daily["account"]).to_numpy(),
        },
        index=weights.index,
    )


def held_returns(positions: pd.DataFrame, weights: pd.DataFrame, close: pd.DataFrame) -> pd.DataFrame:
    """Return of each day of the stocks held at the close before; NaN for the others.

    A stock that is still held is taken at the price at which the account values it, which stands still while it is
    suspended; one that was sold out, at its `close` of that day.
    """
    if positions.empty:
        return weights.copy()
    price = positions["price"].unstack("instrument").reindex(weights.index)
    now = price.where(weights != 0, close.reindex(index=weights.index, columns=weights.columns))
    return (now / price.shift() - 1).where(day_before(weights) != 0)


def contributors(
    weights: pd.DataFrame, returns: pd.DataFrame, added: pd.DataFrame, industry: Membership | None
) -> pd.DataFrame:
    """What each stock added, the highest first.

    Parameters
    ----------
    weights, returns, added
        Weights, returns and contributions by day and stock (`metrics.holdings.contributions`).
    industry
        Of each stock by day, where the store has any.

    Returns
    -------
    By `instrument`: `contribution` to the return before cost, `return_held` (compounded over the days on which it was
    held from the close before), `average_weight` and `days_held` (closes at which it was held), `first_held`,
    `last_held` and, with `industry`, that of the last day held.
    """
    held = weights != 0
    days = held.sum()
    table = pd.DataFrame(
        {
            "contribution": added.sum(),
            "return_held": np.prod(1 + returns.fillna(0.0).to_numpy(), axis=0) - 1,
            "average_weight": weights.sum() / days,
            "days_held": days,
            "first_held": held.idxmax() if len(days) else pd.Series(dtype="datetime64[ns]"),
            "last_held": held[::-1].idxmax() if len(days) else pd.Series(dtype="datetime64[ns]"),
        }
    ).rename_axis(index="instrument")
    if industry is not None:
        place = industry.code
        table["industry"] = [
            industry.name_of(place.at[day, code]) for code, day in table["last_held"].items()
        ]
    return table.sort_values(["contribution"], ascending=False, kind="stable")


def by_industry(
    weights: pd.DataFrame, added: pd.DataFrame, industry: Membership, scored: pd.DataFrame | None
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Weights and contributions of industries.

    Parameters
    ----------
    weights, added
        Weights and contributions by day and stock.
    industry
        Of each stock by day, of the stocks of all other tables.
    scored
        Which stocks had a score on which day.

    Returns
    -------
    by_day
        By `datetime` and `industry`: `weight` in all stocks held (short holdings below 0, and their value without its sign in the
        whole) and, with `scored`, `universe`, the share of the
        industry among the scored stocks. NaN on a day without stocks held, or without scores.
    overall
        By `industry`, the heaviest first: the means of both over days, and `contribution` to the return before cost. A
        stock's contribution counts for its industry of the day before, at whose close it was held.
    """
    own = industry.code[weights.columns].to_numpy()
    before = np.vstack([own[:1], own[:-1]])
    values, parts = weights.to_numpy(), added.to_numpy()
    gross = np.abs(values).sum(axis=1)
    total = np.where(gross > 0, gross, np.nan)
    codes = [*np.unique(industry.code.to_numpy())]
    names = [industry.name_of(code) for code in codes]
    weight = np.stack([np.where(own == code, values, 0.0).sum(axis=1) / total for code in codes], axis=1)
    index = pd.MultiIndex.from_product([weights.index, names], names=["datetime", "industry"])
    table = pd.DataFrame({"weight": weight.ravel()}, index=index)
    if scored is not None:
        every, there = industry.code[scored.columns].to_numpy(), scored.to_numpy(dtype=bool)
        count = np.where(there.any(axis=1), there.sum(axis=1), np.nan)
        universe = np.stack([((every == code) & there).sum(axis=1) / count for code in codes], axis=1)
        table["universe"] = universe.ravel()
    overall = table.groupby("industry").mean()
    added_by = [np.where(before == code, parts, 0.0).sum() for code in codes]
    overall["contribution"] = pd.Series(added_by, index=names)
    return table, overall.sort_values("weight", ascending=False, kind="stable")
