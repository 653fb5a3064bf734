"""How far forecasts lie from what came."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from qlib_ext.metrics.cross_section import Floats, same_shape


def mean_absolute_error(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> Floats:
    r"""Mean of :math:`|y - \hat y|` over a day's stocks.

    Parameters
    ----------
    actual, predicted
        ``[D, S]`` (days x stocks) in one unit, NaN where there is none; a stock counts when it has both.

    Returns
    -------
    ``[D]`` in that unit; NaN on a day without pairs.

    Raises
    ------
    UserError
        If the two are not matrices of one shape.
    """
    total, pairs = _sums(actual, predicted, 1)
    return np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0)


def root_mean_square_error(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> Floats:
    r"""Root of the mean of :math:`(y - \hat y)^2` over a day's stocks.

    Parameters, result and errors are those of `mean_absolute_error`.
    """
    total, pairs = _sums(actual, predicted, 2)
    return np.sqrt(np.divide(total, pairs, out=np.full(len(total), np.nan), where=pairs > 0))


def _sums(actual: npt.ArrayLike, predicted: npt.ArrayLike, power: int) -> tuple[Floats, Floats]:
    """Sum of the errors' powers and number of pairs of each day."""
    a, p = same_shape("actual", actual, "predicted", predicted)
    errors = np.abs(a - p) ** power
    return np.nansum(errors, axis=1), (~np.isnan(errors)).sum(axis=1).astype(np.float64)
