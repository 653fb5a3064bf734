"""What was known at each close, held against pandas' `merge_asof` and against tables made by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from qlib_ext.checks import UserError
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.side_data.known_field import KnownField
from qlib_ext.market.side_data.side_data import SideData, SideDataError
from qlib_ext.market.store import StoreError

CALENDAR = pd.bdate_range("2020-01-01", periods=25)  # from a Wednesday on
CODES = ("SH600000", "SH600004", "SZ000001")
ALL = slice(0, len(CALENDAR)), np.arange(len(CODES))


def market() -> MarketPanel:
    shape = 1, len(CALENDAR), len(CODES)
    return MarketPanel(("close",), CALENDAR, CODES, np.ones(shape, np.float32), np.ones(shape[1:], bool), ())


def read(root: Path, frame: pd.DataFrame, field: str, name: str = "mine") -> KnownField:
    (root / "side").mkdir(exist_ok=True)
    frame.to_parquet(root / "side" / f"{name}.parquet", index=False)
    return KnownField.read(SideData(root), name, field, market())


@pytest.mark.parametrize("seed", range(4))
def test_the_newest_number_and_its_age_are_those_of_merge_asof(seed: int, tmp_path: Path) -> None:
    """Rows fall on weekends and outside of the calendar; some are blank, and the other field of their row is not."""
    draw = np.random.default_rng(seed)
    cells = {(day, code) for day in range(-20, 40) for code in (*CODES, "SH600999") if draw.random() < 0.2}
    rows = [
        (CALENDAR[0] + pd.Timedelta(days=day), code, draw.normal() if draw.random() < 0.7 else np.nan, 1.0)
        for day, code in cells
    ]
    frame = pd.DataFrame(rows, columns=["datetime", "instrument", "pe", "other"])
    values, age = read(tmp_path, frame, "pe").at(*ALL)
    days = pd.DataFrame({"day": CALENDAR})
    there = frame.dropna().sort_values("datetime").astype({"datetime": "M8[ns]"})
    for column, code in enumerate(CODES):
        expected = pd.merge_asof(days, there[there["instrument"] == code], left_on="day", right_on="datetime")
        np.testing.assert_array_equal(values[:, column], expected["pe"].astype(np.float32))
        np.testing.assert_array_equal(age[:, column], (days["day"] - expected["datetime"]).dt.days)


def test_some_days_and_stocks_are_those_of_the_whole(tmp_path: Path) -> None:
    draw = np.random.default_rng(0)
    rows = [(day, code, draw.normal()) for day in CALENDAR for code in CODES if draw.random() < 0.2]
    known = read(tmp_path, pd.DataFrame(rows, columns=["datetime", "instrument", "pe"]), "pe")
    whole, part = known.at(*ALL), known.at(slice(7, 19), np.arange(1, 3))
    for one, other in zip(whole, part, strict=True):
        np.testing.assert_array_equal(one[7:19, 1:3], other)


def test_a_number_of_the_whole_market_is_that_of_each_stock(tmp_path: Path) -> None:
    frame = pd.DataFrame({"datetime": CALENDAR[[2, 5]], "mood": [0.5, -1.0], "fear": [np.nan, 20.0]})
    values, age = read(tmp_path, frame, "mood").at(slice(0, 7), np.arange(1, 3))
    np.testing.assert_array_equal(values[:, 0], np.array([np.nan, np.nan, 0.5, 0.5, 0.5, -1, -1], np.float32))
    np.testing.assert_array_equal(values[:, 1], values[:, 0])
    np.testing.assert_array_equal(age[:, 0], [np.nan, np.nan, 0, 3, 4, 0, 1])  # over a weekend
    np.testing.assert_array_equal(read(tmp_path, frame, "fear").at(*ALL)[0][:6, 0], [np.nan] * 5 + [20])


def test_a_series_is_that_of_its_latest_period_as_last_revised(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        [
            ("gdp", "2019Q3", 1.0, "2020-01-02"),
            ("gdp", "2019Q4", 2.0, "2020-01-07"),
            ("gdp", "2019Q3", 9.0, "2020-01-09"),  # tells nothing of the latest one
            ("gdp", "2019Q4", 3.0, "2020-01-14"),
            ("cpi", "2019Q4", 7.0, "2020-01-03"),
        ],
        columns=["series", "period", "value", "release_date"],
    )
    values, age = read(tmp_path, frame, "gdp").at(slice(0, 11), np.arange(1))
    nan = np.nan
    np.testing.assert_array_equal(values[:, 0], np.array([nan, 1, 1, 1, 2, 2, 2, 2, 2, 3, 3], np.float32))
    np.testing.assert_array_equal(age[:, 0], [nan, 0, 1, 4, 0, 1, 2, 3, 6, 0, 1])


def test_what_is_not_there_is_told_with_the_way_out(tmp_path: Path) -> None:
    frame = pd.DataFrame({"datetime": CALENDAR, "instrument": CODES[0], "turnover": 1.0, "pb": 2.0})
    read(tmp_path, frame, "pb", "valuation")
    side = SideData(tmp_path)
    with pytest.raises(
        UserError, match=r"have no turnovr \(did you mean turnover\?\), they have turnover, pb"
    ):
        KnownField.read(side, "valuation", "turnovr", market())
    with pytest.raises(
        SideDataError,
        match=r"no side data 'valuatio' \(did you mean valuation\?\).*data side-data DIR valuatio FILE",
    ):
        KnownField.read(side, "valuatio", "pe", market())
    spells = pd.DataFrame({"instrument": CODES, "start": CALENDAR[0], "end": pd.NaT, "industry": "bank"})
    with pytest.raises(SideDataError, match=r"must hold numbers, found spells.*CSNeutralize\(x, industry\)"):
        read(tmp_path, spells, "industry", "industry")
    with pytest.raises(StoreError, match="has no number of any of the 3 stocks by 2020-02-04"):
        read(tmp_path, frame[:1].assign(datetime=pd.Timestamp("2020-02-05")), "pb")


def test_how_much_is_known(tmp_path: Path) -> None:
    frame = pd.DataFrame({"datetime": CALENDAR[:1], "instrument": CODES[:1], "pe": 1.0})
    known = read(tmp_path, frame, "pe")
    assert known.coverage(market()) == pytest.approx(1 / 3)
    assert known.newest == CALENDAR[0]
