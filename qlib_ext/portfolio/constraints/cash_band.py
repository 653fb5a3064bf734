"""How much stays in cash."""

from __future__ import annotations

from qlib_ext.checks import between
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.limits import Limit
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class CashBand(Constraint):
    """Between these shares of the account stay in cash.

    Where the two differ, the optimiser chooses: one that has no use for the choice invests all but the least.

    Parameters
    ----------
    least, most
        Shares of the account.

    Raises
    ------
    UserError
        If they do not lie between 0 and 1, or are not in order.
    """

    name = "cash"

    def __init__(self, least: float = 0.0, most: float = 1.0) -> None:
        self.least = between("least", least, 0, 1)
        self.most = between("most", most, least, 1)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """None beside what is invested."""
        return []

    def invested(self) -> tuple[float, float]:
        """All but cash."""
        return 1 - self.most, 1 - self.least
