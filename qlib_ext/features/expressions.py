"""Qlib expressions, evaluated on a whole market panel at once."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pandas as pd
from qlib.data.base import Expression, ExpressionOps, Feature, PFeature
from qlib.data.data import ExpressionD
from qlib.data.ops import (
    Abs,
    Add,
    ChangeInstrument,
    Div,
    Greater,
    Less,
    Log,
    Mask,
    Mul,
    Ref,
    Sign,
    Sub,
    TResample,
)

from qlib_ext.checks import UserError, brief
from qlib_ext.features.expression_text import check_expression
from qlib_ext.features.market_panel import MarketPanel

# The operators whose code in Qlib works on a `[day, stock]` frame as it does on one stock's series, since they keep
# what is missing missing. Comparisons do not: before a stock's first bar, `$close > 1` is no bar to Qlib, not False.
_FRAME_OPERATORS = (Abs, Add, Div, Greater, Less, Log, Mul, Sign, Sub)
# Operators that read another instrument's bars, dates, or a point-in-time store: a panel has none of them.
_BEYOND_PANEL = (ChangeInstrument, Mask, PFeature, TResample)


class _Plane(Expression):
    """A leaf that answers with the panel's plane instead of one stock's series."""

    def __init__(self, name: str, frame: pd.DataFrame | pd.Series) -> None:
        self.name = name
        self.frame = frame

    def __str__(self) -> str:
        return f"${self.name}"

    def load(self, *args: Any) -> pd.DataFrame | pd.Series:
        return self.frame

    def _load_internal(self, *args: Any) -> pd.DataFrame | pd.Series:
        return self.frame

    def get_longest_back_rolling(self) -> int:
        return 0

    def get_extended_window_size(self) -> tuple[int, int]:
        return 0, 0


def parse(expression: str) -> Expression:
    """Let Qlib parse `expression`; a `UserError` names the expression where it cannot, or where it is another program."""
    check_expression(expression)  # before Qlib evaluates it
    try:
        tree = ExpressionD.get_expression_instance(expression)
    except (NameError, SyntaxError, TypeError, ValueError, AttributeError) as error:
        raise UserError(f"{brief(expression)} is no Qlib expression: {error}") from error
    if not isinstance(tree, Expression):
        raise UserError(f"{brief(expression)} is no Qlib expression: it names no field, such as `$close`")
    return tree


def reach(expression: str) -> int:
    """How many days after t the expression's value at t can depend on (0 when on none).

    Qlib's own count, which errs on the safe side: a `Ref` to the past around one to the future does not lower it.
    """
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
        `[D, S]` float32, NaN where a price is missing, and on days before a stock's first and after its last bar.

    Raises
    ------
    UserError
        If the expression cannot be parsed, needs a field that the panel lacks, or reads more than the panel holds.

    Notes
    -----
    As in Qlib, a stock's series runs from its first to its last bar: `Ref($close, 0)` is its first close, and what
    reaches beyond its last bar is missing. Arithmetic of shifted fields is done for all stocks at once, everything
    else stock by stock.
    """
    return evaluator(expression, panel)(slice(0, len(panel.calendar)))


def evaluator(expression: str, panel: MarketPanel) -> Callable[[slice], np.ndarray]:
    """`evaluate`, for some days at a time: from a run of days to `[days, S]`, the same numbers.

    Arithmetic of shifted fields is done when its days are asked for, and costs no more than them; anything else is
    done at once for all days, and kept.
    """
    tree = parse(expression)
    names = _leaf_names(tree, panel, expression)
    if not _frame_ready(tree):
        whole = _by_stock(tree, names, panel)
        return lambda days: whole[days]
    shifts = _shifts(tree)
    before, after = max(0, *shifts), max(0, *(-shift for shift in shifts))

    def of(days: slice) -> np.ndarray:
        first, stop = max(0, days.start - before), min(len(panel.calendar), days.stop + after)
        planes = {name: pd.DataFrame(np.ascontiguousarray(panel.field(name)[first:stop])) for name in names}
        values = _load(_substitute(tree, planes)).to_numpy(dtype=np.float32)
        return np.where(
            panel.listed[days], values[days.start - first : days.stop - first], np.float32(np.nan)
        )

    return of


def _by_stock(tree: Expression, names: set[str], panel: MarketPanel) -> np.ndarray:
    result = np.full(panel.members.shape, np.nan, np.float32)
    for column in range(len(panel.instruments)):
        days = panel.listed[:, column]
        if days.any():
            leaves = {name: pd.Series(panel.field(name)[days, column]) for name in names}
            result[days, column] = _load(_substitute(tree, leaves)).to_numpy(dtype=np.float32)
    return result


def _shifts(tree: Expression) -> list[int]:
    """The days by which the tree shifts fields, positive to the past."""
    own = [tree.N] if isinstance(tree, Ref) else [0]
    return own + [shift for child in _children(tree).values() for shift in _shifts(child)]


def _load(tree: Expression) -> pd.DataFrame | pd.Series:
    return tree._load_internal(None, None, None) if not isinstance(tree, _Plane) else tree.frame


def _children(tree: Expression) -> dict[str, Expression]:
    return {key: value for key, value in vars(tree).items() if isinstance(value, Expression)}


def _frame_ready(tree: Expression, shifted: bool = False) -> bool:
    if isinstance(tree, Feature):
        return True
    if isinstance(tree, Ref):
        # `Ref(x, 0)` is the stock's first value; a shift of a shift loses what passes the stock's first or last bar
        if shifted or tree.N == 0:
            return False
        return _frame_ready(tree.feature, shifted=True)
    return isinstance(tree, _FRAME_OPERATORS) and all(
        _frame_ready(child, shifted) for child in _children(tree).values()
    )


def _field(leaf: Feature) -> str:
    return str(leaf).removeprefix("$").lower()  # Qlib's files are lower-case whatever the expression's case


def _leaf_names(tree: Expression, panel: MarketPanel, expression: str) -> set[str]:
    if isinstance(tree, _BEYOND_PANEL):
        raise UserError(
            f"{brief(expression)} must read bars of the stock itself alone; `{type(tree).__name__}` reads more"
        )
    if isinstance(tree, Feature):
        name = _field(tree)
        if name not in panel.fields or name in panel.missing_fields:
            has = ", ".join(field for field in panel.fields if field not in panel.missing_fields)
            raise UserError(f"{brief(expression)} needs the field `{name}`; the panel has {has}")
        return {name}
    return set().union(*(_leaf_names(child, panel, expression) for child in _children(tree).values()))


def _substitute(tree: Expression, leaves: Mapping[str, np.ndarray]) -> Expression:
    if isinstance(tree, Feature):
        name = _field(tree)
        return _Plane(name, leaves[name])
    twin = copy.copy(tree)
    for key, child in _children(tree).items():
        replaced = _substitute(child, leaves)
        # Qlib's operators ask their children through `load`, which caches by instrument; ours must not be cached
        if isinstance(replaced, ExpressionOps):
            replaced.load = replaced._load_internal
        setattr(twin, key, replaced)
    return twin
