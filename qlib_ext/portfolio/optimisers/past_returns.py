"""Returns of past days, for an optimiser that looks at them by itself."""

from __future__ import annotations

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Ints, KnownDay
from qlib_ext.portfolio.problem import Infeasible


def past_returns(known: KnownDay, days: int, places: Ints) -> Floats:
    """Returns `[T, n]` of the last days of some stocks; one without a return has the mean of the others, or the market's.

    Parameters
    ----------
    known
        The day.
    days
        T; fewer where no more are known.
    places
        The stocks.

    Raises
    ------
    Infeasible
        If fewer than two days are known.
    """
    market = known.market[-days:]
    returns = known.returns[-days:, places]
    if len(returns) < 2:
        raise Infeasible(f"past returns are needed, found {len(returns)} of them")
    there = np.isfinite(returns)
    count = there.sum(axis=1)
    mean = np.where(there, returns, 0.0).sum(axis=1) / np.maximum(count, 1)
    instead = np.where(count > 0, mean, np.nan_to_num(market))
    return np.where(there, returns, instead[:, None])
