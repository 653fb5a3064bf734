"""Limits of the weights as data: what a constraint comes to on one day.

A limit knows how to say itself to a solver, with slack where it shall give way, how far weights break it, and itself in words.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from typing import Any

import cvxpy as cp
import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.risk import Risk

YEAR_DAYS = 252  # of a yearly bound; the report's year is that of its backtest, of 243 days by default
WIDER = ", wider by"


@dataclass(frozen=True, eq=False)
class Limit(ABC):
    """What weights `[N]` must keep to.

    Attributes
    ----------
    name
        Of the constraint that it comes from, by which it is relaxed.
    words
        The limit in words, such as "turnover of at most 20%".
    """

    name: str
    words: str

    @abstractmethod
    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """CVXPY's constraints on a variable `[N]`, each as much wider as `slack`, a number of at least 0, says."""

    @abstractmethod
    def excess(self, weights: Floats) -> float:
        """By how much the weights break it, in its own unit; 0 or less where they keep to it."""

    def parts(self) -> list[Limit]:
        """What it consists of, each with words of its own; itself where it is one thing."""
        return [self]

    @abstractmethod
    def bound(self, weights: Floats) -> float:
        """The bound as it is said; of several, the one that the weights are nearest to or furthest beyond."""

    @abstractmethod
    def widened(self, by: Floats) -> Limit:
        """The limit with each of its parts wider by a number of at least 0."""


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
        What the M sums are of, in words, such as "technology".
    offset
        `[M]`, added to the bounds where they are said: a band around the benchmark is said with the benchmark in it.
    percent
        Whether bounds are said in percent.
    wider
        By how much the widest of the M has been widened.
    """

    matrix: Floats
    low: Floats
    high: Floats
    rows: tuple[str, ...] = ()
    offset: Floats | float = 0.0
    percent: bool = True
    wider: float = 0.0

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """Two sets of inequalities; equations where both bounds are one and nothing gives way."""
        sums = self.matrix @ weights
        none = isinstance(slack, float) and slack == 0
        even = (self.low == self.high) & none
        under, over = np.isfinite(self.high) & ~even, np.isfinite(self.low) & ~even
        found = [sums[even] == self.low[even]] if even.any() else []
        found += [sums[under] <= self.high[under] + slack] if under.any() else []
        return found + ([sums[over] >= self.low[over] - slack] if over.any() else [])

    def excess(self, weights: Floats) -> float:
        """The largest of the M."""
        sums = self.matrix @ weights
        return float(np.max(np.maximum(sums - self.high, self.low - sums), initial=-np.inf))

    def bound(self, weights: Floats) -> float:
        """With its offset."""
        sums = self.matrix @ weights
        beyond = np.array([sums - self.high, self.low - sums])
        side, row = np.unravel_index(np.argmax(beyond), beyond.shape)
        offset = np.broadcast_to(self.offset, self.low.shape)
        return float((self.low if side else self.high)[row] + offset[row])

    def parts(self) -> list[Limit]:
        """A limit a row."""
        if len(self.rows) != len(self.low):
            return [self]
        offset = np.broadcast_to(self.offset, self.low.shape)
        return [
            replace(
                self,
                words=f"{row} {within(low + more, high + more, self.percent)}",
                matrix=self.matrix[[at]],
                low=self.low[[at]],
                high=self.high[[at]],
                rows=(row,),
                offset=more,
            )
            for at, (row, low, high, more) in enumerate(
                zip(self.rows, self.low, self.high, offset, strict=True)
            )
        ]

    def widened(self, by: Floats) -> Linear:
        """Each row to both sides."""
        wider = self.wider + float(np.max(by))
        said = f"{self.words.partition(WIDER)[0]}{WIDER} up to {_say(wider, self.percent)}"
        return replace(self, words=said, low=self.low - by, high=self.high + by, wider=wider)


@dataclass(frozen=True, eq=False)
class Box(Limit):
    """Each weight between bounds of its own.

    It gives way where a stock may be held at all: a bound of 0 stays, so that nothing is sold short and nothing is bought that
    may not be.

    Attributes
    ----------
    low, high
        `[N]`; infinite where there is no bound.
    wider
        By how much it has been widened.
    """

    low: Floats
    high: Floats
    wider: float = 0.0

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """Inequalities; equations where both bounds are one and stay."""
        even = (self.low == self.high) & ~self._moves(self.high, 1.0) & ~self._moves(-self.low, -1.0)
        found = [weights[even] == self.low[even]] if even.any() else []
        for bound, sign in ((self.high, 1.0), (-self.low, -1.0)):
            moves = self._moves(bound, sign)
            for some, wider in ((moves, slack), (np.isfinite(bound) & ~moves & ~even, 0.0)):
                if some.any():
                    found.append(sign * weights[some] <= bound[some] + wider)
        return found

    def excess(self, weights: Floats) -> float:
        """The largest of a weight."""
        return float(np.max(np.maximum(weights - self.high, self.low - weights), initial=-np.inf))

    def bound(self, weights: Floats) -> float:
        """Of one stock."""
        beyond = np.array([weights - self.high, self.low - weights])
        side, stock = np.unravel_index(np.argmax(beyond), beyond.shape)
        return float((self.low if side else self.high)[stock])

    def widened(self, by: Floats) -> Box:
        """All stocks alike."""
        more = float(np.max(by))
        return replace(
            self,
            words=f"{self.words.partition(WIDER)[0]}{WIDER} {percent(self.wider + more)}",
            low=np.where(self._moves(-self.low, -1.0), np.maximum(self.low - more, 0.0), self.low),
            high=np.where(self._moves(self.high, 1.0), self.high + more, self.high),
            wider=self.wider + more,
        )

    @staticmethod
    def _moves(bound: Floats, sign: float) -> np.ndarray:
        return np.isfinite(bound) & (sign * bound > 0)


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

    def bound(self, weights: Floats) -> float:
        """Of bought and sold weight together."""
        return self.most

    def widened(self, by: Floats) -> Turnover:
        """More of it."""
        most = self.most + float(np.max(by))
        return replace(self, most=most, words=turnover_words(most))


@dataclass(frozen=True, eq=False)
class Gross(Limit):
    """Long and short weights together, without their signs, at most `most`."""

    most: float

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """A sum of absolute values."""
        return [cp.norm1(weights) <= self.most + slack]

    def excess(self, weights: Floats) -> float:
        """In weight."""
        return float(np.abs(weights).sum()) - self.most

    def bound(self, weights: Floats) -> float:
        """Of both together."""
        return self.most

    def widened(self, by: Floats) -> Gross:
        """More of them."""
        most = self.most + float(np.max(by))
        return replace(self, most=most, words=gross_words(most))


@dataclass(frozen=True, eq=False)
class Deviation(Limit):
    """Forecast standard deviation of the return beside a centre at most `most` a day.

    Attributes
    ----------
    against
        What the centre is, in words.
    """

    risk: Risk
    centre: Floats
    most: float
    against: str = "the benchmark"

    def expressions(self, weights: Any, slack: Any = 0.0) -> list[Any]:
        """A cone."""
        return [deviation(self.risk, weights, self.centre) <= self.most + slack]

    def excess(self, weights: Floats) -> float:
        """In standard deviation of a day."""
        return self.risk.volatility(weights - self.centre) - self.most

    def bound(self, weights: Floats) -> float:
        """By the year."""
        return self.most * YEAR_DAYS**0.5

    def widened(self, by: Floats) -> Deviation:
        """More of it."""
        most = self.most + float(np.max(by))
        return replace(self, most=most, words=deviation_words(most, self.against))


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


def deviation(risk: Risk, weights: Any, centre: Floats) -> Any:
    """CVXPY's expression of the forecast standard deviation of weights beside a centre, in the form of factors.

    Parameters
    ----------
    risk
        Finite.
    weights
        `Weights`, or any expression `[N]`.
    centre
        `[N]`.
    """
    return cp.norm(_scaled(risk, weights, centre))


def variance(risk: Risk, weights: Any, centre: Floats, ridge: float = 0.0) -> Any:
    """CVXPY's expression of the square of `deviation`, as a share of a stock's mean variance: what a solver takes best.

    Parameters
    ----------
    risk, weights, centre
        As in `deviation`.
    ridge
        Variance that each stock has on top, as a share of the mean.
    """
    mean = float(np.mean(risk.variances())) or 1.0
    return cp.sum_squares(_scaled(risk, weights, centre, ridge * mean) / np.sqrt(mean))


def _scaled(risk: Risk, weights: Any, centre: Floats, ridge: float = 0.0) -> Any:
    """What has the standard deviation for its length: exposures, and what each stock risks alone."""
    components, specific = risk.components, risk.specific + ridge
    exposures = weights.exposures(components) if isinstance(weights, Weights) else components.T @ weights
    parts = [exposures - components.T @ centre]
    if np.any(specific > 0):
        parts.append(cp.multiply(np.sqrt(specific), weights - centre))
    return cp.hstack(parts)


def percent(value: float) -> str:
    """`5%`, `9.137%`."""
    return f"{round(100 * value, 4) + 0.0:.4g}%"


def within(low: float, high: float, in_percent: bool = True) -> str:
    """Bounds in words: `between 8% and 12%`, `of at most 12%`."""
    least, most = _say(low, in_percent), _say(high, in_percent)
    if low == high:
        return f"of exactly {least}"
    if np.isfinite(low) and np.isfinite(high):
        return f"between {least} and {most}"
    return f"of at most {most}" if np.isfinite(high) else f"of at least {least}"


def _say(value: float, in_percent: bool) -> str:
    return percent(value) if in_percent else f"{round(value, 6) + 0.0:.4g}"


def turnover_words(most: float) -> str:
    """A limit of turnover in words."""
    return f"turnover of at most {percent(most)}"


def gross_words(most: float) -> str:
    """A limit of gross weight in words."""
    return f"long and short weights together of at most {percent(most)}"


def deviation_words(most: float, against: str) -> str:
    """A limit of a day's deviation in words, by the year."""
    return f"tracking error against {against} of at most {percent(most * YEAR_DAYS**0.5)} a year"
