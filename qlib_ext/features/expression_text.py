"""What a Qlib expression may say, read before Qlib evaluates it.

Qlib turns `Ref($close, -2)` into Python and calls `eval` on it, so a label, a price or a price limit of a workflow could
be any program. Here the text is parsed and held against Qlib's own grammar first: fields, operators that Qlib knows,
numbers, and arithmetic, comparisons, `&` and `|` between them.
"""

from __future__ import annotations

import ast
import re
from typing import Any

from qlib.data import ops
from qlib.data.data import ExpressionD, LocalExpressionProvider
from qlib.data.ops import Operators
from qlib.utils import parse_field

from qlib_ext.checks import UserError, brief, nearest
from qlib_ext.features.engine.parsing import checked_text

DEEPEST = 200  # levels, each of which Qlib goes down by several calls
_ARITHMETIC = (ast.Add, ast.Sub, ast.Mult, ast.Div, ast.BitAnd, ast.BitOr)
_COMPARISONS = (ast.Gt, ast.GtE, ast.Lt, ast.LtE, ast.Eq, ast.NotEq)
_LEAVES = ("Feature", "PFeature")  # what Qlib makes of `$close` and `$$roe`
# A field, a frequency, an instrument: nothing that could lead to another folder, as `..` does.
_TEXT = re.compile(r"(?!\.+$)[\w.^-]+")


def check_expression(given: object) -> str:
    """Return a text if it is a Qlib expression and nothing else.

    Parameters
    ----------
    given
        Such as `Ref($close, -2) / Ref($close, -1) - 1`.

    Raises
    ------
    UserError
        If it is no text, is no Python to begin with, names an operator that Qlib does not know (the nearest are
        named), or holds anything else: an attribute, a name, a call of a call, a power of numbers, ...
    """
    expression = checked_text(given)
    try:
        tree = ast.parse(parse_field(expression).strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        reason = getattr(error, "msg", None) or str(error) or type(error).__name__
        raise UserError(f"{brief(expression)} is no Qlib expression: {reason}") from error
    depth = _depth(tree.body)
    if depth > DEEPEST:
        raise UserError(
            f"a Qlib expression must be nested in at most {DEEPEST} levels, found {depth} in {brief(expression)}; brackets "
            "make a long sum shallow"
        )
    _check(tree.body, expression)
    return expression


def fields(expression: str) -> set[str]:
    """Names of the fields that an expression reads from bars, in lower case, as the store's files have them."""
    tree = ast.parse(parse_field(check_expression(expression)).strip(), mode="eval")
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call) and _operator(node) == "Feature"]
    names = [argument for call in calls for argument in call.args if isinstance(argument, ast.Constant)]
    return {str(name.value).lower() for name in names}


class CheckedExpressionProvider(LocalExpressionProvider):
    """Qlib's provider of expressions, which evaluates no text before `check_expression` has read it."""

    def get_expression_instance(self, field: Any) -> Any:
        """The expression that the text says."""
        return super().get_expression_instance(check_expression(field))


def guard() -> None:
    """Have Qlib read every expression by `CheckedExpressionProvider` from here on, if it reads them by its own."""
    provider = ExpressionD.__dict__.get("_provider")
    if type(provider) is LocalExpressionProvider:
        ExpressionD.register(CheckedExpressionProvider(time2idx=provider.time2idx))


def _depth(tree: ast.expr) -> int:
    """Levels of a tree, counted without a call for each."""
    level: list[ast.AST] = [tree]
    depth = 0
    while level:
        depth += 1
        level = [child for node in level for child in ast.iter_child_nodes(node)]
    return depth


def _check(node: ast.expr, whole: str) -> None:
    if isinstance(node, ast.Constant):
        if isinstance(node.value, (bool, int, float)):
            return
    elif isinstance(node, ast.BinOp) and isinstance(node.op, _ARITHMETIC):
        return _check_all([node.left, node.right], whole)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.USub, ast.UAdd)):
        return _check(node.operand, whole)
    elif isinstance(node, ast.Compare) and all(isinstance(op, _COMPARISONS) for op in node.ops):
        return _check_all([node.left, *node.comparators], whole)
    elif isinstance(node, ast.Call):
        return _check_call(node, whole)
    raise UserError(
        f"{brief(whole)} is no Qlib expression: `{_shown(node)}` in it is no field such as `$close`, no operator such as "
        "`Ref(...)`, no number, nor arithmetic or a comparison of them"
    )


def _check_call(node: ast.Call, whole: str) -> None:
    operator = _operator(node)
    if operator is None:
        raise UserError(f"{brief(whole)} is no Qlib expression: `{_shown(node.func)}` is no operator of Qlib")
    if not _is_known(operator):
        known = [kind.__name__ for kind in ops.OpsList]
        raise UserError(
            f"{brief(whole)} is no Qlib expression: Qlib knows no operator `{operator}`{nearest(operator, known)}"
        )
    given = [*node.args, *(keyword.value for keyword in node.keywords)]
    texts = [x for x in given if isinstance(x, ast.Constant) and isinstance(x.value, str)]
    if operator in _LEAVES and (len(texts), len(given)) != (1, 1):
        raise UserError(f"{brief(whole)} is no Qlib expression: `{_shown(node)}` names no field")
    for text in texts:  # an argument of some operators, such as a frequency; alone it is nothing
        if not _TEXT.fullmatch(str(text.value)):
            raise UserError(f"{brief(whole)} is no Qlib expression: {_shown(text)} in it is no name")
    _check_all([x for x in given if x not in texts], whole)


def _operator(node: ast.Call) -> str | None:
    """The name of the operator that is called; None where something else is."""
    called = node.func
    if (
        isinstance(called, ast.Attribute)
        and isinstance(called.value, ast.Name)
        and called.value.id == "Operators"
    ):
        return called.attr
    return None


def _shown(node: ast.AST) -> str:
    """As a person writes it, before Qlib has made Python of it."""
    fields_back = re.sub(r"Operators\.P?Feature\('(\w+)'\)", r"$\1", ast.unparse(node))
    return fields_back.replace("Operators.", "")


def _check_all(nodes: list[ast.expr], whole: str) -> None:
    for node in nodes:
        _check(node, whole)


def _is_known(operator: str) -> bool:
    if operator.startswith("_"):  # an attribute of Qlib's own list of operators, and no operator
        return False
    return operator in {kind.__name__ for kind in ops.OpsList} or _is_registered(operator)


def _is_registered(operator: str) -> bool:
    """Whether Qlib was given the operator, as `custom_ops` of `qlib.init` does."""
    try:
        return isinstance(Operators.__getattr__(operator), type)
    except AttributeError:
        return False
