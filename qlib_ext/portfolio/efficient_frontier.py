"""The efficient frontier of a decision, and where the decision lies beside it."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import pandas as pd

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Linear, deviation
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible, Problem
from qlib_ext.portfolio.solving import least

logger = logging.getLogger(__name__)

POINTS = 12  # of a frontier
FREE, LIMITED = "frontier without limits", "frontier within limits"
CHOSEN = "chosen"


def efficient_frontier(problem: Problem, count: int = POINTS) -> list[Floats]:
    r"""Allowed weights of the least forecast risk, at expected returns from that of the least risk up to the highest.

    .. math:: \min_w\; w^\top \Sigma w \quad\text{within the limits,}\quad \mu^\top w \ge m

    The risk stays in the form of factors, so that the cost grows with the number of stocks and not with its square.

    Parameters
    ----------
    problem
        Without expected returns only the least risk is found.
    count
        Evenly spaced m, at least 2.

    Returns
    -------
    At most `count` weights `[N]`, from the least risk on.

    Raises
    ------
    Infeasible
        If no weights are allowed.
    """
    calmest = _calmest(problem)
    if problem.expected is None:
        return [calmest]
    unit = float(np.abs(problem.expected).max()) or 1.0
    expected = problem.expected / unit
    highest = least(problem, lambda weights: -(expected @ weights))
    start, end = (float(expected @ weights) for weights in (calmest, highest))
    found = [calmest]
    for target in np.linspace(start, end, count)[1:]:
        reached = Linear("return", "", expected[None], np.array([target - TOLERANCE]), np.array([np.inf]))
        try:
            found.append(_calmest(replace(problem, limits=(*problem.limits, reached))))
        except Infeasible:  # at the very end, where the solver's rounding decides
            logger.info("no weights of an expected return of %.4g were found", target * unit)
    return found


def frontier_table(problem: Problem, chosen: Mapping[str, float]) -> pd.DataFrame:
    """The frontier within the limits of a problem, that without them, and portfolios beside them.

    Parameters
    ----------
    problem
        What was asked.
    chosen
        Code -> weight that was decided on.

    Returns
    -------
    A row a point: `kind`, one of `frontier within limits`, `frontier without limits` (of the same stocks; none is sold short
    that may not be), both from the least risk on, `chosen`, `equal weight` of the candidates and `benchmark`; `volatility` and
    `deviation` from the benchmark, forecast standard deviations of a day's return; `expected` return of a day, NaN without a
    forecast; and `names`, stocks held.
    """
    least_weight = np.minimum(problem.lower, 0.0)
    most = np.full(problem.count, max(problem.invested, float(problem.upper.max())))
    free = replace(problem, lower=least_weight, upper=most, limits=(), boxes=())
    rows = []
    for kind, asked in ((FREE, free), (LIMITED, problem)):
        try:
            rows += [_point(kind, problem, weights) for weights in efficient_frontier(asked)]
        except Infeasible as error:
            logger.info("there is no %s: %s", kind, error)
    known = problem.known
    candidates = np.isfinite(known.score)
    beside = {
        CHOSEN: np.array([chosen.get(code, 0.0) for code in known.codes]),
        "equal weight": problem.invested * candidates / max(1, candidates.sum()),
        "benchmark": np.nan_to_num(known.benchmark),
    }
    rows += [
        _point(kind, problem, weights) for kind, weights in beside.items() if weights.any() or kind == CHOSEN
    ]
    return pd.DataFrame(rows)


def _calmest(problem: Problem) -> Floats:
    scale = float(np.sqrt(np.mean(problem.risk.variances()))) or 1.0
    none = np.zeros(problem.count)
    return least(problem, lambda weights: deviation(problem.risk, weights, none) / scale)


def _point(kind: str, problem: Problem, weights: Floats) -> dict[str, object]:
    benchmark = np.nan_to_num(problem.known.benchmark)
    return {
        "kind": kind,
        "volatility": problem.risk.volatility(weights),
        "deviation": problem.risk.volatility(weights - benchmark),
        "expected": np.nan if problem.expected is None else float(problem.expected @ weights),
        "names": int((np.abs(weights) > TOLERANCE).sum()),
    }
