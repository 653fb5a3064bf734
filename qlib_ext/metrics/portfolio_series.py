"""The series that a portfolio is judged by: of itself after and before cost, of its index, and of the one over the other."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import pandas as pd

from qlib_ext.metrics import risk
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.periods import compounded


@dataclass(frozen=True)
class Series:
    """What is known of one of the series that are judged.

    Attributes
    ----------
    growth
        Daily returns that compound: of the portfolio, of the index, or of the one in units of the other.
    daily
        Returns of single days: the same, or the difference of the portfolio to the index.
    benchmark
        Returns of the index beside a portfolio; None for the index itself, for the excess, and where there is no index.
    per_year
        Trading days that make a year.
    days
        The dates.
    """

    growth: Floats
    daily: Floats
    benchmark: Floats | None
    per_year: float
    days: np.ndarray

    def months(self) -> Floats:
        """Return of each month."""
        return compounded(self.days, self.growth, "month")[1]

    def years(self) -> Floats:
        """Return of each year."""
        return compounded(self.days, self.growth, "year")[1]


def series_of(daily: pd.DataFrame, per_year: float) -> Mapping[str, Series]:
    """The series that are judged, from the columns `return`, `cost` and, where there is an index, `benchmark` of a backtest.

    What compounds over the index is the portfolio's wealth in units of the index's (`risk.relative_return`); its single
    days are the differences of both returns. So the figures are those of `backtest/summary.csv`.
    """
    days = daily.index.to_numpy()
    before, cost = (daily[name].to_numpy(dtype=np.float64) for name in ("return", "cost"))
    after = before - cost
    if "benchmark" not in daily:
        return {
            "portfolio_with_cost": Series(after, after, None, per_year, days),
            "portfolio_without_cost": Series(before, before, None, per_year, days),
        }
    index = daily["benchmark"].to_numpy(dtype=np.float64)
    return {
        "portfolio_with_cost": Series(after, after, index, per_year, days),
        "portfolio_without_cost": Series(before, before, index, per_year, days),
        "benchmark": Series(index, index, None, per_year, days),
        "excess_with_cost": Series(risk.relative_return(after, index), after - index, None, per_year, days),
        "excess_without_cost": Series(
            risk.relative_return(before, index), before - index, None, per_year, days
        ),
    }


def paths(series: Mapping[str, Series]) -> pd.DataFrame:
    """By day, `wealth/<series>`, what 1 invested at the start became, and `drawdown/<series>`, below its peak so far."""
    columns = {f"wealth/{name}": risk.wealth(one.growth) for name, one in series.items()}
    columns |= {f"drawdown/{name}": risk.drawdown(one.growth) for name, one in series.items()}
    days = next(iter(series.values())).days
    return pd.DataFrame(columns, index=pd.DatetimeIndex(days, name="datetime"))
