"""A configuration as MLflow shows it: item by item, for a person to read, and without passwords."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mlflow.entities import Param

from qlib_ext.masking import masked, masked_value
from qlib_ext.paths import shortened

LONGEST_KEY = 250  # characters that MLflow takes
LONGEST = 500  # characters; MLflow's page shows all of it in one cell


def parameters(config: Mapping[str, Any]) -> list[Param]:
    """Every value of a configuration under a name of its own.

    Items of lists go by their classes. Dates are written as dates, passwords in URIs are hidden, and what is longer
    than a few lines is cut: the whole is in the artifact `config.yaml`.
    """
    flat: dict[str, Any] = {}
    for name, value in config.items():
        flat |= _flatten(name, value)
    return [Param(shortened(name, LONGEST_KEY), _readable(name, value)) for name, value in flat.items()]


def without_passwords(value: Any, name: str = "") -> Any:
    """A configuration without them: Qlib keeps all of it, the tracking URI too. Other objects stay as they are.

    Parameters
    ----------
    value
        The configuration, or a part of it.
    name
        What it stands under.
    """
    if isinstance(value, (str, int)):
        return masked_value(name, value)
    if type(value) is dict:
        return {key: without_passwords(part, str(key)) for key, part in value.items()}
    if type(value) is list:
        return [without_passwords(part, name) for part in value]
    return value


def _flatten(name: str, value: Any) -> dict[str, Any]:
    """`{"record": [{"class": "m.A"}]}` as `{"record.A.class": "m.A"}`; lists of plain values stay whole.

    By its class an item has the same name in every run, wherever it stands in its list.
    """
    if isinstance(value, Mapping):
        parts = {str(key): part for key, part in value.items()}
    elif isinstance(value, list) and any(isinstance(part, Mapping) for part in value):
        parts = dict(zip(_item_names(value), value, strict=True))
    else:
        return {name: value}
    flat: dict[str, Any] = {}
    for key, part in parts.items():
        flat |= _flatten(f"{name}.{key}", part)
    return flat


def _item_names(items: list[Any]) -> list[str]:
    """Classes without their modules, a number behind those that come again; places where an item has no class."""
    classes = [
        str(part.get("class", "")).rpartition(".")[2] if isinstance(part, Mapping) else "" for part in items
    ]
    return [
        (name if name not in classes[:k] else f"{name}-{classes[: k + 1].count(name)}") if name else str(k)
        for k, name in enumerate(classes)
    ]


def _readable(name: str, value: Any) -> str:
    if isinstance(value, (str, int)):
        value = masked_value(name.rpartition(".")[2], value)
    hidden = masked(_written(value))
    return hidden if len(hidden) <= LONGEST else f"{hidden[: LONGEST - 1]}\N{HORIZONTAL ELLIPSIS}"


def _written(value: Any) -> str:
    """`[datetime.date(2017, 1, 1)]` as `[2017-01-01]`."""
    if isinstance(value, (list, tuple)):
        return f"[{', '.join(map(_written, value))}]"
    return str(value)
