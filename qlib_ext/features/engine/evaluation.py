"""Expressions evaluated for a whole market, a few stocks at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.features.engine.block import Block, no_side_data
from qlib_ext.features.engine.graph import FIELD, SIDE, Graph, Node, walk
from qlib_ext.features.engine.operators import (
    OPERATORS,
    CrossSection,
    Elementwise,
    Pair,
    Reach,
    Rolling,
    Shift,
    days_of,
)
from qlib_ext.features.engine.parsing import parse
from qlib_ext.features.engine.rolling import Plane
from qlib_ext.features.market_panel import MarketPanel

CELLS = (
    1 << 16
)  # days times stocks that are evaluated at a time: a plane of them stays in the processor's cache
WIDEST = 512  # stocks of a block, where its days can be few
HISTORY = 8  # of the days that windows reach back, a block has so many times as much

Groups = Callable[[str], Plane]  # from the name of side data to the group `[D, S]` of each stock and day
# From table and field, days and stocks to what was known of side data then, and how many days ago it became so.
Side = Mapping[tuple[str, str], Callable[[slice, Plane], tuple[Plane, Plane]]]


@dataclass(frozen=True)
class Values:
    """What an expression is worth for some stocks and days.

    Attributes
    ----------
    expression
        Position of the expression.
    days, stocks
        Positions in the market; `[n]` of stocks, ascending.
    plane
        `[days, stocks]`; what a stock has before its first bar and after its last is nobody's.
    """

    expression: int
    days: slice
    stocks: Plane
    plane: Plane


class Program:
    """Expressions as one graph.

    Parameters
    ----------
    expressions
        In Qlib's language.

    Attributes
    ----------
    roots
        The node of each expression.
    fields
        Names of the fields that they read.
    side_fields
        Name and field of the side data that they read.
    group_names
        Names of the side data that they group stocks by.
    reach
        How many days before and after a day their values can depend on.
    plain
        Whether they are arithmetic of fields and of fields shifted by some days: then their values are Qlib's bit for bit.

    Raises
    ------
    UserError
        If one of them is no expression.
    """

    def __init__(self, expressions: Sequence[str]) -> None:
        graph = Graph()
        self.expressions = tuple(expressions)
        self.roots = [parse(text, graph) for text in expressions]
        self.nodes = list(walk(self.roots))
        self.fields = tuple(dict.fromkeys(str(node.args[0]) for node in self.nodes if node.operator == FIELD))
        self.side_fields = tuple(
            dict.fromkeys(
                (str(node.args[0]), str(node.args[1])) for node in self.nodes if node.operator == SIDE
            )
        )
        self.reach = reach_of(self.roots)
        self.plain = math.isfinite(self.reach[0]) and all(
            isinstance(_operator(node), (Elementwise, Shift, type(None))) for node in self.nodes
        )
        self._across = [node for node in self.nodes if isinstance(_operator(node), CrossSection)]
        self.group_names = tuple(
            dict.fromkeys(str(node.args[1]) for node in self._across if len(node.args) > 1)
        )
        self._steps = _steps(self.roots)
        self._shares: dict[tuple[Node, int], dict[float, None]] = {}
        for node in self.nodes:
            kind = _operator(node)
            if isinstance(kind, Rolling) and (share := kind.share(node)) is not None:
                self._shares.setdefault((node.children[0], days_of(node)), {})[share] = None

    def check_fields(self, market: MarketPanel, optional: Sequence[str] = ()) -> None:
        """Raise a UserError if the market lacks a field that is not optional."""
        has = [field for field in market.fields if field not in market.missing_fields]
        for text, root in zip(self.expressions, self.roots, strict=True):
            for node in walk([root]):
                if node.operator == FIELD and node.args[0] not in (*has, *optional):
                    raise UserError(
                        f"{text!r} needs the field `{node.args[0]}`; the panel has {', '.join(has)}"
                    )

    def evaluate(
        self,
        market: MarketPanel,
        groups: Groups | None = None,
        wanted: Plane | None = None,
        side: Side | None = None,
    ) -> Iterator[Values]:
        """The values of every expression, some days at a time, and of these some stocks at a time.

        Parameters
        ----------
        groups
            From the name of side data to the groups of its stocks.
        wanted
            `[D, S]` bool: the days and stocks that are asked for; others may be left out. By default all that are
            listed.
        side
            What was known of each of `side_fields`.
        """
        across: dict[Node, Plane] = {}
        for node in self._across:  # each after those that it holds
            across[node] = self._of_the_day(node, market, across, groups, side)
        yield from self._values(
            self._steps, market, across, side, self.reach, market.listed if wanted is None else wanted
        )

    def _values(
        self,
        steps: Sequence[Step],
        market: MarketPanel,
        across: Mapping[Node, Plane],
        side: Side | None,
        reach: Reach,
        wanted: Plane,
    ) -> Iterator[Values]:
        begun = first_days(market.listed)
        for days, read, stocks in blocks(wanted, reach):
            block = self._block(market, read, stocks, begun, across, side)
            inside = slice(days.start - read.start, days.stop - read.start)
            for step in steps:
                with np.errstate(all="ignore"):
                    plane = block.value(step.root)
                assert isinstance(plane, np.ndarray)
                yield Values(step.position, days, stocks, plane[inside])
                block.forget(step.nodes)

    def _of_the_day(
        self,
        node: Node,
        market: MarketPanel,
        across: Mapping[Node, Plane],
        groups: Groups | None,
        side: Side | None,
    ) -> Plane:
        inner = np.full(market.members.shape, np.nan)
        roots = [node.children[0]]
        wanted = market.present  # whether a suspended stock is listed, only later bars tell
        for values in self._values(_steps(roots), market, across, side, reach_of(roots), wanted):
            inner[values.days, values.stocks] = values.plane
        inner[~(np.isfinite(inner) & wanted)] = np.nan
        operator = _operator(node)
        assert isinstance(operator, CrossSection)
        names = [str(name) for name in node.args[1:]]
        if names and groups is None:
            raise UserError(f"`{node}` groups stocks by side data, which only features can")
        return operator.statistic(inner, *(groups(name) for name in names))  # type: ignore[misc]

    def _block(
        self,
        market: MarketPanel,
        days: slice,
        stocks: Plane,
        begun: Plane,
        across: Mapping[Node, Plane],
        side: Side | None,
    ) -> Block:
        listed = market.listed[days][:, stocks]
        missing = np.full(listed.shape, np.nan, np.float32)
        planes = {
            name: np.ascontiguousarray(market.field(name)[days][:, stocks])
            if name in market.fields
            else missing
            for name in self.fields
        }
        return Block(
            planes,
            listed,
            ages(days, begun[stocks]),
            _compute,
            {node: plane[days][:, stocks] for node, plane in across.items()},
            no_side_data if side is None else lambda name, field: side[name, field](days, stocks),
            {windows: tuple(shares) for windows, shares in self._shares.items()},
        )


@dataclass(frozen=True)
class Step:
    """An expression to evaluate, and what no later one asks for."""

    position: int
    root: Node
    nodes: Collection[Node]


def _steps(roots: Sequence[Node]) -> list[Step]:
    """The expressions in an order in which those over the same windows follow each other."""
    windows = [sorted({(str(child), days) for child, days in _windows(root)}, reverse=True) for root in roots]
    order = sorted(range(len(roots)), key=lambda i: windows[i])
    last_node: dict[Node, int] = {}
    for place, position in enumerate(order):
        last_node.update(dict.fromkeys(walk([roots[position]]), place))
    return [
        Step(position, roots[position], [node for node, last in last_node.items() if last == place])
        for place, position in enumerate(order)
    ]


def _windows(root: Node) -> list[tuple[Node, int]]:
    """The windows that an expression looks at: of which node, and how long."""
    return [
        (child, int(node.args[len(node.children)]))  # type: ignore[arg-type]
        for node in walk([root])
        if isinstance(_operator(node), (Rolling, Pair))
        for child in node.children
    ]


def _operator(node: Node) -> object:
    return OPERATORS.get(node.operator)


def _compute(node: Node, block: Block) -> Plane:
    return OPERATORS[node.operator].compute(node, block)


def first_days(listed: Plane) -> Plane:
    """Position of the first day of each stock, `[S]` int32; D where it has none."""
    return np.where(listed.any(axis=0), np.argmax(listed, axis=0), len(listed)).astype(np.int32)


def ages(days: slice, begun: Plane) -> Plane:
    """How many days each stock's series has by each day, `[days, S]` int32: 1 on its first, below 1 before."""
    return np.arange(days.start + 1, days.stop + 1, dtype=np.int32)[:, None] - begun


def blocks(wanted: Plane, reach: Reach) -> Iterator[tuple[slice, slice, Plane]]:
    """Days to evaluate, days to read for that, and those stocks of which some of the days are wanted.

    Which days belong together does not follow from what is wanted.
    """
    days = len(wanted)
    back, ahead = (int(min(each, days)) for each in reach)
    long = days if back + ahead >= days else max(CELLS // WIDEST, HISTORY * (back + ahead))
    wide = min(WIDEST, max(16, CELLS // (long + back + ahead)))
    for first in range(0, days, long):
        stop = min(first + long, days)
        read = slice(max(0, first - back), min(days, stop + ahead))
        stocks = np.flatnonzero(wanted[first:stop].any(axis=0))
        for part in np.array_split(stocks, -(-len(stocks) // wide)) if len(stocks) else []:
            yield slice(first, stop), read, part


# -- one expression ----------------------------------------------------------------------------------------


def reach(expression: str) -> int:
    """How many days after t the expression's value at t can depend on (0 when on none).

    It errs on the safe side, as Qlib's own count does: a `Ref` to the past around one to the future does not lower it.
    """
    return int(reach_of([parse(expression)])[1])


def reach_of(roots: Sequence[Node]) -> Reach:
    """How many days before and after t the values at t can depend on; infinitely many where it is all of them."""
    found: dict[Node, Reach] = {}
    for node in walk(roots):
        children = [found[child] for child in node.children]
        found[node] = (0, 0) if node.operator == FIELD else OPERATORS[node.operator].reach(node, children)
    return max(found[root][0] for root in roots), max(found[root][1] for root in roots)


def evaluate(expression: str, panel: MarketPanel) -> np.ndarray:
    """Evaluate a Qlib expression for all days and stocks of a panel.

    Parameters
    ----------
    expression
        Qlib's syntax, such as `Ref($close, -2) / Ref($close, -1) - 1`, over fields of the panel.

    Returns
    -------
    ndarray
        `[D, S]` float32, NaN where a price is missing, and on days before a stock's first and after its last bar.

    Raises
    ------
    UserError
        If the expression cannot be parsed, needs a field that the panel lacks, or reads more than the panel holds.

    Notes
    -----
    As in Qlib, a stock's series runs from its first to its last bar: `Ref($close, 0)` is its first close, and what
    reaches beyond its last bar is missing.
    """
    return evaluator(expression, panel)(slice(0, len(panel.calendar)))


def evaluator(expression: str, panel: MarketPanel) -> Callable[[slice], np.ndarray]:
    """`evaluate`, for some days at a time: from a run of days to `[days, S]`, the same numbers.

    Arithmetic of shifted fields is done when its days are asked for, and costs no more than them; anything else is
    done at once for all days, and kept.
    """
    program = Program([expression])
    program.check_fields(panel)
    back, ahead = program.reach
    if not program.plain:
        whole = np.full(panel.members.shape, np.nan, np.float32)
        for values in program.evaluate(panel):
            whole[values.days, values.stocks] = values.plane
        whole[~panel.listed] = np.nan
        return lambda days: whole[days]

    def of(days: slice) -> np.ndarray:
        first = max(0, days.start - int(back))
        stop = min(len(panel.calendar), days.stop + int(ahead))
        fields = {name: np.ascontiguousarray(panel.field(name)[first:stop]) for name in program.fields}
        with np.errstate(all="ignore"):
            listed = panel.listed[first:stop]
            begun = first_days(listed)
            values = Block(fields, listed, ages(slice(0, len(listed)), begun), _compute).series(
                program.roots[0]
            )
        return values[days.start - first : days.stop - first].astype(np.float32)

    return of
