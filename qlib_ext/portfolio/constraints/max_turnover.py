"""The most that one rebalance may trade."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import at_least
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Limit, Turnover, turnover_words
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class MaxTurnover(Constraint):
    """What is bought and what is sold in a rebalance, together, is at most this.

    An account that holds nothing is built up without a limit, and it is told.

    Parameters
    ----------
    most
        Bought and sold weight together, as a share of the account: to exchange a tenth of the portfolio is 0.2.

    Raises
    ------
    UserError
        If it is below 0.

    Notes
    -----
    What is held of stocks whose risk is not known stays, and is no turnover.
    """

    name = "turnover"

    def __init__(self, most: float) -> None:
        self.most = at_least("most", most, 0)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """One, where something is held."""
        if not np.any(known.held):
            return []
        return [Turnover(self.name, turnover_words(self.most), known.held, self.most)]

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """Whether it has no limit today."""
        return [] if np.any(known.held) else ["nothing is held: turnover has no limit on this day"]
