from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.features.side_data.macro import Macro
from qlib_ext.market.synthetic.macro import SERIES, Release, macro_state, publish, release_table
from qlib_ext.market.synthetic.us_sample import USSampleMarket

CALENDAR = USSampleMarket().calendar()


@pytest.fixture(scope="module")
def releases() -> list[Release]:
    return publish(0, "2000-01-03", "2009-12-31")


class TestPublish:
    def test_equal_arguments_give_equal_figures_and_another_seed_others(
        self, releases: list[Release]
    ) -> None:
        assert publish(0, "2000-01-03", "2009-12-31") == releases
        assert publish(1, "2000-01-03", "2009-12-31") != releases

    def test_each_figure_comes_after_its_period_on_a_weekday(self, releases: list[Release]) -> None:
        for release in releases:
            assert release.release_date > pd.Period(release.period).end_time.normalize()
            assert release.release_date.weekday() < 5
        assert [release.release_date for release in releases] == sorted(
            release.release_date for release in releases
        )

    @pytest.mark.parametrize(
        ("series", "period", "days"),
        [
            ("realgdp", "2003Q1", ["2003-04-30", "2003-05-30", "2003-06-30"]),  # 29 June is a Sunday
            ("cpi", "2003-05", ["2003-06-16"]),  # the 15th is a Sunday
            ("tbilrate", "2003-05", ["2003-06-02"]),
        ],
    )
    def test_the_days_of_release(
        self, series: str, period: str, days: list[str], releases: list[Release]
    ) -> None:
        found = [x.release_date for x in releases if (x.series, x.period) == (series, period)]
        assert found == [pd.Timestamp(day) for day in days]

    def test_unemployment_comes_on_a_first_friday_and_is_corrected_a_month_later(
        self, releases: list[Release]
    ) -> None:
        table = release_table([x for x in releases if x.series == "unemp"])
        assert set(table["release_date"].dt.weekday) == {4}
        assert (table["release_date"].dt.day <= 7).all()
        numbers = table.groupby("period").size()
        assert set(numbers) == {1, 2}
        assert 0.3 < (numbers == 2).mean() < 0.95

    def test_revisions_are_small_and_the_last_is_the_truth(self, releases: list[Release]) -> None:
        table = release_table([x for x in releases if x.series == "realgdp"])
        final = table.groupby("period")["value"].transform("last")
        error = (table["value"] / final - 1).groupby(table.groupby("period").cumcount()).std()
        np.testing.assert_allclose(error[[0, 1]], [0.0025, 0.001], rtol=0.4)

    def test_the_economy_shrinks_in_2008_and_stays_in_range(self, releases: list[Release]) -> None:
        last = release_table(releases).groupby(["series", "period"])["value"].last()
        growth = last["realgdp"].pct_change()
        assert growth["2008Q1":"2009Q1"].mean() < growth.mean() - 0.003
        assert last["unemp"].between(2, 14).all()
        assert (last["tbilrate"] > 0).all()
        assert set(last.index.get_level_values(0)) == set(SERIES)


class TestState:
    def test_against_the_reader_of_a_store(self, tmp_path: Path) -> None:
        """Independent: the features that a workflow makes of the same file, put into the formula."""
        out = tmp_path / "m"
        store, _ = USSampleMarket(stocks=20, start="2000-01-03", end="2002-12-31").write(out)
        series = {"realgdp": "relative_change", "unemp": "year_change", "tbilrate": "year_change"}
        growth, unemployment, rate = Macro(series=series).load(store).values.T
        expected = ((growth - 0.006) / 0.008 - unemployment + rate) / np.sqrt(3)
        published = pd.read_parquet(out / "side" / "planted_macro.parquet")
        assert list(published["release_date"]) == list(store.calendar)
        np.testing.assert_allclose(published["value"], np.clip(expected, -2, 2), atol=1e-9)

    def test_what_comes_out_later_changes_nothing(self, releases: list[Release]) -> None:
        state = macro_state(releases, CALENDAR)
        for day in ("2001-03-15", "2006-07-07"):
            later = [
                dataclasses.replace(x, value=x.value * 3) if x.release_date > pd.Timestamp(day) else x
                for x in releases
            ]
            until = pd.Timestamp(day) >= CALENDAR
            np.testing.assert_array_equal(macro_state(later, CALENDAR)[until], state[until])
            assert not np.array_equal(macro_state(later, CALENDAR), state)

    def test_a_revision_counts_from_its_own_day(self) -> None:
        def gdp(period: str, value: float, day: str) -> Release:
            return Release("realgdp", period, pd.Period(period).ordinal, value, pd.Timestamp(day))

        def monthly(series: str, period: str, value: float) -> Release:
            return Release(series, period, pd.Period(period).ordinal, value, pd.Timestamp("2000-02-01"))

        releases = [
            gdp("1999Q3", 1000.0, "1999-10-29"),
            gdp("1999Q4", 1006.0, "2000-01-28"),
            gdp("1999Q4", 1014.0, "2000-02-28"),
            *(monthly("unemp", period, value) for period, value in (("1999-01", 4.5), ("2000-01", 4.0))),
            *(monthly("tbilrate", period, value) for period, value in (("1999-01", 5.0), ("2000-01", 4.8))),
        ]
        days = pd.DatetimeIndex(["2000-01-31", "2000-02-01", "2000-02-25", "2000-02-28"])
        first, second = (0.5 - 0.2) / 3**0.5, (1.0 + 0.5 - 0.2) / 3**0.5
        np.testing.assert_allclose(macro_state(releases, days), [0.0, first, first, second], atol=1e-9)

    def test_golden(self, releases: list[Release]) -> None:
        state = macro_state(releases, CALENDAR)
        np.testing.assert_allclose(state[[0, 1000, 2000]], [0.6705, 1.0267, -0.0243], atol=1e-4)
        assert (np.abs(state) <= 2).all()
        assert 0.6 < state.std() < 1.6
