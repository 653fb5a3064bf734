"""The figures that a portfolio is judged by: what each is called, how it is computed, and which series it suits."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from qlib_ext.metrics import bootstrap, distribution, drawdowns, relative, risk
from qlib_ext.metrics.cross_section import Floats
from qlib_ext.metrics.portfolio_series import Series

# Of the columns that have intervals: what the reader decides by.
WITH_INTERVAL = ("portfolio_with_cost", "excess_with_cost")


@dataclass(frozen=True)
class Measure:
    """One figure.

    Attributes
    ----------
    key
        Its name in tables.
    group, name
        Where it stands in a report, and under which name.
    unit
        `percent` (a share), `ratio` (a number) or `days`.
    how
        How it is computed, for a reader who knows no code.
    of
        Computes it.
    interval
        Whether a bootstrap of days says how sure it is.
    beside
        Whether it needs an index beside the series.
    """

    key: str
    group: str
    name: str
    unit: str
    how: str
    of: Callable[[Series], float]
    interval: bool = False
    beside: bool = False


def _beside(function: Callable[..., float], *, yearly: bool = True) -> Callable[[Series], float]:
    def of(s: Series) -> float:
        assert s.benchmark is not None
        return function(s.daily, s.benchmark, s.per_year) if yearly else function(s.daily, s.benchmark)

    return of


RETURN, RISK, FALLS, RATIOS, HITS, INDEX = (
    "Return",
    "Risk",
    "Drawdowns",
    "Return for the risk",
    "Gains and losses",
    "Beside the index",
)

# A measure reads as a row, so the formatter is off.
# fmt: off
MEASURES: tuple[Measure, ...] = (
    Measure("cumulative_return", RETURN, "Return over the whole", "percent",
            "Daily returns compounded over all days.", lambda s: risk.cumulative_return(s.growth)),
    Measure("annualised_return", RETURN, "Return a year", "percent",
            "The constant yearly return that leads to the same value.",
            lambda s: risk.annualised_return(s.growth, s.per_year), interval=True),
    Measure("best_year", RETURN, "Best year", "percent",
            "Highest compounded return of a calendar year; the first and the last may be parts of one.",
            lambda s: distribution.best(s.years())),
    Measure("worst_year", RETURN, "Worst year", "percent", "Lowest compounded return of a calendar year.",
            lambda s: distribution.worst(s.years())),
    Measure("best_month", RETURN, "Best month", "percent", "Highest compounded return of a calendar month.",
            lambda s: distribution.best(s.months())),
    Measure("worst_month", RETURN, "Worst month", "percent", "Lowest compounded return of a calendar month.",
            lambda s: distribution.worst(s.months())),
    Measure("best_day", RETURN, "Best day", "percent", "Highest return of a day.",
            lambda s: distribution.best(s.daily)),
    Measure("worst_day", RETURN, "Worst day", "percent", "Lowest return of a day.",
            lambda s: distribution.worst(s.daily)),
    Measure("annualised_volatility", RISK, "Volatility a year", "percent",
            "Standard deviation of daily returns (divisor: days less one) times the root of the days in a year. "
            "Over the index: of the daily differences, which is the tracking error.",
            lambda s: risk.annualised_volatility(s.daily, s.per_year), interval=True),
    Measure("downside_deviation", RISK, "Downside deviation a year", "percent",
            "Root mean square of the losing days, the others counted as 0, times the root of the days in a year.",
            lambda s: risk.downside_deviation(s.daily, periods_per_year=s.per_year), interval=True),
    Measure("value_at_risk", RISK, "Value at risk, 5% of days", "percent",
            "The return that one day in twenty stays at or below: the 5% quantile of the days themselves.",
            lambda s: distribution.value_at_risk(s.daily), interval=True),
    Measure("conditional_value_at_risk", RISK, "Expected shortfall, 5% of days", "percent",
            "Mean return of those days (CVaR).", lambda s: distribution.conditional_value_at_risk(s.daily),
            interval=True),
    Measure("tail_ratio", RISK, "Tail ratio", "ratio",
            "Size of the 95% quantile of daily returns over that of the 5% quantile; above 1 the good tail is the "
            "longer.", lambda s: distribution.tail_ratio(s.daily)),
    Measure("skewness", RISK, "Skewness", "ratio",
            "Third moment of daily returns, unbiased; below 0 the large moves are losses.",
            lambda s: distribution.skewness(s.daily)),
    Measure("excess_kurtosis", RISK, "Excess kurtosis", "ratio",
            "Fourth moment of daily returns, unbiased, less that of a normal distribution; above 0 the tails are "
            "fatter.", lambda s: distribution.excess_kurtosis(s.daily)),
    Measure("max_drawdown", FALLS, "Max drawdown", "percent",
            "Largest fall from a peak, at closes; the start counts as a peak.",
            lambda s: risk.max_drawdown(s.growth)),
    Measure("average_drawdown", FALLS, "Average drawdown", "percent", "Mean depth of all falls from a peak.",
            lambda s: drawdowns.average_drawdown(s.growth)),
    Measure("longest_drawdown", FALLS, "Longest drawdown", "days", "Most trading days in a row below a peak.",
            lambda s: drawdowns.longest_drawdown(s.growth)),
    Measure("ulcer_index", FALLS, "Ulcer index", "percent", "Root mean square of the drawdown of each day.",
            lambda s: drawdowns.ulcer_index(s.growth)),
    Measure("sharpe_ratio", RATIOS, "Sharpe ratio", "ratio",
            "Mean over standard deviation of daily returns times the root of the days in a year; no riskless "
            "return. Over the index: of the daily differences, which is the information ratio.",
            lambda s: risk.sharpe_ratio(s.daily, s.per_year), interval=True),
    Measure("sortino_ratio", RATIOS, "Sortino ratio", "ratio",
            "Mean daily return, times the days in a year, over the downside deviation.",
            lambda s: risk.sortino_ratio(s.daily, periods_per_year=s.per_year), interval=True),
    Measure("calmar_ratio", RATIOS, "Calmar ratio", "ratio", "Return a year over the size of the max drawdown.",
            lambda s: drawdowns.calmar_ratio(s.growth, s.per_year)),
    Measure("martin_ratio", RATIOS, "Martin ratio", "ratio", "Return a year over the ulcer index.",
            lambda s: drawdowns.martin_ratio(s.growth, s.per_year)),
    Measure("recovery_factor", RATIOS, "Recovery factor", "ratio",
            "Return over the whole over the size of the max drawdown.",
            lambda s: drawdowns.recovery_factor(s.growth)),
    Measure("profit_factor", RATIOS, "Profit factor (Omega at 0)", "ratio",
            "Sum of the gains of days over the sum of their losses.", lambda s: distribution.omega_ratio(s.daily),
            interval=True),
    Measure("gain_to_pain", RATIOS, "Gain to pain, by month", "ratio",
            "Sum of the returns of months over the sum of the losing ones.",
            lambda s: distribution.gain_to_pain(s.months())),
    Measure("stability", RATIOS, "Stability", "ratio",
            "R squared of a straight line through the logarithm of the value; 1 where every day earns the same.",
            lambda s: risk.stability(s.growth)),
    Measure("hit_rate", HITS, "Days with a gain", "percent",
            "Share of all days whose return is above 0. Over the index: days that beat it.",
            lambda s: risk.hit_rate(s.daily), interval=True),
    Measure("monthly_hit_rate", HITS, "Months with a gain", "percent",
            "Share of calendar months whose compounded return is above 0. Over the index: months that beat it.",
            lambda s: risk.hit_rate(s.months())),
    Measure("yearly_hit_rate", HITS, "Years with a gain", "percent", "Share of calendar years, as the months.",
            lambda s: risk.hit_rate(s.years())),
    Measure("average_gain", HITS, "Average gain", "percent", "Mean return of the days above 0.",
            lambda s: distribution.average_gain(s.daily)),
    Measure("average_loss", HITS, "Average loss", "percent", "Mean return of the days below 0.",
            lambda s: distribution.average_loss(s.daily)),
    Measure("payoff_ratio", HITS, "Payoff ratio", "ratio", "Average gain over the size of the average loss.",
            lambda s: distribution.payoff_ratio(s.daily)),
    Measure("longest_winning_streak", HITS, "Longest winning streak", "days", "Most days in a row above 0.",
            lambda s: distribution.longest_streak(s.daily)),
    Measure("longest_losing_streak", HITS, "Longest losing streak", "days", "Most days in a row below 0.",
            lambda s: distribution.longest_streak(s.daily, losing=True)),
    Measure("beta", INDEX, "Beta", "ratio",
            "Slope of the line of the daily returns on those of the index (least squares).",
            _beside(relative.beta, yearly=False), interval=True, beside=True),
    Measure("alpha", INDEX, "Alpha a year", "percent", "Intercept of that line times the days in a year (Jensen's).",
            _beside(relative.alpha), interval=True, beside=True),
    Measure("correlation", INDEX, "Correlation", "ratio", "Of the daily returns with those of the index.",
            _beside(relative.correlation, yearly=False), interval=True, beside=True),
    Measure("r_squared", INDEX, "R squared", "percent",
            "Share of the variance of daily returns that the line explains: the correlation squared.",
            _beside(relative.r_squared, yearly=False), beside=True),
    Measure("tracking_error", INDEX, "Tracking error a year", "percent",
            "Standard deviation of the daily differences to the index times the root of the days in a year.",
            _beside(relative.tracking_error), interval=True, beside=True),
    Measure("information_ratio", INDEX, "Information ratio", "ratio",
            "Mean over standard deviation of the daily differences to the index times the root of the days in a "
            "year.", _beside(risk.information_ratio), interval=True, beside=True),
    Measure("treynor_ratio", INDEX, "Treynor ratio", "ratio", "Return a year over beta.",
            _beside(relative.treynor_ratio), beside=True),
    Measure("up_capture", INDEX, "Up capture", "percent",
            "Constant daily return that compounds to that of the days on which the index rises, over the same of "
            "the index.", _beside(relative.up_capture, yearly=False), interval=True, beside=True),
    Measure("down_capture", INDEX, "Down capture", "percent",
            "The same of the days on which the index falls; below 100% the portfolio falls less.",
            _beside(relative.down_capture, yearly=False), interval=True, beside=True),
)
# fmt: on


def measured(
    all_series: Mapping[str, Series],
    *,
    draws: int = 2000,
    level: float = 0.95,
    seed: int = 0,
    measures: Sequence[Measure] = MEASURES,
) -> pd.DataFrame:
    """Every measure of every series that it suits.

    Parameters
    ----------
    all_series
        From `portfolio_series.series_of`.
    draws, level, seed
        Of the stationary bootstrap of days, drawn together for all series (`metrics.bootstrap`).
    measures
        What to measure.

    Returns
    -------
    By `metric`: `group`, `name`, `unit`; a column a series of `series_of`, and for those of `WITH_INTERVAL` `..._low`
    and `..._high`; and `how`. NaN where a measure does not suit the series, or has no value or interval.
    """
    table = pd.DataFrame(
        {
            measure.key: {"group": measure.group, "name": measure.name, "unit": measure.unit}
            for measure in measures
        }
    ).T.rename_axis(index="metric")
    for column, series in all_series.items():
        table[column] = [
            float(measure.of(series)) if series.benchmark is not None or not measure.beside else np.nan
            for measure in measures
        ]
        if column in WITH_INTERVAL:
            sure = [m for m in measures if m.interval and (series.benchmark is not None or not m.beside)]
            low, high = _intervals(series, sure, draws=draws, level=level, seed=seed)
            keys = [measure.key for measure in sure]
            table[f"{column}_low"] = pd.Series(low, keys, dtype=float)
            table[f"{column}_high"] = pd.Series(high, keys, dtype=float)
    table["how"] = [measure.how for measure in measures]
    return table


def _intervals(
    series: Series, measures: Sequence[Measure], *, draws: int, level: float, seed: int
) -> tuple[Floats, Floats]:
    index = series.daily if series.benchmark is None else series.benchmark

    def figures(growth: Floats, daily: Floats, beside: Floats) -> list[float]:
        resampled = replace(
            series, growth=growth, daily=daily, benchmark=None if series.benchmark is None else beside
        )
        return [measure.of(resampled) for measure in measures]

    return bootstrap.bootstrap_intervals(
        figures, series.growth, series.daily, index, level=level, draws=draws, seed=seed
    )
