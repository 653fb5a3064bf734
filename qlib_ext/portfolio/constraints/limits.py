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
        """Two sets of inequalities."""
        sums = self.matrix @ weights
        under, over = np.isfinite(self.high), np.isfinite(self.low)
        found = [sums[under] <= self.high[under] + slack] if under.any() else []
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
        active = weights - self.centre
        parts = [self.risk.components.T @ active]
        if np.any(self.risk.specific > 0):
            parts.append(cp.multiply(np.sqrt(self.risk.specific), active))
        return [cp.norm(cp.hstack(parts)) <= self.most + slack]

    def excess(self, weights: Floats) -> float:
        """In standard deviation of a day."""
        return self.risk.volatility(weights - self.centre) - self.most
