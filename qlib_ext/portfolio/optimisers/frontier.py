"""The efficient frontier within bounds, by its turning points."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from scipy.linalg import cho_factor, cho_solve

from qlib_ext.metrics.cross_section import Floats
from qlib_ext.portfolio.known_day import Bools
from qlib_ext.portfolio.problem import TOLERANCE, Infeasible

SMALL = 1e-12  # of a weight: no room to move
TRACE = 1e-6  # of the spread of expected returns


@dataclass(frozen=True)
class Frontier:
    """The efficient frontier: straight between neighbouring turning points.

    Attributes
    ----------
    weights
        `[M, N]`: the M turning points, from the highest expected return to the lowest variance.
    returns, variances
        `[M]` of the turning points.
    expected, covariance
        `[N]` and `[N, N]`.
    """

    weights: Floats
    returns: Floats
    variances: Floats
    expected: Floats
    covariance: Floats

    def lowest_variance(self) -> Floats:
        """`[N]`."""
        return self.weights[-1]

    def highest_ratio(self) -> Floats:
        """`[N]`: the highest expected return for its standard deviation.

        Raises
        ------
        Infeasible
            If no portfolio has an expected return above 0.
        """
        if not self.returns[0] > 0:
            raise Infeasible(
                f"the highest expected return of a day is {self.returns[0]:.4%}, from which no ratio above 0 can be made"
            )
        found = [self._best_between(k) for k in range(len(self.weights) - 1)] or [self.weights[0]]
        return max(found, key=self._ratio)

    def of_return(self, least: float) -> Floats:
        """`[N]`: the lowest variance with an expected return of at least so much.

        Raises
        ------
        Infeasible
            If the highest is lower.
        """
        if self.returns[0] < least - TOLERANCE * abs(least):
            raise Infeasible(
                f"an expected return of at least {least:.4%} a day is asked for, and the highest is {self.returns[0]:.4%}"
            )
        k = int(np.argmax(self.returns <= least)) if self.returns[-1] < least else len(self.weights) - 1
        if k == 0 or self.returns[-1] >= least:
            return self.weights[k]
        share = (self.returns[k - 1] - least) / (self.returns[k - 1] - self.returns[k])
        return self._between(k - 1, share)

    def of_volatility(self, most: float) -> Floats:
        """`[N]`: the highest expected return with a standard deviation of at most so much.

        Raises
        ------
        Infeasible
            If the lowest is higher.
        """
        lowest = float(np.sqrt(self.variances[-1]))
        if lowest > most * (1 + TOLERANCE):
            raise Infeasible(
                f"a volatility of at most {most:.4%} a day is asked for, and the lowest is {lowest:.4%}"
            )
        under = self.variances <= most**2
        k = int(np.argmax(under)) if under.any() else len(self.weights) - 1
        if k == 0 or not under.any():
            return self.weights[k]
        start, step = self.weights[k - 1], self.weights[k] - self.weights[k - 1]
        moved = self.covariance @ step
        a, b, c = step @ moved, start @ moved, self.variances[k - 1] - most**2
        # The smaller root, written so that nothing cancels: b is below 0, since variance falls along the step.
        return self._between(k - 1, c / (-b + np.sqrt(max(0.0, b * b - a * c))))

    def _between(self, k: int, share: float) -> Floats:
        share = min(1.0, max(0.0, share))
        return (1.0 - share) * self.weights[k] + share * self.weights[k + 1]

    def _best_between(self, k: int) -> Floats:
        """Where the ratio is highest on the way from one turning point to the next."""
        start, step = self.weights[k], self.weights[k + 1] - self.weights[k]
        moved = self.covariance @ step
        gain, slope, bend = self.returns[k + 1] - self.returns[k], start @ moved, step @ moved
        below = gain * slope - self.returns[k] * bend
        share = (self.returns[k] * slope - gain * self.variances[k]) / below if below else 0.0
        return max((self._between(k, each) for each in (0.0, share, 1.0)), key=self._ratio)

    def _ratio(self, weights: Floats) -> float:
        return float(self.expected @ weights / np.sqrt(weights @ self.covariance @ weights))


def frontier(
    expected: Floats, covariance: Floats, lower: Floats, upper: Floats, invested: float = 1.0
) -> Frontier:
    r"""The efficient frontier, by the critical line.

    Source: Markowitz (1956), "The optimization of a quadratic function subject to linear constraints"; Bailey and López de
    Prado (2013), "An open-source implementation of the critical-line algorithm for portfolio optimization", Algorithms 6.

    .. math:: \min_w\; \tfrac12 w^\top \Sigma w - \lambda\,\mu^\top w
              \quad\text{with}\quad l \le w \le u,\; \mathbf 1^\top w = b

    for every :math:`\lambda` from infinity to 0. Between two turning points the same stocks are free, and their weights are
    linear in :math:`\lambda`; at a turning point one comes to a bound or leaves it.

    Parameters
    ----------
    expected
        `[N]`.
    covariance
        `[N, N]`, positive definite.
    lower, upper
        `[N]` bounds; the lower ones finite.
    invested
        b.

    Raises
    ------
    Infeasible
        If bounds leave no weights, or the covariance of the free stocks is singular.

    Notes
    -----
    Where stocks have the same expected return, a millionth of the spread of returns tells them apart by their variance.
    """
    if lower.sum() > invested + TOLERANCE or upper.sum() < invested - TOLERANCE:
        raise Infeasible(
            f"the stocks must have {lower.sum():.1%} and may have {upper.sum():.1%} of the account, and {invested:.1%} are to "
            "be invested"
        )
    points = np.array([*_turning_points(expected, covariance, lower, upper, invested)])
    return Frontier(
        weights=points,
        returns=points @ expected,
        variances=np.einsum("mn,nk,mk->m", points, covariance, points, optimize=True),
        expected=expected,
        covariance=covariance,
    )


def _turning_points(
    expected: Floats, covariance: Floats, lower: Floats, upper: Floats, invested: float
) -> Iterator[Floats]:
    """Weights `[N]` at each, from the highest expected return to the lowest variance."""
    mean = _told_apart(expected, np.diag(covariance))
    weights, free = _highest_return(mean, lower, upper, invested)
    movable = upper - lower > SMALL
    yield weights.copy()
    if not movable.any():
        return
    line = np.inf
    for _ in range(100 * len(weights)):
        try:
            base, slope, push, pull = _line(mean, covariance, weights, free, invested)
        except np.linalg.LinAlgError as error:
            raise Infeasible("the critical line needs a covariance that is positive definite") from error
        at_bound = movable & ~free
        ends = np.full(len(weights), -np.inf)  # the lambda at which a stock comes to a bound, or leaves it
        moving = free & (np.abs(slope) > 0)
        bound = np.where(slope > 0, lower, upper)
        ends[moving] = (bound[moving] - base[moving]) / slope[moving]
        low = weights - lower <= upper - weights
        leaving = at_bound & np.where(low, pull > 0, pull < 0)
        ends[leaving] = -push[leaving] / pull[leaving]
        one = int(np.argmax(ends))
        end = min(float(ends[one]), line)
        weights = np.where(free, np.clip(base + max(end, 0.0) * slope, lower, upper), weights)
        if end <= 0:
            yield weights
            return
        if free[one]:
            weights[one] = bound[one]
        free[one] = not free[one]
        line = end
        yield weights.copy()
    raise Infeasible("the critical line came to no end: expected returns or bounds are degenerate")


def _told_apart(expected: Floats, variance: Floats) -> Floats:
    """Expected returns without ties, at which the line would have no direction."""
    spread = float(np.ptp(expected))
    if spread > 0 and np.diff(np.sort(expected)).min() > TRACE * spread:
        return expected
    return expected - TRACE * (spread or 1.0) * variance / variance.max()


def _line(
    mean: Floats, covariance: Floats, weights: Floats, free: Bools, invested: float
) -> tuple[Floats, Floats, Floats, Floats]:
    """Weights as `base + lambda slope`, and slopes of the objective at bounds as `push + lambda pull`; `[N]` each."""
    fixed = np.where(free, 0.0, weights)
    factor = cho_factor(covariance[np.ix_(free, free)])
    ones, means, others = (
        cho_solve(factor, side) for side in (np.ones(int(free.sum())), mean[free], (covariance @ fixed)[free])
    )
    price, price_slope = (invested - fixed.sum() + others.sum()) / ones.sum(), -means.sum() / ones.sum()
    base, slope = fixed.copy(), np.zeros(len(weights))
    base[free] = price * ones - others
    slope[free] = means + price_slope * ones
    if free.sum() == 1:
        slope[free] = 0.0  # what the sum leaves no room for
    return base, slope, covariance @ base - price, covariance @ slope - mean - price_slope


def _highest_return(mean: Floats, lower: Floats, upper: Floats, invested: float) -> tuple[Floats, Bools]:
    """The weights of the highest expected return, and which stock is free: the one that took the last."""
    weights, left = lower.copy(), invested - lower.sum()
    last = None
    for stock in np.argsort(-mean, kind="stable"):
        if upper[stock] - lower[stock] <= SMALL:
            continue
        if last is None or left > SMALL:
            last = stock
        take = min(left, upper[stock] - lower[stock])
        if take <= 0:
            break
        weights[stock] += take
        left -= take
    free = np.zeros(len(weights), dtype=bool)
    if last is not None:
        free[last] = True
    return weights, free
