"""How well predicted classes agree with the actual ones."""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, matrix, same_shape

Counts = npt.NDArray[np.int64]


def confusion_matrix(actual: npt.ArrayLike, predicted: npt.ArrayLike, classes: int) -> Counts:
    """Count the pairs of actual and predicted class over all days and stocks.

    Parameters
    ----------
    actual, predicted
        Classes 0 ... C - 1, of one shape, such as ``[D, S]``; NaN where there is none: a pair counts when
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
        Classes ``[D, S]`` (days x stocks), NaN where there is none; a stock counts when it has both.

    Returns
    -------
    ``[D]``, in [0, 1]; NaN on a day without pairs.

    Raises
    ------
    UserError
        If the two are not matrices of one shape.
    """
    a, p = same_shape("actual", actual, "predicted", predicted)
    pairs = (~np.isnan(a) & ~np.isnan(p)).sum(axis=1)
    return np.divide((a == p).sum(axis=1), pairs, out=np.full(len(a), np.nan), where=pairs > 0)


def majority_accuracy(actual: npt.ArrayLike, majority: float | None = None) -> Floats:
    """Accuracy on each day of the rule that always predicts one class: what a model must beat.

    Parameters
    ----------
    actual
        Classes ``[D, S]`` (days x stocks), NaN where there is none.
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


class ClassScores(NamedTuple):
    """Scores of each of C classes, all ``[C]``.

    Attributes
    ----------
    precision
        Of the stocks predicted to be in the class, the share that is; NaN where none is predicted.
    recall
        Of the stocks in the class, the share that is predicted; NaN where none is in it. It is the accuracy on the
        stocks of the class.
    f1
        ``2 TP / (2 TP + FP + FN)``; NaN where the class is neither among the actual nor among the predicted ones.
    actual, predicted
        How many stocks are in the class, and are predicted to be.
    """

    precision: Floats
    recall: Floats
    f1: Floats
    actual: Counts
    predicted: Counts


def class_scores(confusion: npt.ArrayLike) -> ClassScores:
    """Precision, recall and F1 score of each class, from a confusion matrix ``[C, C]`` (row: actual)."""
    counts = _square(confusion)
    hits, actual, predicted = counts.diagonal(), counts.sum(axis=1), counts.sum(axis=0)

    def share(part: Counts, whole: Counts) -> Floats:
        return np.divide(part, whole, out=np.full(len(counts), np.nan), where=whole > 0)

    return ClassScores(
        share(hits, predicted), share(hits, actual), share(2 * hits, actual + predicted), actual, predicted
    )


def cohen_kappa(confusion: npt.ArrayLike) -> float:
    r"""Agreement beyond chance, from a confusion matrix ``[C, C]`` (row: actual, column: predicted).

    Source: Cohen (1960), "A Coefficient of Agreement for Nominal Scales", Educational and Psychological
    Measurement 20.

    .. math:: \kappa = (p_o - p_e) / (1 - p_e)

    with the accuracy :math:`p_o` and the accuracy :math:`p_e` that predictions of the same class shares have by
    chance. 1 is perfect, 0 is chance. NaN when the matrix is empty or all of it is one class.
    """
    counts = _square(confusion).astype(np.float64)
    total = counts.sum()
    if total == 0:
        return math.nan
    chance = float(counts.sum(axis=0) @ counts.sum(axis=1)) / total**2
    return float((counts.trace() / total - chance) / (1 - chance)) if chance < 1 else math.nan


def matthews_correlation(confusion: npt.ArrayLike) -> float:
    r"""Correlation of actual and predicted class, from a confusion matrix ``[C, C]`` (row: actual).

    Source: Gorodkin (2004), "Comparing Two K-Category Assignments by a K-Category Correlation Coefficient",
    Computational Biology and Chemistry 28; of two classes it is Matthews (1975).

    .. math::

        \frac{c \, s - \sum_k p_k t_k}{\sqrt{s^2 - \sum_k p_k^2} \, \sqrt{s^2 - \sum_k t_k^2}}

    with s stocks, c of them predicted right, :math:`t_k` in class k and :math:`p_k` predicted to be. 1 is perfect,
    0 is chance.

    Departures
    ----------
    NaN where all stocks are in one class or are predicted to be, since a constant has no correlation;
    `sklearn.metrics.matthews_corrcoef` has 0.
    """
    counts = _square(confusion).astype(np.float64)
    total, actual, predicted = counts.sum(), counts.sum(axis=1), counts.sum(axis=0)
    spread = (total**2 - predicted @ predicted) * (total**2 - actual @ actual)
    if spread <= 0:
        return math.nan
    return float((counts.trace() * total - predicted @ actual) / math.sqrt(spread))


def _square(confusion: npt.ArrayLike) -> Counts:
    counts = np.asarray(confusion)
    if counts.ndim != 2 or counts.shape[0] != counts.shape[1]:
        raise UserError(f"`confusion` must be a square matrix [C, C], found the shape {counts.shape}")
    return counts
