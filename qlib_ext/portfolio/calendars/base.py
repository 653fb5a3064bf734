"""What every calendar is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass

import pandas as pd

from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.metrics.cross_section import Floats


@dataclass(frozen=True)
class SinceRebalance:
    """What has come of a portfolio since it was last rebalanced; all of the same N stocks.

    Attributes
    ----------
    held
        `[N]` weights in the account now.
    targets
        `[N]` weights that the last rebalance aimed at.
    score, score_then
        `[N]` scores now and at the last rebalance; NaN where there is none.
    """

    held: Floats
    targets: Floats
    score: Floats
    score_then: Floats


class Calendar(Rebuildable, ABC):
    """Says on which days a portfolio is rebalanced.

    Attributes
    ----------
    remembers
        Whether it asks what the last rebalance aimed at, which the account's holdings do not tell.
    """

    remembers: bool = False

    def due(
        self, day: pd.Timestamp, last: pd.Timestamp | None, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        """Whether to rebalance.

        Parameters
        ----------
        day
            The day that is traded, or would be.
        last
            The day of the last rebalance; None before the first, which is always due.
        days
            Trading days up to `day`, sorted, `day` included.
        since
            What has come of the portfolio.
        """
        return last is None or self._again(day, last, days, since)

    @abstractmethod
    def _again(
        self, day: pd.Timestamp, last: pd.Timestamp, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        """Whether to rebalance once more."""
