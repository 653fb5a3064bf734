from __future__ import annotations

import pytest

from qlib_ext.checks import UserError
from qlib_ext.market.columns import recognise

YAHOO = ["Date", "Open", "High", "Low", "Close", "Adj Close", "Volume"]


class TestRecognise:
    @pytest.mark.parametrize(
        ("header", "also"),
        [
            (YAHOO, {"adj_close": "Adj Close", "date": "Date"}),
            (["timestamp", "open", "high", "low", "close", "volume", "vwap"], {"vwap": "vwap"}),
            (
                [
                    "ts_code",
                    "trade_date",
                    "open",
                    "high",
                    "low",
                    "close",
                    "change",
                    "pct_chg",
                    "vol",
                    "amount",
                ],
                {"code": "ts_code", "date": "trade_date", "volume": "vol", "change": "pct_chg"},
            ),
            (
                ["日期", "股票代码", "开盘", "收盘", "最高", "最低", "成交量", "成交额"],
                {"code": "股票代码", "amount": "成交额"},
            ),
            (
                ["Ticker", "DateTime", "OPEN", "HIGH", "LOW", "CLOSE", "VOLUME"],
                {"code": "Ticker", "date": "DateTime"},
            ),
            (["date", "time", "open", "high", "low", "close", "volume"], {"date": "date"}),
            (
                ["Date", "Price", "Open", "High", "Low", "Vol.", "Change %"],
                {"close": "Price", "change": "Change %"},
            ),
            (
                ["code", "date", "open", "high", "low", "close", "volume", "money", "factor"],
                {"factor": "factor"},
            ),
        ],
    )
    def test_names_of_vendors(self, header: list[str], also: dict[str, str]) -> None:
        found = recognise(header, {}, where="x.csv")
        assert {"date", "open", "high", "low", "close", "volume"} <= set(found)
        assert also.items() <= found.items()
        assert set(found.values()) <= set(header)

    def test_what_the_user_says_comes_first(self) -> None:
        header = ["Date", "Open", "High", "Low", "Close", "Last", "Volume", "Turnover"]
        found = recognise(header, {"close": "Last", "turnover_rate": "Turnover"}, where="x.csv")
        assert (found["close"], found["turnover_rate"]) == ("Last", "Turnover")

    def test_a_field_can_be_left_out(self) -> None:
        assert "adj_close" not in recognise(YAHOO, {"adj_close": ""}, where="x.csv")
        assert "volume" not in recognise(YAHOO[:-1], {"volume": ""}, where="x.csv")

    def test_a_column_that_the_user_names_is_no_other_field(self) -> None:
        found = recognise([*YAHOO, "Time"], {"date": "Date", "session": "Time"}, where="x.csv")
        assert (found["date"], found["session"]) == ("Date", "Time")


class TestUnclear:
    @pytest.mark.parametrize(
        ("header", "given", "message"),
        [
            (
                ["Date", "Open", "High", "Low", "Last", "Volume"],
                {},
                r"no column is known to be `close`: name it with `--column close=NAME`; the columns",
            ),
            (
                ["Date", "Close"],
                {},
                r"`open`, `high`, `low`, `volume`: name it with `--column open=NAME`, or say with `--column open=` that",
            ),
            (YAHOO, {"close": "Clos"}, r"`close` must be a column, found no 'Clos' \(did you mean Close or"),
            ([*YAHOO, "Timestamp"], {}, "more than one column could be `date`, 'Date' and 'Timestamp'"),
            ([*YAHOO, "Close"], {}, "more than one column could be `close`, 'Close' and 'Close'"),
            (
                YAHOO,
                {"vwap": "Close", "close": "Close"},
                "a column must be one field, found 'Close' more than once",
            ),
            ([], {}, "the columns of x.csv are none"),
        ],
    )
    def test_the_message_lists_the_columns(
        self, header: list[str], given: dict[str, str], message: str
    ) -> None:
        with pytest.raises(UserError, match=message) as caught:
            recognise(header, given, where="x.csv")
        assert all(repr(column) in str(caught.value) for column in header)
