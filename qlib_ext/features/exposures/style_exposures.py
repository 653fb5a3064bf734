"""Exposures of stocks to styles, as of each close: size, beta, momentum, volatility, reversal, liquidity; and industries.

Planes are `[D, S]` (days x stocks), NaN where nothing is known. The value of day t follows from what was known at the close of
t, so it may explain, or forecast, what a stock earns from then on. `standardised` makes one ready for a regression.
"""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pandas as pd

from qlib_ext.checks import UserError, above, integer
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.industries import industries
from qlib_ext.features.side_data.market_value import FirstAvailable, SideMarketValue, TrailingTradedValue
from qlib_ext.market.store import QlibStore
from qlib_ext.market.traded_value import TradedValue
from qlib_ext.metrics.cross_section import Floats, matrix
from qlib_ext.metrics.rolling import trailing_beta

STYLES = ("size", "beta", "momentum", "volatility", "reversal", "liquidity")
BETA_DAYS = 60
YEAR_DAYS, MONTH_DAYS = 252, 21  # momentum: the year without its last month
VOLATILITY_DAYS = 20
REVERSAL_DAYS = 20
LIQUIDITY_DAYS = 20
HISTORY_DAYS = YEAR_DAYS + 1  # that the longest of them looks back over, today's among them


def daily_returns(close: npt.ArrayLike) -> Floats:
    """Close over the close of the day before, less 1; NaN where one of them is missing."""
    return reversal(close, 1)


def log_size(market_value: npt.ArrayLike) -> Floats:
    """Logarithm of market values; NaN where one is not above 0."""
    return _log(matrix("market_value", market_value))


def momentum(close: npt.ArrayLike, window_days: int = YEAR_DAYS, skipped_days: int = MONTH_DAYS) -> Floats:
    """Return of the last year without its last month, which tends to reverse.

    Source: Jegadeesh and Titman, "Returns to Buying Winners and Selling Losers", Journal of Finance 48 (1993).

    Parameters
    ----------
    close
        Adjusted closes ``[D, S]``.
    window_days, skipped_days
        Days back to the first and to the last close of the return; the first lies before the last.

    Returns
    -------
    ``[D, S]``, NaN on the first `window_days` days.

    Raises
    ------
    UserError
        If a window is out of its range.
    """
    price = matrix("close", close)
    integer("window_days", window_days, 1)
    integer("skipped_days", skipped_days, 0, window_days - 1)
    found = np.full(price.shape, np.nan)
    if len(price) > window_days:
        found[window_days:] = price[window_days - skipped_days : len(price) - skipped_days]
        found[window_days:] /= price[:-window_days]
    return found - 1


def reversal(close: npt.ArrayLike, window_days: int = REVERSAL_DAYS) -> Floats:
    """Return of the last days ``[D, S]``: `momentum` with nothing left out. What rose of late tends to fall."""
    return momentum(close, window_days, 0)


def volatility(returns: npt.ArrayLike, window_days: int = VOLATILITY_DAYS, min_days: int = 10) -> Floats:
    """Standard deviation of daily returns over the days that end with each day.

    Parameters
    ----------
    returns
        ``[D, S]``, NaN where there is none.
    window_days, min_days
        Days of a window, and how many of them must have a return, at least 2.

    Returns
    -------
    ``[D, S]``, NaN with fewer days.

    Raises
    ------
    UserError
        If a window is out of its range.
    """
    moves = pd.DataFrame(matrix("returns", returns))
    integer("min_days", min_days, 2, integer("window_days", window_days, 2))
    return moves.rolling(window_days, min_periods=min_days).std().to_numpy()


def liquidity(
    traded_value: npt.ArrayLike,
    market_value: npt.ArrayLike,
    window_days: int = LIQUIDITY_DAYS,
    min_days: int = 10,
) -> Floats:
    """Logarithm of the mean traded value over the market value: how much of a firm is traded a day.

    Parameters
    ----------
    traded_value
        Money that stocks were traded for ``[D, S]``, NaN where it is not known; a suspended day may have 0.
    market_value
        ``[D, S]``. Where only a trailing traded value stands for it, this is recent trading over what is usual.
    window_days, min_days
        Days of the mean, and how many of them must have a value.

    Returns
    -------
    ``[D, S]``, NaN with fewer days, or without trading.

    Raises
    ------
    UserError
        If a window is out of its range.
    """
    traded = pd.DataFrame(matrix("traded_value", traded_value))
    integer("min_days", min_days, 1, integer("window_days", window_days, 1))
    mean = traded.rolling(window_days, min_periods=min_days).mean().to_numpy()
    return _log(mean) - log_size(market_value)


def styles(
    close: npt.ArrayLike,
    market_return: npt.ArrayLike,
    size: npt.ArrayLike | None = None,
    traded_value: npt.ArrayLike | None = None,
) -> dict[str, Floats]:
    """All styles that the given planes have, in the order of `STYLES`.

    Parameters
    ----------
    close
        Adjusted closes ``[D, S]``.
    market_return
        Daily returns ``[D]`` of what betas are to.
    size
        Market values ``[D, S]``, or what stands for them; without them there is neither size nor liquidity.
    traded_value
        Money that stocks were traded for ``[D, S]``; without it there is no liquidity.

    Returns
    -------
    Name -> ``[D, S]``.
    """
    returns = daily_returns(close)
    found = {
        "beta": trailing_beta(returns, market_return, BETA_DAYS),
        "momentum": momentum(close),
        "volatility": volatility(returns),
        "reversal": reversal(close),
    }
    if size is not None:
        found["size"] = log_size(size)
        if traded_value is not None:
            found["liquidity"] = liquidity(traded_value, size)
    return {name: found[name] for name in STYLES if name in found}


def standardised(
    plane: npt.ArrayLike, members: npt.ArrayLike, values: npt.ArrayLike | None = None, limit: float = 3.0
) -> Floats:
    """An exposure ready for a regression: on each day 0 for the market, with a standard deviation of about 1.

    Parameters
    ----------
    plane
        ``[D, S]``, NaN where it is not known.
    members
        ``[D, S]`` bool: the stocks that mean and standard deviation are of; the others are put on the same scale.
    values
        Market values ``[D, S]``, by which the mean weighs the members, so that the market by value has 0; None for
        equal weights. One that is missing has no weight.
    limit
        Standard deviations at which an outlier is cut.

    Returns
    -------
    ``[D, S]``, none missing: what is not known is 0, as the market, and so is a day on which nothing differs.

    Raises
    ------
    UserError
        If the shapes differ, or `limit` is not above 0.
    """
    x, there = matrix("plane", plane), np.asarray(members, bool)
    above("limit", limit, 0)
    weights = there.astype(np.float64)
    if values is not None:
        weights = np.where(there, np.nan_to_num(matrix("values", values)), 0.0)
    if not x.shape == there.shape == weights.shape:
        raise UserError(
            f"`plane`, `members` and `values` must be of the same days and stocks, found {x.shape}, {there.shape} and "
            f"{weights.shape}"
        )
    known = np.isfinite(x)
    counted, x = there & known, np.where(known, x, 0.0)
    count = np.maximum(counted.sum(axis=1, keepdims=True), 1)
    middle = (x * counted).sum(axis=1, keepdims=True) / count
    spread = np.sqrt(((x - middle) ** 2 * counted).sum(axis=1, keepdims=True) / count)
    flat = spread <= 1e-12 * np.abs(middle)
    scaled = np.where(known, np.clip((x - middle) / np.where(flat, np.inf, spread), -limit, limit), 0.0)
    used = np.where(counted, weights, 0.0)
    total = used.sum(axis=1, keepdims=True)
    market = (scaled * used).sum(axis=1, keepdims=True) / np.where(total > 0, total, 1.0)
    return np.where(known, scaled - market, 0.0)


def _log(values: Floats) -> Floats:
    return np.log(np.where(values > 0, values, np.nan))


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
    industry_names
        The industries, by number.
    market_value
        `[D, S]` from the store's side data; None where it has none, so that `size` is a stand-in or missing.
    """

    planes: dict[str, np.ndarray]
    industry: np.ndarray | None
    told: dict[str, str]
    industry_names: tuple[str, ...] = ()
    market_value: np.ndarray | None = None


def load_exposures(
    store: QlibStore, market: MarketPanel, universe: str, benchmark: str | None = None
) -> Exposures:
    """The exposures that a store has of the stocks of a market, on its days.

    Parameters
    ----------
    store
        Where the market is from.
    market
        With the field `close`, and `HISTORY_DAYS` before the first day that is asked.
    universe
        Its name, for what is told.
    benchmark
        Index that betas are to; None for the mean of the universe.
    """
    first = int(store.calendar.get_indexer(market.calendar[:1])[0])
    days = slice(first, first + len(market.calendar))
    close = market.field("close").astype(np.float64)
    index, against = _index(store, market, daily_returns(close), universe, benchmark, days)
    size, why_size = _size(store, market, days)
    traded, why_liquidity = _traded(store, market, days)
    side = SideMarketValue().lacks(store) is None
    if size is not None and traded is not None:
        why_liquidity = f"traded value of the last {LIQUIDITY_DAYS} days over " + (
            "the market value" if side else f"its median of {TrailingTradedValue().window_days} days"
        )
    found, why_industry = industries(store, market.calendar, market.instruments)
    told = {
        "size": why_size,
        "beta": f"slope of daily returns on those of {against}, over {BETA_DAYS} days",
        "momentum": f"return of the last {YEAR_DAYS} days without the last {MONTH_DAYS}",
        "volatility": f"standard deviation of daily returns over {VOLATILITY_DAYS} days",
        "reversal": f"return of the last {REVERSAL_DAYS} days",
        "liquidity": why_liquidity,
        "industry": why_industry if found is None else f"{len(found.names)} industries of the side data",
    }
    return Exposures(
        styles(close, index, size, traded),
        None if found is None else found.code,
        told,
        () if found is None else found.names,
        size if side else None,
    )


def _size(store: QlibStore, market: MarketPanel, days: slice) -> tuple[np.ndarray | None, str]:
    """Market values, or what stands for them; and what they are, or why there are none."""
    source = FirstAvailable([SideMarketValue(), TrailingTradedValue()])
    try:
        reason = source.lacks(store)
        if reason is not None:
            return None, f"not known: {reason}"
        return source.load(store, market.instruments)[days], str(source.describe(store)["source"])
    except UserError as error:  # what asks for exposures is whole without this one, and says why
        return None, f"not known: {error}"


def _traded(store: QlibStore, market: MarketPanel, days: slice) -> tuple[np.ndarray | None, str]:
    try:
        return TradedValue(store, market.instruments).daily()[
            days
        ], "not known: there is no size to set it against"
    except UserError as error:
        return None, f"not known: {error}"


def _index(
    store: QlibStore, market: MarketPanel, returns: Floats, universe: str, benchmark: str | None, days: slice
) -> tuple[Floats, str]:
    """Daily returns of the index `[D]`, or of the members of each day; and what they are of."""
    if benchmark is not None:
        close = store.read(["close"], [benchmark])[0, days].astype(np.float64)
        return daily_returns(close)[:, 0], f"the index {benchmark}"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # a day without members has no mean
        mean = np.nanmean(np.where(market.present, returns, np.nan), axis=1)
    return mean, f"the mean of `{universe}`"
