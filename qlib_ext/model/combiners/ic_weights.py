"""Weights by the IC of the validation, shrunk towards equal ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from qlib_ext.checks import between
from qlib_ext.metrics.cross_section import Floats, spearman
from qlib_ext.model.combiners.base import Combiner, check_validation, z_scores


class ICWeights(Combiner):
    r"""Z-scores, weighted by each member's mean RankIC on the validation segment.

    Source: the shrinkage is after Efron and Morris (1973), "Stein's estimation rule and its competitors: an empirical Bayes
    approach", of means whose differences may be nothing but noise.

    .. math::

        w_m \propto \max(0, \bar c + (1 - B)(c_m - \bar c)), \quad
        B = \min\left(1, \frac{\sigma^2}{s^2}\right)

    with the mean RankIC :math:`c_m` of each member, the variance :math:`s^2` of these between the M members, and
    :math:`\sigma^2` that which days alone would cause, by the daily differences to the members' mean.

    Parameters
    ----------
    shrinkage
        In the place of B, which follows from the days: 1 weights all members equally, 0 by what was seen alone.

    Raises
    ------
    UserError
        If it is not in [0, 1].

    Notes
    -----
    Where no member's shrunk RankIC is above 0, weights are equal. Days count on which every member has a RankIC.

    Departures
    ----------
    The source multiplies :math:`\sigma^2 / s^2` by :math:`(M - 3) / (M - 1)`, and does not shrink three members or fewer. Most
    ensembles are that small, so the factor is left out: weights are drawn closer to equal ones than by the source.
    :math:`\sigma^2` takes days as independent. Labels of several days overlap, which makes it too small, and B with it.
    """

    learns = True

    def __init__(self, shrinkage: float | None = None) -> None:
        self.shrinkage = None if shrinkage is None else between("shrinkage", shrinkage, 0, 1)

    def unit(self, scores: Floats) -> Floats:
        return z_scores(scores)

    def fit(self, scores: Any, truth: Any) -> None:
        """Learn the weights; see `Combiner.fit`."""
        given, true = check_validation(scores, truth)
        daily = np.stack([spearman(each, true) for each in given])
        daily = daily[:, ~np.isnan(daily).any(axis=0)]
        number = len(given)
        if number == 1 or not daily.shape[1]:
            self.weights = np.full(number, 1 / number)
            return
        seen = daily.mean(axis=1)
        kept = 1 - (_shrinkage(daily) if self.shrinkage is None else self.shrinkage)
        shrunk = np.maximum(seen.mean() + kept * (seen - seen.mean()), 0)
        self.weights = shrunk / shrunk.sum() if shrunk.sum() > 0 else np.full(number, 1 / number)


def _shrinkage(daily: Floats) -> float:
    """B, of daily RankICs ``[M, D]``."""
    number, days = daily.shape
    between_members = float(daily.mean(axis=1).var(ddof=1))
    if days < 2 or between_members == 0:
        return 1.0
    apart = daily - daily.mean(axis=0)
    by_days = float((apart.var(axis=1, ddof=1) / days).sum() / (number - 1))
    return min(1.0, by_days / between_members)
