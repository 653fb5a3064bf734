"""Limits of the weights as data: what a constraint comes to on one day.

A limit knows how to say itself to a solver, with slack where it shall give way, how far weights break it, and itself in words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Any

import cvxpy as cp
import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.risk import Risk


@dataclass(frozen=True, eq=False)
class Limit(ABC):
    """What weights `[N]` must keep to.

    Attributes
    ----------
    name
        Of the constraint that it comes from, by which it is relaxed.
    words
        The limit in words, such as "turnover of at most 20.0%".
    """

    name: str
    words: str

    @abstractmethod
    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """CVXPY's constraints on a variable `[N]`, each as much wider as `slack`, a number of at least 0, says."""

    @abstractmethod
    def excess(self, weights: Floats) -> float:
        """By how much the weights break it, in its own unit; 0 or less where they keep to it."""


@dataclass(frozen=True, eq=False)
class Linear(Limit):
    """Sums of weights between bounds.

    Attributes
    ----------
    matrix
        `[M, N]`.
    low, high
        `[M]`; infinite where there is no bound.
    rows
        What the M sums are of, in words.
    """

    matrix: Floats
    low: Floats
    high: Floats
    rows: tuple[str, ...] = ()

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """Two sets of inequalities; equations where both bounds are one and nothing gives way."""
        sums = self.matrix @ weights
        even = (
            (self.low == self.high)
            if isinstance(slack, float) and slack == 0
            else np.zeros(len(self.low), bool)
        )
        under, over = np.isfinite(self.high) & ~even, np.isfinite(self.low) & ~even
        found = [sums[even] == self.low[even]] if even.any() else []
        found += [sums[under] <= self.high[under] + slack] if under.any() else []
        return found + ([sums[over] >= self.low[over] - slack] if over.any() else [])

    def excess(self, weights: Floats) -> float:
        """The largest of the M."""
        sums = self.matrix @ weights
        return float(np.max(np.maximum(sums - self.high, self.low - sums), initial=0.0))


@dataclass(frozen=True, eq=False)
class Turnover(Limit):
    """Bought and sold weight together at most `most`."""

    held: Floats
    most: float

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """A sum of absolute values."""
        return [cp.norm1(weights - self.held) <= self.most + slack]

    def excess(self, weights: Floats) -> float:
        """In weight."""
        return float(np.abs(weights - self.held).sum()) - self.most


@dataclass(frozen=True, eq=False)
class Deviation(Limit):
    """Forecast standard deviation of the return beside a centre at most `most` a day."""

    risk: Risk
    centre: Floats
    most: float

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """A cone."""
        return [deviation(self.risk, weights, self.centre) <= self.most + slack]

    def excess(self, weights: Floats) -> float:
        """In standard deviation of a day."""
        return self.risk.volatility(weights - self.centre) - self.most


class Weights(cp.Variable):
    """The weights `[N]` that a solver looks for, whose exposures to a risk model's factors are unknowns of their own.

    Written out in each limit, the loadings of 1,000 stocks take a solver four times as long. Who solves for them adds
    `definitions` to the constraints, after all else has been said.

    Attributes
    ----------
    definitions
        CVXPY's constraints that say what the exposures are.
    """

    def __init__(self, count: int) -> None:
        super().__init__(count)
        self.definitions: list[Any] = []
        self._exposures: list[tuple[Floats, Any]] = []

    def exposures(self, components: Floats) -> Any:
        """`[K]`: the components of a risk model, transposed, times the weights."""
        for known, found in self._exposures:
            if known is components:
                return found
        found = cp.Variable(components.shape[1])
        self._exposures.append((components, found))
        self.definitions.append(components.T @ self == found)
        return found


def deviation(risk: Risk, weights: Any, centre: Floats, ridge: float = 0.0) -> Any:
    """CVXPY's expression of the forecast standard deviation of weights beside a centre, in the form of factors.

    Parameters
    ----------
    risk
        Finite.
    weights
        `Weights`, or any expression `[N]`.
    centre
        `[N]`.
    ridge
        Variance that each stock has on top.
    """
    components, specific = risk.components, risk.specific + ridge
    exposures = weights.exposures(components) if isinstance(weights, Weights) else components.T @ weights
    parts = [exposures - components.T @ centre]
    if np.any(specific > 0):
        parts.append(cp.multiply(np.sqrt(specific), weights - centre))
    return cp.norm(cp.hstack(parts))
