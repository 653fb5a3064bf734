"""Mean of quantiles: the distribution of a day's scores, Vincentised."""

from __future__ import annotations

from typing import Any

import numpy as np

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.model.combiners.base import Combiner, centred_ranks, members


class MeanQuantile(Combiner):
    """The mean of the members' quantile functions of a day's scores, taken at each stock's mean rank.

    Source: Vincent (1912), "The functions of the vibrissae in the behavior of the white rat"; Ratcliff (1979), "Group reaction
    time distributions and an analysis of distribution statistics".

    Stocks stand in the order of `MeanRank`, and their scores are spread as the members' are on the mean: a day on which the
    members see little apart has scores close together, which a portfolio that reads the size of a score takes for little
    conviction. So it is for members of one unit, such as the seeds of one model.

    Notes
    -----
    The distribution is that of the stocks of a day. A model of the package gives no distribution of a stock's return whose
    quantiles could be averaged; the probabilities of classes that it may give are averaged as they are
    (`model.ensemble.member_scores`).
    """

    def unit(self, scores: Floats) -> Floats:
        return centred_ranks(scores)

    def combine(self, scores: Any) -> Floats:
        """Scores ``[D, S]`` of the members' ``[M, D, S]``; NaN where no member has one."""
        given = members(scores)
        weights = self.weights_of(len(given))
        # rounded: equal mean ranks stay equal, in whatever order they are summed
        order = centred_ranks(super().combine(given).round(12))
        found = np.full(order.shape, np.nan)
        for day, places in enumerate(order):
            there = ~np.isnan(places)
            known = [(w, np.sort(row[~np.isnan(row)])) for w, row in zip(weights, given[:, day], strict=True)]
            known = [(w, values) for w, values in known if len(values)]
            total = sum(w for w, _ in known)
            level = (places[there] + 1) / 2
            for weight, values in known:
                of_rank = (np.arange(len(values)) + 0.5) / len(values)
                part = weight / total * np.interp(level, of_rank, values)
                found[day, there] = np.nan_to_num(found[day, there]) + part
        return found
