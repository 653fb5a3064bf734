"""The operators of the language: what they take, what they read, and what they make of planes.

The names, arguments and rules are Qlib's. This package's own are those whose names begin with `CS`, which look at all
stocks of a day, those of side data, and `IsMissing`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Any

import numpy as np

from qlib_ext.features.engine import cross_section, statistics
from qlib_ext.features.engine.block import Block
from qlib_ext.features.engine.graph import SIDE, Constant, Node
from qlib_ext.features.engine.rolling import Plane, Windows, windows_of

PLANE, ANY, DAYS, NUMBER, TEXT = "expression", "expression or number", "days", "number", "text"
WINDOWED: Mapping[str, str] = {"feature": PLANE, "N": DAYS}
PAIRED: Mapping[str, str] = {"feature_left": PLANE, "feature_right": PLANE, "N": DAYS}
Reach = tuple[float, float]
EVER = math.inf


class Operator(ABC):
    """One operator of the language.

    Attributes
    ----------
    parameters
        Name of each argument -> what it is: an expression, an expression or a number, days, a number, or a text.
    """

    parameters: Mapping[str, str]

    def wrong(self, node: Node) -> str | None:
        """What is wrong with the arguments of a node of this operator; None where nothing is."""
        return None

    def reach(self, node: Node, children: list[Reach]) -> Reach:
        """How many days before and after a day its value can depend on, given the same of the node's children."""
        return max((back for back, _ in children), default=0), max(
            (ahead for _, ahead in children), default=0
        )

    @abstractmethod
    def compute(self, node: Node, block: Block) -> Plane:
        """The values `[D, S]` of a node for the stocks of a block."""


@dataclass(frozen=True)
class Elementwise(Operator):
    """Numpy's function of one or more arguments, in the types that Qlib gives it: bars are float32 and stay so."""

    function: Callable[..., Any]
    parameters: Mapping[str, str]
    conditions: bool = False

    def wrong(self, node: Node) -> str | None:
        if self.conditions:
            for child in node.args:
                if not isinstance(child, Node) or not is_condition(child):
                    return f"takes conditions such as `$close > $open`, found `{child}`"
        elif node.operator == "Sub" and all(isinstance(x, Node) and is_condition(x) for x in node.args):
            return "subtracts two conditions, which Qlib cannot: use `If(condition, 1, 0)`"
        return None

    def compute(self, node: Node, block: Block) -> Plane:
        return np.asarray(self.function(*(block.value(arg) for arg in node.args)))


@dataclass(frozen=True)
class Shift(Operator):
    """`Ref`, or with `difference` `Delta`; the value of some days ago, of later ones, or of the first day (0)."""

    difference: bool = False
    parameters: Mapping[str, str] = field(default_factory=lambda: WINDOWED)

    def wrong(self, node: Node) -> str | None:
        return None if _is_whole(node.args[1]) else f"must shift by whole days, found {node.args[1]!r}"

    def reach(self, node: Node, children: list[Reach]) -> Reach:
        (back, ahead), days = children[0], days_of(node)
        if days == 0:
            return EVER, ahead
        return max(back, back + days), max(ahead, ahead - days)

    def compute(self, node: Node, block: Block) -> Plane:
        values, days = block.series(node.args[0]), days_of(node)
        if days == 0:
            first = np.take_along_axis(values, block.first[None], axis=0)
            shifted = np.broadcast_to(first, values.shape)
        else:
            shifted = np.full_like(values, np.nan)
            length = max(0, len(values) - abs(days))
            if days > 0:
                shifted[len(values) - length :] = values[:length]
            else:
                shifted[:length] = values[len(values) - length :]
        return values - shifted if self.difference else shifted


@dataclass(frozen=True)
class Rolling(Operator):
    """A statistic of the last N valid or missing days of a stock; of all days so far where N is 0.

    Of a share of a day between 0 and 1, Qlib takes the exponentially weighted mean, whatever the statistic.
    """

    statistic: Callable[..., Any]
    least: int = 1
    shares: bool = True
    parameters: Mapping[str, str] = field(default_factory=lambda: WINDOWED)

    def wrong(self, node: Node) -> str | None:
        days = node.args[1]
        if self.shares and isinstance(days, float) and 0 < days < 1:
            return None
        if not _is_whole(days) or not (days == 0 or days >= self.least):  # type: ignore[operator]
            return f"must look at a whole number of days, at least {self.least}, or 0 for all so far; found {days!r}"
        return None

    def reach(self, node: Node, children: list[Reach]) -> Reach:
        (back, ahead), days = children[0], node.args[1]
        if not _is_whole(days) or days == 0:
            return EVER, ahead
        return back + days_of(node) - 1, ahead

    def share(self, node: Node) -> float | None:
        """Of the quantile that it is; None where it is none."""
        return None

    def compute(self, node: Node, block: Block) -> Plane:
        feature, days = node.args[:2]
        if not _is_whole(days):
            return statistics.smoothed(block.masked(feature), float(days))  # type: ignore[arg-type]
        windows, share = block.windows(feature, days), self.share(node)
        if share is None:
            return self.statistic(windows)
        return self.statistic(windows, block.shares[feature, days])[share]  # type: ignore[index]


@dataclass(frozen=True)
class Quantile(Rolling):
    """A rolling quantile, whose share must lie from 0 to 1."""

    def wrong(self, node: Node) -> str | None:
        share = node.args[2]
        if isinstance(share, bool) or not 0 <= share <= 1:  # type: ignore[operator]
            return f"must take a share from 0 to 1 as `qscore`, found {share!r}"
        return super().wrong(node)

    def share(self, node: Node) -> float | None:
        return float(node.args[2])  # type: ignore[arg-type]


@dataclass(frozen=True)
class Median(Rolling):
    """The rolling quantile of one half."""

    def share(self, node: Node) -> float | None:
        return 0.5


@dataclass(frozen=True)
class Count(Operator):
    """How many of the last N values are there, infinite ones among them."""

    parameters: Mapping[str, str] = field(default_factory=lambda: WINDOWED)

    def wrong(self, node: Node) -> str | None:
        return ROLLING_MEAN.wrong(node)

    def reach(self, node: Node, children: list[Reach]) -> Reach:
        return ROLLING_MEAN.reach(node, children)

    def compute(self, node: Node, block: Block) -> Plane:
        there = (~np.isnan(block.series(node.args[0]))).astype(np.float64)
        series, days = block.as_series(there), node.args[1]
        if not _is_whole(days):
            return statistics.smoothed(series, float(days))  # type: ignore[arg-type]
        return windows_of(series)(days_of(node)).total


@dataclass(frozen=True)
class Smoothed(Operator):
    """`EMA`: exponentially weighted by a span of N days, or by a share of a day between 0 and 1."""

    parameters: Mapping[str, str] = field(default_factory=lambda: WINDOWED)

    def wrong(self, node: Node) -> str | None:
        days = node.args[1]
        if isinstance(days, bool) or not days >= 0 or not math.isfinite(days):  # type: ignore[arg-type,operator]
            return f"must take a span of days, or a share between 0 and 1, found {days!r}"
        return None

    def reach(self, node: Node, children: list[Reach]) -> Reach:
        return EVER, children[0][1]

    def compute(self, node: Node, block: Block) -> Plane:
        series, days = block.masked(node.args[0]), float(node.args[1])  # type: ignore[arg-type]
        if days == 0:
            return statistics.smoothed_over_all(series)
        return statistics.smoothed(series, days if days < 1 else 2 / (days + 1))


@dataclass(frozen=True)
class Pair(Operator):
    """A statistic of two expressions over the last N days on which both are valid."""

    statistic: Callable[[Windows, Windows], Plane]
    flat: bool
    parameters: Mapping[str, str] = field(default_factory=lambda: PAIRED)

    def wrong(self, node: Node) -> str | None:
        days = node.args[2]
        if not _is_whole(days) or days < (1 if self.flat else 0):  # type: ignore[operator]
            return f"must look at a whole number of days, found {days!r}"
        return None

    def reach(self, node: Node, children: list[Reach]) -> Reach:
        back, ahead = super().reach(node, children)
        days = node.args[2]
        return (EVER if days == 0 else back + days - 1), ahead  # type: ignore[operator]

    def compute(self, node: Node, block: Block) -> Plane:
        left, right, days = node.args
        found = self.statistic(*block.paired(left, right, days))
        if self.flat:
            for side in (left, right):
                found[block.windows(side, days).deviation <= statistics.FLAT] = np.nan
        return found


@dataclass(frozen=True)
class CrossSection(Operator):
    """A statistic of the universe's members with a close of the day; other stocks have none then."""

    statistic: Callable[..., Plane]
    parameters: Mapping[str, str] = field(default_factory=lambda: {"x": PLANE})

    def compute(self, node: Node, block: Block) -> Plane:
        return block.ready(node)


@dataclass(frozen=True)
class Side(Operator):
    """A number of side data as it was known at the close of a day, or what follows from its age."""

    function: Callable[..., Plane]
    parameters: Mapping[str, str] = field(default_factory=lambda: {"x": PLANE})

    def wrong(self, node: Node) -> str | None:
        leaf, *numbers = node.args
        if not isinstance(leaf, Node) or leaf.operator != SIDE:
            return f"takes side data such as `side.valuation.pe`, found `{leaf}`"
        for days in numbers:
            if not _is_whole(days) or days < 0:  # type: ignore[operator]
                return f"must take a whole number of days, found {days!r}"
        return None

    def compute(self, node: Node, block: Block) -> Plane:
        leaf, *numbers = [node] if node.operator == SIDE else node.args
        assert isinstance(leaf, Node)
        return self.function(*block.side(*map(str, leaf.args)), *numbers)


def days_of(node: Node) -> int:
    """The window or shift of a node, which was checked to be whole."""
    days = node.args[1]
    assert isinstance(days, (int, float))
    return int(days)


def _is_whole(days: Node | Constant) -> bool:
    return isinstance(days, int) and not isinstance(days, bool)


def is_condition(node: Node) -> bool:
    """Whether its values are true or false."""
    return node.operator in (*COMPARISONS, "And", "Or", "Not", "IsMissing")


def _value(values: Plane, age: Plane) -> Plane:
    return values


def _age(values: Plane, age: Plane) -> Plane:
    return age


def _fresh(values: Plane, age: Plane, days: int) -> Plane:
    return np.where(age <= days, values, np.float32(np.nan))


def _sign(values: Plane) -> Plane:
    return np.sign(values.astype(np.float32))


ONE: Mapping[str, str] = {"feature": PLANE}
TWO: Mapping[str, str] = {"feature_left": ANY, "feature_right": ANY}
THREE: Mapping[str, str] = {"condition": PLANE, "feature_left": ANY, "feature_right": ANY}
COMPARISONS = ("Gt", "Ge", "Lt", "Le", "Eq", "Ne")
ROLLING_MEAN = Rolling(attrgetter("mean"))

OPERATORS: dict[str, Operator] = {
    "Abs": Elementwise(np.abs, ONE),
    "Sign": Elementwise(_sign, ONE),
    "Log": Elementwise(np.log, ONE),
    "Not": Elementwise(np.bitwise_not, ONE, conditions=True),
    "Power": Elementwise(np.power, TWO),
    "Add": Elementwise(np.add, TWO),
    "Sub": Elementwise(np.subtract, TWO),
    "Mul": Elementwise(np.multiply, TWO),
    "Div": Elementwise(np.divide, TWO),
    "Greater": Elementwise(np.maximum, TWO),
    "Less": Elementwise(np.minimum, TWO),
    "Gt": Elementwise(np.greater, TWO),
    "Ge": Elementwise(np.greater_equal, TWO),
    "Lt": Elementwise(np.less, TWO),
    "Le": Elementwise(np.less_equal, TWO),
    "Eq": Elementwise(np.equal, TWO),
    "Ne": Elementwise(np.not_equal, TWO),
    "And": Elementwise(np.bitwise_and, TWO, conditions=True),
    "Or": Elementwise(np.bitwise_or, TWO, conditions=True),
    "If": Elementwise(np.where, THREE),
    "Ref": Shift(),
    "Delta": Shift(difference=True),
    "Mean": ROLLING_MEAN,
    "Sum": Rolling(attrgetter("total")),
    "Std": Rolling(attrgetter("deviation")),
    "Var": Rolling(attrgetter("variance")),
    "Skew": Rolling(statistics.skewness, least=3, shares=False),
    "Kurt": Rolling(statistics.kurtosis, least=4, shares=False),
    "Max": Rolling(attrgetter("maximum")),
    "Min": Rolling(attrgetter("minimum")),
    "Med": Median(Windows.quantiles),
    "Mad": Rolling(statistics.absolute_deviation, shares=False),
    "Rank": Rolling(statistics.rank, shares=False),
    "Quantile": Quantile(
        Windows.quantiles, shares=False, parameters={"feature": PLANE, "N": DAYS, "qscore": NUMBER}
    ),
    "Count": Count(),
    "IdxMax": Rolling(statistics.place_of_maximum, shares=False),
    "IdxMin": Rolling(statistics.place_of_minimum, shares=False),
    "Slope": Rolling(statistics.slope, shares=False),
    "Rsquare": Rolling(statistics.r_square, shares=False),
    "Resi": Rolling(statistics.residual, shares=False),
    "WMA": Rolling(statistics.weighted_mean, shares=False),
    "EMA": Smoothed(),
    "Corr": Pair(statistics.correlation, flat=True),
    "Cov": Pair(statistics.covariance, flat=False),
    "IsMissing": Elementwise(np.isnan, ONE),
    SIDE: Side(_value, {"NAME": TEXT, "FIELD": TEXT}),
    "Age": Side(_age),
    "Fresh": Side(_fresh, {"x": PLANE, "N": DAYS}),
    "CSRank": CrossSection(cross_section.rank),
    "CSZScore": CrossSection(cross_section.zscore),
    "CSNeutralize": CrossSection(cross_section.neutralize, {"x": PLANE, "groups": TEXT}),
}
