"""Mean of ranks."""

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.model.combiners.base import Combiner, centred_ranks


class MeanRank(Combiner):
    """The mean of the members' ranks of each day, as places between -1 and 1.

    What a member's scores are measured in, and how far its best stand apart, does not count.
    """

    def unit(self, scores: Floats) -> Floats:
        return centred_ranks(scores)
