"""What a label is: a number for each stock and day that later days tell."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.features.engine import evaluation
from qlib_ext.features.engine.graph import Node, walk
from qlib_ext.features.engine.operators import OPERATORS, Shift, days_of
from qlib_ext.features.engine.parsing import parse
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.market.store import QlibStore


@dataclass(frozen=True)
class LabelValues:
    """A label on a market.

    Attributes
    ----------
    of
        From a run of days to `[days, S]` float32, NaN where there is no label.
    notes
        What a reader of the results should know, as sentences.
    """

    of: Callable[[slice], np.ndarray]
    notes: tuple[str, ...] = ()


class Label(Rebuildable, ABC):
    """One label of a handler, before any processor.

    Attributes
    ----------
    horizon_days
        How many days after t a label of t can follow from: segments are purged by it.
    span_days
        How many days of return a label holds. Labels of neighbouring days share all but one of them, which whoever says
        how sure a mean over days is must know; 1 where they share none.
    fields
        Fields of the market that it reads.
    """

    horizon_days: int
    span_days: int = 1
    fields: tuple[str, ...] = ("close",)

    def against(self, benchmark: str | None) -> Label:
        """The label of a dataset that compares with `benchmark`; a UserError if the label needs one and there is none."""
        return self

    def check_store(self, store: QlibStore) -> None:
        """Raise a UserError if the store lacks what the label needs beside the close of the stocks."""

    @abstractmethod
    def identity(self, store: QlibStore) -> Any:
        """What decides the label beside the bars, ready for JSON."""

    @abstractmethod
    def values(self, market: MarketPanel, store: QlibStore) -> LabelValues:
        """The label of every stock and day of a market, which was read from `store`."""


class ExpressionLabel(Label):
    """A label that is an expression in Qlib's language.

    Parameters
    ----------
    expression
        Such as `Ref($close, -2) / Ref($close, -1) - 1`.

    Raises
    ------
    UserError
        If it is none.
    """

    def __init__(self, expression: str) -> None:
        self.expression = expression
        program = evaluation.Program([expression])
        self.fields = program.fields
        self.horizon_days = int(program.reach[1])
        self.span_days = span(expression)

    def __str__(self) -> str:
        return self.expression

    def identity(self, store: QlibStore) -> str:
        return self.expression

    def values(self, market: MarketPanel, store: QlibStore) -> LabelValues:
        return LabelValues(evaluation.evaluator(self.expression, market))


def span(expression: str) -> int:
    """How many days lie between the first and the last day that an expression's value of t follows from, at least 1.

    Days that reach back for ever are left out: what they add decays.
    """
    found: dict[Node, tuple[float, float]] = {}
    root = parse(expression)
    for node in walk([root]):
        if not node.children:  # a field
            found[node] = (0, 0)
            continue
        first = min(found[child][0] for child in node.children)
        last = max(found[child][1] for child in node.children)
        operator = OPERATORS[node.operator]
        if isinstance(operator, Shift) and not operator.difference and days_of(node) != 0:
            found[node] = first - days_of(node), last - days_of(node)
        else:
            back, ahead = operator.reach(node, [(0, 0)] * len(node.children))
            found[node] = first - (back if np.isfinite(back) else 0), last + ahead
    first, last = found[root]
    return max(1, int(last - first))
