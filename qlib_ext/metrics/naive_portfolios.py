"""Portfolios without skill, on the days of a backtest: what a list of stocks must beat to be worth its scores."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, above, integer
from qlib_ext.metrics.cross_section import Floats


def held_returns(close: npt.ArrayLike) -> Floats:
    """Return of each day of who held a stock at the close before.

    Parameters
    ----------
    close
        ``[D, S]`` adjusted closes, so that dividends count; NaN where a stock has none.

    Returns
    -------
    ``[D, S]``. A stock without a close stands still at its last one, and makes up for it on the day that it trades again.
    NaN on the first day, and where no close before is known.
    """
    price = np.array(close, dtype=np.float64)
    for day in range(1, len(price)):
        price[day] = np.where(np.isnan(price[day]), price[day - 1], price[day])
    returns = np.full(price.shape, np.nan)
    returns[1:] = price[1:] / price[:-1] - 1
    return returns


def weighted_return(
    returns: npt.ArrayLike, members: npt.ArrayLike, values: npt.ArrayLike | None = None
) -> Floats:
    r"""Return by day of all members together, at equal weight or by value.

    .. math:: r_t = \sum_{i \in M_{t-1}} w_{i, t-1} \, r_{i, t} \big/ \sum_{i \in M_{t-1}} w_{i, t-1}

    Parameters
    ----------
    returns
        ``[D, S]``, from `held_returns`.
    members
        ``[D, S]`` bool: who is in at the close of each day.
    values
        ``[D, S]`` market values at the close; None for equal weights, which are restored at every close. Where a value
        is missing the stock does not take part.

    Returns
    -------
    ``[D]``; 0 on the first day, and on a day without a member that has a return.

    Notes
    -----
    Nothing is paid for restoring the weights. At daily closes that flatters the equal weights a little: a close that
    bounces between bid and ask is sold high and bought low.
    """
    returns, there = np.asarray(returns, np.float64), np.asarray(members, bool)
    weights = there.astype(np.float64)
    if values is not None:
        weights = np.where(there, np.nan_to_num(np.asarray(values, np.float64)), 0.0)
    total = np.zeros(len(returns))
    used = np.where(np.isnan(returns[1:]), 0.0, weights[:-1])
    whole = used.sum(axis=1)
    earned = (used * np.nan_to_num(returns[1:])).sum(axis=1)
    total[1:] = np.divide(earned, whole, out=np.zeros(len(whole)), where=whole > 0)
    return total


def dividend_yield(
    factor: npt.ArrayLike, members: npt.ArrayLike, values: npt.ArrayLike | None = None, most: float = 0.08
) -> Floats:
    r"""What the members of an index paid by day as a share of their prices, which an index of prices leaves out.

    .. math:: y_t = \sum_{i \in M_{t-1}} w_{i, t-1} \left(\frac{f_{i, t}}{f_{i, t-1}} - 1\right)
              \left[\frac{f_{i, t}}{f_{i, t-1}} - 1 \leq m\right]

    Parameters
    ----------
    factor
        ``[D, S]`` adjusted over raw price, f, which grows on the day of a dividend by its share of the price; NaN where it is
        not known.
    members, values
        As of `weighted_return`.
    most
        m: a larger growth is taken for a split or new shares, which an index of prices knows.

    Returns
    -------
    ``[D]``; 0 on the first day.

    Notes
    -----
    An estimate. A dividend above `most`, or paid together with new shares, is left out; a small split is taken for a dividend.
    """
    above("most", most, 0)
    growth = held_returns(factor)
    known = np.isfinite(growth)
    paid = np.where(known & (growth > 0) & (growth <= most), growth, np.where(known, 0.0, np.nan))
    return weighted_return(paid, members, values)


def random_lists(
    returns: npt.ArrayLike,
    eligible: npt.ArrayLike,
    names: npt.ArrayLike,
    replaced: npt.ArrayLike,
    *,
    draws: int = 200,
    seed: int = 0,
) -> Floats:
    """Returns before cost of lists drawn by chance that hold and replace as many stocks a day as a portfolio did.

    A list holds `names[t]` stocks at the close of t, each at the same weight: those of the day before that are still
    eligible, less `replaced[t]` of them drawn at random, and as many others drawn from the eligible ones.

    Parameters
    ----------
    returns
        ``[D, S]``, from `held_returns`.
    eligible
        ``[D, S]`` bool: what could be on the list at the close of each day.
    names, replaced
        ``[D]`` numbers of stocks held at each close, and exchanged on the day.
    draws
        How many lists.
    seed
        Of the drawing.

    Returns
    -------
    ``[draws, D]``; 0 on the first day, and on a day after a close without stocks.

    Raises
    ------
    UserError
        If `draws` or `seed` lies outside its range, or the shapes differ.
    """
    integer("draws", draws, 1)
    integer("seed", seed, 0)
    returns, eligible = np.nan_to_num(np.asarray(returns, np.float64)), np.asarray(eligible, bool)
    counts, exchanged = np.asarray(names, np.int64), np.asarray(replaced, np.int64)
    if not returns.shape == eligible.shape == (len(counts), returns.shape[1]) or len(exchanged) != len(
        counts
    ):
        raise UserError(
            f"`returns`, `eligible`, `names` and `replaced` must be of the same days and stocks, found "
            f"{returns.shape}, {eligible.shape}, {counts.shape} and {exchanged.shape}"
        )
    found = np.zeros((draws, len(returns)))
    lists = _lists(eligible, counts, exchanged, draws, np.random.default_rng(seed))
    for day, held in enumerate(lists, start=1):
        if day == len(returns):
            break
        size = held.sum(axis=1)
        found[:, day] = np.divide(held @ returns[day], size, out=np.zeros(draws), where=size > 0)
    return found


def _lists(
    eligible: np.ndarray, names: np.ndarray, replaced: np.ndarray, draws: int, rng: np.random.Generator
) -> Iterator[np.ndarray]:
    """Who is on each list at the close of each day, ``[draws, S]`` bool."""
    held = np.zeros((draws, eligible.shape[1]), dtype=bool)
    for there, count, exchanged in zip(eligible, names, replaced, strict=True):
        order = rng.random(held.shape, dtype=np.float32)
        held &= there
        kept = _lowest(order, held, np.minimum(held.sum(axis=1), max(count - exchanged, 0)))
        # Who was dropped may not come back on the same day, unless there is nobody else.
        order += np.where(held & ~kept, 1.0, 0.0).astype(np.float32)
        others = there & ~kept
        held = kept | _lowest(order, others, np.minimum(count - kept.sum(axis=1), others.sum(axis=1)))
        yield held


def _lowest(order: np.ndarray, among: np.ndarray, count: np.ndarray) -> np.ndarray:
    """Of each row the `count` lowest of those that are `among` it, as a mask."""
    place = np.argsort(np.where(among, order, np.inf), axis=1)
    chosen = np.arange(order.shape[1]) < count[:, None]
    mask = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(mask, place, chosen, axis=1)
    return mask


def survivorship_bound(
    returns: npt.ArrayLike, members: npt.ArrayLike, missing: float, *, tail: float = 0.1
) -> tuple[float, float]:
    r"""By how much members without bars could change the universe's return of a period.

    Each of the missing is taken to have earned what the members at the quantile `tail` did, or those at 1 - `tail`, in
    the place of the mean:

    .. math:: s \, (q - m)

    Parameters
    ----------
    returns
        ``[D, S]``, from `held_returns`, of the days of one period such as a year.
    members
        ``[S]`` bool: members at its beginning that have bars.
    missing
        Share s of the members that has none, in [0, 1].
    tail
        Probability in (0, 0.5].

    Returns
    -------
    low, high
        Change of the period's return; 0 without missing ones or without members.
    """
    earned = (
        np.prod(1 + np.nan_to_num(np.asarray(returns, np.float64)[:, np.asarray(members, bool)]), axis=0) - 1
    )
    if missing <= 0 or not len(earned):
        return 0.0, 0.0
    low, high = np.quantile(earned, [tail, 1 - tail]) - earned.mean()
    return float(missing * low), float(missing * high)
