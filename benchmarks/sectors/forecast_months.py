"""Forecasts of a month beside what came of them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pandas as pd

from benchmarks.sectors.forecasts import Forecasts, month_starts
from benchmarks.sectors.selection import Chosen, Sectors, Window
from qlib_ext.metrics.significance import bootstrap_mean

MONTHS = "forecasts.parquet"


def months_of(sectors: Sectors, chosen: Mapping[Window, Chosen], forecasts: Forecasts) -> pd.DataFrame:
    """What was forecast at the last close before each month, and what came.

    Returns
    -------
    A row a month and member of the universe: `day` of the close, `year` held, `instrument`, `sector` (empty where the stock is
    none of the largest of one), `forecast` and `realised`.
    """
    parts = []
    for window, found in chosen.items():
        own = {code: name for name, codes in found.sectors.items() for code in codes}
        for day in month_starts(sectors.store.calendar, window):
            forecast, realised = forecasts.by_year[window.year][day], forecasts.realised[day]
            there = np.isfinite(forecast) & np.isfinite(realised)
            there &= sectors.members[day] | np.isin(sectors.codes, [*own])
            codes = np.array(sectors.codes)[there]
            parts.append(
                pd.DataFrame(
                    {
                        "day": sectors.store.calendar[day],
                        "year": window.year,
                        "instrument": codes,
                        "sector": [own.get(code, "") for code in codes],
                        "forecast": forecast[there].astype(np.float32),
                        "realised": realised[there].astype(np.float32),
                    }
                )
            )
    return pd.concat(parts, ignore_index=True)


def halves(months: pd.DataFrame) -> pd.DataFrame:
    """By day and sector the mean `forecast` and `realised` of the half with the better forecasts, less those of the other half."""
    own = months[months["sector"] != ""]
    groups = own.groupby(["day", "sector"])["forecast"]
    place, count = groups.rank(method="first"), groups.transform("size")
    sign = np.where(place * 2 > count + 1, 1.0, np.where(place * 2 < count + 1, -1.0, 0.0))
    share = sign / (count // 2)
    parts = own[["forecast", "realised"]].mul(share, axis=0)
    return parts.groupby([own["day"], own["sector"]]).sum()


def judged(months: pd.DataFrame) -> pd.DataFrame:
    """A row a year and one for all: how well the forecasts told what came."""
    rows = []
    for name, part in [*months.groupby("year"), ("all", months)]:
        days = part.groupby("day")
        largest = part[part["sector"] != ""]
        within = largest.groupby(["day", "sector"])
        spread = halves(part).groupby("day").mean()
        low, high = bootstrap_mean(spread["realised"].to_numpy())
        slope = (
            np.polyfit(largest["forecast"], largest["realised"], 1)[0]
            if np.ptp(largest["forecast"]) > 0
            else np.nan
        )
        rows.append(
            {
                "year": str(name),
                "months": str(part["day"].nunique()),
                "RankIC, universe": f"{_rank_ic(days):.3f}",
                "RankIC, within sectors": f"{_rank_ic(within):.3f}",
                "slope": f"{slope:.2f}",
                "halves, forecast": f"{spread['forecast'].mean():.2%}",
                "halves, realised": f"{spread['realised'].mean():.2%} [{low:.2%}, {high:.2%}]",
                "months with the right sign": f"{(spread['realised'] > 0).mean():.0%}",
            }
        )
    return pd.DataFrame(rows)


def _rank_ic(groups: pd.api.typing.DataFrameGroupBy) -> float:
    """Mean over groups of the rank correlation of forecast and what came."""
    found = groups[["forecast", "realised"]].apply(
        lambda one: one["forecast"].corr(one["realised"], method="spearman")
    )
    return float(found.mean())
