"""A dataset named by its arguments: looked at a day at a time, or handed to a training."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pandas as pd

from qlib_ext.api import start
from qlib_ext.api.keywords import check_keywords, keywords_of
from qlib_ext.checks import UserError
from qlib_ext.config.described import described

if TYPE_CHECKING:
    from qlib_ext.data.dataset import DailyPanelDataset
    from qlib_ext.features.base import FeatureSet
    from qlib_ext.market.store import QlibStore

SHARES = (0.7, 0.15, 0.15)
Days = Sequence[Any]


class Dataset:
    """Segments of trading days of a universe, as daily panels. Nothing is loaded before something asks for it.

    Parameters
    ----------
    store
        The market.
    universe
        Whose members; by default the only one of the store.
    train, valid, test
        First and last day of each segment, such as `("2010-01-01", "2014-12-31")`. Without any of them 70, 15 and 15 % of the
        days are. `segments={"walk_forward": {...}}` in their place is that of a workflow.
    features
        A `FeatureSet` such as `Alpha158()`; by default `Alpha360`.
    labels
        Label name -> expression or `Label`; by default `RETURN`, that can be traded, and `NEXT_RETURN`.
    benchmark
        Index to compare with, or `none`; by default the only one of the store, or that after which the universe is called.
    options
        What else `PanelHandler` and `DailyPanelDataset` take, such as `tradable_prices`. `learn_processors` by default rank the
        first label within each day, as the workflows do; `[]` leaves it as it is.

    Attributes
    ----------
    config
        `{class, kwargs}`, as a workflow has it.

    Raises
    ------
    UserError
        If an argument is unknown, or the store leaves open what is not said.

    Examples
    --------
    >>> data = Dataset(store, "csi300")
    >>> data.day("2016-05-03")["label"].columns.tolist()
    ['RETURN', 'NEXT_RETURN']
    """

    def __init__(
        self,
        store: str | Path | QlibStore,
        universe: str | None = None,
        *,
        train: Days | None = None,
        valid: Days | None = None,
        test: Days | None = None,
        features: FeatureSet | Mapping[str, Any] | None = None,
        labels: Mapping[str, Any] | None = None,
        benchmark: str | None = None,
        **options: Any,
    ) -> None:
        start.start()
        from qlib_ext.data.config import DatasetConfig
        from qlib_ext.data.handlers.panel import LABELS, PanelHandler
        from qlib_ext.workflow.scored import choose_benchmark, choose_universe

        self.store = start.store_at(store)
        name = choose_universe(self.store, universe)
        index = choose_benchmark(self.store, benchmark, name)
        named = dict(LABELS if labels is None else labels)
        segments = dict(zip(("train", "valid", "test"), (train, valid, test), strict=True))
        segments = {key: [*map(str, value)] for key, value in segments.items() if value is not None}
        of_dataset = {field.name for field in fields(DatasetConfig) if field.init} - {"handler"}
        of_handler = keywords_of(PanelHandler) - {"instruments", "init_data"}
        if segments and "segments" in options:
            raise UserError("`segments` must be left out where `train`, `valid` or `test` is given")
        check_keywords("a dataset", options, (of_dataset | of_handler | keywords_of(Dataset)) - {"config"})
        ranked = {
            "class": "qlib_ext.data.processors.cross_section_norm.CrossSectionNorm",
            "kwargs": {"columns": [next(iter(named), "RETURN")], "method": "rank"},
        }
        handler = {
            "instruments": name,
            **({} if features is None else {"features": features}),
            "labels": named,
            "learn_processors": [ranked],
            **{key: value for key, value in options.items() if key in of_handler and key not in of_dataset},
        }
        kwargs = {
            "benchmark": index,
            "record_fields": ["change"],
            "table_labels": [next(iter(named), "RETURN")],
            **{key: value for key, value in options.items() if key in of_dataset},
            "handler": {"class": "qlib_ext.data.handlers.panel.PanelHandler", "kwargs": handler},
            "segments": options.get("segments") or segments or {"split": [*SHARES]},
        }
        config = {"class": "qlib_ext.data.dataset.DailyPanelDataset", "kwargs": kwargs}
        self.config: dict[str, Any] = described(config, name="dataset")

    def __repr__(self) -> str:
        kwargs = self.config["kwargs"]
        return f"Dataset({self.store!r}, {kwargs['handler']['kwargs']['instruments']!r}, segments={kwargs['segments']})"

    @functools.cached_property
    def loaded(self) -> DailyPanelDataset:
        """The dataset itself, loaded once: `loaded.panels("train")` are the panels that a model is trained on."""
        start.read(self.store)
        from qlib_ext.config.build import build
        from qlib_ext.data.dataset import DailyPanelDataset

        return build(self.config, DailyPanelDataset, name="dataset")

    def day(self, day: Any = None) -> pd.DataFrame:
        """A day as a model sees it: a row a stock, by default of the newest day.

        Returns
        -------
        Columns (`feature`, name), normalised by the training days, such as `CLOSE59` ... `VOLUME0`, and (`label`, name), raw
        and NaN where it is not known.

        Raises
        ------
        UserError
            If it is no trading day of the store.

        Examples
        --------
        >>> data.day("2016-05-03").shape
        (17, 362)
        """
        when = start.trading_day(self.store, day)
        handler = self.loaded.handler
        return handler.fetch(slice(when, when), col_set=["feature", "label"], data_key="infer").droplevel(
            "datetime"
        )
