"""When weights have drifted."""

from __future__ import annotations

import numpy as np
import pandas as pd

from qlib_ext.checks import above, one_of
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance


class DriftBand(Calendar):
    """Rebalances when the weights have drifted more than so far from those that the last rebalance aimed at.

    Parameters
    ----------
    band
        How far.
    of
        `portfolio`: half the sum of the absolute differences, which is the share of the account that would have to be traded
        to get back. `stock`: the largest difference of a stock.
    """

    remembers = True

    def __init__(self, band: float, of: str = "portfolio") -> None:
        self.band = above("band", band, 0.0, 1.0)
        self.of = one_of("of", of, ("portfolio", "stock"))

    def _again(
        self, day: pd.Timestamp, last: pd.Timestamp, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        drift = np.abs(since.held - since.targets)
        return bool((drift.sum() / 2 if self.of == "portfolio" else drift.max(initial=0.0)) > self.band)
