"""Made markets as a portfolio sees them."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.market_history import MarketHistory

INDUSTRIES = ("banks", "energy", "steel")
LATE, HALTED = 2, 5  # a stock that is listed late, and one that is suspended for a month


def history_of(
    stocks: int = 30, days: int = 420, seed: int = 0, skill: float = 0.5, **changes: Any
) -> MarketHistory:
    """A market of one factor, three industries and something of each stock; scores that tell a part of the coming return.

    One stock is listed 30 days before the end, one suspended from 60 to 40 days before it, and makes up for it.
    """
    rng = np.random.default_rng(seed)
    market = rng.normal(0, 0.01, days)
    industry = np.arange(stocks) % 3
    own = rng.normal(0, 0.01, (days, stocks)) * rng.uniform(0.7, 1.5, stocks)
    returns = market[:, None] * rng.uniform(0.5, 1.5, stocks) + rng.normal(0, 0.005, (days, 3))[:, industry]
    returns += own
    scores = rng.standard_normal((days, stocks))
    scores[:-2] += skill * returns[2:] / returns.std()
    volume = rng.uniform(1e5, 1e6, (days, stocks))
    returns[: days - 30, LATE] = np.nan
    volume[: days - 31, LATE] = np.nan
    gap = slice(days - 60, days - 40)
    returns[days - 40, HALTED] = np.prod(1 + returns[days - 60 : days - 39, HALTED]) - 1
    returns[gap, HALTED], volume[gap, HALTED] = 0.0, np.nan
    close = 10 * np.cumprod(1 + np.nan_to_num(returns), axis=0)
    close[np.isnan(volume)] = np.nan
    shares = np.exp(rng.normal(0, 1, stocks)) * 1e8
    made = MarketHistory(
        days=pd.bdate_range("2018-01-01", periods=days),
        codes=tuple(f"SH{600000 + stock}" for stock in range(stocks)),
        scores=scores,
        returns=returns,
        market=market,
        planes={
            "close": close,
            "volume": volume,
            "traded_value": close * volume,
            "market_value": close * shares,
        },
        industry=np.tile(industry, (days, 1)),
        industry_names=INDUSTRIES,
    )
    return replace(made, **changes)


def day_of(history: MarketHistory, back: int = 0, length: int = 10_000, **kwargs: Any) -> KnownDay:
    """What is known some days before the end."""
    return history.known(history.days[-1 - back], length=length, **kwargs)


def scrambled(history: MarketHistory, back: int, seed: int = 9) -> MarketHistory:
    """The same market up to some days before the end, and another one after."""
    rng = np.random.default_rng(seed)
    last = len(history.days) - back

    def changed(plane: np.ndarray) -> np.ndarray:
        found = np.array(plane, dtype=float)
        found[last:] = rng.permuted(found[last:], axis=0) * rng.uniform(0.5, 2, found[last:].shape)
        return found

    return replace(
        history,
        scores=changed(history.scores),
        returns=changed(history.returns),
        market=changed(history.market),
        planes={name: changed(plane) for name, plane in history.planes.items()},
    )
