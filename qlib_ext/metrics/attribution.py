"""Where a portfolio's return beyond that of a benchmark came from: groups of stocks, factors, and what is left to selection.

Weights are those at the close before a day, as shares of the account; what they lack to 1 is cash, which earns nothing. The
parts of a day add up to the difference of the day's returns, and `linked` ones to that of the compounded returns, exactly.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import UserError, integer
from qlib_ext.metrics.cross_section import Floats, checked_returns, matrix
from qlib_ext.metrics.risk import same_days

NONE = 1e-12  # a smaller weight is none


@dataclass(frozen=True)
class Brinson:
    """The difference to a benchmark by group and day, each ``[D, G + 1]``; the last group is cash.

    Attributes
    ----------
    weight, benchmark_weight
        Of the portfolio and of the benchmark at the close before.
    allocation, selection, interaction
        The three parts; over all groups they add up to the return of the portfolio less that of the benchmark.
    """

    weight: Floats
    benchmark_weight: Floats
    allocation: Floats
    selection: Floats
    interaction: Floats


def brinson_fachler(
    portfolio: npt.ArrayLike,
    benchmark: npt.ArrayLike,
    returns: npt.ArrayLike,
    group: npt.ArrayLike,
    groups: int,
) -> Brinson:
    r"""Allocation to groups, selection within them, and the interaction of both, by day.

    Source: Brinson and Fachler, "Measuring Non-US Equity Portfolio Performance", Journal of Portfolio Management 11 (1985).

    With the weight :math:`W_g` and the return :math:`R_g` of a group in the portfolio, :math:`V_g` and :math:`B_g` in the
    benchmark, whose whole return is B

    .. math:: (W_g - V_g)(B_g - B), \qquad V_g (R_g - B_g), \qquad (W_g - V_g)(R_g - B_g)

    Parameters
    ----------
    portfolio, benchmark
        Weights ``[D, S]`` (days x stocks) at the close before each day.
    returns
        Returns ``[D, S]`` of the days; where neither has a weight they may be NaN.
    group
        ``[D, S]`` whole numbers from 0 to G - 1, as they were known at the close before.
    groups
        G.

    Returns
    -------
    `Brinson`. A group that the benchmark does not hold has the portfolio's own return there, so that all of it is
    allocation; one that the portfolio does not hold has the benchmark's.

    Raises
    ------
    UserError
        If the shapes differ, a weight is missing, a stock with a weight has no return, or a group is none of the G.
    """
    held, index, moves = (
        matrix(*given) for given in (("portfolio", portfolio), ("benchmark", benchmark), ("returns", returns))
    )
    integer("groups", groups, 1)
    number = _groups(group, groups, held.shape)
    moves = checked_returns(moves, held, index)
    weight, beside = (_with_cash(_by_group(each, number, groups)) for each in (held, index))
    added, given = (
        np.pad(_by_group(each * moves, number, groups), ((0, 0), (0, 1))) for each in (held, index)
    )
    own = np.divide(added, weight, out=np.zeros(added.shape), where=np.abs(weight) > NONE)
    theirs = np.divide(given, beside, out=own.copy(), where=np.abs(beside) > NONE)
    whole = given.sum(axis=1, keepdims=True)
    allocation = (weight - beside) * (theirs - whole)
    selection = np.where(np.abs(weight) > NONE, beside * (own - theirs), 0.0)
    # What is left, so that nothing is lost where weights of a group cancel out: elsewhere the product of both differences.
    interaction = added - given - (weight - beside) * theirs - selection
    return Brinson(weight, beside, allocation, selection, interaction)


def carino(portfolio: npt.ArrayLike, benchmark: npt.ArrayLike) -> Floats:
    r"""What each day's parts must be multiplied by to add up to the difference of the compounded returns.

    Source: Cariño, "Combining Attribution Effects Over Time", Journal of Performance Measurement 3 (1999).

    .. math::

        c_t = \frac{k_t}{k}, \qquad k_t = \frac{\ln(1 + r_t) - \ln(1 + b_t)}{r_t - b_t}, \qquad
        k = \frac{\ln(1 + R) - \ln(1 + B)}{R - B}

    with the compounded returns R and B, and :math:`1 / (1 + r)` where the two returns are equal. So

    .. math:: \sum_t c_t (r_t - b_t) = R - B

    Parameters
    ----------
    portfolio, benchmark
        Daily returns r and b ``[D]``.

    Returns
    -------
    c ``[D]``.

    Raises
    ------
    UserError
        If a return is missing or not above -1, or the two differ in length.

    Examples
    --------
    >>> returns, index = [0.10, -0.05], [0.04, 0.01]
    >>> round(float(carino(returns, index) @ np.subtract(returns, index)), 6) == round(1.10 * 0.95 - 1.04 * 1.01, 6)
    True
    """
    own, beside = same_days(portfolio, benchmark)
    if (own <= -1).any() or (beside <= -1).any():
        raise UserError(
            "a return must be above -1 to be linked over time, found an account that lost everything"
        )
    whole = [np.array([np.prod(1 + each) - 1]) for each in (own, beside)]
    return _logarithmic(own, beside) / _logarithmic(*whole)


def linked(parts: npt.ArrayLike, portfolio: npt.ArrayLike, benchmark: npt.ArrayLike) -> Floats:
    """Daily parts ``[D, ...]`` of the difference of two returns, on the scale of the compounded ones (`carino`).

    Their sums over any days are contributions; over all days and parts they make the difference of what 1 became.

    Parameters
    ----------
    parts
        Parts of each day, with the days first.
    portfolio, benchmark
        As for `carino`, with its errors.
    """
    given, scale = np.asarray(parts, np.float64), carino(portfolio, benchmark)
    if given.shape[:1] != scale.shape:
        raise UserError(f"`parts` must be of {len(scale)} days as the returns, found the shape {given.shape}")
    return given * scale.reshape(-1, *[1] * (given.ndim - 1))


@dataclass(frozen=True)
class FactorReturns:
    """What a unit of each factor earned by day.

    Attributes
    ----------
    returns
        ``[D, 1 + P + G]``: the market, P styles, G groups.
    explained
        Share of the weighted spread of returns that they explain ``[D]``; NaN on a day without stocks.
    """

    returns: Floats
    explained: Floats


def factor_returns(
    returns: npt.ArrayLike,
    styles: npt.ArrayLike,
    group: npt.ArrayLike,
    groups: int,
    values: npt.ArrayLike,
) -> FactorReturns:
    r"""Returns of factors by a regression over the stocks of each day, on exposures known the day before.

    Source: Fama and MacBeth, "Risk, Return, and Equilibrium", Journal of Political Economy 81 (1973), with the weights and the
    constraint of Menchero, Orr and Wang, "The Barra US Equity Model (USE4)" (2011).

    .. math:: r_i = f_0 + \sum_p x_{ip} f_p + f_{g(i)} + u_i, \qquad \sum_g v_g f_g = 0

    by least squares with the weights :math:`\sqrt{v_i}`, so that small firms, whose own returns scatter more, count less.
    The constraint, with the value :math:`v_g` of each group, makes :math:`f_0` the return of the market and the others what
    is earned beyond it.

    Parameters
    ----------
    returns
        ``[D, S]`` (days x stocks); a stock without one takes no part that day.
    styles
        Exposures ``[P, D, S]`` at the close before, none missing.
    group
        ``[D, S]`` whole numbers from 0 to G - 1.
    groups
        G.
    values
        Market values v ``[D, S]`` at the close before, 0 or NaN for a stock that takes no part; ones for equal weights.

    Returns
    -------
    `FactorReturns`. A group without stocks, and a style that tells no stocks apart, earns 0.

    Raises
    ------
    UserError
        If the shapes differ, an exposure is missing, or a group is none of the G.
    """
    moves, size = matrix("returns", returns), np.nan_to_num(matrix("values", values))
    x = _styles(styles, moves.shape)
    integer("groups", groups, 1)
    number = _groups(group, groups, moves.shape)
    if size.shape != moves.shape:
        raise UserError(f"`values` must be {moves.shape} as `returns`, found the shape {size.shape}")
    found = np.zeros((len(moves), 1 + len(x) + groups))
    explained = np.full(len(moves), np.nan)
    for day, move in enumerate(moves):
        used = np.flatnonzero((size[day] > 0) & np.isfinite(move))
        if not len(used):
            continue
        value = np.bincount(number[day, used], size[day, used], groups)
        there = np.flatnonzero(value)
        design = np.concatenate([x[:, day, used].T, number[day, used][:, None] == there], axis=1)
        weight = np.sqrt(size[day, used])
        weighted = design.T * weight
        # Normal equations are ten times as fast as a decomposition of the design; the least solution, where there are several.
        fit = np.linalg.pinv(weighted @ design, rcond=1e-12, hermitian=True) @ (weighted @ move[used])
        market = fit[len(x) :] @ value[there] / value.sum()
        found[day, 0] = market
        found[day, 1 : 1 + len(x)] = fit[: len(x)]
        if len(there) > 1:  # the constraint leaves a single group nothing, not even rounding
            found[day, 1 + len(x) + there] = fit[len(x) :] - market
        left = (move[used] - design @ fit) ** 2 @ weight
        spread = (move[used] - np.average(move[used], weights=weight)) ** 2 @ weight
        explained[day] = 1 - left / spread if spread > 0 else np.nan
    return FactorReturns(found, explained)


@dataclass(frozen=True)
class FactorParts:
    """A return by factor and day.

    Attributes
    ----------
    exposure
        Of the weights to each factor ``[D, 1 + P + G]``.
    parts
        Exposure times the factor's return, of the same shape.
    specific
        What the factors leave: the selection of stocks ``[D]``.
    """

    exposure: Floats
    parts: Floats
    specific: Floats


def factor_parts(
    weights: npt.ArrayLike,
    returns: npt.ArrayLike,
    styles: npt.ArrayLike,
    group: npt.ArrayLike,
    groups: int,
    earned: npt.ArrayLike,
) -> FactorParts:
    """The return of weights, such as those of a portfolio less its benchmark's, by factor.

    Parameters
    ----------
    weights
        ``[D, S]`` at the close before each day.
    returns, styles, group, groups
        As for `factor_returns`.
    earned
        Returns of the factors ``[D, 1 + P + G]``.

    Returns
    -------
    `FactorParts`; parts and specific return of a day add up to the sum of weights times returns.

    Raises
    ------
    UserError
        As `factor_returns`, or if a weight is missing or a stock with a weight has no return.
    """
    held, factor = matrix("weights", weights), matrix("earned", earned)
    moves = checked_returns(matrix("returns", returns), held)
    x = _styles(styles, held.shape)
    number = _groups(group, integer("groups", groups, 1), held.shape)
    exposure = np.concatenate(
        [
            held.sum(axis=1, keepdims=True),
            np.einsum("ds,pds->dp", held, x),
            _by_group(held, number, groups),
        ],
        axis=1,
    )
    if factor.shape != exposure.shape:
        raise UserError(f"`earned` must be {exposure.shape}, found the shape {factor.shape}")
    parts = exposure * factor
    return FactorParts(exposure, parts, (held * moves).sum(axis=1) - parts.sum(axis=1))


def _logarithmic(own: Floats, beside: Floats) -> Floats:
    """(ln(1 + r) - ln(1 + b)) / (r - b), and what it comes to where they are equal."""
    ratio = (own - beside) / (1 + beside)
    same = np.abs(ratio) < 1e-12
    return np.where(same, 1.0, np.log1p(ratio) / np.where(same, 1.0, ratio)) / (1 + beside)


def _by_group(values: Floats, number: npt.NDArray[np.int64], groups: int) -> Floats:
    """Sums ``[D, G]`` of values ``[D, S]``."""
    days = len(values)
    place = np.arange(days)[:, None] * groups + number
    sums = np.bincount(place.ravel(), values.ravel(), days * groups)
    return sums.reshape(days, groups).astype(np.float64, copy=False)


def _with_cash(weights: Floats) -> Floats:
    return np.concatenate([weights, 1 - weights.sum(axis=1, keepdims=True)], axis=1)


def _groups(group: npt.ArrayLike, groups: int, shape: tuple[int, ...]) -> npt.NDArray[np.int64]:
    number = np.asarray(group, np.int64)
    if number.shape != shape:
        raise UserError(f"`group` must be {shape} as the weights, found the shape {number.shape}")
    if number.size and not (number.min() >= 0 and number.max() < groups):
        raise UserError(
            f"`group` must be from 0 to {groups - 1}, found {number.min()} to {number.max()}: give stocks without a group "
            "one of their own"
        )
    return number


def _styles(styles: npt.ArrayLike, shape: tuple[int, ...]) -> Floats:
    x = (
        np.asarray(styles, np.float64).reshape(-1, *shape)
        if np.size(styles) == 0
        else np.asarray(styles, np.float64)
    )
    if x.ndim != 3 or x.shape[1:] != shape:
        raise UserError(f"`styles` must be [styles, {shape[0]}, {shape[1]}], found the shape {x.shape}")
    if not np.isfinite(x).all():
        raise UserError(
            f"`styles` must all be there, found {(~np.isfinite(x)).sum()} missing; 0 is as the market"
        )
    return x
