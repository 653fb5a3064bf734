"""What a day costs an optimiser, and a backtest by hierarchical risk parity.

    OMP_NUM_THREADS=1 python benchmarks/optimisers.py --stocks 300
    OMP_NUM_THREADS=1 python benchmarks/optimisers.py --stocks 1000 --only MeanRisk
    OMP_NUM_THREADS=1 python benchmarks/optimisers.py --weeks 195

A made market: three factors and what each stock does alone, 250 days of returns. Times are of the processor, the least of
`--repeats`, in seconds; `factors` where the risk model has factors, `whole` where it is a covariance of all stocks. `--weeks`
solves so many days of 300 stocks in a row, each with a Ledoit-Wolf covariance of its own 250 days.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.optimisers.autoencoder import AutoencoderPortfolio
from qlib_ext.portfolio.optimisers.base import Optimiser
from qlib_ext.portfolio.optimisers.critical_line import CriticalLine
from qlib_ext.portfolio.optimisers.eigen import EigenPortfolio
from qlib_ext.portfolio.optimisers.equal_weight import EqualWeight
from qlib_ext.portfolio.optimisers.hierarchical_risk_parity import HierarchicalRiskParity
from qlib_ext.portfolio.optimisers.skfolio import Skfolio
from qlib_ext.portfolio.portfolio import Portfolio
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.risk import Risk

DAYS, FACTORS = 250, 3


def skfolio(name: str, **kwargs: Any) -> Skfolio:
    """One of theirs, by name."""
    return Skfolio(method={"class": f"skfolio.optimization.{name}", "kwargs": kwargs})


OPTIMISERS: dict[str, Optimiser] = {
    "EqualWeight": EqualWeight(),
    "EigenPortfolio": EigenPortfolio(),
    "AutoencoderPortfolio": AutoencoderPortfolio(),
    "CriticalLine, minimum variance": CriticalLine(),
    "CriticalLine, maximum Sharpe": CriticalLine(point="maximum_sharpe"),
    "HierarchicalRiskParity": HierarchicalRiskParity(),
    "HierarchicalRiskParity, optimal order": HierarchicalRiskParity(optimal_order=True),
    "skfolio's HierarchicalRiskParity": skfolio("HierarchicalRiskParity"),
    "skfolio's HierarchicalEqualRiskContribution": skfolio("HierarchicalEqualRiskContribution"),
    "skfolio's MeanRisk, minimum variance": skfolio("MeanRisk"),
    "skfolio's MeanRisk, utility": skfolio("MeanRisk", objective_function="MAXIMIZE_UTILITY"),
    "skfolio's MeanRisk, maximum Sharpe": skfolio("MeanRisk", objective_function="MAXIMIZE_RATIO"),
    "skfolio's MeanRisk, CVaR": skfolio("MeanRisk", risk_measure="CVAR"),
    "skfolio's RiskBudgeting": skfolio("RiskBudgeting"),
    "skfolio's MaximumDiversification": skfolio("MaximumDiversification"),
}


def main() -> None:
    """Measure what is asked for."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--stocks", type=int, nargs="+", default=[300])
    parser.add_argument("--only", default="", help="optimisers whose name holds this word")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--weeks", type=int, help="days of 300 stocks to solve in a row")
    given = parser.parse_args()
    if given.weeks is not None:
        _weekly(given.weeks)
        return
    for stocks in given.stocks:
        factors, whole = _problems(stocks)
        table = Table(title=f"seconds for a day of {stocks:,} stocks")
        for column in ("optimiser", "factors", "whole"):
            table.add_column(column)
        for name, optimiser in OPTIMISERS.items():
            if given.only not in name:
                continue
            times = [
                _least(lambda asked=asked, own=optimiser: own.solve(asked), given.repeats)  # type: ignore[misc]
                for asked in (factors, whole)
            ]
            table.add_row(name, *(f"{each:.3f}" for each in times))
        Console().print(table)


def _least(work: Callable[[], object], repeats: int) -> float:
    times = []
    for _ in range(repeats):
        start = time.process_time()
        work()
        times.append(time.process_time() - start)
    return min(times)


def _day(returns: np.ndarray) -> KnownDay:
    days, stocks = returns.shape
    return KnownDay(
        day=pd.Timestamp("2024-03-01"),
        codes=tuple(f"SH{600000 + stock}" for stock in range(stocks)),
        scores=returns,
        returns=returns,
        held=np.zeros(stocks),
        buyable=np.ones(stocks, dtype=bool),
        sellable=np.ones(stocks, dtype=bool),
        benchmark=np.full(stocks, 1 / stocks),
        market=returns.mean(axis=1),
        planes={"volume": np.ones((days, stocks))},
    )


def _returns(days: int, stocks: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Returns `[T, N]`, loadings `[N, K]` and specific variances `[N]`."""
    rng = np.random.default_rng(0)
    loadings = rng.normal([0.01, 0, 0], 0.005, (stocks, FACTORS))
    specific = rng.uniform(0.01, 0.02, stocks)
    returns = rng.standard_normal((days, FACTORS)) @ loadings.T + rng.normal(0, specific, (days, stocks))
    return returns, loadings, specific**2


def _problems(stocks: int) -> tuple[Problem, Problem]:
    returns, loadings, specific = _returns(DAYS, stocks)
    names = tuple(f"factor {k}" for k in range(FACTORS))
    forms = (
        Risk.of_factors(loadings, np.eye(FACTORS), specific, names),
        Risk.of_covariance(loadings @ loadings.T + np.diag(specific)),
    )
    expected = np.random.default_rng(1).normal(3e-4, 1e-3, stocks)
    factors, whole = (
        Problem(
            known=_day(returns),
            expected=expected,
            risk=risk,
            lower=np.zeros(stocks),
            upper=np.full(stocks, 0.05),
        )
        for risk in forms
    )
    return factors, whole


def _weekly(weeks: int) -> None:
    returns, _, _ = _returns(DAYS + 5 * weeks, 300)
    portfolio = Portfolio(HierarchicalRiskParity())
    start = time.process_time()
    for week in range(weeks):
        portfolio.decide(_day(returns[5 * week : 5 * week + DAYS]))
    Console().print(f"{weeks} weeks of hierarchical risk parity: {time.process_time() - start:.1f} s")


if __name__ == "__main__":
    main()
