"""What is judged: the features of a workflow, or a user's own, on which days and by which label."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
from qlib.data.dataset import Dataset

from qlib_ext.checks import UserError, counted, one_of
from qlib_ext.config.build import build, check_config, in_one_form
from qlib_ext.data.config import DatasetConfig
from qlib_ext.data.dataset import DailyPanelDataset
from qlib_ext.data.days import as_day, check_range
from qlib_ext.data.handlers.panel import LABELS, PanelHandler
from qlib_ext.data.labels.label import ExpressionLabel, Label
from qlib_ext.data.store_check import require
from qlib_ext.factors.table import FactorTable
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.tradable_prices import MARK
from qlib_ext.market.rules.exchange_rules import ExchangeRules
from qlib_ext.market.store import QlibStore

CHOOSING = ("train", "valid")  # the segments that a choice may rest on
JUDGING = "test"


class NamedLabel(NamedTuple):
    """What a factor is to foretell."""

    name: str
    label: Label

    @property
    def expression(self) -> str:
        """Its formula, or what it is in words."""
        return str(self.label)


@dataclass(frozen=True)
class Subject:
    """Factors, and what they are held against.

    Attributes
    ----------
    name
        Of the workflow or file.
    store, universe
        The market.
    source
        A feature set, or values that came ready made.
    label
        What they are to foretell.
    ranges
        Name -> first and last day, both included; the days to judge on.
    unread
        Segments that the workflow has beside these; no bar of theirs is read.
    benchmark
        The index that betas are to, or None for the mean of the universe.
    rules
        The exchange's, by which features hold no price at which nobody could trade; None where they may.
    """

    name: str
    store: QlibStore
    universe: str
    source: FeatureSet | FactorTable
    label: NamedLabel
    ranges: Mapping[str, tuple[pd.Timestamp, pd.Timestamp]]
    unread: tuple[str, ...] = ()
    benchmark: str | None = None
    rules: ExchangeRules | None = None

    @functools.cached_property
    def market(self) -> MarketPanel:
        """The bars up to the last day that is judged; nothing later can reach a figure.

        Raises
        ------
        UserError
            If the universe has no member on any of the days, or the store lacks a field of the label.
        """
        own = self.source.fields if isinstance(self.source, FeatureSet) else ()
        fields = dict.fromkeys([*own, *self.label.label.fields, "close"])
        if self.rules is not None:
            fields.pop(MARK, None)
        whole = MarketPanel.load(self.store, self.universe, tuple(fields))
        last = max(stop for _, stop in self.ranges.values())
        cut = until(whole, int(whole.calendar.searchsorted(last, side="right")))
        for field in self.label.label.fields:
            if field in cut.missing_fields:
                raise UserError(
                    f"the label {self.label.name!r} needs the field `{field}`, which the store {self.store.root} does not have"
                )
        return cut

    @functools.cached_property
    def days(self) -> np.ndarray:
        """Positions of the days to judge on, in the calendar of `market`."""
        market = self.market
        inside = np.zeros(len(market.calendar), dtype=bool)
        for first, last in self.ranges.values():
            inside |= np.asarray((market.calendar >= first) & (market.calendar <= last))
        found = np.flatnonzero(inside & market.present.any(axis=1))
        if len(found) < 2:
            calendar = self.store.calendar
            asked = ", ".join(f"{first:%Y-%m-%d} to {last:%Y-%m-%d}" for first, last in self.ranges.values())
            raise UserError(
                f"at least 2 days with members of `{self.universe}` must be there to judge on, found "
                f"{counted(len(found), 'day')} ({asked}); the store {self.store.root} has {calendar[0]:%Y-%m-%d} to "
                f"{calendar[-1]:%Y-%m-%d}"
            )
        return found

    @property
    def judged_on_test(self) -> bool:
        """Whether the days that a choice must not rest on are read."""
        return JUDGING in self.ranges

    def notes(self) -> list[str]:
        """What a reader should know of the days, as sentences."""
        if self.judged_on_test:
            return [f"the segment `{JUDGING}` was read: choose nothing by these figures"]
        if self.unread:
            named = ", ".join(f"`{name}`" for name in self.unread)
            return [f"no day of {named} was read, so features may be chosen by these figures"]
        return ["all of these days were read: judge a choice by these figures on others (`--end` keeps some)"]


def of_workflow(
    name: str, task: Mapping[str, Any], segments: Sequence[str] = (), label: str | None = None
) -> Subject:
    """The features of a workflow's dataset, on its training and validation days.

    Parameters
    ----------
    name
        Of the workflow, for the reader.
    task
        Of the workflow, checked; Qlib reads its store.
    segments
        Those to judge on; `train` and `valid`, as far as there are such, by default.
    label
        Name of a label of the dataset, or an expression; by default the one that table models learn.

    Raises
    ------
    UserError
        If the dataset is no `DailyPanelDataset`, or has no such segment.
    """
    kind, kwargs = check_config(in_one_form(task["dataset"], "task.dataset"), Dataset, name="task.dataset")
    if not issubclass(kind, DailyPanelDataset):
        raise UserError(
            f"`task.dataset.class` must be qlib_ext.data.dataset.DailyPanelDataset, found {kind.__name__}: give a file of "
            "expressions or of ready values instead"
        )
    arguments = DatasetConfig.of(**kwargs)
    store = arguments.open_store()
    described, known = arguments.resolve(store)
    if isinstance(described, Mapping):
        described = {**described, "kwargs": {**(described.get("kwargs") or {}), "init_data": False}}
    handler = build(described, PanelHandler, name="handler")
    handler.check(store, fits=False)
    chosen = [one_of("--segment", each, known) for each in segments]
    chosen = chosen or [each for each in known if each in CHOOSING]
    if not chosen:
        raise UserError(
            f"`--segment` must name what to judge on where a workflow has no train or valid, found {', '.join(known)}"
        )
    labels = dict(handler.data_loader.labels)
    default = arguments.table_labels[0] if arguments.table_labels else next(iter(labels))
    return Subject(
        name,
        store,
        str(handler.instruments),
        handler.features,
        label_of(label, labels, default),
        {each: known[each] for each in known if each in chosen},
        tuple(each for each in known if each not in chosen),
        arguments.benchmark,
        handler.rules,
    )


def of_file(
    name: str,
    store: QlibStore,
    universe: str,
    source: FeatureSet | FactorTable,
    start: str | None = None,
    end: str | None = None,
    label: str | None = None,
) -> Subject:
    """A user's expressions or ready values, on the days from `start` to `end`; those of the store by default.

    Raises
    ------
    UserError
        If the store has no such universe, or lacks a field.
    """
    check_range(start, end)
    fields = source.required_fields if isinstance(source, FeatureSet) else ["close"]
    require(store, universe=universe, fields=fields)
    if isinstance(source, FeatureSet):
        source.check_store(store)
    first = store.calendar[0] if start is None else as_day("--start", start)
    last = store.calendar[-1] if end is None else as_day("--end", end)
    labels: dict[str, Label] = {each: ExpressionLabel(text) for each, text in LABELS.items()}
    return Subject(
        name, store, universe, source, label_of(label, labels, next(iter(labels))), {"all": (first, last)}
    )


def label_of(given: str | None, labels: Mapping[str, Label], default: str) -> NamedLabel:
    """The label of a name, or an expression as it stands."""
    if given is None:
        given = default if default in labels else next(iter(labels))
    if given in labels:
        return NamedLabel(given, labels[given])
    try:
        return NamedLabel(given, ExpressionLabel(given))
    except UserError as error:
        raise UserError(f"`--label` must be one of {', '.join(labels)}, or an expression: {error}") from error


def until(market: MarketPanel, stop: int, start: int = 0) -> MarketPanel:
    """The market of the days before `stop`, as if there were no others."""
    days = slice(start, stop)
    return MarketPanel(
        market.fields,
        market.calendar[days],
        market.instruments,
        market.values[:, days],
        market.members[days],
        market.missing_fields,
    )
