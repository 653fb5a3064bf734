from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st

from qlib_ext.checks import UserError
from qlib_ext.features.side_data.macro import TRANSFORMS, Macro, MacroFigures
from qlib_ext.market.side_data.side_data import SideDataError
from qlib_ext.market.store import QlibStore, write_store

CALENDAR = pd.bdate_range("2020-01-01", "2020-12-31")  # a Wednesday
# Two quarters with revisions; the first figure of Q1 comes out on a Saturday.
GDP = """series,period,value,release_date
gdp,2019Q4,100,2020-01-30
gdp,2020Q1,90,2020-05-02
gdp,2020Q1,80,2020-06-01
gdp,2020Q2,120,2020-07-30
gdp,2020Q1,60,2020-08-03
gdp,2019Q2,50,2020-08-03
"""


def make_store(root: Path, text: str = GDP, name: str = "macro") -> QlibStore:
    store = write_store(root / "store", CALENDAR, ["A1"], {"close": np.ones((len(CALENDAR), 1))}, {})
    (store.root / "side").mkdir()
    (store.root / "side" / f"{name}.csv").write_text(text, encoding="utf-8")
    return store


@pytest.fixture
def gdp_store(tmp_path: Path) -> QlibStore:
    return make_store(tmp_path)


def changes(panel: MacroFigures, column: int = 0) -> list[tuple[str, float | None]]:
    """The days on which the figure becomes another one, with what it becomes."""
    values = pd.Series(panel.values[:, column], index=panel.calendar)
    new = values[~((values == values.shift()) | (values.isna() & values.shift().isna()))]
    if len(new) and np.isnan(new.iloc[0]):
        new = new.iloc[1:]
    return [(f"{day:%m-%d}", None if np.isnan(x) else round(float(x), 6)) for day, x in new.items()]


class TestLevels:
    def test_a_figure_is_known_from_its_release_on_and_not_from_its_period(
        self, gdp_store: QlibStore
    ) -> None:
        panel = Macro(limit_days=1000).load(gdp_store)
        assert panel.names == ("gdp",)
        assert panel.values.shape == (len(CALENDAR), 1)
        assert not panel.reads_future
        # The revision of Q1 in August is none of the newest period's: the level stays.
        assert changes(panel) == [("01-30", 100), ("05-04", 90), ("06-01", 80), ("07-30", 120)]
        assert np.isnan(panel.values[: CALENDAR.get_loc("2020-01-30")]).all()

    def test_releases_after_the_close_count_a_day_later(self, gdp_store: QlibStore) -> None:
        panel = Macro(limit_days=1000, release_delay_days=1).load(gdp_store)
        assert changes(panel) == [("01-31", 100), ("05-05", 90), ("06-02", 80), ("07-31", 120)]

    def test_a_figure_is_carried_forward_for_a_while(self, gdp_store: QlibStore) -> None:
        panel = Macro(limit_days=40).load(gdp_store)
        # The 40th day after January 30 is March 10. A revision of the newest period makes its figure new again, as
        # that of June 1 does until July 11, a Saturday; the revision of an older one on August 3 does not.
        assert changes(panel) == [
            ("01-30", 100),
            ("03-11", None),
            ("05-04", 90),
            ("06-01", 80),
            ("07-13", None),
            ("07-30", 120),
            ("09-09", None),
        ]

    def test_on_another_calendar(self, gdp_store: QlibStore) -> None:
        days = pd.DatetimeIndex(["2020-05-01", "2020-05-02", "2020-07-30"])
        panel = Macro().load(gdp_store, days)
        assert panel.values[:, 0].tolist() == [100, 90, 120]
        assert panel.calendar is days

    def test_releases_before_the_calendar_are_known_on_its_first_day(self, tmp_path: Path) -> None:
        store = make_store(tmp_path, "series,period,value,release_date\ncpi,2019-10,7,2019-11-15\n")
        assert Macro().load(store).values[0] == 7
        assert np.isnan(Macro(limit_days=10).load(store).values).all()


class TestTransforms:
    @pytest.mark.parametrize(
        ("transform", "expected"),
        [
            ("change", [("05-04", -10), ("06-01", -20), ("07-30", 40), ("08-03", 60)]),
            ("relative_change", [("05-04", -0.1), ("06-01", -0.2), ("07-30", 0.5), ("08-03", 1.0)]),
            ("year_change", [("08-03", 70)]),
            ("relative_year_change", [("08-03", 1.4)]),
        ],
    )
    def test_both_figures_are_those_of_the_day(
        self, transform: str, expected: list[tuple[str, float]], gdp_store: QlibStore
    ) -> None:
        """A revision of the figure before moves the change from its own release on."""
        panel = Macro(series={"gdp": transform}, limit_days=1000).load(gdp_store)
        assert panel.names == (f"gdp {transform}",)
        assert changes(panel) == expected

    def test_a_missing_period_makes_a_change_longer_and_a_yearly_one_missing(self, tmp_path: Path) -> None:
        rows = [
            f"cpi,2019-{month:02d},{month},2020-03-{month + 1:02d}" for month in range(1, 13) if month != 7
        ]
        rows += ["cpi,2020-07,5,2020-08-03", "cpi,2020-08,6,2020-09-01"]
        store = make_store(tmp_path, "\n".join(["series,period,value,release_date", *rows]))
        panel = Macro(series={"cpi": ["change", "year_change"]}, limit_days=1000).load(store)
        table = pd.DataFrame(panel.values, index=CALENDAR, columns=panel.names)
        assert table.loc["2020-03-09", "cpi change"] == 2  # August against June
        assert table.loc["2020-08-03", "cpi change"] == 5 - 12
        assert np.isnan(table.loc["2020-08-03", "cpi year_change"])
        assert table.loc["2020-09-01"].tolist() == [1, 6 - 8]

    def test_a_fraction_of_nothing_is_none(self, tmp_path: Path) -> None:
        text = "series,period,value,release_date\nr,2020-01-01,0,2020-01-02\nr,2020-01-02,1,2020-01-03\n"
        store = make_store(tmp_path, text + "r,2020-01-03,3,2020-01-06\n")
        panel = Macro(series={"r": "relative_change"}, limit_days=1000).load(store)
        assert changes(panel) == [("01-06", 2)]
        with pytest.raises(
            UserError, match=r"`series\['r'\]` must not be year_change, as its figures are daily"
        ):
            Macro(series={"r": "year_change"}).load(store)


ROWS = st.dictionaries(
    st.tuples(st.integers(0, 7), st.integers(0, 250)), st.integers(1, 50).map(float), min_size=1, max_size=15
)


def naive(
    rows: list[tuple[pd.Period, pd.Timestamp, float]], day: pd.Timestamp, transform: str, limit: int
) -> float:
    """By the definition: look up what was released by `day`, and nothing else."""
    known: dict[pd.Period, tuple[pd.Timestamp, float]] = {}
    for period, released, value in rows:
        if released <= day and (period not in known or known[period][0] <= released):
            known[period] = released, value
    if not known:
        return np.nan
    newest = max(known)
    released, figure = known[newest]
    if (day - released).days > limit:
        return np.nan
    if transform == "level":
        return figure
    before = newest - 4 if "year" in transform else max((p for p in known if p < newest), default=None)
    if before not in known:
        return np.nan
    base = known[before][1]
    return figure / base - 1 if transform.startswith("relative") else figure - base


class TestLookAhead:
    @given(rows=ROWS, transform=st.sampled_from(list(TRANSFORMS)), limit=st.integers(0, 200))
    def test_a_day_is_what_its_releases_say(
        self,
        rows: dict[tuple[int, int], float],
        transform: str,
        limit: int,
        tmp_path_factory: pytest.TempPathFactory,
    ) -> None:
        first = pd.Period("2018Q1", freq="Q")
        listed = [
            (first + quarter, (first + quarter).end_time.normalize() + pd.Timedelta(days=lag), value)
            for (quarter, lag), value in rows.items()
        ]
        lines = [f"gdp,{period},{value},{released:%Y-%m-%d}" for period, released, value in listed]
        text = "\n".join(["series,period,value,release_date", *lines])
        root = tmp_path_factory.mktemp("macro")
        (root / "side").mkdir()
        (root / "side" / "macro.csv").write_text(text)
        days = CALENDAR[::6]
        found = Macro(series={"gdp": transform}, limit_days=limit).load(root, days)  # type: ignore[arg-type]
        expected = [naive(listed, day, transform, limit) for day in days]
        np.testing.assert_allclose(found.values[:, 0], expected, rtol=1e-12, atol=1e-12)

    @pytest.mark.parametrize("fill", ["forward", "linear"])
    def test_releases_after_t_change_nothing_before_unless_asked_to(self, fill: str, tmp_path: Path) -> None:
        draw = np.random.default_rng(3)
        periods = pd.period_range("2018-01", "2020-11", freq="M")
        delays = draw.integers(5, 60, (len(periods), 2))
        t = pd.Timestamp("2020-06-15")
        texts = []
        for other in (False, True):
            lines = ["series,period,value,release_date"]
            for period, pair in zip(periods, delays, strict=True):
                for delay in sorted(set(pair)):
                    released = period.end_time.normalize() + pd.Timedelta(days=int(delay))
                    value = period.ordinal % 17 + delay / 10
                    if other and released > t:
                        value, released = value * 3 + 1, released + pd.Timedelta(days=int(delay))
                    lines.append(f"cpi,{period},{value},{released:%Y-%m-%d}")
            texts.append("\n".join(lines))
        (tmp_path / "a").mkdir()
        (tmp_path / "b").mkdir()
        stores = [make_store(tmp_path / name, text) for name, text in zip("ab", texts, strict=True)]
        macro = Macro(series={"cpi": ["level", "change", "relative_year_change"]}, limit_days=45, fill=fill)
        first, second = (macro.load(store) for store in stores)
        past = t >= CALENDAR
        same = np.array_equal(first.values[past], second.values[past], equal_nan=True)
        assert same == (fill == "forward")
        assert first.reads_future == second.reads_future == (fill == "linear")
        assert not np.array_equal(first.values[~past], second.values[~past], equal_nan=True)


class TestLinear:
    def test_it_draws_a_line_from_release_to_release(self, gdp_store: QlibStore) -> None:
        panel = Macro(limit_days=1000, fill="linear").load(gdp_store)
        values = pd.Series(panel.values[:, 0], index=CALENDAR)
        at = [CALENDAR.get_loc(day) for day in ("2020-01-30", "2020-05-04", "2020-06-01", "2020-07-30")]
        assert values.iloc[at].tolist() == [100, 90, 80, 120]
        middle = (at[0] + at[1]) // 2
        share = (middle - at[0]) / (at[1] - at[0])
        assert values.iloc[middle] == pytest.approx(100 - 10 * share)
        assert (values.iloc[at[3] :] == 120).all()
        assert values.iloc[: at[0]].isna().all()

    def test_it_says_that_it_reads_the_future(self, gdp_store: QlibStore) -> None:
        macro = Macro(fill="linear")
        assert macro.load(gdp_store).reads_future
        assert macro.describe(gdp_store)["reads_future"]
        assert macro.notes(gdp_store) == [
            "macro figures are interpolated between releases: their values read the future"
        ]
        assert Macro().notes(gdp_store) == []
        assert not Macro().describe(gdp_store)["reads_future"]


class TestArguments:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"limit_days": -1}, "`limit_days` must be at least 0, found -1"),
            ({"limit_days": {"gdp": 1.5}}, r"`limit_days\['gdp'\]` must be an integer, found 1.5"),
            ({"release_delay_days": -1}, "`release_delay_days` must be at least 0"),
            ({"fill": "cubic"}, "`fill` must be one of forward, linear, found 'cubic'"),
            ({"series": "gdp"}, "`series` must be a list of names or a mapping from names, found 'gdp'"),
            ({"series": []}, "`series` must be a list"),
            (
                {"series": {"gdp": ["level", "chance"]}},
                r"must be one of .*, found 'chance' \(did you mean change",
            ),
        ],
    )
    def test_they_are_checked(self, arguments: dict[str, Any], message: str) -> None:
        with pytest.raises(UserError, match=message):
            Macro(**arguments)

    def test_what_the_table_lacks_is_named(self, gdp_store: QlibStore) -> None:
        with pytest.raises(UserError, match=r"have no series 'gpd' \(did you mean gdp\?\); they have gdp"):
            Macro(series=["gpd"]).load(gdp_store)
        with pytest.raises(
            UserError, match="`limit_days` must have every series, found none for 'gdp' among cpi"
        ):
            Macro(limit_days={"cpi": 9}).load(gdp_store)
        assert Macro().lacks(gdp_store) is None
        assert Macro("us").lacks(gdp_store) == "there is no side/us.parquet or .csv"
        with pytest.raises(SideDataError, match="no side data 'us'"):
            Macro("us").load(gdp_store)

    def test_limits_may_differ(self, tmp_path: Path) -> None:
        text = "series,period,value,release_date\na,2019-12,1,2020-01-02\nb,2019-12,2,2020-01-02\n"
        panel = Macro(limit_days={"a": 5, "b": 20}).load(make_store(tmp_path, text))
        assert (~np.isnan(panel.values)).sum(axis=0).tolist() == [4, 15]

    def test_it_says_what_it_is_made_of(self, tmp_path: Path) -> None:
        text = (
            "series,period,value,release_date,stated_lag\n"
            "cpi,2019-12,1,2020-01-15,month+45d\ngdp,2019Q4,2,2020-02-29,end+60d\nr,2019-12-31,1,2020-01-01,\n"
        )
        store = make_store(tmp_path, text)
        found = Macro(series=["cpi", "r"]).describe(store)
        assert found["source"] == "side/macro.csv"
        assert found["stated_lags"] == {"cpi": "month+45d"}
        assert found["series"] == {"cpi": ["level"], "r": ["level"]}
        assert Macro().notes(store) == [
            "macro figures of stated lags, not of known release dates: cpi month+45d, gdp end+60d"
        ]
