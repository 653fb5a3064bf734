"""Forecast risk beside what came, and what a forecast costs, of each risk model on a real market.

    python -m benchmarks.risk_models --store cn --start 2019-01-01 --end 2019-12-31

Each week each model forecasts the risk of some portfolios, which are held for the week. `universe` is all members at equal
weight, `lists` are 40 of them drawn by chance each week, `lists - universe` the same beside the universe, and `calmest` has the
weights of least variance by the model itself, from 0 to 5%: there errors of a model do most harm, since they are what is
sought. A bias statistic above 1 says that the risk was forecast too low; the interval is where right forecasts lie with normal
returns. Of the lists it is the mean of all. QLIKE is that of `lists - universe`; lower is better. Seconds are of one core.
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.config.build import build
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.risk_forecast import bias_interval, bias_statistic, qlike
from qlib_ext.portfolio.constraints.limits import deviation
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.market_history import MarketHistory
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.risk import Risk
from qlib_ext.portfolio.risk_models.base import RiskModel
from qlib_ext.portfolio.solving import least

COVARIANCE = "qlib_ext.portfolio.risk_models.covariance.Covariance"
FACTORS = "qlib_ext.portfolio.risk_models.factor_model.FactorModel"
MOMENTS = {
    "sample": "EmpiricalCovariance",
    "Ledoit-Wolf": "LedoitWolf",
    "exponential": "EWCovariance",
    "denoised": "DenoiseCovariance",
}
MODELS: dict[str, dict[str, Any]] = {
    **{
        name: {"class": COVARIANCE, "kwargs": {"estimator": {"class": f"skfolio.moments.{estimator}"}}}
        for name, estimator in MOMENTS.items()
    },
    "factors": {"class": FACTORS},
    "factors, no industries": {"class": FACTORS, "kwargs": {"industries": False}},
}
LISTS, LISTED, MOST = 40, 40, 0.05
DAYS_BACK = 760


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--store", required=True, type=Path)
    parser.add_argument("--universe", default="csi300")
    parser.add_argument("--start", default="2019-01-01")
    parser.add_argument("--end", default="2019-12-31")
    given = parser.parse_args()
    history = market(QlibStore(given.store), given.universe, given.start, given.end)
    first = int(history.days.searchsorted(pd.Timestamp(given.start)))
    weeks = history.days[first - 1 :].to_series().groupby(history.days[first - 1 :].to_period("W")).last()
    rebalances = [int(history.days.get_loc(day)) for day in weeks[:-1]]
    days = rebalances[-1] - rebalances[0] + 5
    low, high = bias_interval(days)
    print(
        f"{len(rebalances)} weeks of {history.codes.__len__()} stocks; right forecasts have a bias of {low:.2f} to {high:.2f}\n"
    )
    print(
        "| model | universe | lists | lists − universe | calmest | volatility of calmest | QLIKE | seconds |"
    )
    print("|---|---|---|---|---|---|---|---|")
    for name, config in MODELS.items():
        print(f"| {name} | {row(history, rebalances, build(config, RiskModel, name=name))} |", flush=True)


def market(store: QlibStore, universe: str, start: str, end: str) -> MarketHistory:
    """The members of a universe; their scores say no more than that they are."""
    codes = sorted({*store.membership(universe)["instrument"]} & {*store.instruments()})
    members = pd.DataFrame(store.member_mask(universe, codes), store.calendar, codes).loc[start:end]
    scores = members.where(members).stack().astype(np.float64).rename_axis(["datetime", "instrument"])
    before = store.calendar[store.calendar.searchsorted(pd.Timestamp(start)) - 1]
    known = scores.xs(members.index[0]).rename("score").to_frame().assign(datetime=before)
    whole = pd.concat([known.reset_index().set_index(["datetime", "instrument"])["score"], scores])
    return MarketHistory.load(store, whole, days_back=DAYS_BACK)


def row(history: MarketHistory, rebalances: list[int], model: RiskModel) -> str:
    """The figures of a model."""
    rng = np.random.default_rng(0)
    forecasts, outcomes, seconds = [], [], 0.0
    for day, after in zip(rebalances, [*rebalances[1:], len(history.days) - 1], strict=True):
        known = history.known(history.days[day], length=model.days_back)
        begun = time.process_time()
        risk, _ = model.estimate(known)
        seconds += time.process_time() - begun
        weights = portfolios(known, risk, rng)
        own = [history.codes.index(code) for code in known.codes]
        returns = np.nan_to_num(history.returns[day + 1 : after + 1, own])
        outcomes.append(returns @ weights)
        forecasts.append(np.tile([risk.volatility(each) for each in weights.T], (len(returns), 1)))
    outcome, forecast = np.concatenate(outcomes), np.concatenate(forecasts)
    bias, loss = bias_statistic(outcome, forecast), qlike(outcome, forecast)
    lists, active = slice(2, 2 + LISTS), slice(2 + LISTS, None)
    figures = [bias[0], bias[lists].mean(), bias[active].mean(), bias[1]]
    volatility = outcome[:, 1].std() * np.sqrt(243)
    return " | ".join(
        [
            *(f"{each:.2f}" for each in figures),
            f"{volatility:.1%}",
            f"{loss[active].mean():.3f}",
            f"{seconds:.1f}",
        ]
    )


def portfolios(known: KnownDay, risk: Risk, rng: np.random.Generator) -> Floats:
    """Weights `[N, P]` of stocks whose risk is known: the universe, the calmest, lists, and lists beside the universe."""
    there = np.flatnonzero(risk.known)
    own = risk.take(there)
    universe = np.zeros(len(known.codes))
    universe[there] = 1 / len(there)
    calmest = np.zeros(len(known.codes))
    problem = Problem(known, None, own, np.zeros(len(there)), np.full(len(there), MOST))
    calmest[there] = least(problem, lambda w: 100 * deviation(own, w, np.zeros(len(there))))
    lists = np.zeros((LISTS, len(known.codes)))
    for each in lists:
        each[rng.choice(there, LISTED, replace=False)] = 1 / LISTED
    return np.column_stack([universe, calmest, *lists, *(lists - universe)])


if __name__ == "__main__":
    main()
