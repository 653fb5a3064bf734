"""What a workflow says of the exchange, checked before there is one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from qlib_ext.checks import UserError, at_least, between, brief, integer, one_of
from qlib_ext.features.expression_text import check_expression, fields

PARTS = ("all", "buy", "sell")
COUNTS = ("cum", "current")


def check_exchange(settings: Mapping[str, Any], name: str = "backtest.exchange_kwargs") -> set[str]:
    """Check arguments of Qlib's `Exchange`, and say which fields of the store they read.

    Parameters
    ----------
    settings
        As a workflow has them; lists stand for tuples. What is not named here is not looked at.
    name
        Where they stand, for messages.

    Returns
    -------
    Names of fields, in lower case.

    Raises
    ------
    UserError
        If a cost is negative or all of a trade's value, a price or a limit is no Qlib expression, or a setting is of
        another form than Qlib takes.
    """
    for cost in ("open_cost", "close_cost", "impact_cost"):
        if cost in settings:
            between(f"{name}.{cost}", settings[cost], 0, 1, open_high=True)
    if "min_cost" in settings:
        at_least(f"{name}.min_cost", settings["min_cost"], 0)
    if settings.get("trade_unit") is not None:
        integer(f"{name}.trade_unit", settings["trade_unit"], 1)
    read = set()
    for text in [
        *_prices(settings.get("deal_price"), f"{name}.deal_price"),
        *_limits(settings.get("limit_threshold"), f"{name}.limit_threshold"),
        *_volumes(settings.get("volume_threshold"), f"{name}.volume_threshold"),
        *_more(settings.get("subscribe_fields"), f"{name}.subscribe_fields"),
    ]:
        read |= fields(text)
    return read


def _prices(given: Any, name: str) -> list[str]:
    """`close`, `$close`, or one for purchases and one for sales."""
    if given is None:
        return []
    if isinstance(given, str) and given.strip():
        return [_expression(given if given.startswith("$") else f"${given}", name)]  # as Qlib completes it
    if _is_pair(given):
        return [_expression(price, name) for price in given]
    raise UserError(
        f"`{name}` must be a price such as close, or a pair of Qlib expressions to buy and to sell at, found {brief(given)}"
    )


def _limits(given: Any, name: str) -> list[str]:
    if given is None:
        return []
    if isinstance(given, float):
        between(name, given, 0, 1, open_low=True, open_high=True)
        return ["$change"]
    if _is_pair(given):
        return [_expression(limit, name) for limit in given]
    raise UserError(
        f"`{name}` must be a fraction such as 0.095, a pair of Qlib expressions that are true where a stock cannot be "
        f"bought and cannot be sold, or null for none; found {brief(given)}"
    )


def _volumes(given: Any, name: str) -> list[str]:
    if given is None:
        return []
    parts = given if isinstance(given, Mapping) else {"all": given}
    found = []
    for part, limit in parts.items():
        one_of(f"key of {name}", part, PARTS)
        if not _is_pair(limit):
            raise UserError(
                f"`{name}` must be a pair such as [current, 0.1 * $volume], or such pairs for all, buy and sell; found "
                f"{brief(given)}"
            )
        one_of(name, limit[0], COUNTS)
        found.append(_expression(limit[1], name))
    return found


def _more(given: Any, name: str) -> list[str]:
    if given is None:
        return []
    if not isinstance(given, (list, tuple)):
        raise UserError(f"`{name}` must be a list of Qlib expressions, found {brief(given)}")
    return [_expression(text, name) for text in given]


def _expression(text: Any, name: str) -> str:
    try:
        return check_expression(text)
    except UserError as error:
        raise UserError(f"`{name}`: {error}") from error


def _is_pair(given: Any) -> bool:
    return isinstance(given, (list, tuple)) and len(given) == 2
