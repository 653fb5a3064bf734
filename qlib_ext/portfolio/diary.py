"""What a portfolio decided on each day that it was rebalanced, as tables."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.allocation import Decision
from qlib_ext.portfolio.constraints.limits import Linear
from qlib_ext.portfolio.efficient_frontier import frontier_table
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.problem import TOLERANCE

SEPARATOR = "\n"  # between sentences
NEAR = 10 * TOLERANCE  # of a bound


class Diary:
    """Keeps the decisions of an account, day by day.

    Attributes
    ----------
    days
        By the day of the trade: `known` (day at whose close the weights were made); `names`, `invested`, `turnover` (bought and
        sold weight together) and the parts of it that go to stocks that left the universe, are new, or are sold out
        (`turnover/left`, `turnover/new`, `turnover/out`); `volatility`, `deviation`, forecast standard deviations of a day's
        return of the weights, and of their difference from the benchmark; `beta`, to the market over the days known; `expected`, the
        weights' expected return of a day; `moved`, `kept`, and `relaxed`, `told` in words,
        a line a sentence.
    stocks
        By day of the trade and stock: `weight` aimed at, `held` before, `benchmark`, `expected`, `volatility` forecast of the
        stock, and its shares in the forecast variance, `risk_share` of the weights and `active_share` of their difference from the
        benchmark; `industry`, None where none is known. Stocks that have none of the weights are left out.
    factors
        By day of the trade and factor: exposure of the weights (`portfolio`) and of the benchmark, and the factor's shares in the
        forecast variance, `risk_share` of the weights and `active_share` of their difference from the benchmark. Empty where the
        risk model has no factors.
    limits
        By day of the trade, a row a limit that the weights lie at (`what` is `binding`) or that gave way (`relaxed`), with its
        `name` and `words`; of a limit of several parts a row a `part`, such as an industry; of bounds of single weights, the number
        of `stocks` that lie at theirs.
    frontier
        Of the newest day that had weights within one problem, as `qlib_ext.portfolio.efficient_frontier.frontier_table` has it;
        made when it is asked for.
    """

    def __init__(self) -> None:
        self._days: list[dict[str, Any]] = []
        self._stocks: list[pd.DataFrame] = []
        self._factors: list[pd.DataFrame] = []
        self._limits: list[dict[str, Any]] = []
        self._newest: Decision | None = None

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
            "industry": _industries(known),
        }
        self._stocks.append(
            pd.DataFrame({name: values[some] for name, values in columns.items()}, index=index)
        )
        if risk.loadings is not None and risk.factor_covariance is not None:
            loadings = np.nan_to_num(risk.loadings)
            rows = {"portfolio": loadings.T @ weights, "benchmark": loadings.T @ benchmark}
            for name, exposure, of in (
                ("risk_share", rows["portfolio"], weights),
                ("active_share", rows["portfolio"] - rows["benchmark"], active),
            ):
                whole = risk.volatility(of) ** 2
                parts = exposure * (risk.factor_covariance @ exposure)
                rows[name] = parts / whole if whole > 0 else parts * np.nan
            names = pd.MultiIndex.from_product([[day], [*risk.factors]], names=["datetime", "factor"])
            self._factors.append(pd.DataFrame(rows, index=names))
        self._limits += [{"datetime": day, **row} for row in _limits(decision)]
        if decision.problem is not None:
            self._newest = decision

    def tables(self) -> dict[str, pd.DataFrame]:
        """`days`, `stocks`, `factors`, `limits` and `frontier`; what there is nothing of is empty."""
        return {
            "days": _by_day(self._days),
            "stocks": pd.concat(self._stocks) if self._stocks else pd.DataFrame(),
            "factors": pd.concat(self._factors) if self._factors else pd.DataFrame(),
            "limits": _by_day(self._limits),
            "frontier": _frontier(self._newest),
        }


def _by_day(rows: list[dict[str, Any]]) -> pd.DataFrame:
    return pd.DataFrame(rows).set_index("datetime") if rows else pd.DataFrame()


def _frontier(decision: Decision | None) -> pd.DataFrame:
    if decision is None or decision.problem is None:
        return pd.DataFrame()
    chosen = dict(zip(decision.known.codes, decision.weights, strict=True))
    return frontier_table(decision.problem, chosen)


def _limits(decision: Decision) -> list[dict[str, Any]]:
    """What bound the weights, and what gave way."""
    found = [_limit("relaxed", one.name, one.words) for one in decision.relaxed]
    problem = decision.problem
    if problem is None:
        return found
    chosen = dict(zip(decision.known.codes, decision.weights, strict=True))
    weights = np.array([chosen[code] for code in problem.known.codes])
    for limit in problem.limits:
        parts = limit.parts()
        for part in parts:
            if part.excess(weights) > -NEAR:
                named = part.rows[0] if isinstance(part, Linear) and len(parts) > 1 else ""
                found.append(_limit("binding", limit.name, limit.words, named))
    for box in problem.boxes:
        at = (np.abs(weights) > NEAR) & ((weights > box.high - NEAR) | (weights < box.low + NEAR))
        if at.any():
            found.append(_limit("binding", box.name, box.words, stocks=int(at.sum())))
    return found


def _limit(what: str, name: str, words: str, part: str = "", stocks: int = 0) -> dict[str, Any]:
    return {"what": what, "name": name, "words": words, "part": part, "stocks": stocks}


def _industries(known: KnownDay) -> np.ndarray:
    names = np.array([*known.industry_names, None], dtype=object)
    return names[np.full(len(known.codes), -1) if known.industry is None else known.industry]


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
