"""The arguments of a handler, checked and made what they stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from qlib.data.dataset.processor import Processor

from qlib_ext.checks import UserError, brief, short
from qlib_ext.config.build import build
from qlib_ext.data.days import as_day
from qlib_ext.data.labels.label import ExpressionLabel, Label
from qlib_ext.features.engine.evaluation import Program
from qlib_ext.market.rules.exchange_rules import ExchangeRules, read_rules


def build_labels(labels: Any, processors: Sequence[Processor]) -> dict[str, Label]:
    """Label name -> label, with the columns that processors need beside the labels."""
    if not isinstance(labels, Mapping):
        raise UserError(f"`labels` must be a mapping from names to Qlib expressions, found {brief(labels)}")
    named = {short("name of a label", str(name)): given for name, given in labels.items()}
    for processor in processors:
        if hasattr(processor, "expressions"):  # a processor that needs label columns of its own names them
            texts, names = processor.expressions()
            named.update(zip(names, texts, strict=True))
    if not named:
        raise UserError("`labels` must name at least one label, found none")
    return {name: _label(name, given) for name, given in named.items()}


def _label(name: str, given: Any) -> Label:
    if isinstance(given, (Mapping, Label)):
        return build(given, Label, name=f"labels.{name}")
    label = ExpressionLabel(given)
    for table, field in Program([given]).side_fields:
        raise UserError(
            f"`labels.{name}` must be made of bars, found `side.{table}.{field}`: side data are for features"
        )
    return label


def build_processors(given: Sequence[Any], name: str) -> list[Processor]:
    """The processors of a list; `name` is `infer` or `learn`, for messages."""
    if not isinstance(given, (list, tuple)):
        raise UserError(f"`{name}_processors` must be a list of processors, found {brief(given)}")
    return [build(config, Processor, name=f"{name}_processors[{i}]") for i, config in enumerate(given)]


def check_fit_range(start: Any, end: Any) -> tuple[pd.Timestamp | None, pd.Timestamp | None]:
    """First and last day to fit on, or None and None where neither is given."""
    if (start is None) != (end is None):
        raise UserError(
            f"`fit_start_time` and `fit_end_time` must be given both or not at all, found {start} and {end}"
        )
    if start is None:
        return None, None
    first, last = as_day("fit_start_time", start), as_day("fit_end_time", end)
    if first > last:
        raise UserError(f"`fit_start_time` must not lie after `fit_end_time`, found {start} and {end}")
    return first, last


def check_fit_spans(
    start: pd.Timestamp | None, end: pd.Timestamp | None, given: Any
) -> tuple[tuple[pd.Timestamp, pd.Timestamp], ...]:
    """Stretches of days to fit on, in the order of time: those that are given, or the one from `start` to `end`, or none."""
    if start is not None and end is not None:
        if given is not None:
            raise UserError(
                "`fit_spans` takes the place of `fit_start_time` and `fit_end_time`, found all of them"
            )
        return ((start, end),)
    if given is None:
        return ()
    if not isinstance(given, (list, tuple)) or not given:
        raise UserError(f"`fit_spans` must be a list of first and last days, found {brief(given)}")
    found: list[tuple[pd.Timestamp, pd.Timestamp]] = []
    for k, pair in enumerate(given):
        if not isinstance(pair, (list, tuple)) or len(pair) != 2:
            raise UserError(f"`fit_spans[{k}]` must be a first and a last day, found {brief(pair)}")
        first, last = (as_day(f"fit_spans[{k}]", day) for day in pair)
        if first > last or (found and first <= found[-1][1]):
            raise UserError(
                f"`fit_spans` must be in the order of time, found {first:%Y-%m-%d} to {last:%Y-%m-%d}"
                + (f" after {found[-1][1]:%Y-%m-%d}" if found else "")
            )
        found.append((first, last))
    return tuple(found)


def check_cache_directory(given: Any) -> str | None:
    """The directory, or None for none: YAML reads `off` as false."""
    if given is None or given is False or given == "off":
        return None
    if not isinstance(given, (str, Path)) or not str(given).strip():
        raise UserError(f"`cache` must be a directory, or off for none, found {brief(given)}")
    return str(given)


def check_rules(given: Any) -> ExchangeRules | None:
    """The exchange's rules that `tradable_prices` names, or None for none: YAML reads `off` as false."""
    if given is None or given is False or given == "off":
        return None
    if not isinstance(given, (str, Path)):
        raise UserError(
            f"`tradable_prices` must name the exchange's rules, such as cn, or be off, found {brief(given)}"
        )
    return read_rules(given)
