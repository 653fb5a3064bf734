"""What every combiner is: members' scores of each day on one scale, and their weighted sum."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.metrics.cross_section import Floats, rank


class Combiner(Rebuildable, ABC):
    """Combines the scores of M members, a day at a time.

    Each member's scores of a day are brought to one scale with 0 in the middle (`unit`), and summed by weight. A stock that
    only some members score counts as the middle for the others, so that one of many cannot put it on top alone; a stock that
    none scores has none. The order of the members means nothing, and the scores of one member keep their order.

    Attributes
    ----------
    learns : bool
        Whether its weights follow from scores and returns of the validation segment. Nothing else may tell a combiner
        anything of returns.
    weights : array or None
        ``[M]`` with sum 1; None, where it has learned none, for equal ones.
    """

    learns: bool = False
    weights: Floats | None = None

    @property
    def learned(self) -> bool:
        """Whether it has weights."""
        return self.weights is not None

    def fit(self, scores: npt.ArrayLike, truth: npt.ArrayLike) -> None:
        """Learn the weights of the members on the validation segment, where it learns.

        Parameters
        ----------
        scores
            ``[M, D, S]``, NaN where a member has none.
        truth
            Returns ``[D, S]``, NaN where there is none.
        """

    def combine(self, scores: npt.ArrayLike) -> Floats:
        """Scores ``[D, S]`` of the members' ``[M, D, S]``; NaN where no member has one."""
        given = members(scores)
        parts = np.stack([self.unit(each) for each in given])
        total = np.einsum("m,mds->ds", self.weights_of(len(given)), np.nan_to_num(parts, nan=0.0))
        return np.where(np.isnan(parts).all(axis=0), np.nan, total)

    @abstractmethod
    def unit(self, scores: Floats) -> Floats:
        """One member's scores ``[D, S]`` on the common scale, with 0 in the middle of each day; NaN where they are."""

    def weights_of(self, number: int) -> Floats:
        """The weights ``[M]`` of so many members.

        Raises
        ------
        UserError
            If it has learned those of another number.
        """
        if self.weights is None:
            return np.full(number, 1 / number)
        if len(self.weights) != number:
            raise UserError(f"the weights are of {len(self.weights)} members, found {number}")
        return self.weights


def members(scores: npt.ArrayLike) -> Floats:
    """Scores as float64 ``[M, D, S]``, a value that is not finite as NaN; a UserError where they have another shape."""
    array = np.asarray(scores, dtype=np.float64)
    if array.ndim != 3 or not len(array):
        raise UserError(f"`scores` must be [members, days, stocks], found the shape {array.shape}")
    return np.where(np.isfinite(array), array, np.nan)


def centred_ranks(scores: Floats) -> Floats:
    """Ranks of a day's stocks ``[D, S]`` as places between -1 and 1; ties share theirs."""
    number = np.sum(~np.isnan(scores), axis=1, keepdims=True)
    return (2 * rank(scores) - 1) / np.maximum(number, 1) - 1


def z_scores(scores: Floats) -> Floats:
    """Scores of each day ``[D, S]`` with mean 0 and standard deviation 1; 0 where all of a day are equal."""
    number = np.maximum(np.sum(~np.isnan(scores), axis=1, keepdims=True), 1)
    centred = scores - np.nansum(scores, axis=1, keepdims=True) / number
    deviation = np.sqrt(np.nansum(centred**2, axis=1, keepdims=True) / number)
    return np.divide(centred, deviation, out=np.where(np.isnan(scores), np.nan, 0.0), where=deviation > 1e-12)


def check_validation(scores: npt.ArrayLike, truth: npt.ArrayLike) -> tuple[Floats, Floats]:
    """Validation scores ``[M, D, S]`` and returns ``[D, S]``, or a UserError where they do not fit or hold nothing to learn."""
    given, true = members(scores), np.asarray(truth, dtype=np.float64)
    if true.shape != given.shape[1:]:
        raise UserError(
            f"`truth` must have the days and stocks of `scores`, {given.shape[1:]}, found {true.shape}"
        )
    if not (np.isfinite(true) & ~np.isnan(given).all(axis=0)).any():
        raise UserError(
            "weights are learned on the validation segment, found no day of it with a score and a return"
        )
    return given, np.where(np.isfinite(true), true, np.nan)
