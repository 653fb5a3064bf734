"""What every optimiser is."""

from __future__ import annotations

from abc import ABC, abstractmethod

import numpy as np

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

    @property
    def needs_forecast(self) -> str | None:
        """What of it asks for expected returns, in words; None where nothing does.

        A portfolio without a model of them is refused. On a day on which the model says nothing risk alone decides.
        """
        return None

    @abstractmethod
    def solve(self, problem: Problem) -> Floats:
        """Weights `[N]`, whose sum is `problem.invested`.

        Raises
        ------
        Infeasible
            If no weights keep to the limits that it takes account of.
        """


def forecast(problem: Problem) -> Floats | None:
    """`[N]`: the expected returns; None where there are none on this day or all are 0, and risk alone decides."""
    return problem.expected if problem.expected is not None and np.any(problem.expected) else None
