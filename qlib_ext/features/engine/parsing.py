"""From the text of an expression to a graph, without evaluating anything."""

from __future__ import annotations

import ast
import operator
import re
from collections.abc import Callable

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.features.engine.graph import FIELD, SIDE, Constant, Graph, Node
from qlib_ext.features.engine.operators import ANY, OPERATORS, PLANE, TEXT, Operator

LONGEST = 10_000  # characters: Python's parser has a stack of its own
DEEPEST = 100  # operators inside each other
# Operators of Qlib that read another instrument's bars, dates, or a point-in-time store.
BEYOND = ("ChangeInstrument", "Mask", "TResample", "P", "PRef")
SYMBOLS: dict[type[ast.operator] | type[ast.cmpop], str] = {
    ast.Add: "Add",
    ast.Sub: "Sub",
    ast.Mult: "Mul",
    ast.Div: "Div",
    ast.Pow: "Power",
    ast.BitAnd: "And",
    ast.BitOr: "Or",
    ast.Gt: "Gt",
    ast.GtE: "Ge",
    ast.Lt: "Lt",
    ast.LtE: "Le",
    ast.Eq: "Eq",
    ast.NotEq: "Ne",
}
NUMBERS: dict[type[ast.operator], Callable[[float, float], float]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}
_FIELD = re.compile(r"\$(?=[\w$])")


def parse(text: object, graph: Graph | None = None) -> Node:
    """The graph of an expression.

    Parameters
    ----------
    text
        Such as `Ref($close, -2) / Ref($close, -1) - 1`.
    graph
        Where nodes are made; expressions of one graph share what they have in common.

    Raises
    ------
    UserError
        If it is no expression; the message names the expression, the place in it, and the nearest operator.
    """
    return _Parser(checked_text(text), Graph() if graph is None else graph).parse()


def checked_text(given: object) -> str:
    """A text that is not too long for Python's parser; raises a UserError otherwise."""
    if not isinstance(given, str) or not given.strip():
        raise UserError(f"a Qlib expression must be a text such as `$close`, found {brief(given)}")
    if len(given) > LONGEST:
        raise UserError(f"a Qlib expression must have at most {LONGEST} characters, found {len(given)}")
    return given


class _Parser:
    """Reads one text; `$close` becomes a name of the same length, so that places stay what they are."""

    def __init__(self, text: str, graph: Graph) -> None:
        self.text, self.graph = text, graph

    def parse(self) -> Node:
        start = len(self.text) - len(self.text.lstrip())
        self.source = self.text.strip()
        self.offset = start
        try:
            tree = ast.parse(_FIELD.sub("_", self.source).replace("\n", " "), mode="eval")
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            place = getattr(error, "offset", None)  # of some; others concern the whole
            reason = getattr(error, "msg", None) or str(error) or type(error).__name__
            at = f" at character {place + start}" if place else ""
            raise UserError(f"{brief(self.text)} is no Qlib expression: {reason}{at}") from error
        found = self.read(tree.body, 0)
        if not isinstance(found, Node):
            raise UserError(f"{brief(self.text)} is no Qlib expression: it names no field, such as `$close`")
        return found

    def fail(self, node: ast.AST, why: str) -> UserError:
        """An error that names the expression, the part and its place."""
        start = self.place(getattr(node, "col_offset", 0))
        part = self.source[start : self.place(getattr(node, "end_col_offset", 0))]
        return UserError(
            f"{brief(self.text)} is no Qlib expression: `{part:.60}` at character {start + self.offset + 1} {why}"
        )

    def place(self, offset: int) -> int:
        """The character at an offset in bytes, which is what Python's parser counts."""
        return len(self.source.encode()[:offset].decode(errors="ignore"))

    def is_field(self, node: ast.Name) -> bool:
        return self.source[self.place(node.col_offset)] == "$"

    def read(self, node: ast.expr, depth: int) -> Node | Constant:
        if depth > DEEPEST:
            raise self.fail(node, f"is more than {DEEPEST} operators deep: give its parts names of their own")
        if isinstance(node, ast.Constant) and isinstance(node.value, (bool, int, float)):
            return node.value
        if isinstance(node, ast.Name):
            return self.field(node)
        match node:
            case ast.Attribute(ast.Attribute(ast.Name("side"), name), field):
                return self.graph.node(SIDE, name, field)
        if isinstance(node, ast.BinOp) and type(node.op) in SYMBOLS:
            left, right = self.read(node.left, depth + 1), self.read(node.right, depth + 1)
            return self.binary(node, type(node.op), left, right)
        if isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
            return self.signed(node, depth)
        if isinstance(node, ast.Compare):
            if len(node.ops) > 1 or type(node.ops[0]) not in SYMBOLS:
                raise self.fail(node, "must compare two things: put `&` between comparisons in brackets")
            left, right = self.read(node.left, depth + 1), self.read(node.comparators[0], depth + 1)
            return self.binary(node, type(node.ops[0]), left, right)
        if isinstance(node, ast.Call):
            return self.call(node, depth)
        raise self.fail(
            node,
            "is no field such as `$close`, no side data such as `side.valuation.pe`, no operator such as `Ref(...)`, no "
            "number, nor arithmetic or a comparison of them",
        )

    def field(self, node: ast.Name) -> Node:
        if not self.is_field(node):
            raise self.fail(node, f"is no field: a field is written `${node.id}`")
        if node.id.startswith("__"):  # `$$roe`
            raise UserError(
                f"{brief(self.text)} must read bars of the stock itself alone; `PFeature` reads more"
            )
        return self.graph.node(FIELD, node.id[1:].lower())  # the store's files are lower-case

    def binary(
        self,
        node: ast.expr,
        symbol: type[ast.operator] | type[ast.cmpop],
        left: Node | Constant,
        right: Node | Constant,
    ) -> Node | Constant:
        if isinstance(left, Node) or isinstance(right, Node):
            return self.checked(node, SYMBOLS[symbol], left, right)
        fold = NUMBERS.get(symbol)  # type: ignore[arg-type]
        if fold is None:
            raise self.fail(node, "is arithmetic of numbers alone: write the number")
        try:
            return fold(float(left), float(right)) if symbol is ast.Div else fold(left, right)  # type: ignore[arg-type]
        except (ZeroDivisionError, OverflowError) as error:
            raise self.fail(node, f"is no number: {error}") from error

    def signed(self, node: ast.UnaryOp, depth: int) -> Node | Constant:
        value = self.read(node.operand, depth + 1)
        if isinstance(value, Node):
            raise self.fail(
                node, "has a sign before an expression, which Qlib does not know: write `-1 * ...`"
            )
        assert not isinstance(value, str)
        return -value if isinstance(node.op, ast.USub) else value

    def call(self, node: ast.Call, depth: int) -> Node:
        name = node.func.id if isinstance(node.func, ast.Name) else ""
        if name in BEYOND:
            raise UserError(
                f"{brief(self.text)} must read bars of the stock itself alone; `{name}` reads more"
            )
        kind = OPERATORS.get(name)
        if kind is None:
            raise self.fail(node.func, f"is no operator{nearest(name, OPERATORS)}")
        given = self.ordered(node, name, kind)
        args = [
            self.argument(arg, name, parameter, what, depth)
            for arg, (parameter, what) in zip(given, kind.parameters.items(), strict=True)
        ]
        return self.checked(node, name, *args)

    def ordered(self, node: ast.Call, name: str, kind: Operator) -> list[ast.expr]:
        """The arguments in the order of the parameters."""
        names = list(kind.parameters)
        taken = dict(zip(names, node.args, strict=False))
        for keyword in node.keywords:
            if keyword.arg not in names or keyword.arg in taken:
                raise self.fail(node, f"must be {name}({', '.join(names)})")
            taken[keyword.arg] = keyword.value
        if len(node.args) > len(names) or len(taken) != len(names):
            found = len(node.args) + len(node.keywords)
            raise self.fail(node, f"must be {name}({', '.join(names)}), found {found} arguments")
        return [taken[each] for each in names]

    def argument(self, node: ast.expr, name: str, parameter: str, what: str, depth: int) -> Node | Constant:
        if what == TEXT:
            if isinstance(node, ast.Name) and not self.is_field(node):
                return node.id
            if isinstance(node, ast.Constant) and isinstance(node.value, str):
                return node.value
            raise self.fail(node, f"must be the name that `{name}` takes as `{parameter}`")
        value = self.read(node, depth + 1)
        if what == PLANE and not isinstance(value, Node):
            raise self.fail(
                node, f"must be an expression over a field, which `{name}` takes as `{parameter}`"
            )
        if what not in (PLANE, ANY) and isinstance(value, Node):
            raise self.fail(node, f"must be a number, which `{name}` takes as `{parameter}`")
        return value

    def checked(self, node: ast.expr, name: str, *args: Node | Constant) -> Node:
        made = self.graph.node(name, *args)
        if not made.children:
            raise self.fail(node, "names no field, such as `$close`")
        wrong = OPERATORS[name].wrong(made)
        if wrong is not None:
            raise self.fail(node, wrong)
        return made
