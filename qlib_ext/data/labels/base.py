"""Labels of a market, whichever way the processors made them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from qlib_ext.features.market_panel import MarketPanel

GROUP = "label"  # Qlib's name of the group of columns


class Labels(ABC):
    """Labels of every day and stock, raw and as training sees them.

    `key` is Qlib's: `learn` is what training sees, `infer` and `raw` are what the infer processors give.
    """

    @abstractmethod
    def planes(self, key: str) -> dict[str, np.ndarray]:
        """Label name -> `[D, S]` float32, NaN where there is no row."""

    @abstractmethod
    def table(self, days: slice, key: str) -> pd.DataFrame:
        """A table that holds at least the rows of `days`, indexed (datetime, instrument); columns (label, name).

        It has rows even where `days` have none, so that Qlib's selection finds the columns to give back.
        """


def tabulate(
    market: MarketPanel, rows: np.ndarray, days: slice, columns: Mapping[Any, np.ndarray]
) -> pd.DataFrame:
    """The rows of some days as a table.

    Parameters
    ----------
    rows
        `[D, S]` bool: the rows of all days.
    columns
        Label name, or (group, name) -> values of the rows, day by day.
    """
    day, stock = np.nonzero(rows[days])
    index = pd.MultiIndex(
        levels=[market.calendar, pd.Index(market.instruments)],
        codes=[day + days.start, stock],
        names=["datetime", "instrument"],
        verify_integrity=False,
    )
    grouped = {name if isinstance(name, tuple) else (GROUP, name): x for name, x in columns.items()}
    return pd.DataFrame(grouped, index=index)
