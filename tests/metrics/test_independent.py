"""Each figure of a portfolio beside one that others wrote: equal to 1e-10, or the difference explained and proven."""

import math
import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from qlib_ext.metrics import distribution, drawdowns, periods, relative, risk, rolling

with warnings.catch_warnings():
    warnings.simplefilter("ignore")  # what these packages say of themselves when they are loaded
    empyrical = pytest.importorskip("empyrical")
    quantstats = pytest.importorskip("quantstats.stats")
    sm = pytest.importorskip("statsmodels.api")

YEAR = 243
DAYS = pd.bdate_range("2017-01-03", periods=972)


def market(seed):
    """A portfolio with fat tails beside its index, four years long, that begins with a loss."""
    draw = np.random.default_rng(seed)
    index = 0.0003 + 0.009 * draw.standard_t(4, len(DAYS))
    mine = 0.0004 + 0.9 * index + 0.006 * draw.standard_t(5, len(DAYS))
    mine[:2], index[:2] = -0.01, -0.02
    mine[50], index[60] = 0.0, 0.0
    return pd.Series(mine, DAYS), pd.Series(index, DAYS)


def ols(r, b):
    return sm.OLS(r.to_numpy(), sm.add_constant(b.to_numpy())).fit()


def month_groups(r):
    return (1 + r).groupby(r.index.to_period("M")).prod() - 1


def months(r):
    return periods.compounded(r.index.to_numpy(), r.to_numpy(), "month")[1]


def years(r):
    return periods.compounded(r.index.to_numpy(), r.to_numpy(), "year")[1]


def falls_by_loop(r):
    """Depth and length of every fall, by walking through the days."""
    wealth = peak = 1.0
    depth, days, found = 0.0, 0, []
    for x in r:
        wealth *= 1 + x
        if wealth >= peak:
            if days:
                found.append((depth, days))
            peak, depth, days = wealth, 0.0, 0
        else:
            depth, days = min(depth, wealth / peak - 1), days + 1
    return found + ([(depth, days)] if days else [])


# name: (ours, theirs), of the portfolio's returns and of the index's.
EQUAL = {
    "wealth": (lambda r, b: risk.wealth(r), lambda r, b: empyrical.cum_returns(r, starting_value=1)),
    "cumulative return": (
        lambda r, b: risk.cumulative_return(r),
        lambda r, b: [empyrical.cum_returns_final(r), quantstats.comp(r)],
    ),
    "annualised return": (
        lambda r, b: risk.annualised_return(r, YEAR),
        lambda r, b: [empyrical.annual_return(r, annualization=YEAR), quantstats.cagr(r, periods=YEAR)],
    ),
    "annualised volatility": (
        lambda r, b: risk.annualised_volatility(r, YEAR),
        lambda r, b: [
            empyrical.annual_volatility(r, annualization=YEAR),
            quantstats.volatility(r, periods=YEAR),
        ],
    ),
    "Sharpe ratio": (
        lambda r, b: risk.sharpe_ratio(r, YEAR),
        lambda r, b: [empyrical.sharpe_ratio(r, annualization=YEAR), quantstats.sharpe(r, periods=YEAR)],
    ),
    "information ratio": (
        lambda r, b: risk.information_ratio(r, b, YEAR),
        lambda r, b: [
            empyrical.excess_sharpe(r, b) * math.sqrt(YEAR),
            quantstats.information_ratio(r, b) * math.sqrt(YEAR),
        ],
    ),
    "annualised excess return": (
        lambda r, b: risk.annualised_excess_return(r, b, YEAR),
        lambda r, b: (
            (1 + empyrical.annual_return(r, annualization=YEAR))
            / (1 + empyrical.annual_return(b, annualization=YEAR))
            - 1
        ),
    ),
    "downside deviation": (
        lambda r, b: risk.downside_deviation(r, periods_per_year=YEAR),
        lambda r, b: empyrical.downside_risk(r, annualization=YEAR),
    ),
    "downside deviation below a target": (
        lambda r, b: risk.downside_deviation(r, 0.001, YEAR),
        lambda r, b: empyrical.downside_risk(r, required_return=0.001, annualization=YEAR),
    ),
    "Sortino ratio": (
        lambda r, b: risk.sortino_ratio(r, periods_per_year=YEAR),
        lambda r, b: [empyrical.sortino_ratio(r, annualization=YEAR), quantstats.sortino(r, periods=YEAR)],
    ),
    "Sortino ratio over a target": (
        lambda r, b: risk.sortino_ratio(r, 0.001, YEAR),
        lambda r, b: empyrical.sortino_ratio(r, required_return=0.001, annualization=YEAR),
    ),
    "stability": (lambda r, b: risk.stability(r), lambda r, b: empyrical.stability_of_timeseries(r)),
    "drawdown": (
        lambda r, b: risk.drawdown(r),
        lambda r, b: [empyrical.stats.drawdown_series(r), quantstats.to_drawdown_series(r)],
    ),
    "max drawdown": (
        lambda r, b: risk.max_drawdown(r),
        lambda r, b: [empyrical.max_drawdown(r), quantstats.max_drawdown(r)],
    ),
    "Calmar ratio": (
        lambda r, b: drawdowns.calmar_ratio(r, YEAR),
        lambda r, b: [empyrical.calmar_ratio(r, annualization=YEAR), quantstats.calmar(r, periods=YEAR)],
    ),
    "average drawdown": (
        lambda r, b: drawdowns.average_drawdown(r),
        lambda r, b: [
            np.mean([depth for depth, _ in falls_by_loop(r)]),
            quantstats.drawdown_details(risk_free_start(r))["max drawdown"].mean() / 100,
        ],
    ),
    "longest drawdown": (
        lambda r, b: drawdowns.longest_drawdown(r),
        lambda r, b: max(days for _, days in falls_by_loop(r)),
    ),
    "skewness": (
        lambda r, b: distribution.skewness(r),
        lambda r, b: [stats.skew(r, bias=False), quantstats.skew(r)],
    ),
    "excess kurtosis": (
        lambda r, b: distribution.excess_kurtosis(r),
        lambda r, b: [stats.kurtosis(r, bias=False), quantstats.kurtosis(r)],
    ),
    "value at risk": (lambda r, b: distribution.value_at_risk(r), lambda r, b: empyrical.value_at_risk(r)),
    "conditional value at risk": (
        lambda r, b: distribution.conditional_value_at_risk(r),
        lambda r, b: [
            empyrical.conditional_value_at_risk(r),
            quantstats.conditional_value_at_risk(r, method="historical"),
        ],
    ),
    "tail ratio": (
        lambda r, b: distribution.tail_ratio(r),
        lambda r, b: [empyrical.tail_ratio(r), quantstats.tail_ratio(r)],
    ),
    "Omega ratio": (
        lambda r, b: distribution.omega_ratio(r, 0.0005),
        lambda r, b: [
            empyrical.omega_ratio(r, required_return=0.0005, annualization=1),
            quantstats.omega(r, required_return=0.0005, periods=1),
        ],
    ),
    "profit factor": (lambda r, b: distribution.profit_factor(r), lambda r, b: quantstats.profit_factor(r)),
    "gain to pain of days": (
        lambda r, b: distribution.gain_to_pain(r),
        lambda r, b: quantstats.gain_to_pain_ratio(r),
    ),
    "average gain": (lambda r, b: distribution.average_gain(r), lambda r, b: quantstats.avg_win(r)),
    "average loss": (lambda r, b: distribution.average_loss(r), lambda r, b: quantstats.avg_loss(r)),
    "payoff ratio": (lambda r, b: distribution.payoff_ratio(r), lambda r, b: quantstats.payoff_ratio(r)),
    "longest winning streak": (
        lambda r, b: distribution.longest_streak(r),
        lambda r, b: quantstats.consecutive_wins(r),
    ),
    "longest losing streak": (
        lambda r, b: distribution.longest_streak(r, losing=True),
        lambda r, b: quantstats.consecutive_losses(r),
    ),
    "best day": (lambda r, b: distribution.best(r), lambda r, b: quantstats.best(r)),
    "worst day": (lambda r, b: distribution.worst(r), lambda r, b: quantstats.worst(r)),
    "best month": (
        lambda r, b: distribution.best(months(r)),
        lambda r, b: quantstats.best(r, aggregate="ME"),
    ),
    "worst month": (
        lambda r, b: distribution.worst(months(r)),
        lambda r, b: quantstats.worst(r, aggregate="ME"),
    ),
    "best year": (
        lambda r, b: distribution.best(years(r)),
        lambda r, b: quantstats.best(r, aggregate="YE"),
    ),
    "worst year": (
        lambda r, b: distribution.worst(years(r)),
        lambda r, b: quantstats.worst(r, aggregate="YE"),
    ),
    "share of winning months": (
        lambda r, b: risk.hit_rate(months(r)),
        lambda r, b: quantstats.win_rate(r, aggregate="ME"),
    ),
    "returns of months": (
        lambda r, b: months(r),
        lambda r, b: [month_groups(r), empyrical.aggregate_returns(r, "monthly")],
    ),
    "returns of years": (lambda r, b: years(r), lambda r, b: empyrical.aggregate_returns(r, "yearly")),
    "beta": (
        relative.beta,
        lambda r, b: [empyrical.beta(r, b), quantstats.greeks(r, b)["beta"], ols(r, b).params[1]],
    ),
    "alpha": (
        lambda r, b: relative.alpha(r, b, YEAR),
        lambda r, b: [quantstats.greeks(r, b, YEAR)["alpha"], ols(r, b).params[0] * YEAR],
    ),
    "correlation": (relative.correlation, lambda r, b: stats.pearsonr(r, b).statistic),
    "R squared": (
        relative.r_squared,
        lambda r, b: [quantstats.r_squared(r, b), ols(r, b).rsquared],
    ),
    "tracking error": (
        lambda r, b: relative.tracking_error(r, b, YEAR),
        lambda r, b: empyrical.annual_volatility(r - b, annualization=YEAR),
    ),
    "up capture": (
        relative.up_capture,
        # `yearly` is a year of one period: annualised over it, a return stays that of a day.
        lambda r, b: empyrical.up_capture(r, b, period="yearly"),
    ),
    "down capture": (
        relative.down_capture,
        lambda r, b: empyrical.down_capture(r, b, period="yearly"),
    ),
    "rolling volatility": (
        lambda r, b: rolling.rolling_volatility(r, 60, YEAR),
        lambda r, b: quantstats.rolling_volatility(r, 60, YEAR),
    ),
    "rolling Sharpe ratio": (
        lambda r, b: rolling.rolling_sharpe(r, 60, YEAR),
        lambda r, b: quantstats.rolling_sharpe(r, rolling_period=60, periods_per_year=YEAR),
    ),
    "rolling beta": (
        lambda r, b: rolling.rolling_beta(r, b, 60),
        lambda r, b: [
            quantstats.rolling_greeks(r, b, 60)["beta"],
            np.append(np.full(59, np.nan), empyrical.roll_beta(r, b, window=60)),
        ],
    ),
}


def risk_free_start(r):
    """The drawdowns that quantstats' table of them wants: with a day at the peak before the first."""
    below = quantstats.to_drawdown_series(r)
    return pd.concat([pd.Series([0.0], [below.index[0] - pd.Timedelta(days=1)]), below])


@pytest.mark.parametrize("name", EQUAL)
@pytest.mark.parametrize("seed", range(2))
def test_equal(name, seed):
    r, b = market(seed)
    ours, theirs = EQUAL[name]
    expected = theirs(r, b)
    mine = ours(r, b)
    for other in expected if isinstance(expected, list) else [expected]:
        np.testing.assert_allclose(mine, other, rtol=1e-10, atol=1e-10)


def test_there_are_enough():
    assert len(EQUAL) >= 30


class TestDifferences:
    """Where another package means something else by a name: how its figure follows from ours."""

    @pytest.fixture(params=range(2))
    def both(self, request):
        return market(request.param)

    def test_quantstats_divides_the_ulcer_index_by_a_day_less(self, both):
        # Martin and McCann take the mean over all days; nothing was estimated that would cost a degree of freedom.
        r, _ = both
        days = len(r)
        expected = quantstats.ulcer_index(r) * math.sqrt((days - 1) / days)
        assert drawdowns.ulcer_index(r) == pytest.approx(expected, abs=1e-10)
        root = math.sqrt(np.mean(quantstats.to_drawdown_series(r) ** 2))
        assert drawdowns.ulcer_index(r) == pytest.approx(root, abs=1e-10)

    def test_quantstats_takes_the_whole_return_for_the_martin_ratio(self, both):
        # Ours is a year's return, so that backtests of different lengths compare.
        r, _ = both
        days = len(r)
        theirs = quantstats.ulcer_performance_index(r)
        expected = theirs * risk.annualised_return(r, YEAR) / risk.cumulative_return(r)
        expected *= math.sqrt(days / (days - 1))
        assert drawdowns.martin_ratio(r, YEAR) == pytest.approx(expected, abs=1e-10)

    def test_quantstats_adds_returns_up_for_the_recovery_factor(self, both):
        # and takes its absolute value, which makes a recovery of a loss. Returns compound.
        r, _ = both
        expected = quantstats.recovery_factor(r) * risk.cumulative_return(r) / abs(r.sum())
        assert drawdowns.recovery_factor(r) == pytest.approx(expected, abs=1e-10)
        assert (
            drawdowns.recovery_factor([-0.1, 0.05])
            < 0
            < quantstats.recovery_factor(pd.Series([-0.1, 0.05], DAYS[:2]))
        )

    def test_quantstats_takes_the_whole_return_for_the_treynor_ratio(self, both):
        r, b = both
        theirs = quantstats.treynor_ratio(r, b, YEAR)
        expected = theirs * risk.annualised_return(r, YEAR) / risk.cumulative_return(r)
        assert relative.treynor_ratio(r, b, YEAR) == pytest.approx(expected, abs=1e-10)

    def test_quantstats_leaves_out_days_without_a_move_from_the_hit_rate(self, both):
        # A day on which nothing was earned is no hit; it stays in the divisor.
        r, _ = both
        moves = (r != 0).mean()
        assert moves < 1
        assert risk.hit_rate(r) == pytest.approx(quantstats.win_rate(r) * moves, abs=1e-10)

    def test_empyrical_compounds_alpha(self, both):
        # Ours is the regression's intercept times the days of a year, as quantstats and statsmodels have it.
        r, b = both
        expected = (1 + empyrical.alpha(r, b, annualization=YEAR)) ** (1 / YEAR) - 1
        assert relative.alpha(r, b, YEAR) / YEAR == pytest.approx(expected, abs=1e-10)

    def test_empyrical_annualises_what_only_some_days_make(self, both):
        # Compounded over 252 days as if the index rose on each, a capture is a ratio of huge numbers.
        r, b = both
        up = b > 0
        mine, index = (1 + relative_mean(series[up]) for series in (r, b))
        assert empyrical.up_capture(r, b) == pytest.approx((mine**252 - 1) / (index**252 - 1), rel=1e-9)
        assert relative.up_capture(r, b) == pytest.approx((mine - 1) / (index - 1), abs=1e-10)

    def test_quantstats_puts_the_months_of_all_years_together(self, both):
        # Asked for a "month" it compounds every January with every other; "ME" is one month of one year, as ours.
        r, _ = both
        januaries = (1 + r).groupby(r.index.month).prod() - 1
        assert quantstats.best(r, aggregate="month") == pytest.approx(januaries.max(), abs=1e-10)
        assert distribution.best(months(r)) == pytest.approx(quantstats.best(r, aggregate="ME"), abs=1e-10)

    def test_quantstats_adds_days_up_for_the_gain_to_pain_of_months(self, both):
        r, _ = both
        added = r.groupby(r.index.to_period("M")).sum()
        theirs = quantstats.gain_to_pain_ratio(r, resolution="ME")
        assert distribution.gain_to_pain(added) == pytest.approx(theirs, abs=1e-10)
        compounded = month_groups(r)
        expected = compounded.sum() / -compounded[compounded < 0].sum()
        assert distribution.gain_to_pain(months(r)) == pytest.approx(expected, abs=1e-10)

    def test_quantstats_takes_the_value_at_risk_of_a_normal_distribution(self, both):
        # Ours is the quantile of the returns that were there; fat tails make the two differ.
        r, _ = both
        normal = stats.norm.ppf(0.05, r.mean(), r.std())
        assert quantstats.value_at_risk(r) == pytest.approx(normal, abs=1e-12)
        assert (r <= distribution.value_at_risk(r)).sum() == math.floor(0.05 * (len(r) - 1)) + 1

    def test_quantstats_counts_calendar_days_below_a_peak(self, both):
        # and its first day for a fall that begins with the series is the second. Ours counts trading days.
        r, _ = both
        theirs = quantstats.drawdown_details(risk_free_start(r)).sort_values("max drawdown").iloc[0]
        fall = drawdowns.drawdowns(r)[0]
        assert fall.depth == pytest.approx(theirs["max drawdown"] / 100, abs=1e-10)
        assert f"{DAYS[fall.trough]:%Y-%m-%d}" == theirs["valley"]
        assert f"{DAYS[fall.peak + 1]:%Y-%m-%d}" == theirs["start"]
        last = fall.peak + fall.days
        assert f"{DAYS[last]:%Y-%m-%d}" == theirs["end"]
        assert theirs["days"] == (DAYS[last] - DAYS[fall.peak + 1]).days + 1


def relative_mean(series):
    """The constant return that compounds to the same."""
    return math.exp(np.log1p(series).mean()) - 1
