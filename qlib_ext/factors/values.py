"""Factor values of a day: gathered from a feature set, or looked up in a table."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import torch

from qlib_ext.factors.table import FactorTable
from qlib_ext.features.base import FeatureSet
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.tradable_prices import with_tradable_prices
from qlib_ext.features.union import Union
from qlib_ext.market.rules.exchange_rules import ExchangeRules
from qlib_ext.market.store import QlibStore


class FactorValues(ABC):
    """Values of F factors.

    Attributes
    ----------
    names
        Of the factors.
    notes
        What a reader should know of them, as sentences.
    """

    names: tuple[str, ...]
    notes: list[str]

    @abstractmethod
    def of_day(self, day: int, columns: np.ndarray) -> np.ndarray:
        """Values `[F, N]` float64 of the stocks `columns` on a day of the market; NaN where missing or infinite."""


class FeatureValues(FactorValues):
    """The features of a set on a market, before they are normalised.

    Parameters
    ----------
    features
        The set; it need not be fitted.
    store
        What it joins beside bars.
    market
        The bars.
    every_lag
        Whether each lag of a window is a factor, and not today's value alone.
    rules
        The exchange's, by which features hold no price at which nobody could trade; None where they may.
    """

    def __init__(
        self,
        features: FeatureSet,
        store: QlibStore,
        market: MarketPanel,
        *,
        every_lag: bool = False,
        rules: ExchangeRules | None = None,
    ) -> None:
        self.names = factor_names(features, every_lag=every_lag)
        self._every_lag = every_lag
        self._features = features.unnormalised()
        self._features.join(store, market)
        self.notes = self._features.notes(store)  # of some it is known once they are joined
        if rules is not None:
            market, notes = with_tradable_prices(market, store, rules)
            self.notes = [*self.notes, *notes]
        self._padded = torch.from_numpy(self._features.pad(market))

    def of_day(self, day: int, columns: np.ndarray) -> np.ndarray:
        window = self._features.gather(self._padded, day, torch.from_numpy(columns))  # [N, T, F]
        chosen = window.transpose(1, 2).flatten(1) if self._every_lag else window[:, -1]
        return _finite(chosen.numpy().T)


class ReadyValues(FactorValues):
    """The values of a table.

    Parameters
    ----------
    table
        The values.
    market
        The days and stocks that are asked for.
    """

    def __init__(self, table: FactorTable, market: MarketPanel) -> None:
        self.names = table.names
        self.notes = table.notes
        self._values = table.values
        self._places = table.places(market.calendar, market.instruments)

    def of_day(self, day: int, columns: np.ndarray) -> np.ndarray:
        rows = self._places[day, columns]
        return _finite(np.where(rows >= 0, self._values[rows].T, np.nan))


def factor_names(features: FeatureSet, *, every_lag: bool) -> tuple[str, ...]:
    """Of the factors that a set has."""
    return tuple(features.column_names()) if every_lag else features.names


def expressions_of(features: FeatureSet) -> dict[str, str]:
    """Name -> formula, of the features that have one."""
    if isinstance(features, Union):
        return {name: text for each in features.members for name, text in expressions_of(each).items()}
    return dict(getattr(features, "expressions", {}))


def _finite(values: np.ndarray) -> np.ndarray:
    values = values.astype(np.float64)
    values[~np.isfinite(values)] = np.nan
    return values
