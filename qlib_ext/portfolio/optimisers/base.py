"""What every optimiser is."""

from __future__ import annotations

from abc import ABC, abstractmethod

from qlib_ext.checks import UserError
from qlib_ext.config.rebuildable import Rebuildable
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.problem import Problem


class Optimiser(Rebuildable, ABC):
    """From a problem to weights.

    Where its weights break a limit of the problem, those nearest to them by the risk model that keep to all are taken
    (`qlib_ext.portfolio.nearest`): so an optimiser need not know of limits, and one that does is taken at its word only
    after a look.

    Attributes
    ----------
    days_back
        Days of returns that it looks back by itself, beside the risk model.
    """

    days_back: int = 1

    @abstractmethod
    def solve(self, problem: Problem) -> Floats:
        """Weights `[N]`, whose sum is `problem.invested`.

        Raises
        ------
        Infeasible
            If no weights keep to the limits that it takes account of.
        """


def expected(problem: Problem, asks: str) -> Floats:
    """`[N]`: the expected returns, or an error that says who asks for them."""
    if problem.expected is None:
        raise UserError(
            f"{asks} needs expected returns, and the portfolio has none: name a model of them under `expected_returns`, or "
            "take an optimiser of risk alone"
        )
    return problem.expected
