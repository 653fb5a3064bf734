"""Where the return beyond that of the universe came from: industries, factors, selection, and what trading took."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
from qlib.config import C

from qlib_ext.market.store import QlibStore
from qlib_ext.metrics import risk
from qlib_ext.metrics.attribution import (
    Brinson,
    FactorParts,
    FactorReturns,
    brinson_fachler,
    factor_parts,
    factor_returns,
    linked,
)
from qlib_ext.metrics.cross_section import Floats, newey_west_t
from qlib_ext.metrics.periods import period_starts
from qlib_ext.records.attributed import Attributed, gather
from qlib_ext.records.base import Record
from qlib_ext.records.estimates import estimated
from qlib_ext.records.portfolio_tables import wide_weights

TRADED = ("trading", "cost")
# The two views of one difference: each, with what trading made, is all of it.
VIEWS = {
    "industry": ("allocation", "selection", "interaction", *TRADED),
    "factor": ("market", "styles", "industries", "specific", *TRADED),
}
PARTS = tuple(dict.fromkeys(part for view in VIEWS.values() for part in view))
MARKET = "market"
ROUNDING = 1e-12  # a smaller return of a day is none: what trades at the close leave


class AttributionRecord(Record):
    """Attribute the portfolio's return beyond that of its universe.

    The universe at equal weight is always a benchmark, and that by market value where the store knows market values as side
    data. Against each there are two views of the same difference:

    - by industry: allocation to industries and cash, selection within them, and their interaction
      (`metrics.attribution.brinson_fachler`);
    - by factor: the market (which cash is short of), styles and industries by active exposure and the factor's return, and
      the specific return of the stocks chosen (`metrics.attribution.factor_returns`, `factor_parts`). Exposures
      (`features.exposures.style_exposures`) are those of the close before.

    To either come `trading`, what trades away from the close made and what the lender of a stock that is short was paid, and
    `cost`, below 0. Both views add up to the difference.

    Writes under `attribution/`:

    - `daily.parquet`: by day, `portfolio` after cost, and by benchmark `<benchmark>/benchmark` and `<benchmark>/<part>`.
    - `cumulative.parquet`: contributions so far, linked (`metrics.attribution.linked`), of parts and styles; the last row is
      that of the whole.
    - `summary.csv`: by benchmark and view, the contribution of each part to the difference of the compounded returns, the mean
      of a day times the days of a year, and its 95% interval. `yearly.csv`: contributions within each year.
    - `industries.csv`: by benchmark and industry, mean weights and contributions.
    - `factors.csv`: by benchmark and factor, mean active exposure, return a year with its t, contribution.
    - `factor_days.parquet`: by day, returns of the factors, the share of the spread of returns that they explain, and active
      exposures.
    - `estimates.parquet`: the parts a year, with their intervals.
    - `setup.json`: what the exposures are and how much of the portfolio has none, why there are no industries or no market
      values, and notes.

    Logs the parts a year as `attribution/<benchmark>/<part>`.

    Parameters
    ----------
    recorder
        Given by Qlib.

    Notes
    -----
    A stock of which an exposure is not known has that of the market; one without an industry is in the group `unknown`. The
    first day counts, on which the account begins in cash: that is an allocation.
    """

    needs = (
        "data/summary.json",
        "backtest/daily.parquet",
        "backtest/positions.parquet",
        "backtest/setup.json",
    )
    makes = (
        "attribution/daily.parquet",
        "attribution/cumulative.parquet",
        "attribution/summary.csv",
        "attribution/yearly.csv",
        "attribution/industries.csv",
        "attribution/factors.csv",
        "attribution/factor_days.parquet",
        "attribution/estimates.parquet",
        "attribution/setup.json",
    )

    def __init__(self, recorder: Any):
        super().__init__(recorder)

    def _generate(self) -> None:
        daily = self.load_table("backtest/daily.parquet")
        setup = self.load_json("backtest/setup.json")
        per_year = float(setup["days_per_year"])
        universe = str(self.load_json("data/summary.json")["universe"])
        weights = wide_weights(self.load_table("backtest/positions.parquet"), daily)
        given = gather(QlibStore(C.dpm.get_data_uri("day")), universe, setup["benchmark"], weights)
        styles = np.stack([*given.styles.values()])
        fitted = factor_returns(given.returns, styles, given.group, len(given.groups), given.values)
        against = {
            name: _Against(given, beside, styles, fitted, daily) for name, beside in given.benchmarks.items()
        }
        days = {"portfolio": daily["return"] - daily["cost"]}
        for name, one in against.items():
            days |= {f"{name}/benchmark": one.returns} | {f"{name}/{part}": one.parts[part] for part in PARTS}
        self.save_table("attribution/daily.parquet", pd.DataFrame(days, index=daily.index))
        known = _estimates(against, per_year)
        cumulative = {
            f"{name}/{part}": path for name, one in against.items() for part, path in one.paths().items()
        }
        self.save_table("attribution/cumulative.parquet", pd.DataFrame(cumulative, index=daily.index))
        self._save("summary", {name: one.summary(known.loc[_names(name)]) for name, one in against.items()})
        self._save("yearly", {name: one.yearly() for name, one in against.items()})
        self._save("industries", {name: one.industries() for name, one in against.items()})
        self._save("factors", {name: one.factors(per_year) for name, one in against.items()})
        table = pd.DataFrame(fitted.returns, daily.index, _factors(given)).add_prefix("return/")
        table["explained"] = fitted.explained
        exposures = [
            pd.DataFrame(one.model.exposure, daily.index, _factors(given)).add_prefix(f"{name}/")
            for name, one in against.items()
        ]
        self.save_table("attribution/factor_days.parquet", pd.concat([table, *exposures], axis=1))
        self.save_table("attribution/estimates.parquet", known)
        self.save_json("attribution/setup.json", _setup(given, universe, per_year, fitted))
        self.log_metrics(known["value"].dropna().to_dict())

    def _save(self, name: str, tables: dict[str, pd.DataFrame]) -> None:
        self.save_csv(f"attribution/{name}.csv", pd.concat(tables, names=["against"]).droplevel(1))


class _Against:
    """The portfolio against one benchmark."""

    def __init__(
        self, given: Attributed, beside: Floats, styles: Floats, fitted: FactorReturns, daily: pd.DataFrame
    ):
        self.given, self.days, self.fitted = given, daily.index, fitted
        moves, number = given.returns, len(given.groups)
        self.returns = (beside * np.nan_to_num(moves)).sum(axis=1)
        self.portfolio = (daily["return"] - daily["cost"]).to_numpy()
        self.brinson: Brinson = brinson_fachler(given.weights, beside, moves, given.group, number)
        self.model: FactorParts = factor_parts(
            given.weights - beside, moves, styles, given.group, number, fitted.returns
        )
        held = (given.weights * np.nan_to_num(moves)).sum(axis=1)
        trading = daily["return"].to_numpy() - held
        by_factor, last = self.model.parts, 1 + len(given.styles)
        self.parts: dict[str, Floats] = {
            "allocation": self.brinson.allocation.sum(axis=1),
            "selection": self.brinson.selection.sum(axis=1),
            "interaction": self.brinson.interaction.sum(axis=1),
            "market": by_factor[:, 0],
            "styles": by_factor[:, 1:last].sum(axis=1),
            "industries": by_factor[:, last:].sum(axis=1),
            "specific": self.model.specific,
            "trading": np.where(np.abs(trading) < ROUNDING, 0.0, trading),
            "cost": -daily["cost"].to_numpy(),
        }

    def _linked(self, parts: Floats) -> Floats:
        return linked(parts, self.portfolio, self.returns)

    def paths(self) -> dict[str, Floats]:
        """Contributions so far, of parts and of styles."""
        styles = self.model.parts[:, 1 : 1 + len(self.given.styles)].T
        each = self.parts | {
            f"style/{name}": path for name, path in zip(self.given.styles, styles, strict=True)
        }
        return {name: self._linked(part).cumsum() for name, part in each.items()}

    def summary(self, known: pd.DataFrame) -> pd.DataFrame:
        """Contributions of the parts of each view, with the whole and its two ends."""
        sums = {name: float(self._linked(part).sum()) for name, part in self.parts.items()}
        own, beside = (risk.cumulative_return(each) for each in (self.portfolio, self.returns))
        by_part = known.set_axis(PARTS)
        rows = [
            {"view": view, "part": part, "contribution": sums[part]} | _a_year(by_part.loc[part])
            for view, parts in VIEWS.items()
            for part in parts
        ]
        whole = {"portfolio": own, "benchmark": beside, "difference": own - beside}
        return pd.DataFrame(
            rows + [{"view": "whole", "part": name, "contribution": value} for name, value in whole.items()]
        )

    def yearly(self) -> pd.DataFrame:
        """The same within each year."""
        years, starts = period_starts(self.days.to_numpy(), "year")
        rows = []
        for year, start, end in zip(years.astype(str), starts, [*starts[1:], len(self.days)], strict=True):
            own, beside = self.portfolio[start:end], self.returns[start:end]
            ends = {"portfolio": risk.cumulative_return(own), "benchmark": risk.cumulative_return(beside)}
            parts = {
                name: float(linked(part[start:end], own, beside).sum()) for name, part in self.parts.items()
            }
            rows.append({"year": year} | ends | parts)
        return pd.DataFrame(rows)

    def industries(self) -> pd.DataFrame:
        """Weights and contributions of industries and cash; those that nobody ever held are left out."""
        found = self.brinson
        table = pd.DataFrame(
            {
                "industry": [*self.given.groups, "cash"],
                "weight": found.weight.mean(axis=0),
                "benchmark_weight": found.benchmark_weight.mean(axis=0),
                "allocation": self._linked(found.allocation).sum(axis=0),
                "selection": self._linked(found.selection).sum(axis=0),
                "interaction": self._linked(found.interaction).sum(axis=0),
            }
        )
        table["contribution"] = table[["allocation", "selection", "interaction"]].sum(axis=1)
        ever = (np.abs(found.weight) + np.abs(found.benchmark_weight) > 0).any(axis=0)
        return table[ever].sort_values("contribution", ascending=False, kind="stable")

    def factors(self, per_year: float) -> pd.DataFrame:
        """What each factor earned and added."""
        names, earned = _factors(self.given), self.fitted.returns
        kinds = [MARKET] + ["style"] * len(self.given.styles) + ["industry"] * len(self.given.groups)
        table = pd.DataFrame(
            {
                "factor": names,
                "kind": kinds,
                "exposure": self.model.exposure.mean(axis=0),
                "return_a_year": earned.mean(axis=0) * per_year,
                "t": [newey_west_t(each) for each in earned.T],
                "contribution": self._linked(self.model.parts).sum(axis=0),
            }
        )
        ever = (self.model.exposure != 0).any(axis=0) | (earned != 0).any(axis=0)
        return table[ever]


def _factors(given: Attributed) -> list[str]:
    return [MARKET, *given.styles, *(f"industry {name}" for name in given.groups)]


def _names(benchmark: str) -> list[str]:
    return [f"attribution/{benchmark}/{part}" for part in PARTS]


def _a_year(row: pd.Series) -> dict[str, float]:
    return {"a_year": row["value"], "low": row["low"], "high": row["high"]}


def _estimates(against: dict[str, _Against], per_year: float) -> pd.DataFrame:
    """Mean of a day times the days of a year, with its interval, of every part."""
    columns = [one.parts[part] for one in against.values() for part in PARTS]
    names = [name for benchmark in against for name in _names(benchmark)]

    def figures(*days: Floats) -> list[float]:
        return [float(each.mean()) * per_year for each in days]

    return estimated(dict(zip(names, figures(*columns), strict=True)), figures, *columns)


def _setup(given: Attributed, universe: str, per_year: float, fitted: FactorReturns) -> dict[str, Any]:
    explained = fitted.explained[np.isfinite(fitted.explained)]
    by_value = "value_weight" in given.benchmarks
    return {
        "universe": universe,
        "days_per_year": per_year,
        "benchmarks": [*given.benchmarks],
        "no_value_weight": given.no_value_weight,
        "no_industries": given.no_industries,
        "exposures": given.told,
        "unknown": given.unknown,
        "fitted_by": "square root of the market value" if by_value else "equal weights",
        "explained": float(explained.mean()) if len(explained) else None,
        "notes": given.notes,
    }
