"""What a portfolio decided on each day that it was rebalanced, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.allocation import Decision
from qlib_ext.portfolio.problem import TOLERANCE

SEPARATOR = "; "  # between sentences


class Diary:
    """Keeps the decisions of an account, day by day.

    Attributes
    ----------
    days
        By the day of the trade: `known` (day at whose close the weights were made); `names`, `invested`, `turnover` (bought and
        sold weight together) and the parts of it that go to stocks that left the universe, are new, or are sold out
        (`turnover/left`, `turnover/new`, `turnover/out`); `volatility`, `deviation`, forecast standard deviations of a day's
        return of the weights, and of their difference from the benchmark; `beta`, to the market over the days known; `expected`, the
        weights' expected return of a day; `moved`, `kept`, and `binding`, `relaxed`, `told` in words.
    stocks
        By day of the trade and stock: `weight` aimed at, `held` before, `benchmark`, `expected`, `volatility` forecast of the
        stock, and its shares in the forecast variance, `risk_share` of the weights and `active_share` of their difference from the
        benchmark. Stocks that have none of the weights are left out.
    factors
        By day of the trade and factor: exposure of the weights (`portfolio`) and of the benchmark, and the factor's share in the
        forecast variance. Empty where the risk model has no factors.
    """

    def __init__(self) -> None:
        self._days: list[dict[str, Any]] = []
        self._stocks: list[pd.DataFrame] = []
        self._factors: list[pd.DataFrame] = []

    def add(self, day: pd.Timestamp, decision: Decision) -> None:
        """Keep a decision that is traded on a day."""
        known, weights, risk = decision.known, decision.weights, decision.risk
        benchmark = np.nan_to_num(known.benchmark)
        change = np.abs(weights - known.held)
        left, new = ~np.isfinite(known.score), np.abs(known.held) <= TOLERANCE
        out = ~left & ~new & (np.abs(weights) <= TOLERANCE)
        expected = np.full(len(weights), np.nan) if decision.expected is None else decision.expected
        active = weights - benchmark
        self._days.append(
            {
                "datetime": day,
                "known": known.day,
                "names": int((np.abs(weights) > TOLERANCE).sum()),
                "invested": float(weights.sum()),
                "turnover": float(change.sum()),
                "turnover/left": float(change[left].sum()),
                "turnover/new": float(change[new & ~left].sum()),
                "turnover/out": float(change[out].sum()),
                "volatility": risk.volatility(weights),
                "deviation": risk.volatility(active),
                "beta": _beta(known.returns, known.market, weights),
                "expected": np.nan if decision.expected is None else float(np.nansum(weights * expected)),
                "moved": decision.moved,
                "kept": decision.kept,
                "binding": SEPARATOR.join(decision.binding),
                "relaxed": SEPARATOR.join(one.words for one in decision.relaxed),
                "told": SEPARATOR.join(decision.told),
            }
        )
        some = (np.abs(weights) > TOLERANCE) | (np.abs(known.held) > TOLERANCE) | (benchmark > 0)
        index = pd.MultiIndex.from_product(
            [[day], np.array(known.codes)[some]], names=["datetime", "instrument"]
        )
        columns = {
            "weight": weights,
            "held": known.held,
            "benchmark": benchmark,
            "expected": expected,
            "volatility": np.sqrt(risk.variances()),
            "risk_share": _shares(decision, weights),
            "active_share": _shares(decision, active),
        }
        self._stocks.append(
            pd.DataFrame({name: values[some] for name, values in columns.items()}, index=index)
        )
        if risk.loadings is not None and risk.factor_covariance is not None:
            loadings = np.nan_to_num(risk.loadings)
            own = loadings.T @ weights
            parts = own * (risk.factor_covariance @ own)
            whole = risk.volatility(weights) ** 2
            rows = {
                "portfolio": own,
                "benchmark": loadings.T @ benchmark,
                "risk_share": parts / whole if whole > 0 else parts * np.nan,
            }
            names = pd.MultiIndex.from_product([[day], [*risk.factors]], names=["datetime", "factor"])
            self._factors.append(pd.DataFrame(rows, index=names))

    def tables(self) -> dict[str, pd.DataFrame]:
        """`days`, `stocks` and `factors`; without a decision, empty."""
        days = pd.DataFrame(self._days)
        return {
            "days": days.set_index("datetime") if self._days else days,
            "stocks": pd.concat(self._stocks) if self._stocks else pd.DataFrame(),
            "factors": pd.concat(self._factors) if self._factors else pd.DataFrame(),
        }


def _shares(decision: Decision, weights: Floats) -> Floats:
    """Share of each stock in the forecast variance of some weights; 0 of a stock whose risk is not known."""
    known = decision.risk.known
    found = np.zeros(len(weights))
    some = decision.risk.take(known)
    found[known] = weights[known] * some.times(weights[known])
    whole = found.sum()
    return found / whole if whole > 0 else found * np.nan


def _beta(returns: Floats, market: Floats, weights: Floats) -> float:
    """Slope of the weights' past returns on the market's."""
    own = np.nan_to_num(returns) @ weights
    spread = market - market.mean()
    variance = float(spread @ spread)
    return float(spread @ own) / variance if variance > 0 else np.nan
