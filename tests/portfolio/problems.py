"""Small problems for the tests of portfolios."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.limits import Limit
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.problem import Problem
from qlib_ext.portfolio.risk import Risk

INDUSTRIES = ("banks", "technology", "utilities")


def risk_of(count: int, seed: int = 0, factors: int = 3) -> Risk:
    """Factors and what is left: a day's volatility of about 2%."""
    rng = np.random.default_rng(seed)
    loadings = rng.standard_normal((count, factors)) + 1
    covariance = np.diag(rng.uniform(0.2, 1, factors)) * 1e-4
    specific = rng.uniform(1, 4, count) * 1e-4
    return Risk.of_factors(loadings, covariance, specific, tuple(f"factor_{k}" for k in range(factors)))


def day_of(
    count: int,
    *,
    held: Sequence[float] | None = None,
    planes: Mapping[str, Floats] | None = None,
    seed: int = 0,
    **changes: Any,
) -> KnownDay:
    """A day of a made market, all of whose stocks can be traded; `count` stocks in turn in three industries."""
    rng = np.random.default_rng(seed)
    market = rng.normal(0, 0.01, 60)
    returns = market[:, None] * rng.uniform(0.5, 1.5, count) + rng.normal(0, 0.01, (60, count))
    everything: dict[str, Any] = {
        "day": pd.Timestamp("2024-03-01"),
        "codes": tuple(f"SH{600000 + stock}" for stock in range(count)),
        "scores": rng.standard_normal((60, count)),
        "returns": returns,
        "held": np.zeros(count) if held is None else np.asarray(held, float),
        "buyable": np.ones(count, bool),
        "sellable": np.ones(count, bool),
        "benchmark": np.full(count, 1 / count),
        "market": market,
        "planes": planes or {},
        "industry": np.arange(count) % 3,
        "industry_names": INDUSTRIES,
        "account": 1e8,
    }
    return KnownDay(**(everything | changes))


def problem_of(
    count: int,
    limits: Sequence[Limit] = (),
    *,
    most: float = 1.0,
    seed: int = 0,
    known: KnownDay | None = None,
    **changes: Any,
) -> Problem:
    """A problem of `count` stocks, whose weights lie between 0 and `most`."""
    everything: dict[str, Any] = {
        "known": known or day_of(count, seed=seed),
        "expected": None,
        "risk": risk_of(count, seed),
        "lower": np.zeros(count),
        "upper": np.full(count, most),
        "limits": tuple(limits),
    }
    return Problem(**(everything | changes))
