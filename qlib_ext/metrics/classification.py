"""How well predicted classes agree with the actual ones."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, matrices, matrix

Counts = npt.NDArray[np.int64]


def confusion_matrix(actual: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Counts:
    """Count the pairs of actual and predicted class over all days and stocks.

    Parameters
    ----------
    actual, predicted
        Classes 0 ... C - 1, of one shape, such as ``[D, N]``; NaN where there is none: a pair counts when
        both are there.
    classes
        Number of classes C, at least 1.

    Returns
    -------
    ``[C, C]``, a row for each actual class, a column for each predicted one.

    Raises
    ------
    UserError
        If the shapes differ or a value is no class.
    """
    integer("classes", classes, 1)
    a, p = np.asarray(actual, dtype=np.float64), np.asarray(predicted, dtype=np.float64)
    if a.shape != p.shape:
        raise UserError(f"`actual` and `predicted` must have one shape, found {a.shape} and {p.shape}")
    for name, values in (("actual", a), ("predicted", p)):
        wrong = ~np.isnan(values) & ~np.isin(values, np.arange(classes))
        if wrong.any():
            raise UserError(
                f"`{name}` must hold the classes 0 to {classes - 1}, or NaN where there is none; "
                f"found {values[wrong][0]:g}"
            )
    pairs = ~np.isnan(a) & ~np.isnan(p)
    cells = a[pairs].astype(np.int64) * classes + p[pairs].astype(np.int64)
    return np.bincount(cells, minlength=classes**2).reshape(classes, classes)


def accuracy(actual: npt.ArrayLike, predicted: npt.ArrayLike) -> Floats:
    """Share of a day's stocks whose predicted class is the actual one.

    Parameters
    ----------
    actual, predicted
        Classes ``[D, N]`` (days x stocks), NaN where there is none; a stock counts when it has both.

    Returns
    -------
    ``[D]``, in [0, 1]; NaN on a day without pairs.

    Raises
    ------
    UserError
        If the two are not matrices of one shape.
    """
    a, p = matrices("actual", actual, "predicted", predicted)
    pairs = (~np.isnan(a) & ~np.isnan(p)).sum(axis=1)
    return np.divide((a == p).sum(axis=1), pairs, out=np.full(len(a), np.nan), where=pairs > 0)


def majority_accuracy(actual: npt.ArrayLike, majority: float | None = None) -> Floats:
    """Accuracy on each day of the rule that always predicts one class: what a model must beat.

    Parameters
    ----------
    actual
        Classes ``[D, N]`` (days x stocks), NaN where there is none.
    majority
        The class to predict. The default is the most common one of all of `actual` (the lowest of several),
        known in hindsight and so a little too good a rule; give the train segment's for a fair one.

    Returns
    -------
    ``[D]``, in [0, 1]; NaN on a day without a class.
    """
    a = matrix("actual", actual)
    if majority is None:
        found, counts = np.unique(a[~np.isnan(a)], return_counts=True)
        majority = found[counts.argmax()] if len(found) else math.nan
    return accuracy(a, np.full_like(a, majority))


def pooled_accuracy(confusion: npt.ArrayLike) -> float:
    """Share of all pairs on the diagonal of a confusion matrix ``[C, C]``; NaN when it is empty."""
    counts = _square(confusion)
    return float(counts.trace() / counts.sum()) if counts.sum() else math.nan


def macro_f1(confusion: npt.ArrayLike) -> float:
    r"""Mean F1 score of the classes, from a confusion matrix ``[C, C]`` (row: actual, column: predicted).

    .. math:: F_1 = 2 \, TP / (2 \, TP + FP + FN)

    A class that is neither among the actual nor among the predicted ones is left out, as in
    `sklearn.metrics.f1_score`; NaN when that leaves none.
    """
    counts = _square(confusion)
    sizes = counts.sum(axis=0) + counts.sum(axis=1)  # 2 TP + FP + FN
    seen = sizes > 0
    return float((2 * counts.diagonal()[seen] / sizes[seen]).mean()) if seen.any() else math.nan


def _square(confusion: npt.ArrayLike) -> Counts:
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise UserError(f"`confusion` must be a square matrix [C, C], found the shape {counts.shape}")
    return counts
