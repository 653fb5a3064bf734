"""The tables of a scorecard, on a small market."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from qlib_ext.factors.disturbed import reading_ahead, with_noise
from qlib_ext.factors.exposures import exposures
from qlib_ext.factors.scorecard import Scorecard, scorecard
from qlib_ext.factors.subject import of_file
from qlib_ext.factors.table import FactorTable
from qlib_ext.features.alpha360 import Alpha360
from qlib_ext.features.engine.evaluation import evaluate
from qlib_ext.features.expressions import Expressions
from qlib_ext.market.store import QlibStore
from qlib_ext.metrics.cross_section import icir, newey_west_t, spearman
from qlib_ext.metrics.significance import benjamini_hochberg, bootstrap_mean
from tests.factors.conftest import FACTORS


class TestTable:
    def test_its_figures_are_those_of_the_metrics(self, found: Scorecard, store: QlibStore) -> None:
        source = Expressions(FACTORS, normalise="none", clip=None)
        subject = of_file("few.yaml", store, "csi300", source, "2014-11-03", "2015-05-29")
        market, days = subject.market, subject.days
        label = evaluate(subject.label.expression, market)
        for name, row in found.table.iterrows():
            score = np.where(market.present, evaluate(FACTORS[str(name)], market), np.nan)
            daily = spearman(score[days], label[days])
            assert row["rank_ic"] == pytest.approx(np.nanmean(daily), abs=1e-6)
            assert row["rank_icir"] == pytest.approx(icir(daily), rel=1e-4)
            assert row["t"] == pytest.approx(newey_west_t(daily, 4), rel=1e-4)
            assert row["days"] == (~np.isnan(daily)).sum()
            if not np.isnan(daily).any():
                low, high = bootstrap_mean(daily, block_days=len(days) ** (1 / 3))
                assert (row["rank_ic_low"], row["rank_ic_high"]) == pytest.approx((low, high), abs=1e-6)
            years = found.years.loc[name]
            for year in (2014, 2015):
                inside = market.calendar[days].year == year
                assert years[year] == pytest.approx(np.nanmean(daily[inside]), abs=1e-6)
            sign = np.sign(row["rank_ic"])
            assert row["worst_year"] == (years * sign).idxmin()
            assert row["years_same_sign"] == (years * sign > 0).mean()

    def test_what_looks_ahead_is_named_and_is_never_the_best(self, found: Scorecard) -> None:
        assert [*found.ahead.index] == ["AHEAD"]
        row = found.table.loc["AHEAD"]
        assert "reads bars of up to 2 days later" in row["look_ahead"]
        assert row["rank_ic"] > found.best["rank_ic"].abs().max()
        assert row["place"] == 0
        assert np.isnan(row["q"])
        assert "AHEAD" not in found.best.index

    def test_the_others_stand_in_the_order_of_t_and_q_is_over_them_alone(self, found: Scorecard) -> None:
        others = found.table.drop(index="AHEAD")
        assert set(found.best.index) == set(others.index)
        assert found.best["t"].abs().is_monotonic_decreasing
        assert sorted(others["place"]) == [1, 2, 3, 4, 5]
        np.testing.assert_allclose(others["q"], benjamini_hochberg(others["p"]))
        assert found.tell == (others["q"] <= 0.05).sum()

    def test_a_factor_and_its_negative_are_one_cluster(self, found: Scorecard) -> None:
        table = found.table
        assert table.loc["REVERSAL", "cluster"] == table.loc["REVERSAL_AGAIN", "cluster"]
        assert table.loc["REVERSAL", "nearest"] == "REVERSAL_AGAIN"
        assert table.loc["REVERSAL", "nearest_correlation"] == pytest.approx(-1)
        assert table["cluster"].nunique() == len(found.best_of_clusters) + 1
        assert sorted(found.correlation.index) == sorted(FACTORS)
        beside = [*found.correlation.index]
        assert abs(beside.index("REVERSAL") - beside.index("REVERSAL_AGAIN")) == 1
        np.testing.assert_allclose(found.correlation, found.correlation.T)

    def test_an_exposure_leaves_nothing_of_itself(self, found: Scorecard) -> None:
        row = found.table.loc["RETURN20"]
        assert row["reversal"] == pytest.approx(1)
        assert np.isnan(row["neutral_rank_ic"])
        assert not np.isnan(found.table.loc["CANDLE", "neutral_rank_ic"])

    def test_noise_hurts_a_candle_more_than_a_return(self, found: Scorecard) -> None:
        like = found.table["noise_correlation"]
        assert like["RETURN20"] > 0.99
        assert like["CANDLE"] < like["RETURN20"] < 1

    def test_no_bar_after_the_last_day_is_read(self, store: QlibStore) -> None:
        source = Expressions(FACTORS, normalise="none", clip=None)
        subject = of_file("few.yaml", store, "csi300", source, "2014-11-03", "2015-05-29")
        assert subject.market.calendar[-1] == pd.Timestamp("2015-05-29")
        assert subject.days[-1] == len(subject.market.calendar) - 1


class TestWindows:
    def test_each_lag_where_asked_for(self, store: QlibStore) -> None:
        source = Alpha360(["close", "open"], lookback_days=3)
        subject = of_file("w", store, "csi300", source, "2015-05-04", "2015-05-29")
        assert [*scorecard(subject).table.index] == ["close", "open"]
        found = scorecard(subject, every_lag=True)
        assert [*found.table.index] == ["CLOSE2", "CLOSE1", "CLOSE0", "OPEN2", "OPEN1", "OPEN0"]
        assert np.isnan(found.table.loc["CLOSE0", "rank_ic"])  # it is 1 for every stock
        assert found.table.loc["CLOSE0", "place"] == 0
        assert not found.ahead.size


class TestReady:
    def test_ready_values_are_judged_as_their_formula_would_be(
        self, store: QlibStore, found: Scorecard, tmp_path: object
    ) -> None:
        source = Expressions(FACTORS, normalise="none", clip=None)
        market = of_file("f", store, "csi300", source).market
        values = pd.DataFrame(
            evaluate(FACTORS["CANDLE"], market), market.calendar, market.instruments
        ).stack()  # missing ones have no row
        frame = values.rename("CANDLE").rename_axis(["datetime", "instrument"]).reset_index()
        path = tmp_path / "ready.parquet"  # type: ignore[operator]
        frame.to_parquet(path)
        subject = of_file(
            "ready", store, "csi300", FactorTable(path, set(store.instruments())), "2014-11-03", "2015-05-29"
        )
        ready = scorecard(subject)
        row, expected = ready.table.loc["CANDLE"], found.table.loc["CANDLE"]
        for column in ("rank_ic", "ic", "t", "turnover", "coverage", "half_life_days", "neutral_rank_ic"):
            assert row[column] == pytest.approx(expected[column], rel=1e-5)
        assert np.isnan(row["noise_correlation"])
        assert row["look_ahead"] == "not checked"
        assert any("was not checked" in note for note in ready.notes)


class TestDisturbed:
    def test_noise_is_as_large_as_it_says_and_leaves_out_what_is_no_price(self, store: QlibStore) -> None:
        source = Expressions(["$close", "$volume", "$factor"], normalise="none", clip=None)
        market = of_file("f", store, "csi300", source).market
        moved = with_noise(market, seed=0)
        for name, size in (("close", 0.001), ("volume", 0.05)):
            change = moved.field(name) / market.field(name) - 1
            assert np.nanstd(change) == pytest.approx(size, rel=0.1)
        np.testing.assert_array_equal(moved.field("factor"), market.field("factor"))
        np.testing.assert_array_equal(with_noise(market, seed=0).values, moved.values)
        assert not np.array_equal(with_noise(market, seed=1).values, moved.values, equal_nan=True)

    def test_what_reads_later_days_is_found_by_experiment_alone(
        self, store: QlibStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        formulas = FACTORS | {"NET": "Ref(Ref($close, -1), 1)/$open", "RANK": "CSRank($close)"}
        source = Expressions(formulas, normalise="none", clip=None)
        subject = of_file("f", store, "csi300", source)
        given = {"every_lag": False, "seed": 0}
        said = reading_ahead(source, store, subject.market, subject.days, **given)
        assert set(said) == {"AHEAD", "NET"}  # by the formula, which errs on the safe side
        monkeypatch.setattr(Expressions, "look_ahead", lambda self: [])
        tried = reading_ahead(source, store, subject.market, subject.days, **given)
        assert set(tried) == {"AHEAD"}
        assert "`AHEAD` is another where the bars after 20" in tried["AHEAD"]


class TestExposures:
    def test_what_the_store_has_and_what_it_lacks(self, store: QlibStore, found: Scorecard) -> None:
        source = Expressions(FACTORS, normalise="none", clip=None)
        subject = of_file("few.yaml", store, "csi300", source, "2014-11-03", "2015-05-29")
        known = exposures(subject)
        assert set(known.planes) == {"size", "beta", "volatility", "reversal"}
        for plane in known.planes.values():
            assert plane.shape == subject.market.members.shape
        assert set(known.told) == set(found.told) == {*known.planes, "industry"}
        returns = evaluate("$close/Ref($close, 1)-1", subject.market)
        day, present = subject.days[-1], subject.market.present[subject.days[-1]]
        weighted = np.nanmean(np.where(subject.market.present, returns, np.nan)[day - 59 : day + 1], axis=1)
        slopes = [
            np.polyfit(weighted, returns[day - 59 : day + 1, k], 1)[0]
            for k in np.flatnonzero(present)
            if not np.isnan(returns[day - 59 : day + 1, k]).any()
        ]
        whole = [k for k in np.flatnonzero(present) if not np.isnan(returns[day - 59 : day + 1, k]).any()]
        np.testing.assert_allclose(known.planes["beta"][day, whole], slopes, rtol=1e-4)
