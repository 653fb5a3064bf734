"""Mean of z-scores."""

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.model.combiners.base import Combiner, z_scores


class MeanZScore(Combiner):
    """The mean of the members' scores of each day, each with mean 0 and standard deviation 1.

    How far a member puts a stock above the rest counts, and what its scores are measured in does not.
    """

    def unit(self, scores: Floats) -> Floats:
        return z_scores(scores)
