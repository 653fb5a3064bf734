"""Features from a list of expressions: rows, windows, normalisation, groups."""

from __future__ import annotations

import dataclasses
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from qlib_ext.checks import UserError
from qlib_ext.features import expressions
from qlib_ext.features.engine.evaluation import evaluate
from qlib_ext.features.expressions import Expressions, window_rows
from qlib_ext.features.market_panel import MarketPanel
from qlib_ext.features.medians import SMALL
from qlib_ext.market.store import QlibStore, write_store
from tests.features.arrays import market_of

TEXTS = {"ROC3": "Ref($close, 3) / $close", "SPAN": "($high - $close) / $close"}
DAYS, STOCKS, T = 30, 6, 4


@pytest.fixture
def market() -> MarketPanel:
    """Members change, one stock comes late, bars are missing."""
    draw = np.random.default_rng(0)
    values = np.exp(draw.normal(3, 0.2, (2, DAYS, STOCKS))).astype(np.float32)
    values[:, draw.random((DAYS, STOCKS)) < 0.1] = np.nan
    values[:, :12, 5] = np.nan
    members = draw.random((DAYS, STOCKS)) < 0.7
    return dataclasses.replace(market_of(values, ["close", "high"]), members=members)


def windows(features: Expressions, market: MarketPanel, day: int) -> np.ndarray:
    columns = torch.from_numpy(np.flatnonzero(market.present[day]))
    return features.gather(torch.from_numpy(features.pad(market)), day, columns).numpy()


@pytest.mark.parametrize("normalise", ["robust", "zscore", "day", "none"])
def test_a_window_holds_the_normalised_values_of_its_days(normalise: str, market: MarketPanel) -> None:
    rows = market.present & (np.arange(DAYS) < 20)[:, None]
    features = Expressions(TEXTS, lookback_days=T, normalise=normalise, clip=None)
    features.fit(market, rows)
    for i, text in enumerate(TEXTS.values()):
        plane = evaluate(text, market).astype(np.float64)
        if normalise == "robust":
            median = np.nanmedian(plane[rows])
            plane = (plane - median) / (1.4826 * np.nanmedian(np.abs(plane[rows] - median)))
        elif normalise == "zscore":
            plane = (plane - np.nanmean(plane[rows])) / np.nanstd(plane[rows])
        elif normalise == "day":
            present = pd.DataFrame(np.where(market.present, plane, np.nan))
            plane = (plane - present.mean(axis=1).to_numpy()[:, None]) / present.std(axis=1).to_numpy()[
                :, None
            ]
        for day in (0, 2, 15, DAYS - 1):
            stocks = np.flatnonzero(market.present[day])
            expected = np.zeros((len(stocks), T))
            first = max(0, day - T + 1)
            expected[:, T - (day - first + 1) :] = np.nan_to_num(plane[first : day + 1, stocks].T)
            found = windows(features, market, day)[:, :, i]
            some = np.isfinite(expected).all(axis=1) if normalise != "day" else slice(None)
            np.testing.assert_allclose(found[some], expected[some], rtol=2e-3, atol=1e-4)


def test_rows_are_those_that_a_window_looks_at(market: MarketPanel) -> None:
    places = window_rows(market, T)
    number = places.max()
    looked_at = {
        (day - lag, stock)
        for day, stock in np.argwhere(market.present)
        for lag in range(T)
        if day - lag >= 0 and market.listed[day - lag, stock]
    }
    assert {(day, stock) for day, stock in np.argwhere(places[T - 1 :] < number)} == looked_at
    assert number == len(looked_at)
    assert (np.diff(places[places < number]) == 1).all()  # day by day
    assert (places[: T - 1] == number).all()


def test_what_is_infinite_is_clipped_or_missing(market: MarketPanel) -> None:
    values = market.values.copy()
    values[0, 10, 0] = 0.0
    market = dataclasses.replace(market, values=values, members=np.ones((DAYS, STOCKS), dtype=bool))
    for clip, expected in ((3.0, 3.0), (None, 0.0)):
        features = Expressions(["$high / $close"], clip=clip)
        features.fit(market, market.present)
        assert windows(features, market, 10)[0, 0, 0] == expected


def test_a_pickled_one_knows_its_statistics_and_no_market(market: MarketPanel) -> None:
    features = Expressions(TEXTS, lookback_days=T)
    features.fit(market, market.present)
    again = pickle.loads(pickle.dumps(features))
    assert again._places is None
    np.testing.assert_array_equal(windows(again, market, 15), windows(features, market, 15))


def test_industries_of_the_day_are_read_from_the_store(tmp_path: Path) -> None:
    calendar = pd.bdate_range("2020-01-01", periods=10)
    codes = ("SH600000", "SH600001", "SH600002")
    close = np.tile(np.array([1.0, 2.0, 4.0]), (10, 1))
    spells = pd.DataFrame({"instrument": codes, "start": calendar[0], "end": calendar[-1]})
    store = write_store(tmp_path / "store", calendar, codes, {"close": close}, {"few": spells})
    features = Expressions(["CSNeutralize($close, industry)"], normalise="none")
    with pytest.raises(
        UserError, match=r"`CSNeutralize\(\.\.\., industry\)` does not fit the store .* no side/industry"
    ):
        features.check_store(store)
    (store.root / "side").mkdir()
    table = [
        ("SH600000", 0, 9, "bank"),
        ("SH600001", 0, 4, "bank"),
        ("SH600001", 5, 9, "steel"),
        ("SH600002", 0, 9, "steel"),
    ]
    pd.DataFrame(
        [(code, calendar[a], calendar[b], name) for code, a, b, name in table],
        columns=["instrument", "start", "end", "industry"],
    ).to_parquet(store.root / "side" / "industry.parquet")
    features.check_store(store)
    market = MarketPanel.load(store, "few", features.fields)
    features.join(store, market)
    features.fit(market, market.present)
    np.testing.assert_allclose(windows(features, market, 4)[:, 0, 0], [-0.5, 0.5, 0])
    np.testing.assert_allclose(windows(features, market, 5)[:, 0, 0], [0, -1, 1])


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"expressions": []}, "must hold at least one expression"),
        ({"expressions": "$close"}, "must be a list, or a mapping"),
        ({"expressions": ["$close", "$close"]}, "found one twice"),
        ({"expressions": {"A": "Meen($close, 5)"}}, "no operator .*did you mean Mean"),
        (
            {"expressions": ["$close"], "normalise": "rank"},
            "`normalise` must be one of day, none, robust, zscore",
        ),
        ({"expressions": ["$close"], "clip": 0}, "`clip` must be above 0"),
    ],
)
def test_errors_come_from_the_constructor(kwargs: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        Expressions(**kwargs)


def test_statistics_of_many_rows_are_numpys(tmp_path: Path) -> None:
    values = np.random.default_rng(0).normal(10, 1, (70_001, 3)).astype(np.float32)
    mapped = np.lib.format.open_memmap(tmp_path / "rows.npy", "w+", np.dtype(np.float32), values.shape)
    mapped[:] = values
    rows = np.flatnonzero(np.arange(len(values)) % 50)
    assert len(rows) > SMALL
    centre, scale = expressions._robust(expressions.Rows(mapped, rows))
    expected = np.median(values[rows], axis=0)
    np.testing.assert_array_equal(centre, expected)
    deviation = np.median(np.abs(values[rows] - expected), axis=0)
    np.testing.assert_array_equal(scale, (deviation + np.float32(1e-12)) * np.float32(1.4826))
    centre, scale = expressions._moments(expressions.Rows(mapped, rows))
    np.testing.assert_allclose(
        [centre, scale], [values[rows].mean(axis=0), values[rows].std(axis=0)], rtol=1e-5
    )


def test_a_field_that_may_be_missing(market: MarketPanel) -> None:
    with pytest.raises(UserError, match="needs the field `vwap`; the panel has close, high"):
        Expressions(["$vwap / $close"]).pad(market)
    features = Expressions(["$vwap / $close", "$high"], optional_fields=["vwap"])
    features.fit(market, market.present)
    assert (windows(features, market, 15)[:, 0, 0] == 0).all()


def test_what_reads_later_days_is_told() -> None:
    features = Expressions({"GOOD": "Ref($close, 1)", "BAD": "Mean(Ref($close, -3), 2) / $close"})
    assert features.look_ahead() == ["the feature `BAD` reads bars of up to 3 days later"]


@pytest.mark.parametrize(
    ("text", "days"), [("$close", 4), ("Ref(Mean($close, 5), 2) / $open", 10), ("EMA($close, 5)", 254)]
)
def test_history_is_the_window_and_what_a_formula_reaches_back(text: str, days: int) -> None:
    assert Expressions([text], lookback_days=4).history_days == days


CODES = ("SH600000", "SH600001", "SH600002")


@pytest.fixture
def valued(tmp_path: Path) -> QlibStore:
    """Ten days from Wednesday, January 1; the third stock is listed on the fourth day."""
    calendar = pd.bdate_range("2020-01-01", periods=10)
    close = np.tile(np.array([1.0, 2.0, 4.0]), (10, 1))
    close[:3, 2] = np.nan
    spells = pd.DataFrame({"instrument": CODES, "start": calendar[0], "end": calendar[-1]})
    store = write_store(tmp_path / "store", calendar, CODES, {"close": close}, {"few": spells})
    (store.root / "side").mkdir()
    rows = [
        ("2019-06-03", 0, 10.0),
        ("2020-01-04", 1, 30.0),
        ("2020-01-08", 0, 20.0),
        ("2020-01-01", 2, 50.0),
    ]
    valuation = pd.DataFrame(rows, columns=["datetime", "instrument", "pe"])
    valuation["instrument"] = np.array(CODES)[valuation["instrument"]]
    valuation.to_parquet(store.root / "side" / "valuation.parquet")
    mood = pd.DataFrame({"datetime": calendar[[1, 6]], "score": [0.5, -0.5]})
    mood.to_parquet(store.root / "side" / "mood.parquet")
    industry = pd.DataFrame(
        {"instrument": CODES, "start": calendar[0], "end": pd.NaT, "industry": ["bank", "bank", "steel"]}
    )
    industry.to_parquet(store.root / "side" / "industry.parquet")
    return store


def side_planes(store: QlibStore, *texts: str) -> list[np.ndarray]:
    """Each expression, `[D, S]`, 0 where it is missing; the last day's window of all days."""
    features = Expressions(texts, lookback_days=10, normalise="none", clip=None)
    features.check_store(store)
    market = MarketPanel.load(store, "few", features.fields, empty_days=9)
    features.join(store, market)
    features.fit(market, market.present)
    return [*windows(features, market, 9).transpose(2, 1, 0)]


class TestSideData:
    def test_a_number_is_carried_forward_from_the_day_on_which_it_was_known(self, valued: QlibStore) -> None:
        pe, mood = side_planes(valued, "side.valuation.pe", "side.mood.score")
        np.testing.assert_array_equal(pe[:, 0], [10] * 5 + [20] * 5)
        np.testing.assert_array_equal(pe[:, 1], [0] * 3 + [30] * 7)  # of a Saturday
        np.testing.assert_array_equal(pe[:, 2], [0] * 3 + [50] * 7)  # known before it was listed
        np.testing.assert_array_equal(mood[:, 0], [0] + [0.5] * 5 + [-0.5] * 4)
        np.testing.assert_array_equal(mood[3:], np.tile(mood[3:, :1], 3))

    def test_it_is_an_expression_like_any_other(self, valued: QlibStore) -> None:
        texts = [
            "Ref(side.valuation.pe, 2)",
            "Mean(side.valuation.pe, 2)",
            "$close / side.valuation.pe",
            "CSRank(side.valuation.pe)",
            "CSNeutralize(side.valuation.pe, industry)",
            "If(side.mood.score > 0, $close, 0)",
        ]
        lagged, mean, ratio, rank, neutral, switched = side_planes(valued, *texts)
        np.testing.assert_array_equal(lagged[:, 0], [0] * 2 + [10] * 5 + [20] * 3)
        np.testing.assert_array_equal(mean[4:7, 0], [10, 15, 20])
        np.testing.assert_allclose(ratio[9], [1 / 20, 2 / 30, 4 / 50])
        np.testing.assert_allclose(rank[9], [1 / 3, 2 / 3, 1])
        np.testing.assert_allclose(neutral[9], [-5, 5, 0])
        np.testing.assert_array_equal(switched[:, 1], [0] + [2] * 5 + [0] * 4)

    def test_age_and_what_is_fresh_count_calendar_days(self, valued: QlibStore) -> None:
        age, fresh = side_planes(valued, "Age(side.valuation.pe)", "Fresh(side.valuation.pe, 3)")
        np.testing.assert_array_equal(age[:, 0], [212, 213, 214, 217, 218, 0, 1, 2, 5, 6])
        np.testing.assert_array_equal(fresh[:, 0], [0] * 5 + [20] * 3 + [0] * 2)
        np.testing.assert_array_equal(fresh[:, 1], [0] * 3 + [30] * 2 + [0] * 5)

    @pytest.mark.parametrize("normalise", ["robust", "zscore", "day", "none"])
    def test_what_is_missing_has_an_indicator_that_nothing_normalises(
        self, normalise: str, valued: QlibStore
    ) -> None:
        texts = {"PE": "side.valuation.pe", "PE_MISSING": "IsMissing(side.valuation.pe)"}
        features = Expressions(texts, normalise=normalise, clip=None)
        features.check_store(valued)
        market = MarketPanel.load(valued, "few", features.fields)
        features.join(valued, market)
        features.fit(market, market.present)
        found = windows(features, market, 1)[:, 0]
        np.testing.assert_array_equal(found[:, 1], [0, 1])
        assert found[1, 0] == 0

    @pytest.mark.parametrize(
        ("text", "message"),
        [
            ("side.valuation", "`side.valuation` at character 1 is no field such as"),
            ("Mean(size.valuation.pe, 5)", "no side data such as `side.valuation.pe`"),
            ("Age($close)", r"takes side data such as `side.valuation.pe`, found `\$close`"),
            ("Fresh(side.valuation.pe, 0.5)", "must take a whole number of days, found 0.5"),
            ("Fresh(side.valuation.pe)", r"must be Fresh\(x, N\)"),
            ("IsMissing(1)", "must be an expression over a field"),
        ],
    )
    def test_what_is_no_expression_is_told(self, text: str, message: str) -> None:
        with pytest.raises(UserError, match=message):
            Expressions([text])

    def test_a_store_that_lacks_it_is_told_before_anything_is_loaded(self, valued: QlibStore) -> None:
        for text, message in (
            ("side.valuations.pe", r"no side data 'valuations' \(did you mean valuation\?\)"),
            ("side.valuation.pb", "have no pb.*, they have pe"),
        ):
            with pytest.raises(UserError, match=message):
                Expressions([text]).check_store(valued)
        market = MarketPanel.load(valued, "few", ("close",))
        with pytest.raises(UserError, match=r"`side.valuation.pe` is side data, which only features read"):
            evaluate("side.valuation.pe", market)

    def test_another_table_is_another_feature(self, valued: QlibStore) -> None:
        features = Expressions(["side.valuation.pe", "CSNeutralize($close, industry)"])
        features.check_store(valued)
        before = features.identity()
        assert set(before["side_data"]) == {"valuation", "industry"}
        assert features.describe()["side_data"] == before["side_data"]
        table = pd.read_parquet(valued.root / "side" / "valuation.parquet")
        table.assign(pe=table["pe"] + 1).to_parquet(valued.root / "side" / "valuation.parquet")
        features.check_store(valued)
        assert features.identity() != before
        assert features.identity()["side_data"]["industry"] == before["side_data"]["industry"]

    def test_what_is_thin_or_old_is_noted(self, valued: QlibStore) -> None:
        for file, column in (("valuation", "pe"), ("mood", "score")):
            table = pd.read_parquet(valued.root / "side" / f"{file}.parquet")
            table["datetime"] = pd.to_datetime(table["datetime"]) - pd.Timedelta(days=40)
            table[:1].to_parquet(valued.root / "side" / f"{file}.parquet")
            features = Expressions([f"side.{file}.{column}"])
            features.join(valued, MarketPanel.load(valued, "few", features.fields))
            (*thin, old) = features.notes(valued)
            assert "days before the bars: its last values are carried forward" in old
            assert len(thin) == (file == "valuation")
            assert all("known for about 37% of the stocks and days" in note for note in thin)
