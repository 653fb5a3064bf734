"""Tables of sectors, years and methods, and how sure their differences are."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import NormalDist

import numpy as np
import pandas as pd

from benchmarks.sectors.kept import SectorYear
from qlib_ext.metrics import risk
from qlib_ext.metrics.bootstrap import bootstrap_intervals
from qlib_ext.metrics.cross_section import Floats, newey_west_t
from qlib_ext.metrics.holdings import effective_number
from qlib_ext.metrics.significance import (
    bootstrap_difference,
    holm,
    model_confidence_set,
    superior_predictive_ability,
)

PLAIN = "equal weight"  # what every method is held against
FIGURES = ("return", "volatility", "sharpe", "drawdown")
DRAWS = 5000  # of an interval whose ends are a few thousandths


def figures(returns: Floats, per_year: float) -> dict[str, float]:
    """`return` a year, `volatility` a year, `sharpe` ratio and largest `drawdown` of daily returns."""
    return {
        "return": risk.annualised_return(returns, per_year),
        "volatility": risk.annualised_volatility(returns, per_year),
        "sharpe": risk.sharpe_ratio(returns, per_year),
        "drawdown": risk.max_drawdown(returns),
    }


def cells(found: Sequence[SectorYear], per_year: float) -> pd.DataFrame:
    """A row a year, sector and method.

    Columns: `year`, `sector`, `method`, `stocks`; the figures of training (`train_return`, ...) and those of the year held;
    `turnover` and `cost` of the year; `switch`, the share of the account that a change from what the method held of the sector at
    the end of the year before would trade (NaN where it held nothing); `names`, the effective number of stocks.
    """
    rows = []
    before: dict[tuple[int, str, str], dict[str, float]] = {}
    for one in found:
        for method, held in one.held.items():
            before[one.year, one.sector, method] = held.end
            last = before.get((one.year - 1, one.sector, method))
            codes = {*held.weights, *(last or {})}
            moved = sum(abs(held.weights.get(code, 0.0) - (last or {}).get(code, 0.0)) for code in codes) / 2
            shares = np.maximum([[*held.weights.values()]], 0.0)
            rows.append(
                {
                    "year": one.year,
                    "sector": one.sector,
                    "method": method,
                    "stocks": len(one.codes),
                    **{f"train_{name}": held.sample[name] for name in FIGURES},
                    **figures(one.daily[method].to_numpy(), per_year),
                    "turnover": held.turnover,
                    "cost": held.cost,
                    "switch": moved if last else np.nan,
                    "names": float(effective_number(shares)[0]) if shares.sum() > 0 else np.nan,
                }
            )
    return pd.DataFrame(rows)


def by_day(found: Sequence[SectorYear]) -> pd.DataFrame:
    """Mean over the sectors of the returns of a day, a column a method: the same money in each sector of a year."""
    tables = pd.concat([one.daily for one in found], keys=range(len(found)), names=["place", "day"])
    return tables.groupby(level="day").mean()


def comparison(table: pd.DataFrame, daily: pd.DataFrame, per_year: float) -> pd.DataFrame:
    """A row a method, over all sectors and years.

    `train_return` to `train_drawdown`, `names`, `turnover`, `cost` and `switch` are means over sectors and years. `return`,
    `volatility`, `sharpe` and `drawdown` are of the mean over the sectors, day by day. `more` to `high` is the mean difference to equal
    weight, times the days of a year, with an interval of 95 % over days (stationary bootstrap), `p` its p-value and `holm` that
    after Holm's correction for the number of methods; `mcs` the p-value of the model confidence set. `wins` of `of` sectors and
    years have a higher return than equal weight, `calmer` a lower volatility, `better` a higher Sharpe ratio.
    """
    plain = table[table["method"] == PLAIN].set_index(["year", "sector"])
    rows = []
    for method in daily.columns:
        own = table[table["method"] == method].set_index(["year", "sector"])
        beside = plain.reindex(own.index)
        row = {"method": method}
        row |= (
            own[[*(f"train_{name}" for name in FIGURES), "names", "turnover", "cost", "switch"]]
            .mean()
            .to_dict()
        )
        row |= figures(daily[method].to_numpy(), per_year)
        if method != PLAIN:
            more = bootstrap_difference(daily[method], daily[PLAIN])
            row |= {
                "more": more.mean * per_year,
                "low": more.low * per_year,
                "high": more.high * per_year,
                "p": more.p,
            }
            row |= _sharpe_difference(
                daily[method], daily[PLAIN], per_year, 1 - 0.05 / max(1, daily.shape[1] - 1)
            )
        row |= {
            "wins": int((own["return"] > beside["return"]).sum()),
            "calmer": int((own["volatility"] < beside["volatility"]).sum()),
            "better": int((own["sharpe"] > beside["sharpe"]).sum()),
            "of": len(own),
        }
        rows.append(row)
    found = pd.DataFrame(rows)
    found["holm"] = holm(found["p"]) if "p" in found else np.nan
    found["mcs"] = model_confidence_set(daily.to_numpy())
    return found


def beats_plain(daily: pd.DataFrame) -> float:
    """P-value of Hansen's test that no method earns more than equal weight, the best of them having been picked."""
    rivals = daily.drop(columns=PLAIN)
    return superior_predictive_ability(daily[PLAIN].to_numpy(), rivals.to_numpy())


def by_sector(found: Sequence[SectorYear], per_year: float) -> pd.DataFrame:
    """A row a sector and method, over the years in which the sector was held.

    `years`; the means of the figures of training; the figures of the days held, one after the other; mean `turnover`; `p`, of the
    mean difference to equal weight by Newey's and West's t, and `holm`, corrected for all rows of the table.
    """
    table = cells(found, per_year)
    rows = []
    for (sector, method), own in table.groupby(["sector", "method"], sort=False):
        years = [one for one in found if one.sector == sector and method in one.held]
        returns = pd.concat([one.daily[method] for one in years])
        row = {"sector": sector, "method": method, "years": len(years)}
        row |= own[[f"train_{name}" for name in FIGURES]].mean().to_dict()
        row |= figures(returns.to_numpy(), per_year) | {
            "turnover": own["turnover"].mean(),
            "switch": own["switch"].mean(),
        }
        if method != PLAIN:
            plain = pd.concat([one.daily[PLAIN] for one in years])
            row |= {"more": float((returns - plain).mean()) * per_year, "p": _p((returns - plain).to_numpy())}
        rows.append(row)
    result = pd.DataFrame(rows)
    result["holm"] = holm(result["p"])
    return result


def rank_kept(table: pd.DataFrame) -> float:
    """Mean over sectors and years of the rank correlation of the methods' Sharpe ratios of training with those of the year held."""
    return float(
        table.groupby(["year", "sector"])
        .apply(lambda one: one["train_sharpe"].corr(one["sharpe"], method="spearman"), include_groups=False)
        .mean()
    )


def rotation(table: pd.DataFrame) -> pd.Series:
    """By year held the rank correlation, across sectors, of equal weight's return in training with that of the year."""
    plain = table[table["method"] == PLAIN]
    return plain.groupby("year").apply(
        lambda one: one["train_return"].corr(one["return"], method="spearman"), include_groups=False
    )


def _sharpe_difference(own: pd.Series, plain: pd.Series, per_year: float, level: float) -> dict[str, float]:
    def difference(first: Floats, second: Floats) -> list[float]:
        ratios = [each.mean() / each.std(ddof=1) for each in (first, second)]
        return [(ratios[0] - ratios[1]) * per_year**0.5]

    low, high = bootstrap_intervals(difference, own, plain, level=level, draws=DRAWS)
    return {
        "sharpe_more": difference(own.to_numpy(), plain.to_numpy())[0],
        "sharpe_low": float(low[0]),
        "sharpe_high": float(high[0]),
    }


def _p(difference: Floats) -> float:
    """Two-sided p-value that the mean is 0; NaN where nothing differs."""
    t = newey_west_t(difference)
    return float(2 * NormalDist().cdf(-abs(t))) if np.isfinite(t) else np.nan
