"""Returns that a risk can be estimated from, of stocks that were listed late or suspended for a while."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from qlib_ext.checks import counted
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Bools, KnownDay

NAMED = 3  # stocks that a sentence names


def traded_returns(known: KnownDay) -> Floats:
    """`[T, N]` returns from a day of trading to the next; NaN on other days.

    A suspended stock stands still, and makes up for all of it on the day that it trades again. Neither is a day like others:
    the former would make it look safe, the latter wild, and both would hide how it goes with the market. A day without volume,
    or without traded value where no volume is known, counts as one of a suspension. Where the store knows neither, every day
    with a return counts as traded.
    """
    found = known.returns.copy()
    traded = _traded(known)
    if traded is not None:
        found[~traded] = np.nan
        found[1:][~traded[:-1]] = np.nan
    return found


def _traded(known: KnownDay) -> Bools | None:
    for name in ("volume", "traded_value"):
        plane = known.planes.get(name)
        if plane is not None and np.isfinite(plane).any():
            return np.asarray(np.nan_to_num(plane) > 0, dtype=bool)
    return None


def completed(returns: Floats, market: Floats) -> Floats:
    r"""Returns `[D, N]` with something likely where there was none.

    Source: after Stambaugh (1997), "Analyzing Investments Whose Histories Differ in Length", Journal of Financial Economics 45:
    what a short history lacks is told by how it goes with a long one, here that of the market.

    .. math:: \hat r_{t} = \bar r + \beta (m_t - \bar m) + e_{s}

    where e is what the same regression left on one of the days s that the stock has, taken in turn. So a stock keeps its
    variance and what it shares with the market, and stocks that were listed on one day keep what they share beside.

    Parameters
    ----------
    returns
        `[D, N]`, NaN where there is none. Each stock has at least one.
    market
        `[D]`, none missing.
    """
    there = np.isfinite(returns)
    filled = returns.copy()
    for stock in np.flatnonzero(~there.all(axis=0)):
        own = np.flatnonzero(there[:, stock])
        moves = market - market[own].mean()
        spread = moves[own] @ moves[own]
        mean = returns[own, stock].mean()
        beta = moves[own] @ (returns[own, stock] - mean) / spread if spread > 0 else 0.0
        likely = mean + beta * moves
        left = returns[own, stock] - likely[own]
        missing = np.flatnonzero(~there[:, stock])
        filled[missing, stock] = likely[missing] + left[missing % len(own)]
    return filled


def told(known: KnownDay, returns: Floats, enough: Bools, min_days: int) -> list[str]:
    """In words, which stocks have no estimate, and which were suspended.

    Parameters
    ----------
    known
        The day.
    returns
        `[D, N]` of the days that are estimated from, as from `traded_returns`.
    enough
        `[N]`: which stocks have an estimate.
    min_days
        Days with a return that it takes.
    """
    found = []
    days = len(returns)
    codes = np.array(known.codes)
    if not enough.all():
        found.append(
            f"no risk is known of {named(codes[~enough])}: traded on fewer than {min_days} of the last "
            f"{counted(days, 'day')}, as after a listing or in a long suspension, or at one price throughout"
        )
    halted = np.isfinite(known.returns[-days:]) & ~np.isfinite(returns)
    some = halted.any(axis=0) & enough
    if some.any():
        found.append(
            f"suspended on some of the last {counted(days, 'day')}: {named(codes[some])}; these days, and those that "
            "make up for them, are left out of the risk"
        )
    return found


def named(codes: Sequence[str] | np.ndarray) -> str:
    """`SH600000, SH600004 and 12 more`."""
    more = len(codes) - NAMED
    return ", ".join(map(str, codes[:NAMED])) + (f" and {more:,} more" if more > 0 else "")
