"""How far each industry may lie from its weight in a benchmark."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import at_least, instance, one_of
from qlib_ext.market.side_data.table import INDUSTRY
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import AGAINST, SAID, centre, missing
from qlib_ext.portfolio.constraints.limits import Limit, Linear, percent
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk

UNKNOWN = "stocks of no known industry"


class IndustryBand(Constraint):
    """Each industry's share of what is invested is that of the benchmark, give or take a width; 0 makes it neutral.

    Stocks whose industry is not known are an industry of their own, and it is told.

    Parameters
    ----------
    width
        Most that a share may lie above and below the benchmark's.
    against
        `benchmark`, that of the portfolio, or `equal`, every stock with a score at the same weight.
    name
        What it is called, where a portfolio has two of the kind.

    Raises
    ------
    UserError
        If the width is below 0, or there is no such benchmark.
    """

    asks = (INDUSTRY,)

    def __init__(self, width: float, against: str = "benchmark", name: str = "industry") -> None:
        self.name = instance("name", name, str)
        self.width = at_least("width", width, 0)
        self.against = one_of("against", against, AGAINST)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """A sum an industry, less the benchmark's share of all weights: so it holds whatever is invested."""
        members, names = industry_rows(known, "an industry band")
        shares = members @ centre(known, self.against, "an industry band")
        words = f"industries within {percent(self.width)} of {SAID[self.against]}"
        width = np.full(len(names), self.width)
        return [Linear(self.name, words, members - shares[:, None], -width, width, names, shares)]

    def notes(self, known: KnownDay, risk: Risk) -> list[str]:
        """How many have no industry."""
        unknown = known.require_industries("an industry band") < 0
        return missing("the industry", unknown, "they have a band as an industry of their own")


def industry_rows(known: KnownDay, asks: str) -> tuple[Floats, tuple[str, ...]]:
    """Who is in each industry that has a stock `[M, N]`, 1 or 0, and the names; last those of no known industry, if there are any.

    Raises
    ------
    UserError
        If the store has no industries.
    """
    industry = known.require_industries(asks)
    there = sorted(set(industry.tolist()), key=lambda one: (one < 0, one))
    members = (industry[None] == np.array(there)[:, None]).astype(np.float64)
    return members, tuple(UNKNOWN if one < 0 else known.industry_names[one] for one in there)
