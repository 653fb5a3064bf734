"""When the scores have changed."""

from __future__ import annotations

import pandas as pd

from qlib_ext.checks import between
from qlib_ext.metrics.cross_section import spearman
from qlib_ext.portfolio.calendars.base import Calendar, SinceRebalance

ROUNDING = 1e-9


class SignalChange(Calendar):
    r"""Rebalances when today's ranks differ from those of the last rebalance by more than so much.

    .. math:: 1 - \rho > x

    with Spearman's correlation :math:`\rho` over the stocks that have both scores: 0 where the order is the same, 1 where one
    says nothing of the other, 2 where it is turned round. Where no correlation can be told, a rebalance is due.

    Parameters
    ----------
    change
        x.
    """

    remembers = True

    def __init__(self, change: float) -> None:
        self.change = between("change", change, 0.0, 2.0, open_high=True)

    def _again(
        self, day: pd.Timestamp, last: pd.Timestamp, days: pd.DatetimeIndex, since: SinceRebalance
    ) -> bool:
        (correlation,) = spearman(since.score[None], since.score_then[None])
        return not 1.0 - correlation <= self.change + ROUNDING  # NaN is a change
