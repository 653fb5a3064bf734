"""Market values of the stocks of a day, for models that weigh stocks by size.

A workflow names one class for its dataset; `FirstAvailable` takes the best that a store can give.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.checks import UserError, at_least, brief, instance, integer, one_of
from qlib_ext.config.build import build
from qlib_ext.features.side_data.source import Chain, Source
from qlib_ext.market.side_data.side_data import SideData
from qlib_ext.market.side_data.table import MARKET_VALUE
from qlib_ext.market.store import QlibStore, StoreError
from qlib_ext.market.traded_value import VOLUMES, TradedValue

CHUNK = 256  # stocks whose windows are sorted at a time


class MarketValue(Source):
    """Where the market values of a dataset come from.

    A number may have any unit: models compare the stocks of a day with each other.
    """

    @abstractmethod
    def load(self, store: QlibStore, instruments: Sequence[str]) -> np.ndarray:
        """Market values `[D, S]` float32 over the store's calendar; NaN where there is none, above 0 elsewhere.

        The number of day t follows from what was known at the close of t.
        """


class SideMarketValue(MarketValue):
    """Market values from the store's side data, `side/market_value.parquet` or `.csv`.

    Parameters
    ----------
    name
        The table, of the shape `values`.
    limit_days
        How many calendar days a number is carried forward: over a suspension, or between the rows of a table that
        is not daily.

    Raises
    ------
    SideDataError
        When it is loaded: the table is not there or has a fault.
    """

    def __init__(self, name: str = MARKET_VALUE, limit_days: int = 60) -> None:
        self.name = instance("name", name, str)
        self.limit_days = integer("limit_days", limit_days, 0)

    def lacks(self, store: QlibStore) -> str | None:
        return None if self.name in SideData(store) else f"there is no side/{self.name}.parquet or .csv"

    def load(self, store: QlibStore, instruments: Sequence[str]) -> np.ndarray:
        values = SideData(store).values(self.name, store.calendar, instruments, self.limit_days)
        if np.isnan(values).all():
            raise StoreError(
                f"the side data {brief(self.name)} of `{store.root}` have no value of any of the {len(instruments)} stocks "
                "on any day: `qlib-ext data check` says more"
            )
        return values

    def describe(self, store: QlibStore) -> dict[str, Any]:
        side = SideData(store)
        return {
            "source": f"side/{side.path(self.name).name}",
            "fingerprint": side.fingerprint([self.name]),
            "limit_days": self.limit_days,
        }


class TrailingTradedValue(MarketValue):
    """The median of the money that a stock was traded for over the last days, where no market value is known.

    Large firms are traded for more money, though not in proportion. What the money is made of:
    `qlib_ext.market.traded_value`.

    Parameters
    ----------
    window_days
        Trading days in the window, which ends with day t.
    min_days
        Days with trading that a window must hold; fewer give NaN.
    volume
        Where the amount must be computed: `raw` or `adjusted` shares (raw / factor); `auto` reads it off the
        volumes, from the first days that tell.

    Raises
    ------
    UserError
        For arguments out of range; when it is loaded, if volumes do not tell whether they are raw.
    StoreError
        When it is loaded, if the store has neither `amount` nor `close` and `volume` of the stocks.
    """

    def __init__(self, window_days: int = 60, min_days: int = 20, volume: str = "auto") -> None:
        self.window_days = integer("window_days", window_days, 1)
        self.min_days = integer("min_days", min_days, 1)
        at_least("window_days", window_days, min_days)
        self.volume = one_of("volume", volume, VOLUMES)

    def lacks(self, store: QlibStore) -> str | None:
        for code in store.instruments():
            fields = store.fields(code)
            if "amount" in fields or {"close", "volume"} <= set(fields):
                return None
        return "there is neither amount nor close and volume"

    def load(self, store: QlibStore, instruments: Sequence[str]) -> np.ndarray:
        value = TradedValue(store, instruments, self.volume).daily()
        with np.errstate(invalid="ignore"):
            value[~(value > 0)] = np.nan  # a day without trading says nothing of size
        for first in range(0, value.shape[1], CHUNK):
            part = slice(first, first + CHUNK)
            window = pd.DataFrame(value[:, part]).rolling(self.window_days, min_periods=self.min_days)
            value[:, part] = window.median().to_numpy()
        return value

    def describe(self, store: QlibStore) -> dict[str, Any]:
        return {
            "source": "trailing median of the traded value",
            "window_days": self.window_days,
            "min_days": self.min_days,
            "volume": self.volume,
        }


class Uniform(MarketValue):
    """The same market value for every stock: for models that must not weigh by size, or where nothing is known."""

    def load(self, store: QlibStore, instruments: Sequence[str]) -> np.ndarray:
        return np.ones((len(store.calendar), len(instruments)), dtype=np.float32)

    def describe(self, store: QlibStore) -> dict[str, Any]:
        return {"source": "uniform"}


class FirstAvailable(Chain[MarketValue], MarketValue):
    """The first of several sources that the store has what it takes for.

    By default market values from side data, else the trailing median of the traded value, else uniform ones. A
    source whose data are there but faulty is an error, never passed over.

    Parameters
    ----------
    sources
        Sources in order, each `{class, kwargs}` or an object.

    Raises
    ------
    UserError
        If there is no source; when it is loaded, if the store lacks what each of them needs.
    """

    def __init__(self, sources: Sequence[Mapping[str, Any] | MarketValue] | None = None) -> None:
        if sources is None:
            sources = [SideMarketValue(), TrailingTradedValue(), Uniform()]
        built = [build(source, MarketValue, name=f"sources[{i}]") for i, source in enumerate(sources)]
        super().__init__("market values", built)

    def load(self, store: QlibStore, instruments: Sequence[str]) -> np.ndarray:
        return self.chosen(store).load(store, instruments)


def fill(values: np.ndarray, present: np.ndarray) -> np.ndarray:
    """Market values as a model gets them: every stock of a day has one.

    Parameters
    ----------
    values
        `[D, S]`, NaN where there is none.
    present
        `[D, S]` bool: the stocks of each day.

    Returns
    -------
    float32 `[D, S]`
        A present stock without a value gets the median of the present ones that day, 1 where none of them has one.
        Stocks that are not present are NaN.

    Raises
    ------
    UserError
        If a value is not above 0 or infinite.
    """
    with np.errstate(invalid="ignore"):
        wrong = ~np.isnan(values) & ~((values > 0) & (values < np.inf))
    if wrong.any():
        found = values[wrong][0]
        raise UserError(
            f"market values must be above 0 and finite, found {found:g} and {wrong.sum() - 1} others"
        )
    filled = np.full(values.shape, np.nan, dtype=np.float32)
    for row, value, there in zip(filled, values, present, strict=True):
        row[there] = value[there]
        unknown = there & np.isnan(row)
        if unknown.any():
            known = row[there & ~unknown]
            row[unknown] = np.median(known) if len(known) else 1.0
    return filled
