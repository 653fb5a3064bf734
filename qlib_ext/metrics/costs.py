"""What trading may cost before the return is gone: the trades of a backtest at another price of trading."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, at_least
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.risk import cumulative_return, daily_series, relative_return

POINT = 1e-4


def after_cost(gross: npt.ArrayLike, turnover: npt.ArrayLike, cost_bps: float) -> Floats:
    r"""Daily returns after a cost that is proportional to what is traded.

    .. math:: r_d = R_d - c \, \tau_d

    The trades are held fixed as shares of the account: it is the first order of a change of cost. What a backtest at
    another cost does beside it (minimum fees, lots, orders that the cash no longer covers) is left out.

    Parameters
    ----------
    gross
        Daily returns R ``[D]`` before cost.
    turnover
        Bought plus sold value of each day, ``[D]``, as a share of the account of the day before.
    cost_bps
        Cost c of a trade one way in basis points (0.01%) of its value.

    Returns
    -------
    ``[D]``.

    Raises
    ------
    UserError
        If a return is missing or below -1, a turnover is missing or negative, the two differ in length, or the cost
        is negative or takes more than the account on a day.
    """
    series = daily_series("gross", gross)
    traded = np.asarray(turnover, dtype=np.float64)
    if traded.shape != series.shape or not (traded >= 0).all():
        raise UserError(
            f"`turnover` must be at least 0 on each of the {len(series)} days of `gross`, found {traded.shape} with "
            f"{(~(traded >= 0)).sum()} missing or negative"
        )
    at_least("cost_bps", cost_bps, 0)
    return daily_series("gross - cost", series - POINT * cost_bps * traded)


def break_even_bps(
    gross: npt.ArrayLike, turnover: npt.ArrayLike, benchmark: npt.ArrayLike | None = None
) -> float:
    """Cost of a trade one way at which the portfolio ends where the index does, or where it began without one.

    Parameters
    ----------
    gross, turnover
        As in `after_cost`.
    benchmark
        Daily returns ``[D]`` of the index.

    Returns
    -------
    Basis points, to a hundredth of one; 0 where the portfolio ends below even without any cost, infinite where nothing is
    traded, NaN without any day.

    Raises
    ------
    UserError
        As in `after_cost`, or if the index's returns do not fit.
    """
    series = after_cost(gross, turnover, 0)
    traded = np.asarray(turnover, dtype=np.float64)
    if len(series) == 0:
        return math.nan

    def gain(cost_bps: float) -> float:
        net = after_cost(series, traded, cost_bps)
        return cumulative_return(net if benchmark is None else relative_return(net, benchmark))

    if gain(0) <= 0:
        return 0.0
    if not traded.any():
        return math.inf
    low, high = (
        0.0,
        float(((1 + series)[traded > 0] / traded[traded > 0]).min() / POINT),
    )  # then all is lost in a day
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (middle, high) if gain(middle) > 0 else (low, middle)
    return (low + high) / 2
