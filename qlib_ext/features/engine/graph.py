"""An expression as a graph, in which what is written twice stands once."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

Constant = bool | int | float | str


@dataclass(frozen=True, eq=False)
class Node:
    """A field, or an operator with its arguments; one object for all places that say the same.

    Attributes
    ----------
    operator
        Its name in the language; `FIELD` for a field of the bars, `SIDE` for one of side data.
    args
        Nodes, numbers, and texts such as the name of a field.
    """

    operator: str
    args: tuple[Node | Constant, ...]

    @property
    def children(self) -> tuple[Node, ...]:
        """Those arguments that are nodes."""
        return tuple(arg for arg in self.args if isinstance(arg, Node))

    def __str__(self) -> str:
        if self.operator == FIELD:
            return f"${self.args[0]}"
        if self.operator == SIDE:
            return f"side.{self.args[0]}.{self.args[1]}"
        return f"{self.operator}({', '.join(str(arg) for arg in self.args)})"


FIELD, SIDE = "$", "side"


@dataclass
class Graph:
    """Makes nodes, and gives the same object for the same operator and arguments."""

    _known: dict[tuple[object, ...], Node] = field(default_factory=dict)

    def node(self, operator: str, *args: Node | Constant) -> Node:
        """The node; `2` and `2.0` are different arguments."""
        key = (operator, *((type(arg), arg) for arg in args))
        if key not in self._known:
            self._known[key] = Node(operator, args)
        return self._known[key]


def walk(roots: Sequence[Node]) -> Iterator[Node]:
    """Every node once, each after its children."""
    seen: set[Node] = set()
    waiting = [(root, False) for root in reversed(roots)]
    while waiting:
        node, ready = waiting.pop()
        if ready:
            yield node
        elif node not in seen:
            seen.add(node)
            waiting.append((node, True))
            waiting += [(child, False) for child in reversed(node.children)]
