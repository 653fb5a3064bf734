"""How far a portfolio's return may stray from a benchmark's."""

from __future__ import annotations

from qlib_ext.checks import above, instance, one_of
from qlib_ext.portfolio.constraints.base import Constraint
from qlib_ext.portfolio.constraints.centre import AGAINST, SAID, centre
from qlib_ext.portfolio.constraints.limits import YEAR_DAYS, Deviation, Limit, deviation_words
from qlib_ext.portfolio.known_day import KnownDay
from qlib_ext.portfolio.risk import Risk


class TrackingError(Constraint):
    r"""The forecast standard deviation of the return beside a benchmark's is at most this, by the year.

    .. math:: \sqrt{252\,(w - b)^\top \Sigma\,(w - b)} \le \tau

    Parameters
    ----------
    most
        Yearly standard deviation, as a fraction.
    against
        `benchmark`, that of the portfolio, or `equal`, every stock with a score at the same weight.
    name
        What it is called, where a portfolio has two of the kind.

    Raises
    ------
    UserError
        If it is not above 0, or there is no such benchmark.

    Notes
    -----
    It is the risk model's forecast. What comes true is in the report beside it. What the benchmark has of stocks whose risk is not
    known is spread over the others. A year has 252 days here, and as many as the backtest's `days_per_year` in the report: of 243, the
    default, 5% reads as 4.9%.
    """

    def __init__(self, most: float, against: str = "benchmark", name: str = "tracking_error") -> None:
        self.name = instance("name", name, str)
        self.most = above("most", most, 0)
        self.against = one_of("against", against, AGAINST)

    def limits(self, known: KnownDay, risk: Risk) -> list[Limit]:
        """One."""
        most, said = self.most / YEAR_DAYS**0.5, SAID[self.against]
        weights = centre(known, self.against, "tracking error")
        return [Deviation(self.name, deviation_words(most, said), risk, weights, most, said)]
