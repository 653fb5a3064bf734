"""Stacking: a regression of the validation's returns on the members' scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from qlib_ext.checks import at_least, instance
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.model.combiners.base import Combiner, check_validation, z_scores


class Stacking(Combiner):
    r"""Z-scores, weighted by a ridge regression of the returns of the validation segment, standardised by day, on them.

    Source: Breiman (1996), "Stacked regressions", for weights that are not negative; the penalty draws towards equal ones.

    .. math:: \min_{w \ge 0} \lVert y - X w \rVert^2 + \lambda n \lVert w - \bar w \mathbf 1 \rVert^2

    with n rows of validation, a column of X a member, and :math:`\bar w` the best weight that is the same for all.

    Parameters
    ----------
    ridge
        :math:`\lambda`: 0 for none; the larger, the more equal.
    non_negative
        Whether weights are at least 0.

    Raises
    ------
    UserError
        If `ridge` is negative.

    Notes
    -----
    Weights are scaled to the sum of their sizes. Where the regression finds none, they are equal.
    """

    learns = True

    def __init__(self, ridge: float = 0.1, non_negative: bool = True) -> None:
        self.ridge = at_least("ridge", ridge, 0)
        self.non_negative = instance("non_negative", non_negative, bool)

    def unit(self, scores: Floats) -> Floats:
        return z_scores(scores)

    def fit(self, scores: Any, truth: Any) -> None:
        """Learn the weights; see `Combiner.fit`."""
        from scipy.optimize import nnls  # here: it takes long to import

        given, true = check_validation(scores, truth)
        there = ~np.isnan(true) & ~np.isnan(given).all(axis=0)
        target = z_scores(np.where(there, true, np.nan))[there]
        columns = np.stack([np.nan_to_num(self.unit(each))[there] for each in given], axis=1)
        mean = columns.sum(axis=1)
        same = max(0.0, float(mean @ target) / max(float(mean @ mean), 1e-300))
        # as the normal equations, so that the days of validation may be many
        gram = columns.T @ columns + self.ridge * len(target) * np.eye(len(given))
        moment = columns.T @ target + self.ridge * len(target) * same
        if not moment.any():  # of scores that say nothing, where a root of G may be 0
            self.weights = np.full(len(given), 1 / len(given))
            return
        if self.non_negative:
            # w >= 0 that minimises w'Gw - 2m'w: least squares with a root of G
            values, vectors = np.linalg.eigh(gram)
            root = np.sqrt(np.maximum(values, 1e-12 * values.max()))
            found = nnls(root[:, None] * vectors.T, (vectors.T @ moment) / root)[0]
        else:
            found = np.linalg.lstsq(gram, moment, rcond=None)[0]
        size = float(np.abs(found).sum())
        self.weights = found / size if size > 0 else np.full(len(given), 1 / len(given))
