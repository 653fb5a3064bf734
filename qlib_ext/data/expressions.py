"""Qlib expressions, evaluated on a whole market panel at once."""

from __future__ import annotations

import copy

import numpy as np
import pandas as pd
from qlib.data.base import Expression, ExpressionOps, Feature
from qlib.data.data import ExpressionD
from qlib.data.ops import NpElemOperator, NpPairOperator, Ref

from qlib_ext.checks import UserError
from qlib_ext.data.market_panel import MarketPanel

# The operators whose code in Qlib works on a `[day, stock]` frame as it does on one stock's series.
_FRAME_OPERATORS = (NpElemOperator, NpPairOperator, Ref)


class _Plane(Expression):
    """A leaf that answers with the panel's plane instead of one stock's series."""

    def __init__(self, name: str, frame: pd.DataFrame) -> None:
        self.name = name
        self.frame = frame

    def __str__(self) -> str:
        return f"${self.name}"

    def load(self, instrument, start_index, end_index, *args):  # noqa: ANN001, ANN201 - Qlib's signature
        return self.frame

    def _load_internal(self, instrument, start_index, end_index, *args):  # noqa: ANN001, ANN202 - Qlib's signature
        return self.frame

    def get_longest_back_rolling(self) -> int:
        return 0

    def get_extended_window_size(self) -> tuple[int, int]:
        return 0, 0


def parse(expression: str) -> Expression:
    """Let Qlib parse `expression`; a `UserError` names the expression where it cannot."""
    try:
        return ExpressionD.get_expression_instance(expression)
    except (NameError, SyntaxError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{expression!r} is no Qlib expression: {error}") from error


def reach(expression: str) -> int:
    """How many days after t the expression's value at t depends on (0 when on none)."""
    return int(parse(expression).get_extended_window_size()[1])


def evaluate(expression: str, panel: MarketPanel) -> np.ndarray:
    """Evaluate a Qlib expression for all days and stocks of a panel.

    Parameters
    ----------
    expression
        Qlib's syntax, such as `Ref($close, -2) / Ref($close, -1) - 1`, over fields of the panel.

    Returns
    -------
    ndarray
        `[D, S]` float32, NaN where a price is missing.

    Notes
    -----
    Operators of Qlib that work stock by stock only (the compiled rolling ones) are evaluated so.
    """
    tree = parse(expression)
    if _frame_ready(tree):
        planes = {
            name: pd.DataFrame(panel.field(name), columns=panel.instruments)
            for name in _leaf_names(tree, panel, expression)
        }
        frame = _load(_substitute(tree, planes))
        return frame.to_numpy(dtype=np.float32)
    result = np.full(panel.members.shape, np.nan, np.float32)
    names = _leaf_names(tree, panel, expression)
    for column in range(len(panel.instruments)):
        leaves = {name: pd.Series(panel.field(name)[:, column]) for name in names}
        result[:, column] = _load(_substitute(tree, leaves)).to_numpy(dtype=np.float32)
    return result


def _load(tree: Expression) -> pd.DataFrame | pd.Series:
    return tree._load_internal(None, None, None) if not isinstance(tree, _Plane) else tree.frame


def _children(tree: Expression) -> dict[str, Expression]:
    return {key: value for key, value in vars(tree).items() if isinstance(value, Expression)}


def _frame_ready(tree: Expression) -> bool:
    if isinstance(tree, Feature):
        return True
    if isinstance(tree, Ref) and tree.N == 0:  # Qlib's `Ref(x, 0)` is the stock's first value, not today's
        return False
    return isinstance(tree, _FRAME_OPERATORS) and all(
        _frame_ready(child) for child in _children(tree).values()
    )


def _leaf_names(tree: Expression, panel: MarketPanel, expression: str) -> set[str]:
    if isinstance(tree, Feature):
        name = str(tree).lstrip("$")
        if name not in panel.fields or name in panel.missing_fields:
            has = ", ".join(field for field in panel.fields if field not in panel.missing_fields)
            raise UserError(f"{expression!r} needs the field `{name}`; the panel has {has}")
        return {name}
    return set().union(*(_leaf_names(child, panel, expression) for child in _children(tree).values()))


def _substitute(tree: Expression, leaves: dict) -> Expression:
    if isinstance(tree, Feature):
        name = str(tree).lstrip("$")
        return _Plane(name, leaves[name])
    twin = copy.copy(tree)
    for key, child in _children(tree).items():
        replaced = _substitute(child, leaves)
        # Qlib's operators ask their children through `load`, which caches by instrument; ours must not be cached
        if isinstance(replaced, ExpressionOps):
            replaced.load = replaced._load_internal  # type: ignore[method-assign]
        setattr(twin, key, replaced)
    return twin
