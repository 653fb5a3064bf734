"""How sure the mean of a daily series is, a difference of two, and the best of several."""

from __future__ import annotations

import math
from statistics import NormalDist
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from qlib_ext.checks import LARGEST_SEED, UserError, at_least, between, integer
from qlib_ext.metrics.bootstrap import check_drawing, day_by_day, overlapping_block, stationary_days
from qlib_ext.metrics.cross_section import Floats, matrix, present
from qlib_ext.metrics.moments import moments

EULER = 0.5772156649015329  # Euler and Mascheroni's constant
FEWEST_DAYS = 10  # for tests over several series: with fewer their variances mean nothing


class Interval(NamedTuple):
    """A confidence interval."""

    low: float
    high: float


def bootstrap_mean(
    daily: npt.ArrayLike,
    level: float = 0.95,
    *,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    r"""Confidence interval for the mean of a daily series, from the stationary block bootstrap.

    Source: Politis and Romano (1994), "The Stationary Bootstrap", Journal of the American Statistical
    Association 89. A resampled series of D days starts on a day drawn at random; each further day is the one
    after its predecessor with probability 1 - 1/B, else drawn anew; the day after the last is the first.
    Blocks of a mean length B keep the autocorrelation of neighbours, and the random lengths keep the
    resampled series stationary. The interval is that of percentiles: the :math:`(1 \mp \text{level}) / 2`
    quantiles of the means.

    Parameters
    ----------
    daily
        ``[D]`` in the order of time, NaN on a day without a value; such days are cut out, and the days at
        either side count as neighbours.
    level
        Probability that the interval is to cover the mean, in (0, 1).
    block_days
        Mean length B of a block, at least 1 (days drawn one by one). The default is the cube root of D, the
        order that balances bias and variance; take more where the series is more persistent than returns or
        daily IC.
    draws
        Number of resampled series.
    seed
        Seed of the drawing; the same seed gives the same interval.

    Returns
    -------
    `Interval` of low and high; both NaN with fewer than two values.

    Raises
    ------
    UserError
        If an argument lies outside its range.

    Examples
    --------
    >>> bootstrap_mean([0.02, -0.01, 0.03, 0.04, 0.00, 0.01]).low > 0
    True
    """
    between("level", level, 0, 1, open_low=True, open_high=True)
    check_drawing(block_days, draws, seed)
    values = present("daily", daily)
    days = len(values)
    if days < 2:
        return Interval(math.nan, math.nan)
    total = np.zeros(draws)
    for day in day_by_day(days, block_days=block_days, draws=draws, seed=seed):
        total += values[day]
    low, high = np.quantile(total / days, [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


def bootstrap_means(
    daily: npt.ArrayLike,
    level: float = 0.95,
    *,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> tuple[Floats, Floats]:
    """Confidence intervals for the means of many daily series, all from the same resampled days.

    Parameters
    ----------
    daily
        ``[D, M]`` in the order of time; a day on which a series is NaN counts for nothing in it.
    level, block_days, draws, seed
        As in `bootstrap_mean`.

    Returns
    -------
    low, high : ``[M]``
        NaN for a series with fewer than two values. Where a series has a value on every day they are those of
        `bootstrap_mean`.

    Raises
    ------
    UserError
        If an argument lies outside its range.

    Examples
    --------
    >>> low, high = bootstrap_means([[0.02, 0.1], [0.01, -0.1], [0.03, 0.0], [0.04, 0.1]])
    >>> (low > 0).tolist()
    [True, False]
    """
    between("level", level, 0, 1, open_low=True, open_high=True)
    check_drawing(block_days, draws, seed)
    values = matrix("daily", daily)
    days, series = values.shape
    there = ~np.isnan(values)
    if days < 2 or series == 0:
        return np.full(series, math.nan), np.full(series, math.nan)
    drawn = stationary_days(days, block_days=block_days, draws=draws, seed=seed)
    times = np.stack([np.bincount(each, minlength=days) for each in drawn]).astype(np.float64)  # [draws, D]
    weight = times @ there
    means = times @ np.where(there, values, 0.0) / np.where(weight > 0, weight, np.nan)
    known = there.sum(axis=0) > 1
    means[:, ~known] = 0.0
    low, high = np.nanquantile(means, [(1 - level) / 2, (1 + level) / 2], axis=0)
    return np.where(known, low, np.nan), np.where(known, high, np.nan)


class Difference(NamedTuple):
    """How far one series lies above another on average, with its interval and its p-value."""

    mean: float
    low: float
    high: float
    p: float


def bootstrap_difference(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    level: float = 0.95,
    *,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Difference:
    r"""Mean daily difference of two series on the same days, with a paired test that it is 0.

    The days are drawn by the stationary bootstrap (`bootstrap.stationary_days`), the same for both series, so that
    what moves both on a day cancels. The interval is that of percentiles. The p-value is two-sided: the share of
    resampled differences that lie as far from the difference found as that lies from 0, the sample found counted as
    one of them (Davison and Hinkley 1997, "Bootstrap Methods and their Application", Section 4.2),

    .. math:: p = \frac{1 + \#\{b: |\bar d^*_b - \bar d| \ge |\bar d|\}}{B + 1}.

    Parameters
    ----------
    first, second
        ``[D]`` on the same days in the order of time, NaN on a day without a value; days on which either has none are
        cut out.
    level, block_days, draws, seed
        As in `bootstrap_mean`; B is the number of draws, so that p is at least 1 / (draws + 1).

    Returns
    -------
    `Difference` of `first` minus `second`; with fewer than two common days interval and p are NaN, without any the
    mean too. p is 1 where the series are equal.

    Raises
    ------
    UserError
        If an argument lies outside its range or the series differ in length.

    Examples
    --------
    >>> bootstrap_difference([0.02, 0.01, 0.03, 0.04], [0.01, 0.00, 0.01, 0.02]).mean
    0.015
    """
    between("level", level, 0, 1, open_low=True, open_high=True)
    check_drawing(block_days, draws, seed)
    a, b = np.asarray(first, dtype=np.float64), np.asarray(second, dtype=np.float64)
    if a.ndim != 1 or a.shape != b.shape:
        raise UserError(f"`first` and `second` must be [days] of one length, found {a.shape} and {b.shape}")
    values = present("difference", a - b)
    days = len(values)
    if days < 2:
        return Difference(float(values[0]) if days else math.nan, math.nan, math.nan, math.nan)
    mean = float(values.mean())
    if np.ptp(values) == 0:  # nothing varies: no rounding may decide
        return Difference(mean, mean, mean, 1.0 if mean == 0 else 1 / (draws + 1))
    drawn = stationary_days(days, block_days=block_days, draws=draws, seed=seed)
    means = values[drawn].mean(axis=1)
    low, high = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    far = int((np.abs(means - mean) >= abs(mean)).sum())
    return Difference(mean, float(low), float(high), (1 + far) / (draws + 1))


def bootstrap_seeds(
    differences: npt.ArrayLike,
    level: float = 0.95,
    *,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    r"""Confidence interval for a mean over days and trainings, with both drawn: a nested bootstrap.

    A test over days holds the trainings fixed and says nothing of other seeds. Here each resampled mean first draws as
    many trainings as there are, with replacement, then days by the stationary bootstrap (`bootstrap.stationary_days`),
    the same for all trainings. The interval is that of percentiles.

    Parameters
    ----------
    differences
        ``[R, D]``: of R pairs of trainings the difference of a day; NaN on a day without a value, where the others have
        one they stand for it.
    level, block_days, draws, seed
        As in `bootstrap_mean`.

    Returns
    -------
    `Interval` of low and high. With one training it is that of days alone; with fewer than two days NaN.

    Raises
    ------
    UserError
        If an argument lies outside its range.

    Notes
    -----
    Three trainings have ten samples with replacement: the interval is a rough one, and too narrow rather than too wide.

    Examples
    --------
    >>> bootstrap_seeds([[0.02, 0.01, 0.03, 0.02], [-0.02, -0.03, -0.01, -0.02]]).low < 0
    True
    """
    values = matrix("differences", differences)
    nothing = np.zeros((1, values.shape[1]))
    return bootstrap_trainings(values, nothing, level, block_days=block_days, draws=draws, seed=seed)


def bootstrap_trainings(
    first: npt.ArrayLike,
    second: npt.ArrayLike,
    level: float = 0.95,
    *,
    block_days: float | None = None,
    draws: int = 2000,
    seed: int = 0,
) -> Interval:
    """Confidence interval for the difference of two methods, with the trainings of both and the days drawn.

    As `bootstrap_seeds`, for trainings that are no pairs: each resampled difference draws as many trainings of either
    method as there are, with replacement, and the same days for all.

    Parameters
    ----------
    first, second
        ``[R, D]`` each: a figure of R trainings, which may be as many or not, on the same days; NaN on a day without a value,
        where others of the same method stand for it. Days on which a method has none are left out.
    level, block_days, draws, seed
        As in `bootstrap_mean`.

    Returns
    -------
    `Interval` of low and high, of the first less the second; with fewer than two days NaN.

    Raises
    ------
    UserError
        If an argument lies outside its range, or the days differ.

    Examples
    --------
    >>> bootstrap_trainings([[0.3, 0.2, 0.4], [0.1, 0.0, 0.2]], [[0.2, 0.1, 0.3]]).low < 0
    True
    """
    between("level", level, 0, 1, open_low=True, open_high=True)
    check_drawing(block_days, draws, seed)
    sides = [matrix(name, values) for name, values in (("first", first), ("second", second))]
    if sides[0].shape[1] != sides[1].shape[1]:
        raise UserError(
            f"`first` and `second` must be of the same days, found {sides[0].shape[1]} and {sides[1].shape[1]}"
        )
    known = ~np.logical_or.reduce([np.isnan(side).all(axis=0) for side in sides])
    days = int(known.sum())
    if days < 2:
        return Interval(math.nan, math.nan)
    rng = np.random.default_rng([seed, 1])
    drawn = [_Drawn(side[:, known], draws, rng) for side in sides]
    for day in day_by_day(days, block_days=block_days, draws=draws, seed=seed):
        for side in drawn:
            side.add(day)
    low, high = np.quantile(drawn[0].mean() - drawn[1].mean(), [(1 - level) / 2, (1 + level) / 2])
    return Interval(float(low), float(high))


class _Drawn:
    """Trainings ``[R, D]`` drawn with replacement, as many as there are, and their mean over the days that are added."""

    def __init__(self, values: Floats, draws: int, rng: np.random.Generator) -> None:
        trainings = len(values)
        chosen = rng.integers(trainings, size=(draws, trainings))
        self.count = np.stack(
            [(chosen == each).sum(axis=1) for each in range(trainings)], axis=1
        )  # [draws, R]
        self.values, self.there = np.nan_to_num(values).T, (~np.isnan(values)).astype(np.float64).T
        self.total, self.weight = np.zeros(draws), np.zeros(draws)

    def add(self, day: npt.NDArray[np.int32]) -> None:
        """Add the day ``[draws]`` of each resampled series."""
        self.total += (self.count * self.values[day]).sum(axis=1)
        self.weight += (self.count * self.there[day]).sum(axis=1)

    def mean(self) -> Floats:
        return self.total / self.weight


def holm(p_values: npt.ArrayLike) -> Floats:
    r"""Adjust the p-values of several comparisons, so that one wrong finding among all of them stays rare.

    Source: Holm (1979), "A Simple Sequentially Rejective Multiple Test Procedure", Scandinavian Journal of Statistics
    6. With the M values in ascending order, whatever the dependence between the comparisons,

    .. math:: \tilde p_{(i)} = \max_{j \le i} \min(1, (M - j + 1)\, p_{(j)}).

    Parameters
    ----------
    p_values
        ``[M]`` in [0, 1]; NaN is no comparison: it stays NaN and does not count.

    Returns
    -------
    ``[M]`` in the order given.

    Raises
    ------
    UserError
        If a value lies outside [0, 1].

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.06, 0.06]
    """
    p, there = _p_values(p_values)
    adjusted = np.full(len(p), np.nan)
    order = there[np.argsort(p[there], kind="stable")]
    scaled = np.minimum(1.0, p[order] * np.arange(len(order), 0, -1))
    adjusted[order] = np.maximum.accumulate(scaled)
    return adjusted


def benjamini_hochberg(p_values: npt.ArrayLike) -> Floats:
    r"""Adjust the p-values of several findings, so that few of those that are called true are wrong on average.

    Source: Benjamini and Hochberg (1995), "Controlling the False Discovery Rate", Journal of the Royal Statistical
    Society B 57; it holds for findings that are independent or go together (Benjamini and Yekutieli 2001). With the M
    values in ascending order,

    .. math:: q_{(i)} = \min_{j \ge i} \min(1, M\, p_{(j)} / j).

    Of the findings with q below 5% about one in twenty is chance.

    Parameters
    ----------
    p_values
        ``[M]`` in [0, 1]; NaN is no finding: it stays NaN and does not count.

    Returns
    -------
    ``[M]`` in the order given.

    Raises
    ------
    UserError
        If a value lies outside [0, 1].

    Examples
    --------
    >>> benjamini_hochberg([0.01, 0.04, 0.03]).tolist()
    [0.03, 0.04, 0.04]
    """
    p, there = _p_values(p_values)
    adjusted = np.full(len(p), np.nan)
    order = there[np.argsort(p[there], kind="stable")]
    scaled = np.minimum(1.0, p[order] * len(order) / np.arange(1, len(order) + 1))
    adjusted[order] = np.minimum.accumulate(scaled[::-1])[::-1]
    return adjusted


def _p_values(given: npt.ArrayLike) -> tuple[Floats, npt.NDArray[np.intp]]:
    """The p-values ``[M]``, checked, and the positions of those that are there."""
    p = np.asarray(given, dtype=np.float64)
    if p.ndim != 1:
        raise UserError(f"`p_values` must be a list [M], found the shape {p.shape}")
    there = np.flatnonzero(~np.isnan(p))
    if ((p[there] < 0) | (p[there] > 1)).any():
        raise UserError(f"`p_values` must lie in [0, 1], found {p[there].min():g} to {p[there].max():g}")
    return p, there


def superior_predictive_ability(
    benchmark: npt.ArrayLike, rivals: npt.ArrayLike, *, draws: int = 2000, seed: int = 0, span_days: int = 1
) -> float:
    """Test whether the best of several rivals is better than a benchmark, though it was picked among many.

    Source: Hansen (2005), "A Test for Superior Predictive Ability", Journal of Business & Economic Statistics 23, as
    in `arch.bootstrap.SPA`, with the stationary bootstrap and blocks of the cube root of the number of days.

    Parameters
    ----------
    benchmark
        ``[D]`` performance by day, higher is better, such as the daily IC.
    rivals
        ``[D, M]`` performance of M rivals on the same days. Days with a NaN in any series are cut out.
    draws
        Number of resampled series.
    seed
        Seed of the drawing.
    span_days
        Days of return that a value looks at: blocks are longer where they overlap (`bootstrap.overlapping_block`).

    Returns
    -------
    The consistent p-value of the null that no rival is better than the benchmark on average: small says that at
    least one is. NaN without a rival or with fewer than ten common days. A rival that is the benchmark itself says
    nothing and is left out; without any other, p is 1.

    Raises
    ------
    UserError
        If the shapes do not fit.
    """
    base = np.asarray(benchmark, dtype=np.float64)
    others = np.asarray(rivals, dtype=np.float64)
    if base.ndim != 1 or others.ndim != 2 or len(others) != len(base):
        raise UserError(
            f"`benchmark` must be [D] and `rivals` [D, M] on the same days, found {base.shape} and {others.shape}"
        )
    integer("draws", draws, 1)
    integer("seed", seed, 0, LARGEST_SEED)
    whole = ~np.isnan(np.column_stack([base, others])).any(axis=1)
    base, others = base[whole], others[whole]
    if others.shape[1] == 0 or len(base) < FEWEST_DAYS:
        return math.nan
    difference = others - base[:, None]
    steady = np.ptp(difference, axis=0) == 0
    # Better by the same on every day: no doubt, and no variance to divide by.
    if (difference[0, steady] > 0).any():
        return 0.0
    if steady.all():
        return 1.0
    from arch.bootstrap import SPA  # here: it takes a second to import

    test = SPA(
        -base,
        -others[:, ~steady],
        block_size=_block_days(len(base), span_days),
        reps=draws,
        bootstrap="stationary",
        seed=seed,
    )
    test.compute()
    return float(test.pvalues["consistent"])


def model_confidence_set(
    performance: npt.ArrayLike, *, draws: int = 2000, seed: int = 0, span_days: int = 1
) -> Floats:
    """P-values of the model confidence set: which of several models cannot be told from the best.

    Source: Hansen, Lunde and Nason (2011), "The Model Confidence Set", Econometrica 79, with the range statistic, as in
    `arch.bootstrap.MCS`, with the stationary bootstrap and blocks of the cube root of the number of days.

    Parameters
    ----------
    performance
        ``[D, M]`` performance of M models by day, higher is better. Days with a NaN are cut out.
    draws
        Number of resampled series.
    seed
        Seed of the drawing.
    span_days
        As in `superior_predictive_ability`.

    Returns
    -------
    ``[M]``: a model belongs to the set of confidence 1 - a where its p-value is above a. The best has 1. Models that
    are the same on every day share one value. All are 1 with one model, NaN with fewer than ten common days.

    Raises
    ------
    UserError
        If the shape is not ``[D, M]``.
    """
    table = np.asarray(performance, dtype=np.float64)
    if table.ndim != 2 or table.shape[1] == 0:
        raise UserError(f"`performance` must be [D, M] with at least one model, found {table.shape}")
    integer("draws", draws, 1)
    integer("seed", seed, 0, LARGEST_SEED)
    table = table[~np.isnan(table).any(axis=1)]
    if len(table) < FEWEST_DAYS:
        return np.full(table.shape[1], np.nan)
    distinct, place = np.unique(table, axis=1, return_inverse=True)
    if distinct.shape[1] == 1:
        return np.ones(table.shape[1])
    from arch.bootstrap import MCS  # here: it takes a second to import

    test = MCS(
        -distinct,
        size=0.10,
        reps=draws,
        block_size=_block_days(len(table), span_days),
        bootstrap="stationary",
        seed=seed,
    )
    test.compute()
    found = test.pvalues["Pvalue"].reindex(range(distinct.shape[1])).to_numpy(dtype=np.float64)
    return found[place.ravel()]


def sharpe_probability(
    sharpe: float, days: int, *, skewness: float = 0.0, kurtosis: float = 0.0, threshold: float = 0.0
) -> float:
    r"""Probability that a true Sharpe ratio lies above a threshold, from the one found in D days.

    Source: Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", Journal of Risk 15, Equation 11:

    .. math::

        \widehat{PSR} = \Phi\left(\frac{(\widehat{SR} - SR^*) \sqrt{D - 1}}
            {\sqrt{1 - \gamma_3 \widehat{SR} + \frac{\gamma_4 - 1}{4} \widehat{SR}^2}}\right).

    Parameters
    ----------
    sharpe
        Mean over standard deviation of daily returns, not annualised.
    days
        Number D of daily returns, at least 1.
    skewness
        Third standardised moment of the daily returns; 0 for a normal distribution.
    kurtosis
        Excess kurtosis, :math:`\gamma_4 - 3`; 0 for a normal distribution.
    threshold
        Daily Sharpe ratio :math:`SR^*` to be beaten.

    Returns
    -------
    In [0, 1]; NaN where an argument is NaN, or the variance below the root is not positive.
    """
    integer("days", days, 1)
    variance = 1 - skewness * sharpe + (kurtosis + 2) / 4 * sharpe**2
    if not variance > 0 or math.isnan(threshold):
        return math.nan
    return NormalDist().cdf((sharpe - threshold) * math.sqrt(days - 1) / math.sqrt(variance))


def probabilistic_sharpe_ratio(returns: npt.ArrayLike, threshold: float = 0.0) -> float:
    """Probability that the true Sharpe ratio of a daily series lies above a threshold (`sharpe_probability`).

    Parameters
    ----------
    returns
        Daily returns ``[D]``, or daily differences to a benchmark; NaN days are cut out.
    threshold
        Daily Sharpe ratio to be beaten, not annualised.

    Returns
    -------
    In [0, 1]; NaN with fewer than two days or without spread.
    """
    shape = moments(returns)
    days = len(present("returns", returns))
    if days < 2 or math.isnan(shape.skewness):
        return math.nan
    return sharpe_probability(
        shape.mean / shape.std, days, skewness=shape.skewness, kurtosis=shape.kurtosis, threshold=threshold
    )


def expected_maximum_sharpe(variance: float, trials: int) -> float:
    r"""Sharpe ratio that the best of N trials without any skill is expected to show.

    Source: Bailey and Lopez de Prado (2014), "The Deflated Sharpe Ratio: Correcting for Selection Bias, Backtest
    Overfitting, and Non-Normality", Journal of Portfolio Management 40, Equation 1 with a mean of 0:

    .. math::

        \sqrt{V} \left((1 - \gamma)\, \Phi^{-1}\left(1 - \frac 1 N\right) +
            \gamma\, \Phi^{-1}\left(1 - \frac{1}{N e}\right)\right), \qquad \gamma = 0.5772\ldots

    Parameters
    ----------
    variance
        Variance V of the trials' Sharpe ratios, at least 0.
    trials
        Number N of independent trials, at least 1.

    Returns
    -------
    In the unit of the Sharpe ratios; 0 for one trial, which was picked from nothing. The formula is an approximation
    for large N: for 2 trials it is 0.52 standard deviations where the exact value is 0.56.

    Raises
    ------
    UserError
        If an argument lies outside its range.
    """
    at_least("variance", variance, 0)
    integer("trials", trials, 1)
    if trials == 1:
        return 0.0
    normal = NormalDist()
    best = (1 - EULER) * normal.inv_cdf(1 - 1 / trials) + EULER * normal.inv_cdf(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * best


def deflated_sharpe_ratio(returns: npt.ArrayLike, sharpes: npt.ArrayLike) -> float:
    r"""Probability that a series has a positive true Sharpe ratio, given that it was one of several trials.

    Source: as `expected_maximum_sharpe`, Equation 2: the probabilistic Sharpe ratio against the one that the best
    of as many trials is expected to show without any skill.

    Parameters
    ----------
    returns
        Daily returns ``[D]`` of the trial that is judged, or daily differences to a benchmark.
    sharpes
        Daily Sharpe ratios ``[N]`` of all trials, this one among them, not annualised; NaN is no trial.

    Returns
    -------
    In [0, 1]; NaN with fewer than two days, without spread or without a trial.

    Notes
    -----
    The trials count as independent. Runs that differ only by their seed are not: their number is an upper bound of
    the number of trials, and the smaller spread of their Sharpe ratios a lower bound of the variance.
    """
    trials = present("sharpes", sharpes)
    if len(trials) == 0:
        return math.nan
    variance = float(trials.var(ddof=1)) if len(trials) > 1 else 0.0
    return probabilistic_sharpe_ratio(returns, expected_maximum_sharpe(variance, len(trials)))


def _block_days(days: int, span_days: int) -> int:
    """Mean length of a block, as a whole number: the cube root of the days, or what overlapping returns need."""
    return max(1, round(overlapping_block(days, span_days) or days ** (1 / 3)))
