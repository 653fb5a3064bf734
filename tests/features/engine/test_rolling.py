"""Windows against plain loops over days, on planes that are hard on running sums."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from scipy import stats

from qlib_ext.features.engine import statistics
from qlib_ext.features.engine.rolling import Known, Series, split, windows_of

DAYS, STOCKS = 37, 4
LINE = {
    "slope": lambda y: stats.linregress(np.flatnonzero(~np.isnan(y)), y[~np.isnan(y)]).slope,
    "r_square": lambda y: stats.linregress(np.flatnonzero(~np.isnan(y)), y[~np.isnan(y)]).rvalue ** 2,
}


@pytest.fixture
def series() -> Series:
    """Prices with gaps, of which one stock falls to a thousandth, another stands still, and a third begins late."""
    draw = np.random.default_rng(0)
    values = np.exp(draw.normal(3, 0.1, (DAYS, STOCKS)))
    values[12:, 1] *= 1e-3
    values[10:30, 2] = values[10, 2]
    values[draw.random(values.shape) < 0.15] = np.nan
    values[:9, 3] = np.nan
    listed = np.ones(values.shape, dtype=bool)
    listed[:9, 3] = False
    return Series(values, listed, np.arange(1, DAYS + 1)[:, None] - np.array([0, 0, 0, 9]))


def naive(series: Series, days: int, of: Callable[[np.ndarray], float], least: int = 1) -> np.ndarray:
    """`of` the days of each window that the stock's series has; NaN where fewer than `least` are valid."""
    out = np.full(series.values.shape, np.nan)
    for t in range(DAYS):
        for stock in range(STOCKS):
            begun = t + 1 - max(0, int(series.age[t, stock]))
            window = series.values[max(begun, t - days + 1 if days else 0) : t + 1, stock]
            if (~np.isnan(window)).sum() >= least:
                out[t, stock] = of(window)
    return out


@pytest.mark.parametrize("days", [1, 2, 5, 11, 36, 37, 60, 0])
@pytest.mark.parametrize(
    ("name", "of", "least"),
    [
        ("total", np.nansum, 1),
        ("mean", np.nanmean, 1),
        ("maximum", np.nanmax, 1),
        ("minimum", np.nanmin, 1),
        ("variance", lambda x: np.nanvar(x, ddof=1), 2),
        ("count", lambda x: float((~np.isnan(x)).sum()), 0),
    ],
)
def test_against_loops(
    name: str, of: Callable[[np.ndarray], float], least: int, days: int, series: Series
) -> None:
    expected = naive(series, days, of, least)
    found = np.where(series.age > 0, getattr(windows_of(series)(days), name), np.nan)
    np.testing.assert_allclose(found, np.where(series.age > 0, expected, np.nan), rtol=1e-7, atol=1e-20)


@pytest.mark.parametrize("days", [5, 20, 0])
@pytest.mark.parametrize(
    ("name", "of", "least"),
    [
        ("skewness", lambda x: stats.skew(x[~np.isnan(x)], bias=False), 3),
        ("kurtosis", lambda x: stats.kurtosis(x[~np.isnan(x)], bias=False), 4),
        ("absolute_deviation", lambda x: np.nanmean(np.abs(x - np.nanmean(x))), 1),
        ("slope", LINE["slope"], 2),
        ("r_square", LINE["r_square"], 2),
        ("place_of_maximum", lambda x: np.argmax(x) + 1.0, 1),
        ("place_of_minimum", lambda x: np.argmin(x) + 1.0, 1),
    ],
)
@pytest.mark.filterwarnings("ignore:Precision loss")
def test_statistics_against_scipy(
    name: str, of: Callable[[np.ndarray], float], least: int, days: int, series: Series
) -> None:
    stock = [0, 3]  # of the others Qlib's rules for what hardly differs decide
    with np.errstate(all="ignore"):
        found = getattr(statistics, name)(windows_of(series)(days))[:, stock]
    expected = naive(series, days, of, least)[:, stock]
    there = ~np.isnan(expected)
    assert there.sum() > 40
    np.testing.assert_allclose(found[there], expected[there], rtol=1e-7)


@pytest.mark.parametrize("days", [1, 4, 20, 0])
@pytest.mark.parametrize("share", [0.0, 0.2, 0.5, 1.0])
def test_quantiles_against_numpy(days: int, share: float, series: Series) -> None:
    found = windows_of(series)(days).quantiles((share, 0.8))[share]
    np.testing.assert_allclose(
        found[:, :3], naive(series, days, lambda x: np.nanquantile(x, share))[:, :3], rtol=1e-12
    )


def test_equal_values_have_no_spread(series: Series) -> None:
    inside = slice(25, 30)
    windows = windows_of(series)(10)
    assert (windows.spread[inside, 2] == 0).all()
    with np.errstate(all="ignore"):
        assert (statistics.slope(windows)[inside, 2] == 0).all()


def test_an_infinite_value_is_missing_and_so_is_a_line_through_it() -> None:
    """In Qlib all later lines are missing too; here a window follows from its own days alone."""
    values = np.array([[1.0], [np.inf], [3.0], [4.0], [5.0]])
    listed, age = np.ones((5, 1), dtype=bool), np.arange(1, 6)[:, None]
    windows = windows_of(Series(values, listed, age))(2)
    np.testing.assert_array_equal(windows.total[:, 0], [1, 1, 3, 7, 9])
    with np.errstate(all="ignore"):
        for of in (statistics.slope, statistics.residual):
            np.testing.assert_array_equal(np.isnan(of(windows)[:, 0]), [True, True, True, False, False])
        np.testing.assert_array_equal(statistics.slope(windows)[3:, 0], [1, 1])


def test_a_window_follows_from_its_own_days_alone(series: Series) -> None:
    begun, days = 11, 13
    later = Series(series.values[begun:], series.valid[begun:], series.age[begun:])
    for of in (
        lambda w: w.total,
        lambda w: w.spread,
        lambda w: w.trend,
        lambda w: w.higher[1],
        lambda w: w.placed_sum,
        lambda w: w.outermost(np.inf)[1],
        lambda w: w.quantiles([0.3])[0.3],
        lambda w: w.span.places[1],
    ):
        whole, part = of(windows_of(series)(days)), of(windows_of(later)(days))
        np.testing.assert_array_equal(part[days - 1 :], whole[begun + days - 1 :])


def test_what_is_known_of_windows_is_shared_where_the_same_days_have_values(series: Series) -> None:
    known: Known = []
    one = Series(series.values, series.valid, series.age, known)
    other = Series(series.values * 2, series.valid, series.age, known)
    third = Series(series.values, series.valid & (series.values > 20), series.age, known)
    assert one.presence is other.presence
    assert one.spans(5) is other.spans(5)
    assert third.presence is not one.presence
    assert len(known) == 2


@pytest.mark.parametrize("days", [2, 3, 5, 7, 60, 250, 256])
def test_both_parts_make_the_window(days: int) -> None:
    older, newer = split(days)
    assert older + newer == days
    assert older >= newer > 0
