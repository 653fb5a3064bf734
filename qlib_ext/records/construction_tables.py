"""Tables of how a portfolio was made: forecast risk beside what came, causes of turnover, limits, and what moves together."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import pandas as pd

from qlib_ext.metrics import components as pc
from qlib_ext.metrics import diversity
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.risk_forecast import bias_interval, bias_statistic, qlike

UNKNOWN, SPECIFIC = "unknown", "specific"
CAUSES = ("left", "new", "out", "changed")
FORECASTS = ("volatility", "deviation")  # columns of the decisions
ALIKE = 0.5  # correlation down to which stocks are one cluster
COMPONENTS = 10  # that a table has
LOADINGS = 5
OFTEN = 5  # parts of a limit that are named
FREE, LIMITED = (
    "frontier without limits",
    "frontier within limits",
)  # as `portfolio.efficient_frontier` calls them
REACH = 1e-4  # of a volatility a year: the solver's rounding


def in_force(days: pd.DatetimeIndex, traded: pd.DatetimeIndex) -> np.ndarray:
    """`[D]`: which decision's weights a day began with, by its place; -1 before the first."""
    return traded.searchsorted(days, side="left") - 1


def benchmark_returns(stocks: pd.DataFrame, returns: pd.DataFrame, place: np.ndarray) -> Floats:
    """`[D]`: return of the benchmark of the decision in force, its weights restored daily; NaN where there is none.

    Parameters
    ----------
    stocks
        Of the decisions.
    returns
        A row a day and a column a stock.
    place
        From `in_force`.
    """
    weights = stocks["benchmark"].unstack("instrument").fillna(0.0)
    known = returns.reindex(columns=weights.columns).fillna(0.0).to_numpy()
    beside = weights.to_numpy()[np.maximum(place, 0)]
    found = (known * beside).sum(axis=1)
    return np.where((place >= 0) & (beside.sum(axis=1) > 0), found, np.nan)


def daily_risk(
    returns: Floats, beside: Floats, decisions: pd.DataFrame, place: np.ndarray, window: int, per_year: float
) -> pd.DataFrame:
    """By day what was forecast and what came.

    Returns
    -------
    For `volatility` (of the account before cost) and `deviation` (from the benchmark): `return/<name>`, the day's return;
    `forecast/<name>`, forecast standard deviation of a day, of the decision in force; and over the last `window` days, a year,
    `rolling_forecast/<name>` (root of the mean square) and `rolling_realised/<name>`, and `bias/<name>`, the bias statistic.
    """
    found: dict[str, Floats] = {}
    for name, series in (("volatility", returns), ("deviation", returns - beside)):
        forecast = decisions[name].to_numpy(dtype=np.float64)[np.maximum(place, 0)]
        forecast = np.where((place >= 0) & (forecast > 0) & np.isfinite(series), forecast, np.nan)
        came = np.where(np.isnan(forecast), np.nan, series)
        year = np.sqrt(per_year)
        found |= {
            f"return/{name}": came,
            f"forecast/{name}": forecast,
            f"rolling_forecast/{name}": year
            * np.sqrt(pd.Series(forecast**2).rolling(window).mean().to_numpy()),
            f"rolling_realised/{name}": year * pd.Series(came).rolling(window).std().to_numpy(),
            f"bias/{name}": pd.Series(came / forecast).rolling(window).std().to_numpy(),
        }
    return pd.DataFrame(found)


def risk_summary(daily: pd.DataFrame, window: int, per_year: float) -> pd.DataFrame:
    """A row for `volatility` and `deviation`: the forecast beside what came, over all days.

    Returns
    -------
    `forecast` and `realised`, a year; `bias`, with the ends `low` and `high` between which that of a right forecast lies in 95%
    of samples; `qlike`, and `qlike_past`, of the account's own volatility over the `window` days before, on `qlike_days` of
    both; `days`.
    """
    rows = {}
    for name in FORECASTS:
        came, forecast = (daily[f"{kind}/{name}"] for kind in ("return", "forecast"))
        there = came.notna()
        days = int(there.sum())
        if days < 2:
            continue
        past = came.rolling(window).std().shift(1)
        both = there & (past > 0)
        ends = bias_interval(days)
        loss = {
            key: float(qlike(came[both].to_numpy()[:, None], each[both].to_numpy()[:, None])[0])
            for key, each in (("qlike", forecast), ("qlike_past", past))
        }
        rows[name] = {
            "forecast": np.sqrt((forecast[there] ** 2).mean() * per_year),
            "realised": came[there].std() * np.sqrt(per_year),
            "bias": bias_statistic(came[there].to_numpy()[:, None], forecast[there].to_numpy()[:, None])[0],
            "low": ends[0],
            "high": ends[1],
            **loss,
            "qlike_days": int(both.sum()),
            "days": days,
        }
    return pd.DataFrame(rows).T.rename_axis(index="forecast_of")


def rebalancings(
    decisions: pd.DataFrame,
    stocks: pd.DataFrame,
    daily: pd.DataFrame,
    turnover: pd.Series,
    place: np.ndarray,
    per_year: float,
) -> pd.DataFrame:
    """The days of the decisions, with what came until the next.

    Returns
    -------
    As `decisions`, and: `turnover/changed`, of stocks that were held and stay; `drift`, what it would have taken to go back to
    the weights before; `traded`, the account's turnover until the next decision; `period_days`, and `realised/volatility` and
    `realised/deviation` of them, root mean squares of a year; forecasts are of a year too.
    """
    found = decisions.copy()
    causes = [f"turnover/{cause}" for cause in CAUSES[:-1]]
    found["turnover/changed"] = (found["turnover"] - found[causes].sum(axis=1)).clip(lower=0.0)
    weights, held = (stocks[name].unstack("instrument").fillna(0.0) for name in ("weight", "held"))
    before = weights.shift(1).fillna(0.0)
    found["drift"] = (held - before).abs().sum(axis=1).where(np.arange(len(held)) > 0)
    # A day's trades are those of the decision that is traded on it, whose weights the next day begins with.
    own = np.searchsorted(found.index, turnover.index, side="right") - 1
    found["traded"] = turnover[own >= 0].groupby(own[own >= 0]).sum().reindex(range(len(found))).to_numpy()
    for name in FORECASTS:
        came = daily[f"return/{name}"].to_numpy()
        squares = pd.Series(came**2).groupby(place).mean().reindex(range(len(found))).to_numpy()
        found[f"realised/{name}"] = np.sqrt(squares * per_year)
        found[name] *= np.sqrt(per_year)
    found["period_days"] = pd.Series(place).value_counts().reindex(range(len(found)), fill_value=0).to_numpy()
    return found


def by_industry(stocks: pd.DataFrame) -> pd.DataFrame:
    """By day and industry: `weight`, `benchmark`, `risk_share` and `active_share`; those of no known industry are `unknown`."""
    names = stocks["industry"].fillna(UNKNOWN)
    columns = ["weight", "benchmark", "risk_share", "active_share"]
    grouped = stocks[columns].groupby([stocks.index.get_level_values("datetime"), names.rename("industry")])
    return grouped.sum()


def by_factor(factors: pd.DataFrame) -> pd.DataFrame:
    """The factors, and what is left of the risk: `specific`, without an exposure."""
    shares = factors[["risk_share", "active_share"]]
    rest = 1 - shares.groupby("datetime").sum(min_count=1)
    rest.index = pd.MultiIndex.from_product([rest.index, [SPECIFIC]], names=factors.index.names)
    return pd.concat([factors, rest])


def limits(table: pd.DataFrame, days: int) -> pd.DataFrame:
    """How often each limit bound, and gave way.

    Returns
    -------
    By name of a limit: `binding` and `relaxed`, shares of the rebalancing days; mean number of `stocks` at it; the parts that bound
    most `often`, such as industries, with their shares of the days; and `words`.
    """
    rows = {}
    for name, group in table.groupby("name", sort=False):
        binding = group[group["what"] == "binding"]
        rows[name] = {
            "binding": binding.index.nunique() / days,
            "relaxed": group[group["what"] == "relaxed"].index.nunique() / days,
            "stocks": float(binding["stocks"].mean()) if len(binding) else 0.0,
            "often": _often(binding, days),
            "words": group["words"].iloc[-1],
        }
    order = sorted(rows, key=lambda name: (-rows[name]["binding"], -rows[name]["relaxed"]))
    columns = ["binding", "relaxed", "stocks", "often", "words"]
    return pd.DataFrame([rows[name] for name in order], order, columns).rename_axis(index="limit")


def _often(binding: pd.DataFrame, days: int) -> str:
    parts = binding.loc[binding["part"] != "", "part"].value_counts(sort=False)
    largest = parts.sort_values(ascending=False, kind="stable").iloc[:OFTEN]
    return ", ".join(f"{part} ({count / days:.0%})" for part, count in largest.items())


def yearly_frontier(points: pd.DataFrame, per_year: float) -> pd.DataFrame:
    """The points of a frontier by their `kind`: `volatility`, `tracking_error` and `expected` return a year, and `names`."""
    if points.empty:
        return points
    found = points.set_index("kind")
    return pd.DataFrame(
        {
            "volatility": found["volatility"] * np.sqrt(per_year),
            "tracking_error": found["deviation"] * np.sqrt(per_year),
            "expected": found["expected"] * per_year,
            "names": found["names"],
        }
    )


def below_frontier(frontier: pd.DataFrame) -> dict[str, float]:
    """By how much more return a year the frontiers expect at the risk of the chosen portfolio.

    Returns
    -------
    `frontier within limits` and `frontier without limits`, as far as they are there and reach to that risk.
    """
    if frontier.empty or not np.isfinite(frontier.loc["chosen", "expected"]):
        return {}
    chosen = frontier.loc["chosen"]
    found = {}
    for kind in (LIMITED, FREE):
        line = frontier[frontier.index == kind].sort_values("volatility")
        if len(line) > 1 and chosen["volatility"] >= line["volatility"].iloc[0] - REACH:
            best = float(np.interp(chosen["volatility"], line["volatility"], line["expected"]))
            found[kind] = max(0.0, best - float(chosen["expected"]))
    return found


class Together(NamedTuple):
    """How the stocks held on a day move together.

    Attributes
    ----------
    correlations
        A row and a column a stock, those alike beside each other.
    components
        By number from 1: `share` of the stocks' variance, and share of the `portfolio`'s.
    loadings
        By stock, in the order of `correlations`: `component_1`, ...
    facts
        `stocks`, `days`, `mean_correlation` of pairs, `effective_stocks`, components `above_noise`, `effective_bets`, and
        `left_out` for want of returns.
    """

    correlations: pd.DataFrame
    components: pd.DataFrame
    loadings: pd.DataFrame
    facts: Mapping[str, float]


def together(weights: pd.Series, returns: pd.DataFrame) -> Together | None:
    """Correlations and principal components of stocks; None where fewer than two have returns.

    Parameters
    ----------
    weights
        By stock.
    returns
        Past days, a column a stock. Who has none on half of the days, or never moved, is left out; a day without one counts as
        the mean.
    """
    some = returns.reindex(columns=weights.index)
    kept = (some.notna().mean() > 0.5) & (some.std() > 0)
    some, held = some.loc[:, kept], weights[kept]
    if len(held) < 2 or len(some) < 3:
        return None
    covariance = (some - some.mean()).fillna(0.0).cov().to_numpy()
    deviation = np.sqrt(np.diag(covariance))
    correlation = covariance / np.outer(deviation, deviation)
    order = diversity.clusters(correlation, ALIKE).order
    found = pc.principal_components(covariance, held.to_numpy())
    count = len(held)
    off = correlation[~np.eye(count, dtype=bool)]
    numbers = pd.RangeIndex(1, min(COMPONENTS, count) + 1, name="component")
    names = [f"component_{k}" for k in range(1, min(LOADINGS, count) + 1)]
    ordered = held.index[order]
    return Together(
        pd.DataFrame(correlation[np.ix_(order, order)], ordered, ordered),
        pd.DataFrame(
            {"share": found.shares[: len(numbers)], "portfolio": found.portfolio[: len(numbers)]}, numbers
        ),
        pd.DataFrame(found.loadings[order][:, : len(names)], ordered, names),
        {
            "stocks": count,
            "days": len(some),
            "mean_correlation": float(off.mean()),
            "effective_stocks": diversity.effective_number(correlation),
            "above_noise": int((found.shares * count > pc.noise_edge(count, len(some))).sum()),
            "effective_bets": pc.effective_bets(found.portfolio),
            "left_out": int((~kept).sum()),
        },
    )
