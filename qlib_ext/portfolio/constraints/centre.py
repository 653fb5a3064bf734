"""The weights that a constraint measures from."""

from __future__ import annotations

import numpy as np

from qlib_ext.checks import UserError, counted
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Bools, KnownDay

AGAINST = ("benchmark", "equal")
SAID = {"benchmark": "the benchmark", "equal": "equal weight"}


def centre(known: KnownDay, against: str, asks: str) -> Floats:
    """Weights `[N]` with sum 1: the benchmark's, or every stock with a score at the same weight.

    Parameters
    ----------
    known
        The day. What the benchmark has of stocks that are not in it is spread over those that are.
    against
        One of `AGAINST`.
    asks
        Who asks, for the message.

    Raises
    ------
    UserError
        If no stock has a weight in it.
    """
    found = np.isfinite(known.score).astype(np.float64)
    if against == "benchmark":
        found = np.nan_to_num(known.benchmark)
    total = found.sum()
    if not total > 0:
        raise UserError(
            f"{asks} is measured from {SAID[against]}, and no stock has a weight in it on {known.day:%Y-%m-%d}: set "
            f"`against` to {' or '.join(one for one in AGAINST if one != against)}, or leave the constraint out"
        )
    return found / total


def missing(what: str, stocks: Bools, treated: str) -> list[str]:
    """A sentence on stocks of which something is not known, and what is done with them; none where it is known of all."""
    count = int(stocks.sum())
    return [f"{what} of {counted(count, 'stock')} is not known: {treated}"] if count else []
