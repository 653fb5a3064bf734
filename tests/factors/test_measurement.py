"""What is measured day by day, against pandas and scipy in plain loops."""

from __future__ import annotations

import warnings

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from qlib_ext.factors.measurement import LAGS, Measured, measure
from qlib_ext.factors.values import FactorValues
from qlib_ext.features.exposures.style_exposures import Exposures
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.metrics.quantiles import quantile_groups
from qlib_ext.metrics.stability import group_turnover
from tests.features.arrays import market_of

DAYS, STOCKS, FACTORS = 60, 25, 3
FIRST = 4  # of the days that are judged


class Planes(FactorValues):
    """Factors as planes `[F, D, S]`."""

    def __init__(self, planes: np.ndarray) -> None:
        self.names = tuple("abc")
        self.notes = []
        self.planes = planes

    def of_day(self, day: int, columns: np.ndarray) -> np.ndarray:
        return self.planes[:, day, columns].astype(np.float64)


@pytest.fixture(scope="module")
def given() -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    factors = draw.normal(size=(FACTORS, DAYS, STOCKS)).cumsum(axis=1)
    factors[2] += factors[0]
    factors[draw.random(factors.shape) < 0.1] = np.nan
    label = draw.normal(size=(DAYS, STOCKS)) + 0.1 * np.nan_to_num(factors[0])
    label[draw.random(label.shape) < 0.05] = np.nan
    label[-2:] = np.nan
    close = np.exp(draw.normal(3, 0.2, (DAYS, STOCKS))).astype(np.float32)
    close[draw.random(close.shape) < 0.05] = np.nan
    known = draw.normal(0, 4, (DAYS, STOCKS)) + factors[0]
    group = draw.integers(-1, 3, (DAYS, STOCKS))
    noisy = factors + draw.normal(0, 0.3, factors.shape)
    return {
        "factors": factors, "label": label, "close": close, "known": known, "group": group, "noisy": noisy
    }  # fmt: skip


@pytest.fixture(scope="module")
def market(given: dict[str, np.ndarray]) -> MarketPanel:
    return market_of(given["close"][None], ["close"])


@pytest.fixture(scope="module")
def found(given: dict[str, np.ndarray], market: MarketPanel) -> Measured:
    exposures = Exposures({"known": given["known"]}, given["group"], {})
    days = np.arange(FIRST, DAYS)
    factors, noisy = Planes(given["factors"]), Planes(given["noisy"])
    return measure(factors, noisy, market, days, given["label"], exposures)


def present(given: dict[str, np.ndarray], name: str, factor: int = 0) -> np.ndarray:
    """Planes `[D, S]`, NaN where the stock is no row."""
    plane = given[name][factor] if given[name].ndim == 3 else given[name]
    return np.where(np.isnan(given["close"]), np.nan, plane)


def spearman(one: np.ndarray, other: np.ndarray) -> float:
    pair = ~np.isnan(one) & ~np.isnan(other)
    return float(stats.spearmanr(one[pair], other[pair]).statistic) if pair.sum() > 1 else np.nan


def of_ranks(one: np.ndarray, other: np.ndarray) -> float:
    """Pearson of ranks that were taken among all that have a value."""
    return float(pd.Series(one).rank().corr(pd.Series(other).rank()))


@pytest.mark.parametrize("factor", range(FACTORS))
class TestAgainstLoops:
    def test_ic_and_rank_ic_of_each_day(
        self, found: Measured, given: dict[str, np.ndarray], factor: int
    ) -> None:
        score = present(given, "factors", factor)
        for row, day in enumerate(range(FIRST, DAYS)):
            expected = spearman(score[day], given["label"][day])
            assert found.rank_ic[row, factor] == pytest.approx(expected, nan_ok=True)
            ic = pd.Series(score[day]).corr(pd.Series(given["label"][day]))
            assert found.ic[row, factor] == pytest.approx(ic, nan_ok=True)

    def test_decay(self, found: Measured, given: dict[str, np.ndarray], factor: int) -> None:
        score = present(given, "factors", factor)
        for lag in (0, 1, 7, LAGS):
            daily = []
            for day in range(FIRST, DAYS - lag):
                later = np.where(np.isnan(given["close"][day]), np.nan, given["label"][day + lag])
                daily.append(of_ranks(score[day], later))
            assert found.decay[factor, lag] == pytest.approx(np.nanmean(daily))

    def test_coverage_exposure_and_noise(
        self, found: Measured, given: dict[str, np.ndarray], factor: int
    ) -> None:
        score, known = present(given, "factors", factor), present(given, "known")
        moved = present(given, "noisy", factor)
        days = range(FIRST, DAYS)
        there = ~np.isnan(given["close"])
        share = [(~np.isnan(score[d])).sum() / there[d].sum() for d in days]
        np.testing.assert_allclose(found.coverage[:, factor], share)
        exposed = np.mean([of_ranks(score[d], known[d]) for d in days])
        assert found.exposures[factor, 0] == pytest.approx(exposed)
        assert found.noise is not None
        alike = np.mean([of_ranks(score[d], moved[d]) for d in days])
        rank_ic = np.nanmean([spearman(moved[d], given["label"][d]) for d in days])
        assert found.noise[factor] == pytest.approx([alike, rank_ic])

    def test_what_exposures_leave(self, found: Measured, given: dict[str, np.ndarray], factor: int) -> None:
        score, known = present(given, "factors", factor), present(given, "known")
        for row, day in enumerate(range(FIRST, DAYS - 2)):
            here = ~np.isnan(given["close"][day])
            exposure = pd.Series(known[day][here]).rank()
            ranks = pd.Series(score[day][here]).rank()
            rows = ranks.notna().to_numpy()
            dummies = given["group"][day][here][:, None] == np.arange(-1, 3)
            design = np.column_stack([exposure.fillna(exposure.mean()), dummies])[rows]
            left = ranks[rows] - design @ np.linalg.lstsq(design, ranks[rows], rcond=None)[0]
            label = pd.Series(given["label"][day][here]).rank()[rows]
            assert found.neutral[row, factor] == pytest.approx(left.corr(label), abs=1e-9)

    def test_turnover_is_that_of_quantile_groups(
        self, found: Measured, given: dict[str, np.ndarray], factor: int
    ) -> None:
        groups = quantile_groups(present(given, "factors", factor)[FIRST:], 5)
        moved = group_turnover(groups, 5)[1:].mean(axis=0)
        assert found.turnover[factor] == pytest.approx(moved[[0, 4]])

    def test_autocorrelation(self, found: Measured, given: dict[str, np.ndarray], factor: int) -> None:
        score = present(given, "factors", factor)
        for k, lag in enumerate((1, 5, 20)):
            daily = [of_ranks(score[day], score[day - lag]) for day in range(FIRST + lag, DAYS)]
            assert found.autocorrelation[factor, k] == pytest.approx(np.mean(daily), abs=1e-6)

    def test_correlation_with_the_others(
        self, found: Measured, given: dict[str, np.ndarray], factor: int
    ) -> None:
        for other in range(FACTORS):
            one, two = present(given, "factors", factor), present(given, "factors", other)
            daily = [of_ranks(one[day], two[day]) for day in range(FIRST, DAYS)]
            assert found.correlation[factor, other] == pytest.approx(np.mean(daily))


class TestDays:
    def test_days_that_do_not_follow_each_other_are_no_turnover(
        self, given: dict[str, np.ndarray], market: MarketPanel
    ) -> None:
        exposures = Exposures({"known": given["known"]}, None, {})
        days = np.arange(0, DAYS, 2)
        found = measure(Planes(given["factors"]), None, market, days, given["label"], exposures)
        assert np.isnan(found.turnover).all()
        assert np.isnan(found.autocorrelation[:, :2]).all()
        assert not np.isnan(found.autocorrelation[:, 2]).any()
        assert found.noise is None
        assert found.industry is None

    def test_a_factor_that_is_the_same_for_all_has_nothing(
        self, given: dict[str, np.ndarray], market: MarketPanel
    ) -> None:
        exposures = Exposures({"known": given["known"]}, given["group"], {})
        planes = Planes(np.ones((1, DAYS, STOCKS)))
        planes.names = ("same",)
        told = []
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            found = measure(
                planes,
                None,
                market,
                np.arange(DAYS),
                given["label"],
                exposures,
                lambda *how: told.append(how),
            )
        for values in (found.rank_ic, found.ic, found.neutral, found.decay, found.turnover, found.exposures):
            assert np.isnan(values).all()
        assert (found.coverage == 1).all()
        assert told[0][:2] == (0, DAYS)
        assert told[-1][:2] == (DAYS, DAYS)
