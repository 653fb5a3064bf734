"""Some stocks and days of a market, and what was computed of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.features.engine.graph import FIELD, Constant, Node
from qlib_ext.features.engine.rolling import Known, Lengths, Plane, Series, Windows, windows_of


def no_side_data(name: str, field: str) -> tuple[Plane, Plane]:
    """What a block without side data says of it."""
    raise UserError(f"`side.{name}.{field}` is side data, which only features read")


@dataclass
class Block:
    """Evaluates nodes for some stocks and days; every node, and every window, once.

    Parameters
    ----------
    fields
        Name -> `[D, S]` float32.
    listed
        `[D, S]` bool: the days from a stock's first to its last bar.
    age
        `[D, S]` int32: how many days the stock's series has by then, 1 on its first day.
    compute
        From a node that is no field, and the block, to its values.
    across
        Nodes that look at all stocks of a day -> their values `[D, S]` for the stocks of this block.
    side
        From the table and field of side data to its values `[D, S]` for this block, and how many calendar days ago each
        became known.
    shares
        Node and days -> shares of the quantiles that will be asked of these windows.
    """

    fields: Mapping[str, Plane]
    listed: Plane
    age: Plane
    compute: Callable[[Node, Block], Plane]
    across: Mapping[Node, Plane] = dataclasses.field(default_factory=dict)
    side: Callable[[str, str], tuple[Plane, Plane]] = no_side_data
    shares: Mapping[tuple[Node, int], Collection[float]] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self._values: dict[Node, Plane] = {}
        self._series: dict[Node, Plane] = {}
        self._masked: dict[Node, Series] = {}
        self._windows: dict[Node, Lengths[Windows]] = {}
        self._pairs: dict[tuple[Node, Node], tuple[Lengths[Windows], Lengths[Windows]]] = {}
        self._known: Known = []

    @property
    def first(self) -> Plane:
        """Position of each stock's first day, `[S]`."""
        return np.argmax(self.listed, axis=0)

    def value(self, node: Node | Constant) -> Plane | Constant:
        """The values of a node `[D, S]`; whatever a stock has before its first bar and after its last is nobody's."""
        if not isinstance(node, Node):
            return node
        if node not in self._values:
            if node.operator == FIELD:
                self._values[node] = self.fields[str(node.args[0])]
            else:
                self._values[node] = self.compute(node, self)
        return self._values[node]

    def ready(self, node: Node) -> Plane:
        """The values of a node that looks at all stocks of a day."""
        return self.across[node]

    def series(self, node: Node | Constant) -> Plane:
        """The values of a node, NaN before a stock's first bar and after its last."""
        assert isinstance(node, Node)
        if node not in self._series:
            values = self.value(node)
            assert isinstance(values, np.ndarray)
            if values.dtype.kind != "f":
                values = values.astype(np.float64)
            if node.operator != FIELD:
                values = np.where(self.listed, values, values.dtype.type(np.nan))
            self._series[node] = values
        return self._series[node]

    def masked(self, node: Node | Constant) -> Series:
        """The series as windows see it."""
        assert isinstance(node, Node)
        if node not in self._masked:
            self._masked[node] = self.as_series(self.series(node))
        return self._masked[node]

    def as_series(self, values: Plane) -> Series:
        """Values of these stocks and days, as windows see them."""
        return Series(values, self.listed, self.age, self._known)

    def windows(self, node: Node | Constant, days: Node | Constant) -> Windows:
        """The last days of a node."""
        assert isinstance(days, int)
        assert isinstance(node, Node)
        return self._windows_of(node)(days)

    def _windows_of(self, node: Node) -> Lengths[Windows]:
        if node not in self._windows:
            self._windows[node] = windows_of(self.masked(node))
        return self._windows[node]

    def paired(
        self, left: Node | Constant, right: Node | Constant, days: Node | Constant
    ) -> tuple[Windows, Windows]:
        """The last days of two nodes, each missing where the other is."""
        assert isinstance(left, Node)
        assert isinstance(right, Node)
        assert isinstance(days, int)
        if (left, right) not in self._pairs:
            both = self.masked(left).valid & self.masked(right).valid
            self._pairs[left, right] = self._among(left, both), self._among(right, both)
        first, second = self._pairs[left, right]
        return first(days), second(days)

    def _among(self, node: Node, valid: Plane) -> Lengths[Windows]:
        """The windows of a node, of certain days alone."""
        if np.array_equal(self.masked(node).valid, valid):
            return self._windows_of(node)
        return windows_of(Series(self.masked(node).values, valid, self.age, self._known))

    def forget(self, nodes: Collection[Node]) -> None:
        """Drop what nobody asks for any more."""
        for node in nodes:
            for held in (self._values, self._series, self._masked, self._windows):
                held.pop(node, None)
        for pair in [pair for pair in self._pairs if not {*pair}.isdisjoint(nodes)]:
            del self._pairs[pair]
