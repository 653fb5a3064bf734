"""Daily returns by month and by year, compounded."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, one_of
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.risk import daily_series

UNITS = {"month": "M", "year": "Y"}


def period_starts(
    days: npt.ArrayLike, period: str
) -> tuple[npt.NDArray[np.datetime64], npt.NDArray[np.intp]]:
    """Which calendar months or years the days fall into, and where each begins.

    Parameters
    ----------
    days
        Dates ``[D]`` in the order of time.
    period
        ``month`` or ``year``.

    Returns
    -------
    periods : datetime64 ``[M]``
        Months or years with at least one day.
    starts : ``[M]``
        Position of the first day of each.

    Raises
    ------
    UserError
        If the days are out of order, or the period is neither.
    """
    dates = np.asarray(days, dtype="datetime64[D]")
    one_of("period", period, UNITS)
    if (np.diff(dates) <= np.timedelta64(0)).any():
        raise UserError("`days` must rise from day to day, found a day that is not after the one before it")
    return np.unique(dates.astype(f"datetime64[{UNITS[period]}]"), return_index=True)


def compounded(
    days: npt.ArrayLike, returns: npt.ArrayLike, period: str
) -> tuple[npt.NDArray[np.datetime64], Floats]:
    r"""Return of each calendar month or year: :math:`\prod (1 + r_d) - 1` over its days.

    The first and the last may have but a few of their days; what they earned on those counts.

    Parameters
    ----------
    days
        Dates ``[D]`` in the order of time.
    returns
        Daily returns ``[D]``.
    period
        ``month`` or ``year``.

    Returns
    -------
    periods : datetime64 ``[M]``
    returns : ``[M]``

    Raises
    ------
    UserError
        If a return is missing or below -1, days and returns differ in length, or as in `period_starts`.

    Examples
    --------
    >>> compounded(["2020-01-30", "2020-01-31", "2020-02-03"], [0.1, 0.1, -0.5], "month")[1].round(2)
    array([ 0.21, -0.5 ])
    """
    series = daily_series("returns", returns)
    if len(series) != np.size(days):
        raise UserError(f"`days` and `returns` must have one length, found {np.size(days)} and {len(series)}")
    periods, starts = period_starts(days, period)
    if len(starts) == 0:
        return periods, np.empty(0)
    return periods, np.multiply.reduceat(1 + series, starts) - 1
