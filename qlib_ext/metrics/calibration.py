"""Whether predicted class probabilities mean what they say."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats

TOLERANCE = 1e-3  # probabilities are kept in single precision


class Reliability(NamedTuple):
    """Predictions in B bins of equal width by their probability.

    Attributes
    ----------
    edges
        ``[B + 1]`` from 0 to 1; a bin holds its upper edge, the first one 0 as well.
    predictions
        ``[B]``, how many fall in the bin.
    predicted
        ``[B]``, their mean probability; NaN where there is none.
    observed
        ``[B]``, the share of them that came true; NaN where there is none.
    """

    edges: Floats
    predictions: npt.NDArray[np.int64]
    predicted: Floats
    observed: Floats


def reliability(probability: npt.ArrayLike, outcome: npt.ArrayLike, bins: int = 10) -> Reliability:
    """How often events of a predicted probability come true.

    Parameters
    ----------
    probability
        ``[M]`` in [0, 1], NaN where there is none.
    outcome
        ``[M]``, 1 where the event came true, 0 where not, NaN where it is unknown. A pair counts when both are there.
    bins
        Number of bins B, at least 1.

    Raises
    ------
    UserError
        If the two are not series of one length, or a value lies outside of its range.
    """
    integer("bins", bins, 1)
    p, y = _series("probability", probability), _series("outcome", outcome)
    if p.shape != y.shape:
        raise UserError(
            f"`probability` and `outcome` must have one length, found {len(p)} and {len(y)} values"
        )
    there = ~np.isnan(p) & ~np.isnan(y)
    p, y = p[there], y[there]
    _inside("probability", p)
    if not np.isin(y, (0, 1)).all():
        raise UserError(f"`outcome` must hold 0, 1 or NaN, found {y[~np.isin(y, (0, 1))][0]:g}")
    edges = np.linspace(0, 1, bins + 1)
    place = np.clip(np.searchsorted(edges, p, side="left") - 1, 0, bins - 1)
    count = np.bincount(place, minlength=bins)
    empty = np.full(bins, np.nan)
    return Reliability(
        edges,
        count,
        np.divide(np.bincount(place, p, bins), count, out=empty.copy(), where=count > 0),
        np.divide(np.bincount(place, y, bins), count, out=empty.copy(), where=count > 0),
    )


def expected_calibration_error(found: Reliability) -> float:
    r"""Mean distance of predicted and observed probability, weighted by the predictions in each bin.

    Source: Guo, Pleiss, Sun and Weinberger (2017), "On Calibration of Modern Neural Networks", ICML, Eq. 3, there of
    the probability of the predicted class.

    .. math:: \mathrm{ECE} = \sum_b \frac{n_b}{M} \, |\, \text{observed}_b - \text{predicted}_b \,|

    NaN without a prediction. It depends on the number of bins.
    """
    total = found.predictions.sum()
    if total == 0:
        return math.nan
    used = found.predictions > 0
    gap = np.abs(found.observed[used] - found.predicted[used])
    return float(found.predictions[used] @ gap / total)


def brier_score(probabilities: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    r"""Mean squared distance of the predicted probabilities from what came true, over all classes.

    Source: Brier (1950), "Verification of Forecasts Expressed in Terms of Probability", Monthly Weather Review 78.

    .. math:: \frac{1}{M} \sum_m \sum_c (p_{m,c} - [y_m = c])^2

    Parameters
    ----------
    probabilities
        ``[M, C]``; each row sums to 1, or has a NaN and does not count.
    actual
        Classes 0 ... C - 1 ``[M]``, NaN where there is none.

    Returns
    -------
    In [0, 2], lower is better; NaN without a pair.

    Raises
    ------
    UserError
        If the shapes do not fit or a value lies outside of its range.
    """
    p, y = _classified(probabilities, actual)
    if len(y) == 0:
        return math.nan
    true = np.arange(p.shape[1]) == y[:, None]
    return float(((p - true) ** 2).sum(axis=1).mean())


def log_loss(probabilities: npt.ArrayLike, actual: npt.ArrayLike) -> float:
    r"""Mean of minus the logarithm of the probability that was given to the class that came true: cross-entropy.

    .. math:: -\frac{1}{M} \sum_m \ln p_{m, y_m}

    Parameters
    ----------
    probabilities
        ``[M, C]``; each row sums to 1, or has a NaN and does not count.
    actual
        Classes 0 ... C - 1 ``[M]``, NaN where there is none.

    Returns
    -------
    At least 0, in nats, lower is better; ``ln C`` for equal probabilities; NaN without a pair. A probability of 0
    counts as the smallest step of the precision that `probabilities` come in, as in `sklearn.metrics.log_loss`.

    Raises
    ------
    UserError
        If the shapes do not fit or a value lies outside of its range.
    """
    given = np.asarray(probabilities)
    least = np.finfo(given.dtype if np.issubdtype(given.dtype, np.floating) else np.float64).eps
    p, y = _classified(given, actual)
    if len(y) == 0:
        return math.nan
    hit = np.take_along_axis(p, y[:, None], axis=1)[:, 0]
    return float(-np.log(np.clip(hit, least, 1 - least)).mean())


def _classified(probabilities: npt.ArrayLike, actual: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.int64]]:
    """The rows ``[M, C]`` and classes ``[M]`` of the predictions that count."""
    p = np.asarray(probabilities, dtype=np.float64)
    y = _series("actual", actual)
    if p.ndim != 2 or len(p) != len(y) or p.shape[1] < 2:
        raise UserError(
            f"`probabilities` must be a matrix [rows, classes] with a row for each of the {len(y)} of `actual` and at "
            f"least two classes, found the shape {p.shape}"
        )
    there = ~np.isnan(p).any(axis=1) & ~np.isnan(y)
    p, y = p[there], y[there]
    _inside("probabilities", p)
    far = np.abs(p.sum(axis=1) - 1) > TOLERANCE
    if far.any():
        raise UserError(f"`probabilities` must sum to 1 in each row, found a sum of {p[far][0].sum():g}")
    wrong = ~np.isin(y, np.arange(p.shape[1]))
    if wrong.any():
        raise UserError(
            f"`actual` must hold the classes 0 to {p.shape[1] - 1}, or NaN, found {y[wrong][0]:g}"
        )
    return p, y.astype(np.int64)


def _series(name: str, value: npt.ArrayLike) -> Floats:
    array = np.asarray(value, dtype=np.float64)
    if array.ndim != 1:
        raise UserError(f"`{name}` must be a series [rows], found the shape {array.shape}")
    return array


def _inside(name: str, values: Floats) -> None:
    outside = (values < 0) | (values > 1 + TOLERANCE)
    if outside.any():
        raise UserError(f"`{name}` must lie in [0, 1], found {values[outside][0]:g}")
