from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import qlib
from qlib.backtest.exchange import Exchange
from qlib.backtest.high_performance_ds import NumpyQuote
from qlib.data import D
from qlib.utils.index_data import IndexData

from qlib_ext.backtest import quotes as quotes_module
from qlib_ext.backtest.exchange import RecordingExchange
from qlib_ext.backtest.quotes import DailyQuote, read_quotes
from qlib_ext.market.store import SUFFIX, QlibStore, write_store

REAL = Path(__file__).parents[3] / "shared" / "market" / "cn"
CALENDAR = pd.bdate_range("2020-01-01", periods=30)
CODES = ["SH600000", "SH600001", "SZ000002"]
FIELDS = ["close", "change", "factor", "volume", "open"]
PLAIN = ["$close", "$Close", "$change", "$factor", "$volume"]
COMPOUND = [
    "($change >= 0.02) | Not($volume > 0)",
    "$open*0.5 + $close/2",
    "Ref($close, 1)/$open - 1",
    "0.1 * $volume",
]


@pytest.fixture
def store(tmp_path: Path) -> QlibStore:
    """Three stocks: one from first to last, one that comes late, is suspended and goes early; one named in lower case."""
    draw = np.random.default_rng(4)
    bars = {name: draw.normal(10, 1, (30, 3)).astype("f4") for name in FIELDS}
    bars["change"] = draw.normal(0, 0.02, (30, 3))
    for values in bars.values():
        values[:6, 1] = values[11:14, 1] = values[24:, 1] = np.nan
    bars["volume"][11:14, 1], bars["volume"][20, 0] = 0, 0
    spells = pd.DataFrame({"instrument": CODES, "start": CALENDAR[0], "end": CALENDAR[-1]})
    made = write_store(tmp_path / "store", CALENDAR, CODES, bars, {"all": spells})
    qlib.init(provider_uri=str(made.root), region="cn", kernels=1)
    return made


def qlibs(codes: list[str], fields: list[str], first: Any, last: Any) -> pd.DataFrame:
    return D.features(codes, fields, first, last).set_axis(fields, axis=1)


class TestReadQuotes:
    """The table is that of `D.features`; it is asked itself only where it must be."""

    @pytest.fixture
    def asked(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What Qlib was asked for."""
        asked: list[Any] = []

        class Provider:
            def features(self, *given: Any, **kwargs: Any) -> pd.DataFrame:
                asked.append(given)
                return D.features(*given, **kwargs)

        monkeypatch.setattr(quotes_module, "D", Provider())
        return asked

    @pytest.mark.parametrize(
        ("first", "last"),
        [
            (CALENDAR[0], CALENDAR[-1]),
            (CALENDAR[3], CALENDAR[20]),
            ("2020-01-04", "2020-01-12"),
            (CALENDAR[25], "2021-01-01"),
        ],
    )
    def test_it_is_qlibs_bit_for_bit(self, store: QlibStore, asked: list[Any], first: Any, last: Any) -> None:
        codes, fields = ["SZ000002", "SH999999", *CODES[:2]], PLAIN + COMPOUND
        found = read_quotes(store, codes, fields, first, last)
        pd.testing.assert_frame_equal(found, qlibs(codes, fields, first, last), check_exact=True)
        assert not asked
        assert len(found)

    def test_a_field_that_no_stock_has_is_missing(self, store: QlibStore, asked: list[Any]) -> None:
        fields = ["$close", "$vwap"]
        found = read_quotes(store, CODES, fields, CALENDAR[0], CALENDAR[-1])
        pd.testing.assert_frame_equal(
            found, qlibs(CODES, fields, CALENDAR[0], CALENDAR[-1]), check_exact=True
        )
        assert found["$vwap"].isna().all()
        assert not asked

    def test_days_and_stocks_that_are_not_there_have_no_rows(self, store: QlibStore) -> None:
        assert read_quotes(store, ["SH999999"], PLAIN, CALENDAR[0], CALENDAR[-1]).empty
        assert read_quotes(store, CODES[1:2], PLAIN, CALENDAR[26], CALENDAR[-1]).empty

    @pytest.mark.parametrize("fault", ["short", "absent", "windows"])
    def test_qlib_answers_what_it_alone_knows(self, store: QlibStore, asked: list[Any], fault: str) -> None:
        fields = PLAIN + COMPOUND
        file = store.root / "features" / CODES[0].lower() / f"volume{SUFFIX}"
        if fault == "short":
            file.write_bytes(file.read_bytes()[:-8])
        elif fault == "absent":
            file.unlink()
        else:
            fields = [*PLAIN, "Mean($close, 5)"]
        found = read_quotes(store, CODES, fields, CALENDAR[0], CALENDAR[-1])
        assert len(asked) == 1
        expected = qlibs(CODES, fields, CALENDAR[0], CALENDAR[-1])
        pd.testing.assert_frame_equal(found, expected, check_exact=True)


@pytest.mark.parametrize("limit", [0.015, ("$change >= 0.015", "($change <= -0.015) | Not($volume > 0)")])
def test_the_exchange_sees_what_qlibs_sees(store: QlibStore, limit: Any) -> None:
    settings = {
        "limit_threshold": limit,
        "deal_price": "open",
        "volume_threshold": ("current", "0.1 * $volume"),
    }
    days = {"start_time": CALENDAR[1], "end_time": CALENDAR[-2], "codes": CODES}
    theirs, ours = Exchange(**settings, **days), RecordingExchange(**settings, **days)
    pd.testing.assert_frame_equal(ours.quote_df[theirs.quote_df.columns], theirs.quote_df, check_exact=True)
    assert ours.quote_df["limit_buy"].sum() > 6
    assert ours.trade_w_adj_price is theirs.trade_w_adj_price


@pytest.mark.skipif(not REAL.is_dir(), reason="the real store ../shared/market/cn is not on this machine")
def test_the_quotes_of_a_real_market_are_qlibs() -> None:
    store = QlibStore(REAL)
    qlib.init(provider_uri=str(REAL), region="cn", kernels=1)
    codes, days = (
        sorted(store.membership("csi300")["instrument"].unique())[::40],
        ("2016-06-01", "2020-12-31"),
    )
    fields = ["$close", "$change", "$factor", "$volume", *COMPOUND]
    found = read_quotes(store, codes, fields, *days)
    pd.testing.assert_frame_equal(found, qlibs(codes, fields, *days), check_exact=True)
    assert len(found) > 5000


QUOTED = pd.bdate_range("2020-01-01", periods=40)
METHODS = (None, "sum", "mean", "last", "ts_data_last", "all")


@pytest.fixture(scope="module")
def quotes() -> pd.DataFrame:
    """Two stocks with days that they lack and values that are missing."""
    draws = np.random.default_rng(2)
    index = pd.MultiIndex.from_product([["A", "B"], QUOTED], names=["instrument", "datetime"])
    table = pd.DataFrame({"$close": draws.normal(size=80), "limit_buy": draws.random(80) > 0.5}, index=index)
    table.loc[draws.random(80) < 0.2, "$close"] = np.nan
    return table[draws.random(80) > 0.2]


def plain(answer: Any) -> float | None:
    """One number of either; a step of one bar may come as a series of it."""
    if isinstance(answer, IndexData):
        (answer,) = answer.data
    return None if answer is None else float(answer)


class TestDailyQuote:
    @pytest.mark.filterwarnings("ignore:Mean of empty slice")
    @pytest.mark.parametrize("days", [1, 2])
    def test_it_says_what_qlib_says(self, quotes: pd.DataFrame, days: int) -> None:
        theirs, ours = NumpyQuote(quotes, "day"), DailyQuote(quotes, "day")
        assert [*ours.get_all_stock()] == ["A", "B"]
        seen = 0
        for stock in ("A", "B", "absent"):
            for first, after in zip(QUOTED, QUOTED[days:], strict=False):
                for field in quotes.columns:
                    for method in METHODS if days == 1 else METHODS[1:]:
                        asked = stock, first, after - pd.Timedelta(seconds=1), field, method
                        expected, found = plain(theirs.get_data(*asked)), plain(ours.get_data(*asked))
                        assert found == expected or (np.isnan(found) and np.isnan(expected)), asked
                        seen += found is not None
        assert seen > 500

    def test_of_no_stock(self, quotes: pd.DataFrame) -> None:
        assert not DailyQuote(quotes[:0], "day").get_all_stock()
