"""What is known of stocks anyway: size, beta, volatility, past return and industry, as of each close."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np

from qlib_ext.checks import UserError
from qlib_ext.factors.subject import Subject
from qlib_ext.features.engine.evaluation import evaluate
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.market_value import FirstAvailable, SideMarketValue, TrailingTradedValue
from qlib_ext.metrics.rolling import trailing_beta
from qlib_ext.features.side_data.industries import industries

BETA_DAYS = 60
VOLATILITY_DAYS = 20
RETURN_DAYS = 20


@dataclass(frozen=True)
class Exposures:
    """Exposures of every stock and day.

    Attributes
    ----------
    planes
        Name -> `[D, S]`, NaN where it is not known.
    industry
        Number of each stock's industry `[D, S]`, -1 where it has none; None where the store has none.
    told
        Name -> what it is, or why it is not there.
    """

    planes: dict[str, np.ndarray]
    industry: np.ndarray | None
    told: dict[str, str]


def exposures(subject: Subject) -> Exposures:
    """The exposures that the store of a subject has."""
    market = subject.market
    planes: dict[str, np.ndarray] = {}
    told: dict[str, str] = {}
    size, told["size"] = _size(subject, market)
    if size is not None:
        planes["size"] = size
    returns = evaluate("$close/Ref($close, 1)-1", market).astype(np.float64)
    index, against = _index(subject, returns)
    planes["beta"] = trailing_beta(returns, index, BETA_DAYS)
    told["beta"] = f"slope of daily returns on those of {against}, over {BETA_DAYS} days"
    planes["volatility"] = evaluate(f"Std($close/Ref($close, 1)-1, {VOLATILITY_DAYS})", market)
    told["volatility"] = f"standard deviation of daily returns over {VOLATILITY_DAYS} days"
    planes["reversal"] = evaluate(f"$close/Ref($close, {RETURN_DAYS})-1", market)
    told["reversal"] = (
        f"return of the last {RETURN_DAYS} days: below 0 a factor bets on reversal, above 0 on momentum"
    )
    found, reason = industries(subject.store, market.calendar, market.instruments)
    told["industry"] = (
        reason
        if found is None
        else f"share of the spread of ranks that lies between {len(found.names)} industries, adjusted for their number"
    )
    return Exposures(planes, None if found is None else found.code, told)


def _size(subject: Subject, market: MarketPanel) -> tuple[np.ndarray | None, str]:
    source = FirstAvailable([SideMarketValue(), TrailingTradedValue()])
    try:
        reason = source.lacks(subject.store)
        if reason is not None:
            return None, f"not known: {reason}"
        values = source.load(subject.store, market.instruments)[: len(market.calendar)]
    except UserError as error:  # the scorecard is whole without it, and says why
        return None, f"not known: {error}"
    return values, str(source.describe(subject.store)["source"])


def _index(subject: Subject, returns: np.ndarray) -> tuple[np.ndarray, str]:
    """Daily returns of the index `[D]`, or of the members of each day; and what they are of."""
    if subject.benchmark is not None:
        close = subject.store.read(["close"], [subject.benchmark])[0, : len(returns), 0].astype(np.float64)
        return np.concatenate([[np.nan], close[1:] / close[:-1] - 1]), f"the index {subject.benchmark}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a day without members has no mean
        mean = np.nanmean(np.where(subject.market.present, returns, np.nan), axis=1)
    return mean, f"the mean of `{subject.universe}`"
